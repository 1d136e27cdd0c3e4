//! The server that the browser comes back to: on the loopback address, for one answer, proven by a
//! random state.

use super::page;
use crate::cli_error::CliError;
use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use debros_proto::lock;
use serde::Deserialize;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use subtle::ConstantTimeEq as _;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

const PATH: &str = "/callback";
const DONE: &str = "/done";
const START: &str = "/start";
/// How long the browser may take to fetch the last page.
const LAST_PAGE: Duration = Duration::from_secs(3);
/// Longer than any credential.
const MAX_SECRET_BYTES: usize = 512;

/// What the page sends back. The node says what it is worth.
#[derive(Deserialize)]
pub(in crate::network_cli) struct CallbackParams {
    /// A secret.
    pub(in crate::network_cli) api_key: String,
    /// A secret; empty when there is no session.
    #[serde(default)]
    pub(in crate::network_cli) refresh_token: String,
    #[serde(default)]
    state: String,
}

/// The secrets are left out.
impl fmt::Debug for CallbackParams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Given").finish_non_exhaustive()
    }
}

impl CallbackParams {
    /// Whether the values have the form of what they are called.
    fn is_well_formed(&self) -> bool {
        let is_secret = |text: &str| {
            text.len() <= MAX_SECRET_BYTES && text.bytes().all(|byte| byte.is_ascii_graphic())
        };
        !self.api_key.is_empty() && is_secret(&self.api_key) && is_secret(&self.refresh_token)
    }
}

/// A running server.
pub(super) struct CallbackServer {
    address: SocketAddr,
    state: String,
    given: mpsc::Receiver<CallbackParams>,
    done: watch::Receiver<bool>,
    start: Arc<Mutex<Option<String>>>,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

struct CallbackContext {
    state: String,
    given: mpsc::Sender<CallbackParams>,
    done: watch::Sender<bool>,
    /// The page's address, until a request was redirected there.
    start: Arc<Mutex<Option<String>>>,
}

impl CallbackServer {
    /// Listens on a free port of the loopback address.
    pub(super) async fn listen() -> Result<Self, CliError> {
        let mut random = [0_u8; 32];
        getrandom::fill(&mut random)
            .map_err(|error| CliError::new(format!("no randomness: {error}")))?;
        let state: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let failed = |error: std::io::Error| {
            CliError::new(format!("the callback of the sign-in cannot listen: {error}"))
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        // One answer is enough: a second one finds the place taken.
        let (give, given) = mpsc::channel(1);
        let (finish, done) = watch::channel(false);
        let start = Arc::new(Mutex::new(None));
        let shared = Arc::new(CallbackContext {
            state: state.clone(),
            given: give,
            done: finish,
            start: Arc::clone(&start),
        });
        let router = Router::new()
            .route(PATH, get(receive_callback))
            .route(DONE, get(last_page))
            .route(START, get(first_page))
            .fallback(async || page::not_found())
            .method_not_allowed_fallback(async || page::not_found())
            .with_state(shared);
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(async move {
            let serving = axum::serve(listener, router)
                .with_graceful_shutdown(async move { drop(stopped.await) });
            // The command waits for an answer, and reports when none came.
            let _ = serving.await;
        });
        Ok(Self { address, state, given, done, start, stop, server })
    }

    /// Where the browser comes back to.
    pub(super) fn url(&self) -> String {
        format!("http://{}{PATH}", self.address)
    }

    /// The state that the browser has to send.
    pub(super) fn state(&self) -> &str {
        &self.state
    }

    /// An address that redirects the first request to the page, and no other. The page's own
    /// address holds the state, and what a browser is started with can be read by every user of the
    /// machine.
    pub(super) fn set_start_page(&self, page: &str) -> String {
        *lock(&self.start) = Some(page.to_owned());
        format!("http://{}{START}", self.address)
    }

    /// What the page sent; requests without the state are no answer.
    pub(super) async fn wait_for_params(&mut self) -> Option<CallbackParams> {
        self.given.recv().await
    }

    /// Lets the browser show the last page, and ends.
    pub(super) async fn close(mut self) {
        // A browser that never comes for the page holds nothing up for long.
        let _ = tokio::time::timeout(LAST_PAGE, self.done.wait_for(|done| *done)).await;
        // The page may still be on its way.
        let _ = self.stop.send(());
        if tokio::time::timeout(LAST_PAGE, &mut self.server).await.is_err() {
            self.server.abort();
        }
    }
}

async fn first_page(State(shared): State<Arc<CallbackContext>>) -> Response {
    let page = lock(&shared.start).take();
    match page {
        Some(page) => page::with_security_headers(
            (StatusCode::SEE_OTHER, [("location", page)]).into_response(),
        ),
        None => page::not_ours(),
    }
}

async fn receive_callback(
    State(shared): State<Arc<CallbackContext>>,
    query: Result<Query<CallbackParams>, QueryRejection>,
) -> Response {
    let Ok(Query(given)) = query else { return page::not_ours() };
    let is_ours: bool = given.state.as_bytes().ct_eq(shared.state.as_bytes()).into();
    if !is_ours || !given.is_well_formed() || shared.given.try_send(given).is_err() {
        return page::not_ours();
    }
    // On to an address without secrets, so that neither the window nor the history keeps them.
    page::with_security_headers((StatusCode::SEE_OTHER, [("location", DONE)]).into_response())
}

async fn last_page(State(shared): State<Arc<CallbackContext>>) -> Response {
    shared.done.send_replace(true);
    page::signed_in()
}

#[cfg(test)]
mod tests;
