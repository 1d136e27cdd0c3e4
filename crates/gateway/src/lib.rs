//! The HTTP and WebSocket gateway of DeBros Network.
//!
//! A gateway is a client of the network like any other: it holds a [`debros_client::Client`],
//! passes on the calls of its callers together with their credentials, and lets the node decide. It
//! runs as a program of its own, far from the nodes, or inside a node, where the same client calls
//! the node's handler directly. `DESIGN.md` beside this crate says which files a request passes and
//! why they are cut this way.
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

mod access_log;
pub mod answers;
mod api_call;
mod apps;
mod auth;
mod body_reader;
mod caller_scope;
mod conditional;
mod config;
mod connection_info;
mod connection_server;
mod connection_state;
mod connection_table;
mod cors;
mod counted_stream;
mod credential_proof;
mod credential_resolver;
mod database;
mod docs;
mod error;
mod fair_budget;
mod frame_tracker;
mod gateway;
mod gateway_state;
mod health;
mod http2_frames;
mod http2_unread;
mod http_conformance;
mod http_settings;
mod idempotency;
mod json_body;
mod listen;
mod members;
mod metrics;
mod namespaces;
mod network;
mod node_health;
mod openapi;
mod public_call;
mod public_origin;
mod pubsub;
mod query_params;
mod request_body;
mod request_cost;
mod request_id;
mod request_pipeline;
mod respond;
mod response_body;
mod router;
mod shared_websocket;
mod sign_in_limits;
mod sql_body;
mod storage;
mod tls;
mod ttl_cache;
mod watched_stream;
mod websocket;
mod websocket_session;

pub use config::{GatewayBuildInfo, GatewayConfig, GatewayLimits, GatewayStartError, TlsFiles};
pub use gateway::Gateway;
pub use openapi::document as openapi_document;
