//! Secrets stay out of what the programs write.

use crate::support::http::Http;
use crate::support::person::Person;
use crate::support::wallet::{PASSWORD, Wallet};
use crate::support::{Gateway, Node, without_surroundings};
use serde_json::json;
use std::process::Command;

/// Everything that may be in a log goes through both gateways and the command line while all of
/// them log all they can.
#[tokio::test]
async fn no_log_and_no_error_holds_a_secret() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("node");
    let node = Node::start_by(Node::command(&data_dir).env("LOG_LEVEL", "debug"), &data_dir);
    let mut command = Command::new(env!("CARGO_BIN_EXE_network-gateway"));
    without_surroundings(&mut command);
    command
        .args(["--addr", "127.0.0.1:0", "--bootstrap-peers", &node.peer()])
        .env("LOG_LEVEL", "debug");
    let gateway = Gateway::start_by(&mut command);
    let wallet = Wallet::numbered(1);
    let mut secrets = vec![PASSWORD.to_owned(), wallet.key.to_hex().to_string()];

    for address in [node.address, gateway.address] {
        let http = Http::new(address, "");
        let proof = wallet.proof(&http, "shop").await;
        let session = http.public("/v1/auth/verify", &proof).await.ok().json();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let token = text(&session["access_token"]);
        let signed_in = http.with_key(&token);
        let key =
            text(&signed_in.post("/v1/auth/api-key", &json!({})).await.ok().json()["api_key"]);
        let refresh_token = text(&session["refresh_token"]);
        let refreshed = http
            .public("/v1/auth/refresh", &json!({ "refresh_token": refresh_token }))
            .await
            .ok()
            .json();
        secrets.extend([
            token.clone(),
            key.clone(),
            text(&proof["nonce"]),
            text(&proof["signature"]),
            refresh_token.clone(),
        ]);
        secrets.push(text(&refreshed["refresh_token"]));
        let next = json!({ "refresh_token": refreshed["refresh_token"] });
        let next = http.public("/v1/auth/refresh", &next).await.ok().json();
        secrets.push(text(&next["refresh_token"]));
        // Used, used wrongly, and in places where they do not belong.
        http.with_key(&key).get_value("k").await.fails(404, "not_found");
        http.with_key(&format!("{token}x")).get_value("k").await.fails(401, "unauthenticated");
        http.with_key(&format!("{key}-x")).get_value("k").await.fails(401, "unauthenticated");
        let answers = [
            http.public("/v1/auth/verify", &proof).await,
            http.public(
                "/v1/auth/refresh",
                &json!({ "refresh_token": refresh_token, "namespace": "other" }),
            )
            .await,
            http.public("/v1/auth/refresh", &json!({ "refresh_token": refresh_token })).await,
            http.get(&format!("/v1/storage/list?token={token}")).await,
            http.get(&format!("/v1/auth/login?api_key={key}")).await,
            http.public("/v1/auth/logout", &json!({ "refresh_token": [refresh_token] })).await,
        ];
        for answer in answers {
            assert!(!holds_any(&answer.text(), &secrets), "{} {}", answer.status, answer.text());
        }
    }

    let person = Person::new(&folder.path().join("home"), &node.peer());
    let keystore = wallet.keystore(&person.home);
    let login = [&["auth", "login", "-n", "shop"][..], &keystore.options()].concat();
    let runs = [
        &login[..],
        &["auth", "whoami"],
        &["auth", "wallets"],
        &["auth", "keys", "list"],
        &["auth", "logout"],
    ];
    for args in runs {
        let output = person
            .command(args)
            .env("LOG_LEVEL", "debug")
            .env("RUST_LOG", "debug")
            .output()
            .unwrap();
        if let Some(entry) = person.stored()["credentials"].get(0) {
            secrets.extend(
                ["access_token", "refresh_token"]
                    .map(|name| entry[name].as_str().unwrap().to_owned()),
            );
        }
        assert!(output.status.success(), "{args:?}");
        assert!(!holds_any(&crate::support::text_of(&output), &secrets), "{args:?}");
    }
    // The mistakes that bring secrets into messages: as a key that is wrong, as a bootstrap
    // address, as a wallet.
    let secret = &secrets[0];
    for args in [
        &["auth", "sign", "--keystore", "missing", secret.as_str()][..],
        &["auth", "keys", "revoke", "x"],
    ] {
        let output = person.command(args).env("DEBROS_API_KEY", &secrets[2]).output().unwrap();
        assert!(
            !output.status.success() && !holds_any(&crate::support::text_of(&output), &secrets),
            "{args:?}"
        );
    }

    assert!(node.program.output().contains("DEBUG"), "the node logs what it refuses");
    for (name, log) in [("node", node.program.output()), ("gateway", gateway.program.output())] {
        assert!(log.contains("the gateway listens"), "{name} has a log");
        if let Some(line) = log.lines().find(|line| holds_any(line, &secrets)) {
            panic!("the {name} logs a secret: {line}");
        }
    }
}

fn holds_any(text: &str, secrets: &[String]) -> bool {
    secrets.iter().any(|secret| !secret.is_empty() && text.contains(secret.as_str()))
}
