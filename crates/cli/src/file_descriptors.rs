//! File descriptors: as many as the system lets this process have, and how they are divided. Every
//! connection takes one and every open database several, so a small limit has to be divided before
//! it is met in the middle of a call.

use debros_engine::embedded::EmbeddedConfig;
use debros_gateway::GatewayLimits;
use std::io;

/// Descriptors that are not divided, but left for everything else: streams, log, listeners, the
/// system's database, databases on their way out, copies, sorting on disk.
const UNDIVIDED: u64 = 96;
/// With fewer HTTP connections than this the limit is called small.
const FEW_CONNECTIONS: usize = 1000;
/// What is served however small the limit is: with less nothing would work at all.
const LEAST_CONNECTIONS: usize = 16;
const LEAST_DATABASES: usize = 2;
/// What the advice is to allow.
const ADVISED: u64 = 65_536;

/// How many descriptors this process may have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FileDescriptorLimit {
    pub(crate) limit: u64,
}

/// What fits into a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DescriptorShares {
    /// Databases of namespaces that are kept open.
    pub(crate) databases: usize,
    /// Of the gateway.
    pub(crate) connections: ConnectionLimit,
}

/// Connections that a gateway holds at a time. A WebSocket is one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConnectionLimit(usize);

impl ConnectionLimit {
    fn for_descriptors(descriptors: u64) -> Self {
        Self(
            clamp_to_usize(descriptors, GatewayLimits::default().max_connections)
                .max(LEAST_CONNECTIONS),
        )
    }

    pub(crate) fn apply_to(self, limits: &mut GatewayLimits) {
        limits.max_connections = self.0;
        limits.max_websockets = limits.max_websockets.min(self.0);
    }
}

impl FileDescriptorLimit {
    /// Raises the limit as far as this process may.
    pub(crate) fn raise_limit() -> Self {
        let raised = rlimit::increase_nofile_limit(rlimit::INFINITY).or_else(|error| {
            tracing::warn!(%error, "the limit on open files cannot be raised");
            Ok::<_, io::Error>(rlimit::Resource::NOFILE.get()?.0)
        });
        // Where the system does not report it, nothing is known to be scarce.
        Self { limit: raised.unwrap_or(u64::MAX) }
    }

    /// The shares of a node, with a gateway inside or without, and so many P2P connections.
    pub(crate) fn shares_of_node(
        self,
        p2p_connections: u32,
        has_gateway: bool,
    ) -> DescriptorShares {
        let defaults = EmbeddedConfig::new("");
        let each = u64::from(defaults.descriptors_per_database());
        let left =
            self.limit.saturating_sub(UNDIVIDED + u64::from(p2p_connections).min(self.limit / 4));
        let for_databases = if has_gateway { left / 2 } else { left };
        let databases =
            clamp_to_usize(for_databases / each, defaults.open_databases).max(LEAST_DATABASES);
        let shares = DescriptorShares {
            databases,
            connections: ConnectionLimit::for_descriptors(
                left.saturating_sub(databases as u64 * each),
            ),
        };
        self.warn_if_small(
            shares.databases < defaults.open_databases
                || (has_gateway && shares.connections.0 < FEW_CONNECTIONS),
        );
        shares
    }

    /// The connections of a gateway that stands alone.
    pub(crate) fn connections_of_gateway(self) -> ConnectionLimit {
        let connections = ConnectionLimit::for_descriptors(self.limit.saturating_sub(UNDIVIDED));
        self.warn_if_small(connections.0 < FEW_CONNECTIONS);
        connections
    }

    fn warn_if_small(self, is_small: bool) {
        if is_small {
            tracing::warn!(
                open_files = self.limit,
                "this process may have only few files open, so it keeps fewer databases open and serves fewer connections at \
                 a time: raise the hard limit to {ADVISED} (ulimit -Hn in a shell, LimitNOFILE= in a systemd unit, --ulimit \
                 nofile= for a container)"
            );
        }
    }
}

fn clamp_to_usize(number: u64, most: usize) -> usize {
    usize::try_from(number).map_or(most, |number| number.min(most))
}

#[cfg(test)]
mod tests {
    use super::{ConnectionLimit, DescriptorShares, FileDescriptorLimit, UNDIVIDED};

    const PLENTY: ConnectionLimit = ConnectionLimit(10_000);

    #[test]
    fn a_large_limit_changes_nothing() {
        for limit in [65_536, 1 << 20, u64::MAX] {
            assert_eq!(
                FileDescriptorLimit { limit }.shares_of_node(50, true),
                DescriptorShares { databases: 64, connections: PLENTY }
            );
            assert_eq!(FileDescriptorLimit { limit }.connections_of_gateway(), PLENTY);
        }
    }

    #[test]
    fn what_a_small_limit_is_divided_into_fits_into_it() {
        let each =
            u64::from(debros_engine::embedded::EmbeddedConfig::new("").descriptors_per_database());
        for limit in [256, 512, 1024, 4096, 20_000] {
            for has_gateway in [true, false] {
                let DescriptorShares { databases, connections } =
                    FileDescriptorLimit { limit }.shares_of_node(50, has_gateway);
                assert!((2..=64).contains(&databases), "{limit}: {databases}");
                let http = if has_gateway { connections.0 as u64 } else { 0 };
                assert!(
                    UNDIVIDED + 50 + databases as u64 * each + http <= limit,
                    "{limit}: {databases}, {connections:?}"
                );
            }
            assert!(
                UNDIVIDED + FileDescriptorLimit { limit }.connections_of_gateway().0 as u64
                    <= limit,
                "{limit}"
            );
        }
        // Nothing would work with nothing.
        let least = ConnectionLimit(16);
        assert_eq!(
            FileDescriptorLimit { limit: 0 }.shares_of_node(50, true),
            DescriptorShares { databases: 2, connections: least }
        );
    }
}
