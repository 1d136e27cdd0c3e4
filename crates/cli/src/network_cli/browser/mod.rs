//! Sign-in in the browser: the gateway's page asks the wallet, and sends what it got back to a
//! server on this machine that lives for this one answer.

mod callback;
mod page;

pub(super) use callback::CallbackParams;

use super::output::print_note;
use crate::cli_error::CliError;
use callback::CallbackServer;
use debros_client::Namespace;
use std::fmt::Write as _;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// How long the sign-in may take.
const TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// Opens the gateway's page and waits for what it sends back.
///
/// # Errors
/// When nothing came in time, or the callback cannot be served.
pub(super) async fn sign_in(
    gateway: &str,
    namespace: &Namespace,
    open: bool,
) -> Result<CallbackParams, CliError> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut callback = CallbackServer::listen().await?;
    let url = page_url(gateway, namespace, &callback);
    print_note(&format!("To sign in, open this page in the browser with the wallet:\n\n  {url}\n"));
    if open {
        open_browser(callback.set_start_page(&url));
    }
    let given = tokio::select! {
        given = callback.wait_for_params() => given,
        () = tokio::time::sleep(TIMEOUT) => None,
        _ = interrupt.recv() => return Err(CliError::no_credential("the sign-in was broken off")),
    };
    let given = given.ok_or_else(|| {
        CliError::no_credential("nobody signed in within 5 minutes")
            .with_hint("run the command again, and sign sooner")
    });
    callback.close().await;
    given
}

fn page_url(gateway: &str, namespace: &Namespace, callback: &CallbackServer) -> String {
    let mut url = format!("{gateway}/v1/auth/login?callback=");
    // Everything but the callback is made of characters that need no escape.
    for byte in callback.url().bytes() {
        let written = match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' => {
                write!(url, "{}", char::from(byte))
            }
            _ => write!(url, "%{byte:02X}"),
        };
        // Writing to a String cannot fail.
        let _ = written;
    }
    format!("{url}&state={}&namespace={namespace}", callback.state())
}

/// On a thread of its own that nobody waits for: some browsers do not return before they are
/// closed.
fn open_browser(url: String) {
    std::thread::spawn(move || {
        if let Err(error) = webbrowser::open(&url) {
            print_note(&format!("no browser could be opened ({error}); open the page by hand"));
        }
    });
}
