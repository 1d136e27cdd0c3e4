//! The way to the leader, for the database: over the connections between nodes.

use super::members::Members;
use async_trait::async_trait;
use bytes::Bytes;
use debros_cluster::{CommittedEntries, LeaderLink};
use debros_p2p::{Channel, PeerId};
use debros_proto::rpc::request::Call;
use debros_proto::rpc::{self, event, response};
use debros_proto::{Code, Error, Result};
use debros_rqlite::Entry;
use futures::StreamExt as _;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// How long the leader may take to say where the log is.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long another node may take to read a whole database.
const CHECKSUM_TIMEOUT: Duration = Duration::from_secs(10 * 60);
/// Batches that wait until they are applied; the leader's stream waits when there are as many.
const WAITING_BATCHES: usize = 64;

/// The members of the cluster, once there are any.
#[derive(Clone, Default)]
pub(crate) struct MembersLink(Arc<OnceLock<Arc<Members>>>);

impl MembersLink {
    /// Set once, when the connections are kept.
    pub(crate) fn set_members(&self, members: Arc<Members>) {
        // There is one place that does it.
        let _ = self.0.set(members);
    }

    /// The version of this program.
    fn version(&self) -> String {
        self.0.get().map_or_else(String::new, |members| members.own_version().to_owned())
    }

    fn channel(&self, node: &str) -> Result<Channel> {
        let peer: PeerId =
            node.parse().map_err(|_| Error::internal("a node's name is no peer id"))?;
        self.0
            .get()
            .and_then(|members| members.channel(&peer))
            .ok_or_else(|| Error::new(Code::Unavailable, "there is no connection to the node"))
    }
}

#[async_trait]
impl LeaderLink for MembersLink {
    async fn position(&self, leader: &str, confirm: bool) -> Result<u64> {
        let call = Call::LeaderPosition(rpc::LeaderPositionRequest { confirm });
        let answer = self.channel(leader)?.call(request(call), ASK_TIMEOUT).await?;
        match answer.result {
            Some(response::Result::LeaderPosition(answer)) => Ok(answer.position),
            _ => Err(unexpected_answer()),
        }
    }

    async fn write(
        &self,
        leader: &str,
        write: rpc::LeaderWriteRequest,
        deadline: Instant,
    ) -> Result<rpc::LeaderWriteResponse> {
        let channel = self.channel(leader)?;
        let timeout = deadline.saturating_duration_since(Instant::now());
        let answer = channel.call(request(Call::LeaderWrite(write)), timeout).await?;
        match answer.result {
            Some(response::Result::LeaderWrite(answer)) => Ok(answer),
            _ => Err(unexpected_answer()),
        }
    }

    async fn checksum(&self, node: &str, database: &str, entry: u64) -> Result<Option<[u8; 32]>> {
        let (namespace, version) = (database.to_owned(), self.version());
        let call = Call::Checksum(rpc::ChecksumRequest { namespace, entry, version });
        let answer = self.channel(node)?.call(request(call), CHECKSUM_TIMEOUT).await?;
        match answer.result {
            Some(response::Result::Checksum(answer)) if answer.hash.is_empty() => Ok(None),
            Some(response::Result::Checksum(answer)) => {
                answer.hash[..].try_into().map(Some).map_err(|_| unexpected_answer())
            }
            _ => Err(unexpected_answer()),
        }
    }

    async fn follow(&self, leader: &str) -> Result<mpsc::Receiver<CommittedEntries>> {
        let channel = self.channel(leader)?;
        let follow = request(Call::FollowLog(rpc::FollowLogRequest {}));
        let (_, mut events) = channel.open(follow, ASK_TIMEOUT).await?;
        let (sender, receiver) = mpsc::channel(WAITING_BATCHES);
        tokio::spawn(async move {
            loop {
                let event = tokio::select! {
                    event = events.next() => event,
                    () = sender.closed() => return,
                };
                let Some(Ok(rpc::Event { kind: Some(event::Kind::LogEntries(some)) })) = event
                else {
                    return;
                };
                let entries = some.entries.into_iter().map(|entry| Entry {
                    entry: entry.entry,
                    term: entry.term,
                    body: entry.body,
                });
                if sender.send(Arc::new(entries.collect())).await.is_err() {
                    return;
                }
            }
        });
        Ok(receiver)
    }
}

/// Entries as they are sent.
pub(crate) fn log_entries_event(entries: &CommittedEntries) -> rpc::Event {
    let entries = entries.iter().map(|entry| rpc::LogEntryMessage {
        entry: entry.entry,
        term: entry.term,
        body: Bytes::clone(&entry.body),
    });
    let kind = event::Kind::LogEntries(rpc::LogEntries { entries: entries.collect() });
    rpc::Event { kind: Some(kind) }
}

fn request(call: Call) -> rpc::Request {
    rpc::Request { call: Some(call), ..rpc::Request::default() }
}

fn unexpected_answer() -> Error {
    Error::internal("the leader answered with something else than it was asked for")
}
