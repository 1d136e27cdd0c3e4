//! Honest health: a real write, a real read and a real publish, never a constant.

use crate::pubsub::TopicHub;
use debros_engine::{CallOptions, CallerKey, Engine};
use debros_proto::limits::NAMESPACES_CHECK;
use debros_proto::rpc::{Condition, Consistency, HealthCheck, HealthResponse, event};
use debros_proto::{Error, Key, Namespace, Result, Topic, now_ms};
use futures::StreamExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// A report is cached for this long: the call is public, and a probe writes.
const REPORT_TTL: Duration = Duration::from_secs(2);
/// A probe that takes longer has failed.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// Probes the node and caches the outcome.
#[derive(Default)]
pub(crate) struct HealthProbe {
    /// Locked while probing, so that many calls at a time cause one probe.
    last: Mutex<Option<(Instant, HealthResponse)>>,
}

impl HealthProbe {
    pub(crate) async fn report(&self, engine: &dyn Engine, hub: &Arc<TopicHub>) -> HealthResponse {
        let mut last = self.last.lock().await;
        if let Some((at, report)) = &*last
            && at.elapsed() < REPORT_TTL
        {
            return report.clone();
        }
        let token = now_ms().to_string();
        let mut checks = vec![
            run_check("database_write", probe_write(engine, &token)).await,
            run_check("database_read", probe_read(engine)).await,
            run_check("pubsub", probe_publish(hub, &token)).await,
        ];
        checks.extend(lost_namespaces_check(engine));
        let before = last.as_ref().map_or(&[][..], |(_, report)| &report.checks);
        for check in changed_checks(before, &checks) {
            if check.ok {
                tracing::info!(check = check.name, "the health check succeeds again");
            } else {
                tracing::warn!(check = check.name, error = check.error, "the health check fails");
            }
        }
        let report = HealthResponse { checks, checked_at: now_ms() };
        *last = Some((Instant::now(), report.clone()));
        report
    }
}

/// The checks whose outcome changed since the last time. Monitoring calls every few seconds, and
/// the log says once what an outage is, and once that it is over.
fn changed_checks<'now>(
    before: &[HealthCheck],
    now: &'now [HealthCheck],
) -> impl Iterator<Item = &'now HealthCheck> {
    let was_ok =
        |name: &str| before.iter().find(|check| check.name == name).is_none_or(|check| check.ok);
    now.iter().filter(move |check| check.ok != was_ok(&check.name))
}

async fn run_check(name: &str, probe: impl Future<Output = Result<()>>) -> HealthCheck {
    let began = Instant::now();
    let outcome = match tokio::time::timeout(PROBE_TIMEOUT, probe).await {
        Ok(outcome) => outcome.map_err(|error| error.message),
        Err(_) => Err(format!("no answer within {} s", PROBE_TIMEOUT.as_secs())),
    };
    HealthCheck {
        name: name.to_owned(),
        ok: outcome.is_ok(),
        error: outcome.err().unwrap_or_default(),
        took_us: u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX),
    }
}

/// What says that namespaces' databases were lost. Their names are only in the log, because health
/// is public.
fn lost_namespaces_check(engine: &dyn Engine) -> Option<HealthCheck> {
    let count = engine.lost_namespaces().len();
    let what = if count == 1 {
        "the database of 1 namespace is".to_owned()
    } else {
        format!("the databases of {count} namespaces are")
    };
    (count > 0).then(|| HealthCheck {
        name: NAMESPACES_CHECK.to_owned(),
        ok: false,
        error: format!("{what} missing or replaced; the node's log has the names"),
        took_us: 0,
    })
}

async fn probe_write(engine: &dyn Engine, token: &str) -> Result<()> {
    let value = token.as_bytes().to_vec().into();
    engine
        .kv_put(
            &Namespace::internal(),
            &probe_key()?,
            value,
            Condition::default(),
            None,
            probe_options(),
        )
        .await
        .map(|_| ())
}

/// A node that cannot write still has to say truly whether it can read: any outcome but an error is
/// fine.
async fn probe_read(engine: &dyn Engine) -> Result<()> {
    engine.kv_get(&Namespace::internal(), &probe_key()?, probe_options()).await.map(|_| ())
}

async fn probe_publish(hub: &Arc<TopicHub>, token: &str) -> Result<()> {
    let topic = Topic::new("health")?;
    let mut subscription = hub.subscribe(Namespace::internal(), topic.clone())?;
    hub.publish(&Namespace::internal(), &topic, token.as_bytes().to_vec().into()).await;
    match subscription.next().await {
        Some(Ok(event)) => match event.kind {
            Some(event::Kind::Message(message)) if message.data == token.as_bytes() => Ok(()),
            _ => Err(Error::internal("another message came back than was published")),
        },
        Some(Err(error)) => Err(error),
        None => Err(Error::internal("the subscription ended")),
    }
}

fn probe_key() -> Result<Key> {
    Key::new("health")
}

fn probe_options() -> CallOptions {
    let deadline = Instant::now() + PROBE_TIMEOUT;
    CallOptions {
        consistency: Consistency::Weak,
        deadline,
        idempotency_key: None,
        caller: CallerKey::default(),
        read_only: false,
    }
}

#[cfg(test)]
mod tests {
    use super::{HealthCheck, changed_checks};

    fn checks(outcomes: [bool; 2]) -> Vec<HealthCheck> {
        let of = |(name, ok): (&str, bool)| HealthCheck {
            name: name.to_owned(),
            ok,
            ..HealthCheck::default()
        };
        ["write", "read"].into_iter().zip(outcomes).map(of).collect()
    }

    fn reported(before: &[HealthCheck], now: &[HealthCheck]) -> Vec<(String, bool)> {
        changed_checks(before, now).map(|check| (check.name.clone(), check.ok)).collect()
    }

    #[test]
    fn an_outage_is_told_when_it_begins_and_when_it_ends() {
        let (well, ill) = (checks([true, true]), checks([false, true]));
        assert_eq!(reported(&[], &well), []);
        assert_eq!(reported(&[], &ill), [("write".to_owned(), false)], "failing from the start");
        assert_eq!(reported(&well, &ill), [("write".to_owned(), false)]);
        assert_eq!(reported(&ill, &ill), []);
        assert_eq!(reported(&ill, &checks([false, false])), [("read".to_owned(), false)]);
        assert_eq!(reported(&ill, &well), [("write".to_owned(), true)]);
        assert_eq!(reported(&well, &well), []);
    }
}
