//! Tests of the callback, as a browser and as others on the machine reach it.

use super::super::page_url;
use super::CallbackServer;
use debros_client::Namespace;
use reqwest::{Client, Method, Response, redirect};

const HOSTILE: &str = "%22%3E%3Cscript%3Ealert(1)%3C/script%3E";

fn browser() -> Client {
    Client::builder().no_proxy().redirect(redirect::Policy::none()).build().unwrap()
}

async fn get(callback: &CallbackServer, query: &str) -> Response {
    browser().get(format!("{}?{query}", callback.url())).send().await.unwrap()
}

/// Every page: no script, no other resource, nothing kept, nothing of the request.
#[track_caller]
fn is_guarded(answer: &Response) {
    let header = |name: &str| answer.headers()[name].to_str().unwrap();
    assert!(header("content-security-policy").starts_with("default-src 'none'"));
    assert_eq!(
        (header("cache-control"), header("referrer-policy"), header("x-content-type-options")),
        ("no-store", "no-referrer", "nosniff")
    );
}

/// Lesson 8: the callback had no state, and wrote what it was sent into its page.
#[tokio::test]
async fn lesson_08_only_the_state_of_this_sign_in_is_an_answer_and_nothing_is_reflected() {
    let mut callback = CallbackServer::listen().await.unwrap();
    let state = callback.state().to_owned();
    assert_eq!(state.len(), 64);
    let wrong = "0".repeat(64);
    for query in [
        String::new(),
        "api_key=ak_x%3Adefault".into(),
        "api_key=ak_x%3Adefault&state=".into(),
        format!("api_key=ak_x%3Adefault&state={wrong}"),
        format!("api_key=ak_x%3Adefault&state={}", &state[..63]),
        format!("api_key={HOSTILE}&state={HOSTILE}"),
        // The right state with values that are no credentials.
        format!("api_key=&state={state}"),
        format!("api_key=a%0Ab&state={state}"),
        format!("api_key=a%20b{HOSTILE}&state={state}"),
        format!("api_key=ak_x%3Adefault&refresh_token=%00&state={state}"),
        format!("api_key={}&state={state}", "x".repeat(600)),
    ] {
        let answer = get(&callback, &query).await;
        assert_eq!(answer.status(), 400, "{query}");
        is_guarded(&answer);
        let page = answer.text().await.unwrap();
        assert!(
            !page.contains("alert(1)") && !page.contains("ak_x") && !page.contains(&wrong),
            "{page}"
        );
    }
    assert!(callback.given.try_recv().is_err(), "none of them was an answer");

    let right = format!(
        "api_key=ak_x%3Adefault&refresh_token=rt_y&namespace={HOSTILE}&wallet={HOSTILE}&state={state}"
    );
    let answer = get(&callback, &right).await;
    assert_eq!(answer.status(), 303);
    is_guarded(&answer);
    assert_eq!(answer.headers()["location"], "/done", "the address without secrets");
    assert!(answer.text().await.unwrap().is_empty());
    let given = callback.wait_for_params().await.unwrap();
    assert_eq!((given.api_key.as_str(), given.refresh_token.as_str()), ("ak_x:default", "rt_y"));
    assert!(!format!("{given:?}").contains("ak_x"));
}

#[tokio::test]
async fn the_last_page_is_shown_before_the_server_ends() {
    let mut callback = CallbackServer::listen().await.unwrap();
    let url = callback.url();
    let right = format!("{url}?api_key=ak_x%3Adefault&state={}", callback.state());
    let browser = Client::builder().no_proxy().build().unwrap();
    let shown =
        tokio::spawn(async move { browser.get(right).send().await.unwrap().text().await.unwrap() });
    callback.wait_for_params().await.unwrap();
    callback.close().await;
    let page = shown.await.unwrap();
    assert!(
        page.contains("You can close this window")
            && page.contains("lang=\"en\"")
            && !page.contains("ak_x"),
        "{page}"
    );
    assert!(self::browser().get(url).send().await.is_err(), "nobody listens any more");
}

/// The page's address holds the state, and a process's arguments are no secret.
#[tokio::test]
async fn a_browser_is_started_with_an_address_without_secrets_that_works_once() {
    let callback = CallbackServer::listen().await.unwrap();
    let page = format!("http://127.0.0.1:1/v1/auth/login?state={}", callback.state());
    let start = callback.set_start_page(&page);
    assert!(!start.contains(callback.state()), "{start}");
    let first = browser().get(&start).send().await.unwrap();
    assert_eq!(
        (first.status().as_u16(), first.headers()["location"].to_str().unwrap()),
        (303, page.as_str())
    );
    is_guarded(&first);
    let second = browser().get(&start).send().await.unwrap();
    assert_eq!(second.status(), 400);
    assert!(!second.text().await.unwrap().contains(callback.state()));
}

#[tokio::test]
async fn other_paths_and_methods_are_no_answer() {
    let mut callback = CallbackServer::listen().await.unwrap();
    let query = format!("api_key=ak_x%3Adefault&state={}", callback.state());
    for path in ["/", "/callback/", "/other", "/callback%2F.."] {
        let url = format!("http://{}{path}?{query}", callback.address);
        let answer = browser().get(url).send().await.unwrap();
        assert_eq!(answer.status(), 404, "{path}");
        is_guarded(&answer);
    }
    for method in [Method::POST, Method::PUT, Method::OPTIONS] {
        let answer =
            browser().request(method, format!("{}?{query}", callback.url())).send().await.unwrap();
        assert_eq!(answer.status(), 404);
        is_guarded(&answer);
    }
    assert!(callback.given.try_recv().is_err());
    assert!(callback.address.ip().is_loopback());
}

#[tokio::test]
async fn the_address_of_the_page_carries_callback_state_and_namespace() {
    let callback = CallbackServer::listen().await.unwrap();
    let url = page_url("https://api.example.org", &Namespace::new("shop").unwrap(), &callback);
    let port = callback.address.port();
    let state = callback.state();
    assert_eq!(
        url,
        format!(
            "https://api.example.org/v1/auth/login?callback=http%3A%2F%2F127.0.0.1%3A{port}%2Fcallback&state={state}&namespace=shop"
        )
    );
}
