//! The gateway over real sockets, with a node in memory behind it. One program, because each costs
//! a link.

mod callers;
mod database;
mod fake_auth;
mod fake_node;
mod faults;
mod full_node;
mod health;
mod held;
mod http2_held;
mod http_client;
mod login_page;
mod namespaces;
mod network_and_apps;
mod places;
mod protocol;
mod pubsub;
mod requests;
mod setup;
mod shutdown;
mod sign_in;
mod sign_in_full;
mod sign_in_limits;
mod storage;
mod tls;
mod websocket_client;
mod websocket_faults;
