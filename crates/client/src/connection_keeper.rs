//! Keeping one node connected: it is dialled, waited for until it is lost, and dialled again.

use debros_p2p::{Channel, Host, Multiaddr, PeerId};
use debros_proto::rpc::{self, request};
use debros_proto::{Code, Error, Result};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Pause before a lost node is dialled again; it grows by half with each failure.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Least time from one dial to the next that waiting calls cause.
const DIAL_GAP: Duration = Duration::from_secs(1);
/// A connection that lasted this long counts as a good one.
const STEADY: Duration = Duration::from_secs(10);
/// How long one dial may take. While a machine is away the system repeats its packets with growing
/// pauses, so that a new dial finds it sooner than an old one.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the answer to an introduction is waited for.
const INTRODUCTION_TIMEOUT: Duration = Duration::from_secs(2);

/// What the calls of a client and its keepers share.
pub(crate) struct NodeChannels {
    /// One slot for each bootstrap peer, in the order of the configuration.
    pub(crate) channels: watch::Sender<Vec<Option<Channel>>>,
    /// The last failure of each, and how many there were.
    pub(crate) failures: watch::Sender<Vec<(u32, String)>>,
    /// Until when a call waits for a connection.
    dial_until: watch::Sender<Instant>,
}

impl NodeChannels {
    pub(crate) fn new(count: usize) -> Self {
        Self {
            channels: watch::Sender::new(vec![None; count]),
            failures: watch::Sender::new(vec![(0, String::new()); count]),
            dial_until: watch::Sender::new(Instant::now()),
        }
    }

    /// Somebody waits for a connection: keepers that pause dial, each at most once a second.
    pub(crate) fn request_dial_until(&self, until: Instant) {
        self.dial_until.send_if_modified(|wanted| {
            let later = until > *wanted;
            if later {
                *wanted = until;
            }
            later
        });
    }

    /// Returns when a call waits for a connection.
    async fn wait_for_dial_request(&self) {
        // The sender is `self`: it does not close meanwhile.
        let _ = self.dial_until.subscribe().wait_for(|until| *until > Instant::now()).await;
    }
}

/// Keeps one node connected, for as long as the client lives.
pub(crate) struct ConnectionKeeper {
    host: Host,
    nodes: Arc<NodeChannels>,
    slot: usize,
    address: Multiaddr,
    /// A credential to show to the node; empty: none.
    introduction: String,
    pause: Duration,
    /// The log has a line that the node is away, and none yet that it is back.
    is_reported_away: bool,
    /// The node came back and was lost again soon.
    is_unsteady: bool,
}

impl ConnectionKeeper {
    pub(crate) fn new(
        host: Host,
        nodes: Arc<NodeChannels>,
        slot: usize,
        address: Multiaddr,
        introductions: &[(PeerId, String)],
    ) -> Self {
        let peer = peer_id_in(&address);
        let introduction = introductions.iter().find(|(node, _)| Some(*node) == peer);
        let introduction =
            introduction.map(|(_, credential)| credential.clone()).unwrap_or_default();
        Self {
            host,
            nodes,
            slot,
            address,
            introduction,
            pause: FIRST_PAUSE,
            is_reported_away: false,
            is_unsteady: false,
        }
    }

    pub(crate) async fn run(mut self) {
        loop {
            let dialled = Instant::now();
            match self.connect().await {
                Ok(channel) => self.publish_until_closed(channel).await,
                Err(error) => self.note_failure(&error),
            }
            let wanted = async {
                tokio::time::sleep_until((dialled + DIAL_GAP).into()).await;
                self.nodes.wait_for_dial_request().await;
            };
            tokio::select! {
                () = tokio::time::sleep(with_jitter(self.pause)) => {}
                () = wanted => {}
            }
            self.pause = (self.pause * 3 / 2).min(LONGEST_PAUSE);
        }
    }

    async fn connect(&self) -> Result<Channel> {
        let connecting = async {
            let peer = self.host.connect(self.address.clone(), DIAL_TIMEOUT).await?;
            let channel = self.host.open(peer).await?;
            self.show_credential(&channel).await;
            Ok(channel)
        };
        match tokio::time::timeout(DIAL_TIMEOUT, connecting).await {
            Ok(connected) => connected,
            Err(_) => {
                // The dial would go on behind the back of the next one.
                if let Some(peer) = peer_id_in(&self.address) {
                    self.host.disconnect(peer).await;
                }
                Err(Error::new(Code::Unavailable, format!("no answer within {DIAL_TIMEOUT:?}")))
            }
        }
    }

    /// Presents the client's credential to the node before any call. A node that refuses the
    /// credential serves the calls all the same.
    async fn show_credential(&self, channel: &Channel) {
        if self.introduction.is_empty() {
            return;
        }
        let call = Some(request::Call::WhoAmI(rpc::WhoAmIRequest {}));
        let request =
            rpc::Request { credential: self.introduction.clone(), call, ..Default::default() };
        if let Err(error) = channel.call(request, INTRODUCTION_TIMEOUT).await {
            tracing::debug!(address = %self.address, %error, "the node refused the credential of the introduction");
        }
    }

    /// Offers the channel to calls until it is lost.
    async fn publish_until_closed(&mut self, channel: Channel) {
        self.nodes.failures.send_modify(|failures| failures[self.slot] = (0, String::new()));
        self.nodes.channels.send_modify(|channels| channels[self.slot] = Some(channel.clone()));
        let (opened, was_away) = (Instant::now(), self.is_reported_away);
        // The log says that a node is back when it stays: one that comes and goes has one line.
        let settle = if self.is_unsteady { STEADY } else { Duration::ZERO };
        if self.is_reported_away && tokio::time::timeout(settle, channel.closed()).await.is_err() {
            self.is_reported_away = false;
            tracing::info!(address = %self.address, "the node is connected again");
        }
        channel.closed().await;
        self.nodes.channels.send_modify(|channels| channels[self.slot] = None);
        let was_steady = opened.elapsed() >= STEADY;
        self.is_unsteady = was_away && !was_steady;
        // A node that accepts and closes at once is no reason to hurry.
        if was_steady {
            self.pause = FIRST_PAUSE;
        }
        if !std::mem::replace(&mut self.is_reported_away, true) {
            tracing::warn!(address = %self.address, "the connection to the node was lost; it is dialled until it is back");
        }
    }

    fn note_failure(&mut self, error: &Error) {
        if std::mem::replace(&mut self.is_reported_away, true) {
            tracing::debug!(address = %self.address, %error, "the node cannot be reached");
        } else {
            tracing::warn!(address = %self.address, %error, "the node cannot be reached; it is dialled until it can be");
        }
        self.nodes.failures.send_modify(|failures| {
            failures[self.slot] = (failures[self.slot].0 + 1, format!("{}: {error}", self.address));
        });
    }
}

fn peer_id_in(address: &Multiaddr) -> Option<PeerId> {
    address.to_string().rsplit_once("/p2p/")?.1.parse().ok()
}

/// ±20 %, so that clients which lost the same node do not all come back in the same moment.
fn with_jitter(pause: Duration) -> Duration {
    let mut byte = [128_u8];
    // Without randomness the pause is just not varied.
    let _ = getrandom::fill(&mut byte);
    pause.mul_f64(0.8 + 0.4 * f64::from(byte[0]) / 255.0)
}

#[cfg(test)]
mod tests {
    use super::{ConnectionKeeper, NodeChannels};
    use debros_p2p::{CallContext, Handler, Host, HostConfig, Keypair, Multiaddr, Reply};
    use debros_proto::rpc::{self, request::Call};
    use debros_proto::{Code, Error};
    use futures::future::BoxFuture;
    use std::net::TcpListener;
    use std::sync::{Arc, Mutex};
    use std::time::{Duration, Instant};

    const HOUR: Duration = Duration::from_secs(3600);
    /// Long enough for any machine.
    const LONG: Duration = Duration::from_secs(60);

    /// Keeps the credentials that it is shown.
    #[derive(Default)]
    struct Seen(Mutex<Vec<String>>);

    impl Handler for Seen {
        fn call(
            &self,
            _: CallContext,
            request: rpc::Request,
        ) -> BoxFuture<'static, Result<Reply, Error>> {
            assert!(matches!(request.call, Some(Call::WhoAmI(_))));
            self.0.lock().unwrap().push(request.credential);
            Box::pin(async { Err(Error::new(Code::Unauthenticated, "not known here")) })
        }
    }

    struct Place {
        key: Keypair,
        listen: Multiaddr,
        address: Multiaddr,
    }

    impl Place {
        /// An address on which a node may listen later.
        fn new() -> Self {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let key = Keypair::generate_ed25519();
            let listen: Multiaddr = format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap();
            let address = format!("{listen}/p2p/{}", key.public().to_peer_id()).parse().unwrap();
            Self { key, listen, address }
        }

        async fn node(&self, seen: &Arc<Seen>) -> Host {
            let mut config = HostConfig::client(self.key.clone(), "test");
            config.listen.push(self.listen.clone());
            Host::start(config, Some(Arc::clone(seen) as Arc<dyn Handler>)).await.unwrap()
        }
    }

    async fn client() -> Host {
        Host::start(HostConfig::client(Keypair::generate_ed25519(), "test"), None).await.unwrap()
    }

    async fn connected(nodes: &NodeChannels, is: bool) {
        let mut channels = nodes.channels.subscribe();
        let wait = channels.wait_for(|channels| channels[0].is_some() == is);
        tokio::time::timeout(LONG, wait).await.expect("in time").unwrap();
    }

    /// A node that was back stayed unknown until a pause of up to 30 s was over, though calls
    /// waited.
    #[tokio::test]
    async fn whoever_waits_has_a_lost_node_dialled() {
        let place = Place::new();
        let nodes = Arc::new(NodeChannels::new(1));
        let mut keeper = ConnectionKeeper::new(
            client().await,
            Arc::clone(&nodes),
            0,
            place.address.clone(),
            &[],
        );
        // As after a long time without the node.
        keeper.pause = HOUR;
        let task = tokio::spawn(keeper.run());
        let mut failures = nodes.failures.subscribe();
        let failed = failures.wait_for(|failures| failures[0].0 == 1);
        tokio::time::timeout(LONG, failed).await.expect("in time").unwrap();
        let node = place.node(&Arc::default()).await;
        nodes.request_dial_until(Instant::now() + LONG);
        connected(&nodes, true).await;
        assert_eq!(nodes.failures.borrow()[0].0, 0);
        node.shutdown(Instant::now() + LONG).await;
        connected(&nodes, false).await;
        task.abort();
    }

    #[tokio::test]
    async fn a_node_is_shown_the_credential_that_is_for_it_and_no_other() {
        let (place, seen) = (Place::new(), Arc::new(Seen::default()));
        let _node = place.node(&seen).await;
        let other = (Keypair::generate_ed25519().public().to_peer_id(), "op_of_another".to_owned());
        let own = (place.key.public().to_peer_id(), "op_of_this".to_owned());
        for introductions in [vec![other.clone()], vec![other, own]] {
            let nodes = Arc::new(NodeChannels::new(1));
            let keeper = ConnectionKeeper::new(
                client().await,
                Arc::clone(&nodes),
                0,
                place.address.clone(),
                &introductions,
            );
            let task = tokio::spawn(keeper.run());
            connected(&nodes, true).await;
            task.abort();
        }
        assert_eq!(*seen.0.lock().unwrap(), ["op_of_this"], "and one that it refuses is no fault");
    }
}
