//! What a child is started with.

use crate::certificates::RaftTls;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// What a child is started with. All of it can change at the next start but `node_id`.
#[derive(Clone)]
pub struct RqlitedConfig {
    /// The program; see [`find_program`](crate::find_program).
    pub program: PathBuf,
    /// A folder for this child alone; made if it is missing.
    pub data_dir: PathBuf,
    /// The node's name in rqlite's cluster; never that of another node, never changed.
    pub node_id: String,
    /// Where it serves HTTP: a loopback address. Port 0 chooses a free one at every start.
    pub http: SocketAddr,
    /// Where it listens for the other nodes. Port 0 chooses a free one, once: for tests, because
    /// the others have to know it.
    pub raft: SocketAddr,
    /// The address that the other nodes are told, if it is not `raft`.
    pub raft_advertise: Option<SocketAddr>,
    /// Raft addresses of nodes to join through; the node's own may be among them if it votes. Empty
    /// for a node that starts a cluster alone, or is in one already.
    pub join: Vec<String>,
    /// How many of `join` have to be there to make a new cluster of them; `None` joins an old one.
    pub bootstrap_expect: Option<u32>,
    /// Holds the data and does not vote.
    pub non_voter: bool,
    /// Mutual TLS on the Raft port. Without it, whoever reaches that port owns the data.
    pub tls: Option<RaftTls>,
    /// The password by which the nodes of a cluster know each other, when they join and when they
    /// pass calls on to the leader: the same on all of them;
    /// [`join_password`](crate::certificates::join_password) makes it from the cluster key. `None`
    /// chooses one at random, good for a node that stays alone.
    pub join_password: Option<String>,
}

impl std::fmt::Debug for RqlitedConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the password.
        f.debug_struct("RqlitedConfig")
            .field("program", &self.program)
            .field("data_dir", &self.data_dir)
            .field("node_id", &self.node_id)
            .field("http", &self.http)
            .field("raft", &self.raft)
            .field("raft_advertise", &self.raft_advertise)
            .field("join", &self.join)
            .field("bootstrap_expect", &self.bootstrap_expect)
            .field("non_voter", &self.non_voter)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

impl RqlitedConfig {
    /// A node alone: HTTP and Raft on loopback, at ports that are free.
    pub fn alone(program: PathBuf, data_dir: PathBuf, node_id: impl Into<String>) -> Self {
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            program,
            data_dir,
            node_id: node_id.into(),
            http: loopback,
            raft: loopback,
            raft_advertise: None,
            join: Vec::new(),
            bootstrap_expect: None,
            non_voter: false,
            tls: None,
            join_password: None,
        }
    }

    pub(super) fn check(&self) -> Result<(), String> {
        if !self.http.ip().is_loopback() {
            return Err(format!("its HTTP address {} is not a loopback address", self.http));
        }
        if self.node_id.is_empty() {
            return Err("a node id is needed".to_owned());
        }
        if self.raft.ip().is_unspecified() && self.raft_advertise.is_none() {
            let raft = self.raft;
            return Err(format!(
                "it listens at {raft}, which is no address that others can dial: set an advertised Raft address"
            ));
        }
        // It would wait for ever, and say nothing.
        if self.bootstrap_expect.is_some() && self.join.is_empty() {
            return Err("to make a cluster it has to be told the nodes to join".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::RqlitedConfig;

    #[test]
    fn what_cannot_work_is_refused_before_anything_starts() {
        let alone = RqlitedConfig::alone("rqlited".into(), "data".into(), "n1");
        alone.check().unwrap();
        let refused = |change: fn(&mut RqlitedConfig)| {
            let mut config = alone.clone();
            change(&mut config);
            config.check().unwrap_err()
        };
        let open = refused(|config| config.http = "0.0.0.0:4001".parse().unwrap());
        assert!(open.contains("loopback"), "{open}");
        let unroutable = refused(|config| config.raft = "0.0.0.0:4002".parse().unwrap());
        assert!(unroutable.contains("advertised"), "{unroutable}");
        refused(|config| config.node_id.clear());
        refused(|config| config.bootstrap_expect = Some(3));
    }

    #[test]
    fn the_password_is_not_in_the_log() {
        let mut config = RqlitedConfig::alone("rqlited".into(), "data".into(), "n1");
        config.join_password = Some("s3cret".to_owned());
        assert!(!format!("{config:?}").contains("s3cret"));
    }
}
