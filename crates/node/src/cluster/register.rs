//! The register: the tables of the system's database that say which nodes are in the cluster, and
//! which tokens let one in.

use super::node_record::{NodeDescription, NodeRecord, NodeRole};
use super::role_changes::RoleChange;
use crate::auth::RowColumns as _;
use crate::clock::Clock;
use crate::config::ClusterConfig;
use debros_engine::{CallOptions, CallerKey, Engine, TargetDatabase};
use debros_p2p::PeerId;
use debros_proto::rpc::{Consistency, Row, Statement, StatementResult, Value};
use debros_proto::sql::split_migration;
use debros_proto::{Error, Result};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long one read or one write may wait for the database.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The tables. A node that is part of no cluster has none of them.
const TABLES: &str = include_str!("../../../engine/migrations/005_cluster.sql");
const COLUMNS: &str =
    "peer_id, name, addresses, raft_address, role, version, joined_at, removed_at, updated_at";
/// How long an expired token is known, so that its node may show it again.
const TOKEN_KEPT_MS: i64 = 24 * 60 * 60 * 1000;

/// How many nodes vote, and how many hold the data.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RoleCounts {
    pub(crate) voters: u32,
    pub(crate) holders: u32,
}

impl RoleCounts {
    /// As the node is configured: at least those hold the data that are to vote.
    pub(crate) fn of(config: &ClusterConfig) -> Self {
        let voters = config.replication_factor;
        Self { voters, holders: config.max_replicas.max(voters) }
    }
}

/// The register of nodes and join tokens.
pub(crate) struct NodeRegister {
    engine: Arc<dyn Engine>,
    clock: Clock,
    counts: RoleCounts,
}

/// A new node that shows a token.
pub(crate) struct JoiningNode<'a> {
    pub(crate) peer_id: PeerId,
    pub(crate) description: &'a NodeDescription,
    /// SHA-256 of the token's secret.
    pub(crate) token_hash: [u8; 32],
}

/// What a token that did not let a node in is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenState {
    Unknown,
    Expired,
    UsedByAnother,
    Good,
}

impl NodeRegister {
    pub(crate) fn new(engine: Arc<dyn Engine>, clock: Clock, counts: RoleCounts) -> Self {
        Self { engine, clock, counts }
    }

    pub(crate) fn counts(&self) -> RoleCounts {
        self.counts
    }

    pub(crate) fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    /// Makes the tables where there are none.
    ///
    /// # Errors
    /// As a write to the database.
    pub(crate) async fn make_tables(&self) -> Result<()> {
        let known =
            "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name IN ('nodes', 'join_tokens')";
        // Written only where something is missing: a node starts on a full disk, too.
        if self.query(Statement::from(known)).await?.len() == 2 {
            return Ok(());
        }
        let steps = split_migration(TABLES)
            .map_err(|error| Error::internal(format!("005_cluster.sql: {error}")))?;
        let statements = steps.into_iter().map(|step| Statement::from(step.text)).collect();
        self.run(statements).await.map(|_| ())
    }

    /// All nodes, those that were removed among them, by name.
    ///
    /// # Errors
    /// As a read of the database.
    pub(crate) async fn list(&self) -> Result<Vec<NodeRecord>> {
        let rows = format!("SELECT {COLUMNS} FROM nodes ORDER BY name, peer_id");
        let rows = self.query(Statement::from(rows)).await?;
        // A row that a newer version wrote must not hide the others.
        Ok(rows
            .iter()
            .filter_map(|row| {
                read_record(row)
                    .inspect_err(|error| {
                        tracing::warn!(
                            error = error.message,
                            "the register has a node that this version cannot read"
                        );
                    })
                    .ok()
            })
            .collect())
    }

    /// Enters a node that needs no token: the first of a cluster, or one that holds the key.
    ///
    /// # Errors
    /// As a write to the database.
    pub(crate) async fn enter(&self, peer_id: PeerId, description: &NodeDescription) -> Result<()> {
        self.run(vec![self.insert_node(peer_id, description, "1", [])]).await.map(|_| ())
    }

    /// Uses a token up and enters its node, both or neither: not when the token let another node
    /// in, is not known or expired, the name is another node's, or the node was removed. Says
    /// whether the node is entered.
    ///
    /// # Errors
    /// As a write to the database.
    pub(crate) async fn enter_with_token(&self, node: &JoiningNode<'_>) -> Result<bool> {
        let (peer, now) = (node.peer_id.to_string(), self.now_ms());
        let hash = || Value::from(&node.token_hash[..]);
        let text = || Value::from(peer.as_str());
        let may_enter = "NOT EXISTS (SELECT 1 FROM nodes WHERE name = ? AND peer_id <> ? AND removed_at IS NULL)
            AND NOT EXISTS (SELECT 1 FROM nodes WHERE peer_id = ? AND removed_at IS NOT NULL)";
        let name = || Value::from(node.description.name.as_str());
        let use_up = format!(
            "UPDATE join_tokens SET used_by = ?, used_at = ? WHERE hash = ?
            AND (used_by = ? OR (used_by IS NULL AND expires_at > ?)) AND {may_enter}"
        );
        let args = [text(), now.into(), hash(), text(), now.into(), name(), text(), text()];
        let entered = self.insert_node(
            node.peer_id,
            node.description,
            &format!(
                "EXISTS (SELECT 1 FROM join_tokens WHERE hash = ? AND used_by = ?) AND {may_enter}"
            ),
            [hash(), text(), name(), text(), text()],
        );
        let results = self.run(vec![Statement::new(use_up, args), entered]).await?;
        Ok(results.first().and_then(|result| result.rows_affected).unwrap_or_default() > 0)
    }

    /// Inserts a node under a condition, with the role that is free; one that is known keeps its
    /// role and gets its new description.
    fn insert_node(
        &self,
        peer_id: PeerId,
        description: &NodeDescription,
        condition: &str,
        args: impl IntoIterator<Item = Value>,
    ) -> Statement {
        let now = Value::from(self.now_ms());
        let sql = format!(
            "INSERT INTO nodes ({COLUMNS}) SELECT ?, ?, ?, ?,
            CASE WHEN (SELECT count(*) FROM nodes WHERE removed_at IS NULL AND role = 'voter') < ? THEN 'voter'
            WHEN (SELECT count(*) FROM nodes WHERE removed_at IS NULL AND role <> 'relay') < ? THEN 'replica'
            ELSE 'relay' END, ?, ?, NULL, ? WHERE {condition}
            ON CONFLICT (peer_id) DO UPDATE SET name = excluded.name, addresses = excluded.addresses,
            raft_address = excluded.raft_address, version = excluded.version, updated_at = excluded.updated_at
            WHERE nodes.removed_at IS NULL"
        );
        let fixed = [
            peer_id.to_string().into(),
            description.name.as_str().into(),
            addresses_json(description),
            description.raft_address.as_str().into(),
            self.counts.voters.into(),
            self.counts.holders.into(),
            description.version.as_str().into(),
            now.clone(),
            now,
        ];
        Statement::new(sql, fixed.into_iter().chain(args))
    }

    /// Writes what other nodes know better.
    ///
    /// # Errors
    /// As a write to the database.
    pub(crate) async fn merge(&self, records: &[NodeRecord]) -> Result<()> {
        let sql = format!(
            "INSERT INTO nodes ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
            ON CONFLICT (peer_id) DO UPDATE SET name = excluded.name, addresses = excluded.addresses,
            raft_address = excluded.raft_address, role = excluded.role, version = excluded.version,
            removed_at = excluded.removed_at, updated_at = excluded.updated_at
            WHERE nodes.removed_at IS NULL
            AND (excluded.removed_at IS NOT NULL OR excluded.updated_at > nodes.updated_at)"
        );
        let statements = records.iter().map(|record| {
            let NodeRecord { peer_id, description, role, joined_at, removed_at, updated_at } =
                record;
            Statement::new(
                sql.as_str(),
                [
                    peer_id.to_string().into(),
                    description.name.as_str().into(),
                    addresses_json(description),
                    description.raft_address.as_str().into(),
                    role.name().into(),
                    description.version.as_str().into(),
                    (*joined_at).into(),
                    (*removed_at).into(),
                    (*updated_at).into(),
                ],
            )
        });
        self.run(statements.collect()).await.map(|_| ())
    }

    /// Turns a node's row into a tombstone.
    ///
    /// # Errors
    /// As a write to the database.
    pub(crate) async fn remove(&self, peer_id: PeerId, by: &str) -> Result<()> {
        let (now, peer) = (self.now_ms(), peer_id.to_string());
        let audit = "INSERT INTO audit_events (at, kind, namespace, subject, detail)
            SELECT ?, 'node_removed', '', ?, ? WHERE EXISTS (SELECT 1 FROM nodes WHERE peer_id = ? AND removed_at IS NULL)";
        let remove = "UPDATE nodes SET removed_at = ?, updated_at = ? WHERE peer_id = ? AND removed_at IS NULL";
        let statements = vec![
            Statement::new(
                audit,
                [now.into(), by.into(), peer.as_str().into(), peer.as_str().into()],
            ),
            Statement::new(remove, [now.into(), now.into(), peer.into()]),
        ];
        self.run(statements).await.map(|_| ())
    }

    /// Turns the rows of all nodes but one into tombstones, and has that one vote. Returns the names
    /// of those that were nodes until now.
    ///
    /// # Errors
    /// As a write to the database.
    pub(crate) async fn remove_others(&self, own: PeerId, by: &str) -> Result<Vec<String>> {
        let nodes = self.list().await?;
        let others = nodes.iter().filter(|node| !node.is_removed() && node.peer_id != own);
        let mut names = Vec::new();
        for node in others {
            self.remove(node.peer_id, by).await?;
            names.push(node.description.name.clone());
        }
        let vote =
            "UPDATE nodes SET role = 'voter', updated_at = ? WHERE peer_id = ? AND role <> 'voter'";
        let own = own.to_string();
        self.run(vec![Statement::new(vote, [self.now_ms().into(), own.into()])]).await?;
        Ok(names)
    }

    /// Changes roles, if they are still those that the change was decided for. A voter is only lost
    /// for one that takes its place.
    ///
    /// # Errors
    /// As a write to the database.
    pub(crate) async fn change_roles(&self, change: &RoleChange, voters: usize) -> Result<()> {
        let voters = Value::from(i64::try_from(voters).unwrap_or(i64::MAX));
        let statements = match change {
            RoleChange::Promote { replica, lost } => {
                let is_replica = "EXISTS (SELECT 1 FROM nodes WHERE peer_id = ? AND role = 'replica' AND removed_at IS NULL)";
                let demote = lost.map(|lost| {
                    let replica = Value::from(replica.to_string());
                    self.change_role(
                        lost,
                        NodeRole::Voter,
                        NodeRole::Replica,
                        is_replica,
                        [replica],
                    )
                });
                let is_free =
                    "(SELECT count(*) FROM nodes WHERE removed_at IS NULL AND role = 'voter') < ?";
                let promote = self.change_role(
                    *replica,
                    NodeRole::Replica,
                    NodeRole::Voter,
                    is_free,
                    [voters],
                );
                demote.into_iter().chain([promote]).flatten().collect()
            }
            RoleChange::Hold { relay } => {
                let is_free =
                    "(SELECT count(*) FROM nodes WHERE removed_at IS NULL AND role <> 'relay') < ?";
                let holders = Value::from(self.counts.holders);
                let hold = self.change_role(
                    *relay,
                    NodeRole::Relay,
                    NodeRole::Replica,
                    is_free,
                    [holders],
                );
                hold.into()
            }
        };
        self.run(statements).await.map(|_| ())
    }

    /// Gives a node that has a role another one, under a condition, with the record for the audit.
    fn change_role(
        &self,
        peer_id: PeerId,
        from: NodeRole,
        to: NodeRole,
        condition: &str,
        args: impl IntoIterator<Item = Value>,
    ) -> [Statement; 2] {
        let (now, peer) = (self.now_ms(), Value::from(peer_id.to_string()));
        let condition = format!("peer_id = ? AND role = ? AND removed_at IS NULL AND {condition}");
        let args: Vec<Value> = [peer.clone(), from.name().into()].into_iter().chain(args).collect();
        let audit = format!(
            "INSERT INTO audit_events (at, kind, namespace, subject, detail)
            SELECT ?, 'node_role_changed', '', ?, ? FROM nodes WHERE {condition}"
        );
        // Later than what any node knows of it, whose clock may be ahead.
        let change = format!(
            "UPDATE nodes SET role = ?, updated_at = max(?, updated_at + 1) WHERE {condition}"
        );
        let audit_args = [now.into(), peer, to.name().into()];
        let change_args = [to.name().into(), now.into()];
        [
            Statement::new(audit, audit_args.into_iter().chain(args.clone())),
            Statement::new(change, change_args.into_iter().chain(args)),
        ]
    }

    /// Keeps the hash of a new token's secret, and forgets those that expired long ago.
    ///
    /// # Errors
    /// As a write to the database.
    pub(crate) async fn add_token(&self, hash: [u8; 32], expires_at: i64) -> Result<()> {
        let now = self.now_ms();
        let insert = "INSERT INTO join_tokens (hash, created_at, expires_at) VALUES (?, ?, ?)";
        let statements = vec![
            Statement::new(
                "DELETE FROM join_tokens WHERE expires_at < ?",
                [(now - TOKEN_KEPT_MS).into()],
            ),
            Statement::new(insert, [hash[..].into(), now.into(), expires_at.into()]),
        ];
        self.run(statements).await.map(|_| ())
    }

    /// What a token is to a node.
    ///
    /// # Errors
    /// As a read of the database.
    pub(crate) async fn token_state(&self, hash: [u8; 32], peer_id: PeerId) -> Result<TokenState> {
        let token = "SELECT expires_at, coalesce(used_by, '') FROM join_tokens WHERE hash = ?";
        let rows = self.query(Statement::new(token, [hash[..].into()])).await?;
        let Some(row) = rows.first() else { return Ok(TokenState::Unknown) };
        let used_by = row.text(1);
        Ok(match used_by {
            "" if row.integer(0) <= self.now_ms() => TokenState::Expired,
            used_by if used_by.is_empty() || used_by == peer_id.to_string() => TokenState::Good,
            _ => TokenState::UsedByAnother,
        })
    }

    /// What this node has of it: the way to the others is found with it.
    async fn query(&self, statement: Statement) -> Result<Vec<Row>> {
        let options = CallOptions { consistency: Consistency::None, ..call_options() };
        Ok(self.engine.query(&TargetDatabase::System, statement, options).await?.value.rows)
    }

    async fn run(&self, statements: Vec<Statement>) -> Result<Vec<StatementResult>> {
        let database = TargetDatabase::System;
        Ok(self.engine.transaction(&database, statements, call_options()).await?.value)
    }
}

fn call_options() -> CallOptions {
    CallOptions {
        consistency: Consistency::Weak,
        deadline: Instant::now() + TIMEOUT,
        idempotency_key: None,
        caller: CallerKey::default(),
        read_only: false,
    }
}

fn addresses_json(description: &NodeDescription) -> Value {
    serde_json::Value::from(description.address_texts()).to_string().into()
}

fn read_record(row: &Row) -> Result<NodeRecord> {
    let addresses: Vec<String> = serde_json::from_str(row.text(2))
        .map_err(|_| Error::internal("a node's addresses are no JSON array"))?;
    let peer_id = row.text(0).parse().map_err(|_| Error::internal("a node's peer id is none"))?;
    Ok(NodeRecord {
        peer_id,
        description: NodeDescription::parse(row.text(1), &addresses, row.text(3), row.text(5))?,
        role: row.text(4).parse()?,
        joined_at: row.integer(6),
        removed_at: Some(row.integer(7)).filter(|at| *at > 0),
        updated_at: row.integer(8),
    })
}
