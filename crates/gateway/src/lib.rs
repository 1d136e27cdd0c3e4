//! The HTTP and WebSocket front to DeBros Network.
//!
//! A gateway is a client of the network like any other: it holds a [`debros_client::Client`], passes on what its callers
//! ask for together with their credentials, and lets the node decide. It runs as a program of its own, far from the
//! nodes, or inside a node, where the same client calls the node's handler directly. `DESIGN.md` beside this crate says
//! which files a request passes and why they are cut this way.
//!
//! ```no_run
//! use debros_client::{Client, Config};
//! use debros_gateway::{Gateway, GatewayConfig};
//! use std::time::{Duration, Instant};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let node = "/ip4/127.0.0.1/tcp/4001/p2p/12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp";
//! let client = Client::connect_in_background(Config::new("").bootstrap_peer(node)).await?;
//! let gateway = Gateway::start(GatewayConfig::new("127.0.0.1:0"), client, None).await?;
//! println!("http://{}", gateway.address());
//! gateway.shutdown(Instant::now() + Duration::from_secs(10)).await;
//! # Ok(())
//! # }
//! ```

mod access;
mod answer_body;
pub mod answers;
mod apps;
mod auth;
mod body;
mod call;
mod caller_scope;
mod conditional;
mod config;
mod connection;
mod connection_state;
mod connection_table;
mod cors;
mod counted_stream;
mod credential;
mod credential_proof;
mod database;
mod docs;
mod error;
mod fair_budget;
mod frame_border;
mod front;
mod health;
mod http2_frames;
mod http2_unread;
mod http_settings;
mod idempotency;
mod json_body;
mod kept;
mod listen;
mod members;
mod metrics;
mod namespaces;
mod network;
mod node_health;
mod openapi;
mod protocol;
mod public_call;
mod pubsub;
mod query;
mod rate;
mod request_body;
mod request_cost;
mod request_id;
mod respond;
mod router;
mod serve;
mod server;
mod session;
mod shared;
mod shared_websocket;
mod site;
mod storage;
mod tls;
mod watched_stream;
mod websocket;

pub use config::{BuildInfo, GatewayConfig, Limits, StartError, TlsFiles};
pub use openapi::document as openapi_document;
pub use server::Gateway;
