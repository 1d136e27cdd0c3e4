//! Answers of the node that many callers share.

use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// How long an answer is reused: a public question must not be a way to load the node.
const TTL: Duration = Duration::from_secs(1);

/// A value that is fetched again when it is too old. Callers that come meanwhile wait for the same
/// answer.
pub(crate) struct TtlCache<T>(Mutex<Option<(Instant, T)>>);

impl<T> Default for TtlCache<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T: Clone> TtlCache<T> {
    pub(crate) async fn get_or_fetch(&self, ask: impl Future<Output = T>) -> T {
        let mut kept = self.0.lock().await;
        if let Some((at, value)) = &*kept
            && at.elapsed() < TTL
        {
            return value.clone();
        }
        let value = ask.await;
        *kept = Some((Instant::now(), value.clone()));
        value
    }
}
