//! Keeps the connection to one node: dials it, proves both ends, offers the channel until it is
//! lost, and tries again, less and less often while it does not succeed.

use super::cluster_state::ClusterState;
use super::exchange::exchange_nodes;
use super::members::{ConnectedMembers, ConnectionFailures, Member};
use super::prove::prove_to;
use debros_p2p::{Multiaddr, PeerConnection, PeerId};
use debros_proto::{Code, Error, Result, lock};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How long one dial, and the opening of a channel, may take.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection that was lost sooner is no reason to hurry.
const STEADY: Duration = Duration::from_secs(2);

pub(super) struct MemberKeeper {
    state: Arc<ClusterState>,
    peer: PeerId,
    connected: Arc<watch::Sender<ConnectedMembers>>,
    wake: Arc<Notify>,
    failures: ConnectionFailures,
    pause: Duration,
    /// The address at which the node answered last.
    last_good: Option<Multiaddr>,
    /// What the log said last of why the node is not connected.
    reported: Option<String>,
}

/// Takes a member out of the list when its connection is lost, or its keeper is stopped.
struct PublishedMember<'a> {
    connected: &'a watch::Sender<ConnectedMembers>,
    peer: PeerId,
}

impl Drop for PublishedMember<'_> {
    fn drop(&mut self) {
        self.connected.send_modify(|members| {
            Arc::make_mut(members).remove(&self.peer);
        });
    }
}

impl MemberKeeper {
    pub(super) fn new(
        state: Arc<ClusterState>,
        peer: PeerId,
        connected: Arc<watch::Sender<ConnectedMembers>>,
        wake: Arc<Notify>,
        failures: ConnectionFailures,
    ) -> Self {
        let (pause, last_good, reported) = (FIRST_PAUSE, None, None);
        Self { state, peer, connected, wake, failures, pause, last_good, reported }
    }

    pub(super) async fn run(mut self) {
        loop {
            let lived = match self.connect().await {
                Ok(member) => self.publish_until_closed(member).await,
                Err(error) => {
                    self.note_failure(&error);
                    Duration::ZERO
                }
            };
            // Another connection may stand already, where both had dialled at once.
            if lived >= STEADY && self.find_connection().is_ok_and(|found| found.is_some()) {
                continue;
            }
            tokio::select! {
                () = tokio::time::sleep(with_jitter(self.pause)) => {}
                // The node has just proven itself here: it can be reached.
                () = self.wake.notified() => {}
            }
            self.pause = self.pause.mul_f64(1.5).min(LONGEST_PAUSE);
        }
    }

    /// A proven connection.
    async fn connect(&mut self) -> Result<Member> {
        let connection = match self.find_connection()? {
            Some(connection) => connection,
            None => {
                self.dial().await?;
                self.find_connection()?.ok_or_else(not_connected)?
            }
        };
        let host = self.state.host()?.clone();
        let opened =
            tokio::time::timeout(DIAL_TIMEOUT, host.open_on(self.peer, connection.id)).await;
        let channel = opened.map_err(|_| not_connected())??;
        let incarnation = prove_to(&self.state, self.peer, &channel).await?;
        self.pause = FIRST_PAUSE;
        self.close_others(connection).await?;
        if let Err(error) = exchange_nodes(&self.state, &channel).await {
            tracing::debug!(peer = %self.peer, %error, "the registers could not be compared");
        }
        Ok(Member { channel, incarnation })
    }

    /// Tries the node's addresses: those over TCP first, because a TCP connection ends at once with
    /// the program at its other end, where one over QUIC is waited for; and of them the last good
    /// one.
    async fn dial(&mut self) -> Result<()> {
        let node = self.state.live_node(&self.peer).ok_or_else(not_connected)?;
        let mut addresses = node.description.addresses;
        if let Some(good) = self.last_good.take_if(|good| addresses.contains(good)) {
            addresses.retain(|address| *address != good);
            addresses.insert(0, good);
        }
        addresses.sort_by_key(|address| !is_tcp(address));
        let mut failed = Error::new(Code::Unavailable, "no address of the node is known");
        for address in addresses {
            match self.state.host()?.connect(address.clone(), DIAL_TIMEOUT).await {
                Ok(_) => {
                    self.last_good = Some(address);
                    return Ok(());
                }
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// The connection to use of those that stand: one that the lower peer id dialled, as the other
    /// side decides the same; of several the newest, because its dialler has lost the others.
    fn find_connection(&self) -> Result<Option<PeerConnection>> {
        let open = self.state.host()?.connections(&self.peer);
        let preferred = open.iter().rev().find(|connection| self.is_preferred(connection));
        Ok(preferred.or(open.last()).copied())
    }

    fn is_preferred(&self, connection: &PeerConnection) -> bool {
        connection.is_outbound == (self.state.own.peer_id < self.peer)
    }

    /// Closes the other connections to the node, except one that is to take the place of this one:
    /// only a connection that has proven itself does that.
    async fn close_others(&self, kept: PeerConnection) -> Result<()> {
        let host = self.state.host()?;
        for other in host.connections(&self.peer) {
            let is_better = self.is_preferred(&other) && !self.is_preferred(&kept);
            if other.id != kept.id && !is_better {
                host.close_connection(other.id).await;
            }
        }
        Ok(())
    }

    /// Offers the member until its connection is lost; returns how long it was there.
    async fn publish_until_closed(&mut self, member: Member) -> Duration {
        let (channel, opened) = (member.channel.clone(), Instant::now());
        self.connected.send_modify(|members| {
            Arc::make_mut(members).insert(self.peer, member);
        });
        lock(&self.failures).remove(&self.peer);
        let published = PublishedMember { connected: &self.connected, peer: self.peer };
        tracing::info!(peer = %self.peer, "a node of the cluster is connected");
        channel.closed().await;
        drop(published);
        tracing::info!(peer = %self.peer, "the connection to a node of the cluster was lost");
        self.reported = None;
        opened.elapsed()
    }

    /// Once for each reason: a node may be away for days.
    fn note_failure(&mut self, error: &Error) {
        lock(&self.failures).insert(self.peer, error.message.clone());
        if self.reported.as_ref() != Some(&error.message) {
            tracing::warn!(peer = %self.peer, %error, "a node of the cluster is not connected; trying again");
            self.reported = Some(error.message.clone());
        }
    }
}

fn is_tcp(address: &Multiaddr) -> bool {
    address.protocol_stack().any(|part| part == "tcp")
}

fn not_connected() -> Error {
    Error::new(Code::Unavailable, "the connection to the node was lost")
}

/// ±20 %, so that nodes which lost each other do not all dial in the same moment.
fn with_jitter(pause: Duration) -> Duration {
    let mut byte = [128_u8];
    // Without randomness the pause is just not varied.
    let _ = getrandom::fill(&mut byte);
    pause.mul_f64(0.8 + 0.4 * f64::from(byte[0]) / 255.0)
}
