//! A node, a separate gateway and a command line, started for one test.

use crate::support::cli::Cli;
use crate::support::http::Http;
use crate::support::{Gateway, Node};
use debros_client::{Client, Config};
use tempfile::TempDir;

/// A node with its gateway inside, and a gateway of its own beside it.
pub(crate) struct Network {
    pub(crate) node: Node,
    pub(crate) gateway: Gateway,
    // Last, so that it goes when nobody uses it any more.
    pub(crate) folder: TempDir,
}

impl Network {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let node = Node::start(&folder.path().join("node"));
        let gateway = Gateway::start(&node);
        Self { node, gateway, folder }
    }

    /// Every way into a namespace, all with the same key.
    pub(crate) async fn ways(&self, namespace: &str) -> Ways {
        let key = self.node.api_key(namespace);
        Ways {
            inside: Http::new(self.node.address, &key),
            separate: Http::new(self.gateway.address, &key),
            cli: Cli::new(&self.node, &key, self.folder.path()),
            library: self.library(namespace, &key).await,
            key,
        }
    }

    /// A client of the Rust library.
    pub(crate) async fn library(&self, namespace: &str, key: &str) -> Client {
        let config = Config::new(namespace).bootstrap_peer(self.node.peer()).credential(key);
        Client::connect(config).await.expect("a connection to the node")
    }
}

/// The ways into one namespace.
pub(crate) struct Ways {
    /// HTTP to the gateway inside the node.
    pub(crate) inside: Http,
    /// HTTP to the separate gateway, from there P2P.
    pub(crate) separate: Http,
    /// `network-cli`, P2P.
    pub(crate) cli: Cli,
    /// The Rust library, P2P.
    pub(crate) library: Client,
    pub(crate) key: String,
}
