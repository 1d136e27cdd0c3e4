//! What the browser shows after the sign-in. Nothing in these pages comes from the request.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse as _, Response};

/// No scripts, no other resources, no frames; nothing of the address is passed on or kept.
const HEADERS: [(HeaderName, &str); 5] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (header::CONNECTION, "close"),
];

/// The end of a sign-in that went well.
pub(super) fn signed_in() -> Response {
    render_page(StatusCode::OK, "Signed in", "The command line goes on. You can close this window.")
}

/// The answer to what this sign-in did not ask for.
pub(super) fn not_ours() -> Response {
    render_page(
        StatusCode::BAD_REQUEST,
        "This is not the sign-in that was asked for",
        "Nothing was taken over. Go back to the terminal and open the page whose address stands there.",
    )
}

/// There is nothing else here.
pub(super) fn not_found() -> Response {
    render_page(StatusCode::NOT_FOUND, "There is nothing here", "You can close this window.")
}

/// Adds what every answer carries.
pub(super) fn with_security_headers(mut response: Response) -> Response {
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn render_page(status: StatusCode, title: &str, text: &str) -> Response {
    let html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title} · DeBros Network</title>\n\
         <style>:root{{color-scheme:light dark}}body{{font:1.1rem/1.5 system-ui,sans-serif;max-width:34rem;margin:15vh auto;\
         padding:0 1.5rem}}</style>\n\
         <main>\n<h1>{title}</h1>\n<p role=\"status\">{text}</p>\n</main>\n</html>\n"
    );
    with_security_headers((status, Html(html)).into_response())
}
