//! Passing calls on: a node that holds none of the data has those answer that do, over the
//! connections between nodes.

use super::ClusterService;
use super::node_record::NodeRole;
use debros_p2p::{Channel, PeerId, Reply};
use debros_proto::rpc::request::Call;
use debros_proto::rpc::{self, HealthCheck, HealthResponse, Request, response};
use debros_proto::{Code, Error, Result, lock, now_ms};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Nodes that one call is sent to, one after another, at most.
const MAX_ATTEMPTS: usize = 3;
/// How long a call waits for a node while none is connected.
const WAIT_FOR_NODE: Duration = Duration::from_millis(2500);
/// When it makes sense to try again after none could be reached.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long a node may take to answer what can be asked again, while there is another one: longer
/// than a statement may run.
const ATTEMPT_TIME: Duration = Duration::from_secs(12);
/// Nodes that are asked for their health, and how long each may take: a gateway waits for 5 s.
const HEALTH_ATTEMPTS: usize = 2;
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);
/// The health check that says whether a node that holds the data can be reached.
const HOLDER_CHECK: &str = "holder";

/// Passes calls on.
pub(crate) struct Relay {
    service: Arc<ClusterService>,
    last: Mutex<LastAnswers>,
}

/// What the order of the nodes goes by.
#[derive(Clone, Copy, Default)]
struct LastAnswers {
    /// The node that answered last.
    good: Option<PeerId>,
    /// The node that did not, if it did not answer since.
    bad: Option<PeerId>,
}

impl Relay {
    pub(crate) fn new(service: Arc<ClusterService>) -> Self {
        Self { service, last: Mutex::default() }
    }

    /// Has a node that holds the data answer a request. When one cannot, another one is asked, if
    /// that can do no harm.
    ///
    /// # Errors
    /// The call's own; `unavailable` when no node can be reached.
    pub(crate) async fn pass_on(&self, request: Request, deadline: Instant) -> Result<Reply> {
        let mut failure = None::<Error>;
        let mut asked = Vec::new();
        while asked.len() < MAX_ATTEMPTS {
            let Some((peer, channel)) = self.next_holder(&request, &asked, deadline).await else {
                break;
            };
            asked.push(peer);
            let has_other = asked.len() < MAX_ATTEMPTS && self.holders().len() > asked.len();
            let error = match send(&channel, request.clone(), deadline, has_other).await {
                Ok(reply) => {
                    self.note_answer(peer);
                    return Ok(reply);
                }
                Err(error) => error,
            };
            if is_of_the_call(&error) {
                self.note_answer(peer);
            } else {
                lock(&self.last).bad = Some(peer);
            }
            let is_final = !may_go_on(&request, &error);
            tracing::debug!(%peer, %error, is_final, "a node does not do what was passed on to it");
            failure = Some(match failure.take() {
                // An earlier attempt may have done it, whatever a later one says of itself.
                Some(unknown)
                    if unknown.code == Code::UnknownOutcome && error.says_nothing_was_done() =>
                {
                    unknown
                }
                _ => error,
            });
            if is_final {
                break;
            }
        }
        Err(failure.unwrap_or_else(no_holder_error))
    }

    fn note_answer(&self, peer: PeerId) {
        let mut last = lock(&self.last);
        last.good = Some(peer);
        last.bad = last.bad.filter(|bad| *bad != peer);
    }

    /// The health of the first node that is well; of the last one asked where none is.
    pub(crate) async fn health(&self) -> HealthResponse {
        let mut known = None;
        for (_, channel) in self.holders_in_turn().into_iter().take(HEALTH_ATTEMPTS) {
            let call = Some(Call::Health(rpc::HealthRequest {}));
            let request = Request { call, ..Request::default() };
            let answer = channel.call(request, HEALTH_TIMEOUT).await;
            if let Ok(Some(response::Result::Health(health))) = answer.map(|answer| answer.result) {
                if health.checks.iter().all(|check| check.ok) {
                    return health;
                }
                known = Some(health);
            }
        }
        known.unwrap_or_else(|| {
            let error = no_holder_error().message;
            let name = HOLDER_CHECK.to_owned();
            let check = HealthCheck { name, ok: false, error, took_us: 0 };
            HealthResponse { checks: vec![check], checked_at: now_ms() }
        })
    }

    /// The node to ask next. Waits for one while none is connected.
    async fn next_holder(
        &self,
        request: &Request,
        asked: &[PeerId],
        deadline: Instant,
    ) -> Option<(PeerId, Channel)> {
        let find = || {
            let holders = match request.call {
                // Messages stay at the node at which they are published.
                Some(Call::Publish(_) | Call::Subscribe(_) | Call::Topics(_)) => self.holders(),
                _ => self.holders_in_turn(),
            };
            holders.into_iter().find(|(peer, _)| !asked.contains(peer))
        };
        if let Some(found) = find() {
            return Some(found);
        }
        if !asked.is_empty() {
            return None;
        }
        let mut changes = self.service.members.changes();
        let until = deadline.min(Instant::now() + WAIT_FOR_NODE);
        let connected = async {
            loop {
                if let Some(found) = find() {
                    return Some(found);
                }
                changes.changed().await.ok()?;
            }
        };
        tokio::time::timeout_at(until.into(), connected).await.ok().flatten()
    }

    /// The connected nodes that hold the data, by peer id: the same order on each relay.
    fn holders(&self) -> Vec<(PeerId, Channel)> {
        let connected = self.service.members.connected();
        let holds = |peer: &PeerId| {
            let node = self.service.state.live_node(peer);
            node.is_some_and(|node| node.role != NodeRole::Relay)
        };
        let holders = connected.iter().filter(|(peer, _)| holds(peer));
        holders.map(|(peer, member)| (*peer, member.channel.clone())).collect()
    }

    /// The same, beginning with the node that answered last, else with the next after this node's
    /// own id, so that relays share the nodes out.
    fn holders_in_turn(&self) -> Vec<(PeerId, Channel)> {
        let (own, last) = (self.service.state.own.peer_id, *lock(&self.last));
        let mut holders = self.holders();
        holders.sort_by_key(|(peer, _)| {
            (last.bad == Some(*peer), last.good != Some(*peer), *peer < own, *peer)
        });
        holders
    }
}

/// Sends a request to a node. It is not waited for until the deadline where another one could answer
/// as well: one that is cut off is connected for a while.
async fn send(
    channel: &Channel,
    request: Request,
    deadline: Instant,
    has_other: bool,
) -> Result<Reply> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        let late = "no answer within the time the caller allowed";
        return Err(Error::new(Code::DeadlineExceeded, late));
    }
    let may_ask_again = !request.may_write() || !request.idempotency_key.is_empty();
    let left = if has_other && may_ask_again { left.min(ATTEMPT_TIME) } else { left };
    if request.opens_stream() {
        let (response, events) = channel.open(request, left).await?;
        return Ok(Reply::Stream(response, Box::pin(events)));
    }
    channel.call(request, left).await.map(Reply::Response)
}

/// Whether the node has looked at the call: another one would say the same.
fn is_of_the_call(error: &Error) -> bool {
    !matches!(
        error.code,
        Code::Unavailable | Code::NotLeader | Code::UnknownOutcome | Code::DeadlineExceeded
    )
}

/// Whether another node is asked after this.
fn may_go_on(request: &Request, error: &Error) -> bool {
    match error.code {
        // A read without an answer.
        Code::DeadlineExceeded => !request.may_write(),
        _ => !is_of_the_call(error) && request.may_repeat_after(error),
    }
}

fn no_holder_error() -> Error {
    Error::new(Code::Unavailable, "no node that holds the data can be reached")
        .retry_after(RETRY_AFTER)
}
