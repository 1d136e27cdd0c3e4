//! `auth login` in the browser. The test does what the page and the wallet in it do; the page
//! itself is tested with the gateway.

use crate::support::http::Http;
use crate::support::person::Person;
use crate::support::terminal::OnTerminal;
use crate::support::wallet::Wallet;
use crate::support::{Node, PATIENCE, Program, text_of};
use reqwest::redirect::Policy;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt as _;
use tempfile::TempDir;

struct Scene {
    node: Node,
    person: Person,
    http: Http,
    wallet: Wallet,
    // Last, so that it goes when nobody uses it any more.
    folder: TempDir,
}

impl Scene {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let node = Node::start(&folder.path().join("node"));
        let person = Person::new(&folder.path().join("home"), &node.peer());
        let http = Http::new(node.address, "");
        Self { node, person, http, wallet: Wallet::numbered(1), folder }
    }

    fn gateway(&self) -> String {
        format!("http://{}", self.node.address)
    }

    /// What the page has when the wallet has signed: a key and a session.
    async fn signs(&self, namespace: &str) -> [String; 2] {
        let session = self.wallet.verify(&self.http, namespace).await.ok().json();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let with_token = self.http.with_key(&text(&session["access_token"]));
        let key =
            with_token.post("/v1/auth/api-key", &json!({ "name": "login" })).await.ok().json();
        [text(&key["api_key"]), text(&session["refresh_token"])]
    }
}

/// The page that a command asks to open: its address and what stands in it.
fn page(login: &mut Program) -> (String, HashMap<String, String>) {
    loop {
        let output = login.output();
        if let Some(page) = page_in(&output) {
            return page;
        }
        assert!(login.is_running(), "{output}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// The page whose address stands in a text.
fn page_in(text: &str) -> Option<(String, HashMap<String, String>)> {
    let line = text.lines().find(|line| line.contains("/v1/auth/login?"))?;
    let url = reqwest::Url::parse(line.trim()).unwrap();
    Some((url.to_string(), url.query_pairs().into_owned().collect()))
}

fn browser() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().redirect(Policy::limited(3)).build().unwrap()
}

#[tokio::test]
async fn the_command_goes_on_when_the_page_comes_back_with_its_state() {
    let scene = Scene::start();
    let person = &scene.person;
    let mut login = person.start(&[
        "auth",
        "login",
        "--no-browser",
        "-n",
        "shop",
        "--gateway",
        &scene.gateway(),
    ]);
    let (url, query) = page(&mut login);
    assert!(url.starts_with(&scene.gateway()) && query["namespace"] == "shop", "{url}");
    let shown = browser().get(&url).send().await.unwrap();
    assert_eq!(shown.status(), 200, "the gateway shows its page for such an address");

    let [key, refresh_token] = scene.signs("shop").await;
    let back = |state: &str| {
        let answer = [
            ("api_key", key.as_str()),
            ("refresh_token", &refresh_token),
            ("state", state),
            ("namespace", "shop"),
        ];
        browser().get(&query["callback"]).query(&answer).send()
    };
    assert_eq!(back("another").await.unwrap().status(), 400);
    assert!(login.is_running(), "a request without the state changes nothing");
    let last = back(&query["state"]).await.unwrap();
    assert_eq!((last.status().as_u16(), last.url().path()), (200, "/done"));
    assert!(last.text().await.unwrap().contains("You can close this window"));
    assert!(login.wait(PATIENCE).unwrap().success(), "{}", login.output());
    let output = login.output();
    assert!(
        output.contains(&scene.wallet.address)
            && !output.contains(&key)
            && !output.contains(&refresh_token),
        "{output}"
    );

    let stored = person.json(&["auth", "wallets"]);
    assert_eq!(
        (&stored["items"][0]["wallet"], &stored["items"][0]["namespace"]),
        (&json!(scene.wallet.address), &json!("shop"))
    );
    assert_eq!(person.json(&["auth", "whoami"])["method"], "api_key");
    // The session manages what the key may not.
    assert_eq!(person.json(&["auth", "keys", "list"])["items"].as_array().unwrap().len(), 1);
    // Signing out revokes the key that came with the sign-in.
    assert_eq!(person.json(&["auth", "logout"])["revoked"], json!(1));
    crate::sign_in::until_refused(person, &key);
}

#[tokio::test]
async fn a_key_that_the_node_does_not_know_is_not_stored() {
    let scene = Scene::start();
    let mut login =
        scene.person.start(&["auth", "login", "--no-browser", "--gateway", &scene.gateway()]);
    let (_, query) = page(&mut login);
    let answer =
        [("api_key", format!("ak_{}:default", "0".repeat(48))), ("state", query["state"].clone())];
    browser().get(&query["callback"]).query(&answer).send().await.unwrap();
    assert_eq!(login.wait(PATIENCE).unwrap().code(), Some(1));
    let output = login.output();
    assert!(output.contains("does not know the key") && !output.contains("ak_0"), "{output}");
    assert!(!scene.person.credentials_file().exists());
}

#[tokio::test]
async fn the_browser_of_the_user_is_opened_with_the_page() {
    let scene = Scene::start();
    let opened = scene.folder.path().join("opened");
    let program = scene.folder.path().join("browser");
    std::fs::write(
        &program,
        format!("#!/bin/sh\necho \"$*\" > '{}.new'\nmv '{0}.new' '{0}'\n", opened.display()),
    )
    .unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    // No option names the gateway: the node on this machine does.
    let mut command = scene.person.command(&["auth", "login"]);
    command.env("BROWSER", &program).env("DEBROS_NODE_DATA_DIR", &scene.node.data_dir);
    let mut login = OnTerminal::spawn(command);
    login.shows("&namespace=default");
    let started = std::time::Instant::now();
    while !opened.exists() {
        assert!(started.elapsed() < PATIENCE, "{}", login.screen());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    // What the browser is started with can be seen by all users of the machine: it holds no state,
    // and leads to the page once.
    let start = std::fs::read_to_string(&opened).unwrap();
    assert!(start.trim().ends_with("/start") && !start.contains("state"), "{start}");
    let client = reqwest::Client::builder().no_proxy().redirect(Policy::none()).build().unwrap();
    let first = client.get(start.trim()).send().await.unwrap();
    let page = first.headers()["location"].to_str().unwrap();
    assert!(page.starts_with(&scene.gateway()) && login.screen().contains(page), "{page}");
    assert_eq!(client.get(start.trim()).send().await.unwrap().status(), 400);
    login.interrupt();
    assert_eq!(login.code(), Some(3), "{}", login.screen());
}

/// Lesson 37: prompts without a terminal.
#[test]
fn lesson_37_without_a_terminal_no_browser_is_waited_for() {
    let scene = Scene::start();
    let said = scene.person.fails(&["auth", "login", "--gateway", &scene.gateway()], 3);
    for way in ["--keystore FILE", "DEBROS_KEYSTORE_PASSWORD", "DEBROS_API_KEY", "--no-browser"] {
        assert!(said.contains(way), "{way} in {said}");
    }
    assert!(!said.contains("/v1/auth/login?"), "{said}");
}

/// A key that a sign-in made and nobody uses is not left alive, nor is the one that is in use.
#[tokio::test]
async fn a_second_sign_in_in_the_browser_keeps_the_stored_key_and_revokes_the_new_one() {
    let scene = Scene::start();
    let person = &scene.person;
    let mut keys = Vec::new();
    for _ in 0..2 {
        let mut login = person.start(&[
            "auth",
            "login",
            "--no-browser",
            "-n",
            "shop",
            "--gateway",
            &scene.gateway(),
        ]);
        let (_, query) = page(&mut login);
        let [key, refresh_token] = scene.signs("shop").await;
        let answer = [
            ("api_key", key.as_str()),
            ("refresh_token", &refresh_token),
            ("state", &query["state"]),
        ];
        browser().get(&query["callback"]).query(&answer).send().await.unwrap();
        assert!(login.wait(PATIENCE).unwrap().success(), "{}", login.output());
        keys.push(key);
    }
    assert_eq!(person.text(&["auth", "token"]), keys[0]);
    crate::sign_in::until_refused(person, &keys[1]);
    let listed = person.json(&["auth", "keys", "list"]);
    let live = listed["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|key| key["revoked_at"].is_null())
        .count();
    assert_eq!((listed["items"].as_array().unwrap().len(), live), (2, 1), "{listed}");
    assert_eq!(
        person.json(&["auth", "logout", "--all"])["revoked"],
        json!(1),
        "the first session had ended"
    );
}

#[test]
fn a_gateway_that_is_not_known_or_not_one_is_told() {
    let scene = Scene::start();
    let said = scene
        .person
        .fails(&["auth", "login", "--no-browser", "--gateway", "javascript:alert(1)"], 2);
    assert!(said.contains("--gateway") && said.contains("is not the URL"), "{said}");
    let mut command = scene.person.command(&["auth", "login", "--no-browser"]);
    let output = command.env("DEBROS_GATEWAY_URL", "nonsense").output().unwrap();
    assert!(
        output.status.code() == Some(2) && text_of(&output).contains("DEBROS_GATEWAY_URL"),
        "{}",
        text_of(&output)
    );
    // A gateway that is not encrypted and not on this machine works, with a warning.
    let login = scene.person.start(&[
        "auth",
        "login",
        "--no-browser",
        "--gateway",
        "http://192.0.2.1:8080",
    ]);
    let started = std::time::Instant::now();
    while !login.output().contains("is not encrypted") {
        assert!(started.elapsed() < PATIENCE, "{}", login.output());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// The value is typed after the sign-in: until the command has its credential it reads no input.
#[tokio::test]
async fn a_command_without_a_credential_runs_after_the_sign_in_that_it_offers() {
    let scene = Scene::start();
    let mut command = scene.person.command(&["storage", "put", "greeting", "-", "-n", "shop"]);
    command.env("BROWSER", "true").env("DEBROS_GATEWAY_URL", scene.gateway());
    let mut terminal = OnTerminal::spawn(command);
    terminal.shows("Sign in with a wallet in the browser now? [Y/n]");
    terminal.types("y\n");
    terminal.shows("&namespace=shop\r\n");
    let (_, query) = page_in(&terminal.screen()).unwrap();
    let [key, refresh_token] = scene.signs("shop").await;
    let answer = [
        ("api_key", key.as_str()),
        ("refresh_token", &refresh_token),
        ("state", &query["state"]),
        ("namespace", "shop"),
    ];
    let last = browser().get(&query["callback"]).query(&answer).send().await.unwrap();
    assert_eq!(last.status(), 200);
    terminal.shows("stored in");
    terminal.types("hello\n\u{4}");
    assert_eq!(terminal.code(), Some(0), "{}", terminal.screen());
    assert_eq!(terminal.screen().matches("[Y/n]").count(), 1, "it is asked once");
    let read = scene.person.text(&["storage", "get", "greeting", "-n", "shop"]);
    assert_eq!(read, "hello");
}
