//! The attacks, one per row.

use super::attacker::Attacker;
use super::{connections, cpu, disk, memory};
use anyhow::Result;
use futures::future::LocalBoxFuture;

/// An attack on a node.
#[derive(Debug)]
pub(crate) struct Attack {
    /// For `--only`.
    pub(crate) name: &'static str,
    /// Reaches full strength. Work that continues until the attack ends goes to
    /// [`Attacker::spawn`].
    pub(crate) run: fn(Attacker) -> LocalBoxFuture<'static, Result<()>>,
    /// The test at its end.
    pub(crate) after: Option<fn(Attacker) -> LocalBoxFuture<'static, ()>>,
    /// Whether its key is one of the neighbour's own namespace.
    pub(crate) in_neighbours_namespace: bool,
    /// Sockets that it opens, where they are many.
    pub(crate) sockets: usize,
    /// API keys that it has: callers that the node tells apart.
    pub(crate) keys: usize,
}

const BASE: Attack = Attack {
    name: "",
    run: |_| Box::pin(async { Ok(()) }),
    after: None,
    in_neighbours_namespace: false,
    sockets: 0,
    keys: 1,
};

/// All attacks: on memory, on places, on space, on time.
pub(crate) const ATTACKS: [Attack; 16] = [
    Attack { name: "pings-1", run: |one| Box::pin(memory::ping_on_one_socket(one)), ..BASE },
    Attack { name: "pings-50", run: |one| Box::pin(memory::ping_on_fifty_sockets(one)), ..BASE },
    Attack {
        name: "http2-unread",
        run: |one| Box::pin(memory::read_nothing_over_http2(one)),
        ..BASE
    },
    Attack {
        name: "http1-unread",
        run: |one| Box::pin(memory::read_nothing_over_http1(one)),
        ..BASE
    },
    Attack { name: "stalled-bodies", run: |one| Box::pin(memory::stall_bodies(one)), ..BASE },
    Attack {
        name: "half-messages",
        run: |one| Box::pin(memory::leave_messages_unfinished(one)),
        ..BASE
    },
    Attack {
        name: "half-heads",
        run: |one| Box::pin(memory::leave_heads_unfinished(one)),
        sockets: memory::HEADS,
        ..BASE
    },
    Attack {
        name: "idle-connections",
        run: |one| Box::pin(connections::connect_and_send_nothing(one)),
        sockets: connections::CONNECTIONS,
        ..BASE
    },
    Attack {
        name: "idle-websockets",
        run: |one| Box::pin(connections::open_websockets(one)),
        sockets: connections::WEBSOCKETS,
        ..BASE
    },
    Attack {
        name: "idle-peers",
        run: |one| Box::pin(connections::connect_identities(one)),
        ..BASE
    },
    Attack {
        name: "fill-values",
        run: |one| Box::pin(disk::fill_with_values(one)),
        after: Some(|one| Box::pin(disk::delete_a_value(one))),
        ..BASE
    },
    Attack {
        name: "fill-rows",
        run: |one| Box::pin(disk::fill_with_rows(one)),
        after: Some(|one| Box::pin(disk::delete_rows(one))),
        ..BASE
    },
    Attack {
        name: "fill-records",
        run: |one| Box::pin(disk::fill_with_records(one)),
        after: Some(|one| Box::pin(disk::delete_the_value_of_records(one))),
        ..BASE
    },
    Attack {
        name: "endless-reads-4",
        run: |one| Box::pin(cpu::read_endlessly(one)),
        in_neighbours_namespace: true,
        keys: 4,
        ..BASE
    },
    Attack {
        name: "endless-reads-64",
        run: |one| Box::pin(cpu::read_endlessly(one)),
        in_neighbours_namespace: true,
        keys: 64,
        ..BASE
    },
    Attack { name: "large-puts", run: |one| Box::pin(cpu::put_large_values(one)), ..BASE },
];
