# What people type. CI runs the same targets.

# `make dev` and the run targets build without optimisation: the first build takes half the time that a release build
# takes, and `make test` uses the same objects. `make dev PROFILE=release` starts the fast one.
PROFILE ?= dev
GATEWAY_PORT ?= 8080
P2P_PORT ?= 4001
CRASH_ROUNDS ?= 100
CHAOS_ROUNDS ?= 50
CHAOS_NODES ?= 3

CARGO ?= cargo
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
BUILT := $(TARGET_DIR)/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE))

.DEFAULT_GOAL := help
.PHONY: help dev build tools test lint fmt clean run-node run-node2 run-node3 run-gateway cluster run-example bench attacks crash chaos programs

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

dev: programs ## Start a node with its gateway for development, and print how to use it
	@$(BUILT)/network-node --dev --p2p-port $(P2P_PORT) --gateway-addr 127.0.0.1:$(GATEWAY_PORT)

build: ## Build the three programs, optimised, into bin/
	$(MAKE) programs PROFILE=release

tools: ## Take rqlited, which a cluster needs, into .tools/
	@scripts/fetch-rqlited
	@.tools/rqlited -version

test: ## Run all tests, as CI does
	$(CARGO) test --workspace

lint: ## Check formatting, lints and documentation, as CI does
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps

fmt: ## Format the code
	$(CARGO) fmt --all

clean: ## Delete what was built; the data stays
	$(CARGO) clean
	rm -rf bin

run-node: programs ## Start the bootstrap node of configs/bootstrap.yaml
	@test -e data/bootstrap/db/CLUSTER || { \
	echo "A node that is alone. While it runs, this makes it the first of a cluster, which run-node2 and run-node3 join:"; \
	echo "  make tools && DEBROS_NODE_DATA_DIR=data/bootstrap bin/network-cli cluster init"; }
	@exec $(BUILT)/network-node --config configs/bootstrap.yaml

# A second node dials the bootstrap node, when that runs on this machine. When the bootstrap node is part of a cluster,
# it joins with a token; one that has data of its own says so and does not start. `exec`, so that a signal for the
# recipe is one for the node.
BESIDE = export DEBROS_DISCOVERY_BOOTSTRAP_PEERS="$${DEBROS_DISCOVERY_BOOTSTRAP_PEERS:-$$(cat data/bootstrap/peer.info 2>/dev/null)}"; \
	join=; test -e data/bootstrap/db/CLUSTER && test ! -e data/$$name/db/CLUSTER && \
	{ join="$$($(BUILT)/network-node token --config configs/bootstrap.yaml)" || exit; }; \
	exec $(BUILT)/network-node --config configs

run-node2: programs ## Start a second node beside it; part of its cluster when it has one
	@name=node2; $(BESIDE)/node2.yaml $${join:+--join "$$join"}

run-node3: programs ## Start a third node beside it; part of its cluster when it has one
	@name=node3; $(BESIDE)/node3.yaml $${join:+--join "$$join"}

run-gateway: programs ## Start a gateway of its own, for a node on this machine
	@$(BUILT)/network-gateway --config configs/gateway.yaml

cluster: programs ## Start three nodes with a gateway each that are one database, and print how to use and try them
	@scripts/fetch-rqlited
	@exec scripts/cluster

run-example: programs ## Run examples/basic_usage.rs against the node of `make dev`
	@$(CARGO) build --profile $(PROFILE) $(WORKSPACE_TARGETS)
	@test -f data/dev/peer.info || { echo "error: no node runs in data/dev; start one with: make dev" >&2; exit 1; }
	@key="$$(DEBROS_NODE_DATA_DIR=data/dev $(BUILT)/network-cli auth token -n default)" || exit; \
	DEBROS_BOOTSTRAP_PEERS="$$(cat data/dev/peer.info)" DEBROS_API_KEY="$$key" \
	$(BUILT)/examples/basic_usage

bench: ## Measure, side by side with the ceiling and rqlite
	$(CARGO) run --release -p debros-bench

attacks: ## Attack a node in every way that is known, and measure what a neighbour feels
	$(CARGO) run --release -p debros-bench -- attacks

crash: ## Kill the node under load again and again, and look for lost writes
	CRASH_ROUNDS=$(CRASH_ROUNDS) $(CARGO) test --release -p debros-cli --test crash -- --nocapture

chaos: ## Kill, stop, cut off and fill the nodes of a cluster under load, and look for wrong answers
	@scripts/fetch-rqlited
	$(CARGO) run --release -p debros-bench -- chaos --rounds $(CHAOS_ROUNDS) --nodes $(CHAOS_NODES) \
	$(if $(CHAOS_SEED),--seed $(CHAOS_SEED)) $(if $(CHAOS_FAULTS),--faults $(CHAOS_FAULTS))

# Which packages are chosen, and whether there is a target that takes dev-dependencies, decides the features of every
# library. With these, as in `make test`, they are the same: what `make dev` has built, nobody builds again.
WORKSPACE_TARGETS = --workspace --bin network-node --bin network-gateway --bin network-cli --example basic_usage

# The programs, with links in bin/ at which people and the printed commands find them. A release has nothing of the tests'.
programs:
	$(CARGO) build --profile $(PROFILE) $(if $(filter dev,$(PROFILE)),$(WORKSPACE_TARGETS),-p debros-cli)
	@mkdir -p bin
	@for program in network-node network-gateway network-cli; do ln -sfn "$(abspath $(BUILT))/$$program" "bin/$$program"; done
