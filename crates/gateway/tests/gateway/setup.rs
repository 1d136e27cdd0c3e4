//! A gateway to test, in one line.

use crate::fake_node::FakeNode;
use crate::http_client::{Answer, Http};
use debros_gateway::{Gateway, GatewayConfig};
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A good key of the namespace `one`.
pub(crate) const KEY: (&str, &str) = ("Authorization", "Bearer ak_good:one");

/// The operator's credential.
pub(crate) const OPERATOR: (&str, &str) = ("Authorization", "Bearer op_good");

/// A gateway with its node.
pub(crate) struct Running {
    pub(crate) gateway: Gateway,
    pub(crate) node: Arc<FakeNode>,
}

/// With the defaults.
pub(crate) async fn start() -> Running {
    start_with(|_| {}).await
}

pub(crate) async fn start_with(change: impl FnOnce(&mut GatewayConfig)) -> Running {
    let node = FakeNode::new();
    let gateway = Gateway::start(config(change), node.client(), None).await.unwrap();
    Running { gateway, node }
}

pub(crate) fn config(change: impl FnOnce(&mut GatewayConfig)) -> GatewayConfig {
    let mut config = GatewayConfig::new("127.0.0.1:0");
    config.build.version = "0.1.0".into();
    change(&mut config);
    config
}

impl Running {
    pub(crate) fn address(&self) -> SocketAddr {
        self.gateway.address()
    }

    pub(crate) async fn connect(&self) -> Http {
        Http::connect(self.address()).await
    }

    /// One request on a connection of its own.
    pub(crate) async fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl AsRef<[u8]>,
    ) -> Answer {
        self.connect().await.request(method, path, headers, body.as_ref()).await
    }

    /// As the holder of a good key.
    pub(crate) async fn call(&self, method: &str, path: &str, body: impl AsRef<[u8]>) -> Answer {
        self.request(method, path, &[KEY], body).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, "").await
    }

    pub(crate) async fn post(&self, path: &str, body: impl AsRef<[u8]>) -> Answer {
        self.call("POST", path, body).await
    }
}

impl Deref for Running {
    type Target = Gateway;
    fn deref(&self) -> &Gateway {
        &self.gateway
    }
}

/// Long enough for any machine; nothing waits for it unless it fails.
pub(crate) fn patience() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// Waits until something holds.
#[track_caller]
pub(crate) fn until(
    what: &'static str,
    mut holds: impl FnMut() -> bool,
) -> impl Future<Output = ()> {
    let deadline = patience();
    async move {
        while !holds() {
            assert!(Instant::now() < deadline, "it never came to be: {what}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}
