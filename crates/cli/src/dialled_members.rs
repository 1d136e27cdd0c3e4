//! The other nodes of a cluster, as a node that does not serve saw them last, and whether their Raft
//! ports answer now.

use crate::cli_error::without_os_error_number;
use debros_node::{SeenMember, read_seen_members};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

/// How long a Raft port may take to answer.
const DIAL_TIME: Duration = Duration::from_secs(2);

/// The nodes that are noted in a data folder, each with why its Raft port cannot be reached; `None`:
/// it can. Takes some seconds where nodes do not answer.
pub(crate) fn dial_members(data_dir: &Path) -> Vec<(SeenMember, Option<String>)> {
    let dialled = read_seen_members(data_dir).into_iter().map(|member| {
        let failure = dial(&member.raft_address);
        (member, failure)
    });
    dialled.collect()
}

fn dial(address: &str) -> Option<String> {
    let Ok(address) = address.parse::<SocketAddr>() else {
        return Some("it has no Raft address".to_owned());
    };
    let failure = TcpStream::connect_timeout(&address, DIAL_TIME).err()?;
    Some(without_os_error_number(&failure.to_string()))
}
