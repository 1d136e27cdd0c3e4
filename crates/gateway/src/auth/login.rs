//! `/v1/auth/login`: the page on which a browser's wallet signs in, and its files.
//!
//! No input of a caller goes into the page: it is the same bytes for everyone, and its script reads
//! the address itself. Forbidden links are refused here, before there is a page.

use crate::error::{ApiError, HandlerResult};
use crate::gateway_state::GatewayState;
use crate::public_call;
use crate::query_params::QueryParams;
use crate::respond::response_with_type;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use debros_proto::{Code, Namespace};
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use http::{HeaderValue, StatusCode};
use std::sync::Arc;

const LOGIN_PAGE: &str = include_str!("login/page.html");
const REFUSED_PAGE: &str = include_str!("login/refused.html");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const SCRIPT: HeaderValue = HeaderValue::from_static("text/javascript; charset=utf-8");
const STYLE: HeaderValue = HeaderValue::from_static("text/css; charset=utf-8");

/// The page's own files, and calls to this gateway. Wallets provide their icons as `data:` images
/// (EIP-6963).
const CONTENT_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; \
     frame-ancestors 'none'; form-action 'none'",
);

/// Characters of `state`.
const MAX_STATE: usize = 200;
const MAX_CALLBACK: usize = 2000;

/// Why a link to the page is refused. Its reason is a text for the person who followed the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LinkRefusal {
    Query,
    Callback,
    State,
    Namespace,
    UnknownAddress,
}

impl LinkRefusal {
    const fn reason(self) -> &'static str {
        match self {
            Self::Query => {
                "Its address holds something that this page does not know. It takes callback, state and namespace, each once."
            }
            Self::Callback => {
                "It would send your key to somewhere else than a program on this computer. A callback has to be \
                 http://127.0.0.1, http://localhost or http://[::1], with a port."
            }
            Self::State => {
                "Its state is missing or is not 1 to 200 of A–Z, a–z, 0–9, _ and -. Without it the program could not tell \
                 that the answer belongs to its question."
            }
            Self::Namespace => {
                "It names something that is not a namespace: 1 to 63 of a–z, 0–9, _ and -, starting with a letter or digit."
            }
            Self::UnknownAddress => {
                "The gateway does not know this address to be its own, so nobody can sign in here. Its operator has to set \
                 gateway.public_url (GATEWAY_PUBLIC_URL)."
            }
        }
    }
}

/// Opens the page that signs in with the browser's wallet.
///
/// It returns to `callback` with `api_key`, `refresh_token`, `namespace`, `wallet`, `plan`,
/// `expires_at` (of the access token) and `state`. Without a callback it shows the API key.
#[utoipa::path(
    get, path = "/v1/auth/login", tag = "auth", operation_id = "auth_login", security(()),
    params(
        ("callback" = Option<String>, Query, description = "`http://127.0.0.1`, `http://localhost` or `http://[::1]`, with a port; nothing else."),
        ("state" = Option<String>, Query, description = "With a callback: 1 to 200 of A-Z, a-z, 0-9, _ and -, given back to it."),
        ("namespace" = Option<String>, Query, description = "Missing: the person chooses."),
    ),
    responses(
        (status = 200, body = String, content_type = "text/html"),
        (status = 400, description = "The link asks for something that is not allowed.", body = String, content_type = "text/html"),
    ),
)]
pub(crate) async fn page(
    State(shared): State<Arc<GatewayState>>,
    request: Request,
) -> HandlerResult {
    let (parts, _) = request.into_parts();
    let refusal = check_link(parts.uri.query()).err();
    let refusal = refusal.or_else(|| {
        public_call::sign_in_origin(&shared, &parts).err().map(|_| LinkRefusal::UnknownAddress)
    });
    Ok(match refusal {
        None => page_response(StatusCode::OK, HTML, Body::from(LOGIN_PAGE)),
        Some(refusal) => {
            // A text of this program, never the caller's.
            let page = REFUSED_PAGE.replace("{reason}", refusal.reason());
            page_response(StatusCode::BAD_REQUEST, HTML, Body::from(page))
        }
    })
}

/// `GET /v1/auth/login/{file}`.
pub(crate) async fn file(Path(name): Path<String>) -> HandlerResult {
    let (content_type, text) = match name.as_str() {
        "page.css" => (STYLE, include_str!("login/page.css")),
        "page.js" => (SCRIPT, include_str!("login/page.js")),
        "wallets.js" => (SCRIPT, include_str!("login/wallets.js")),
        "gateway.js" => (SCRIPT, include_str!("login/gateway.js")),
        "failure.js" => (SCRIPT, include_str!("login/failure.js")),
        _ => return Err(ApiError::new(Code::NotFound, "the sign-in page has no such file")),
    };
    Ok(page_response(StatusCode::OK, content_type, Body::from(text)))
}

fn page_response(status: StatusCode, content_type: HeaderValue, body: Body) -> Response {
    let mut response = response_with_type(status, content_type, body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, CONTENT_POLICY);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Checks what a link asks for.
fn check_link(query: Option<&str>) -> Result<(), LinkRefusal> {
    let mut query = QueryParams::parse(query).map_err(|_| LinkRefusal::Query)?;
    let [callback, state, namespace] =
        query.take_only(["callback", "state", "namespace"]).map_err(|_| LinkRefusal::Query)?;
    if callback.as_deref().is_some_and(|callback| !is_loopback_callback(callback)) {
        return Err(LinkRefusal::Callback);
    }
    match (&callback, &state) {
        (None, None) => {}
        (Some(_), Some(state)) if is_valid_state(state) => {}
        _ => return Err(LinkRefusal::State),
    }
    // Empty means the same as missing, because forms send it so.
    if namespace
        .is_some_and(|namespace| !namespace.is_empty() && Namespace::new(&namespace).is_err())
    {
        return Err(LinkRefusal::Namespace);
    }
    Ok(())
}

fn is_valid_state(state: &str) -> bool {
    (1..=MAX_STATE).contains(&state.len())
        && state.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// Whether a callback leads to a program on the browser's own machine. The check compares
/// characters instead of parsing, so that a text which two parsers read differently is refused.
fn is_loopback_callback(callback: &str) -> bool {
    let Some(rest) = callback.strip_prefix("http://") else { return false };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let Some((host, port)) = authority.rsplit_once(':') else { return false };
    let port_fits = (1..=5).contains(&port.len())
        && port.bytes().all(|byte| byte.is_ascii_digit())
        && port.parse::<u16>().is_ok_and(|port| port > 0);
    // The characters of RFC 3986, without the quotes, brackets and backslashes that it excludes,
    // and without a fragment.
    let in_path = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&()*+,;=:@/?%".contains(&byte);
    callback.len() <= MAX_CALLBACK
        && matches!(host, "127.0.0.1" | "localhost" | "[::1]")
        && port_fits
        && path.bytes().all(in_path)
}

#[cfg(test)]
mod tests {
    use super::{LinkRefusal, check_link, is_loopback_callback};

    /// Lesson 8: `callback` could be any address, and got the API key.
    #[test]
    fn lesson_08_only_programs_on_this_machine_are_called_back() {
        for good in [
            "http://127.0.0.1:8765/callback",
            "http://localhost:1",
            "http://[::1]:65535/a/b?c=d&e=%20f",
            "http://localhost:8080?x",
        ] {
            assert!(is_loopback_callback(good), "{good}");
        }
        for bad in [
            "https://evil.example",
            "http://evil.example:80/",
            "//evil.example",
            "http://127.0.0.1",
            "http://127.0.0.1/",
            "http://127.0.0.1:0/",
            "http://127.0.0.1:99999/",
            "http://127.0.0.1:80a/",
            "http://127.0.0.1:+80/",
            "http://127.0.0.1:/",
            "http://127.0.0.1:80@evil.example/",
            "http://user@127.0.0.1:80/",
            "http://user:127.0.0.1:80/",
            "http://127.0.0.1:80.evil.example/",
            "http://127.0.0.1.evil.example:80/",
            "http://localhost.evil.example:80/",
            "http://evil.example\\@127.0.0.1:80/",
            "http://127.0.0.1:80\\.evil.example/",
            "http://127.0.0.1:80/#fragment",
            "http://127.0.0.1:80/\u{0}",
            "http://127.0.0.1:80/\r\nSet-Cookie: a=b",
            "http://127.0.0.1:80/é",
            "http://127.0.0.1:80/'\"><script>",
            "http://127.0.0.2:80/",
            "http://2130706433:80/",
            "http://0x7f.1:80/",
            "http://[::ffff:127.0.0.1]:80/",
            "http://0.0.0.0:80/",
            "HTTP://127.0.0.1:80/",
            " http://127.0.0.1:80/",
            "https://127.0.0.1:80/",
            "javascript:alert(1)//127.0.0.1:80/",
            "data:text/html,x",
            "file:///etc/passwd",
            "http://%31%32%37.0.0.1:80/",
            "',alert(1)//",
            "",
        ] {
            assert!(!is_loopback_callback(bad), "{bad}");
        }
        assert!(!is_loopback_callback(&format!("http://127.0.0.1:80/{}", "a".repeat(2000))));
    }

    /// Lesson 8: there was no `state`, so any page could feed the program a key of its own.
    #[test]
    fn lesson_08_a_callback_needs_a_state() {
        let callback = "callback=http%3A%2F%2F127.0.0.1%3A80%2F";
        assert_eq!(check_link(Some(&format!("{callback}&state=aB9_-"))), Ok(()));
        let long = "a".repeat(201);
        for bad in [
            "",
            "&state=",
            "&state=a%20b",
            "&state=%3Cscript%3E",
            "&state=a%22",
            &format!("&state={long}"),
        ] {
            assert_eq!(
                check_link(Some(&format!("{callback}{bad}"))),
                Err(LinkRefusal::State),
                "{bad}"
            );
        }
        assert_eq!(check_link(Some("state=abc")), Err(LinkRefusal::State));
        assert_eq!(
            check_link(Some(&format!("{callback}&state=a&state=b"))),
            Err(LinkRefusal::Query)
        );
    }

    #[test]
    fn lesson_08_namespaces_and_other_parameters_are_checked() {
        assert_eq!(check_link(None), Ok(()));
        assert_eq!(check_link(Some("namespace=my-app")), Ok(()));
        assert_eq!(check_link(Some("namespace=")), Ok(()));
        for bad in
            ["namespace=A", "namespace=%3Cimg%20src%3Dx%3E", "namespace=a%3Ab", "namespace=..%2F"]
        {
            assert_eq!(check_link(Some(bad)), Err(LinkRefusal::Namespace), "{bad}");
        }
        for bad in ["key=a", "x=1", "callback=%ff", "token=abc"] {
            assert_eq!(check_link(Some(bad)), Err(LinkRefusal::Query), "{bad}");
        }
    }
}
