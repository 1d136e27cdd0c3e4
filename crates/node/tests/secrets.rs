//! What is secret stands nowhere: not in logs, not in errors, not in the data folder. A program of
//! its own, because it listens to everything that the process logs.

use debros_auth::PrivateKey;
use debros_client::rpc::{ChallengeRequest, Proof};
use debros_client::{Client, NewKey};
use debros_testkit::TestNode;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tracing_subscriber::fmt::MakeWriter;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Log;

    fn make_writer(&'a self) -> Log {
        self.clone()
    }
}

async fn proof(client: &Client, key: &PrivateKey, namespace: &str) -> Proof {
    let wallet = key.wallet().to_string();
    let request = ChallengeRequest { wallet, namespace: namespace.into(), ..Default::default() };
    let asked = client.auth().challenge(request).await.unwrap();
    Proof {
        signature: key.sign_personal(&asked.message),
        wallet: asked.wallet,
        namespace: asked.namespace,
        nonce: asked.nonce,
        ..Default::default()
    }
}

/// The part of a secret that nothing else has.
fn core(secret: &str) -> String {
    let secret = secret.split(':').next().unwrap();
    secret[secret.len() - 24..].to_owned()
}

fn find_in_files(folder: &Path, needle: &[u8], found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find_in_files(&path, needle, found);
        } else if std::fs::read(&path).unwrap().windows(needle.len()).any(|window| window == needle)
        {
            found.push(path.display().to_string());
        }
    }
}

/// Lesson 11: keys and refresh tokens stood in the database as they are, and in answers and tokens.
#[tokio::test]
async fn lesson_11_no_secret_is_logged_kept_or_told_in_an_error() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(log.clone())
        .with_ansi(false)
        .finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();

    let node = TestNode::start().await;
    let client = node.client_without_credential().await;
    let key = PrivateKey::from_bytes(&[5; 32]).unwrap();
    let used = proof(&client, &key, "a").await;
    let opened = client.auth().sign_in(used.clone()).await.unwrap();
    let renewed = client.auth().refresh(opened.refresh_token.clone(), "").await.unwrap();
    let owner = client.with_credential(renewed.access_token.clone());
    let made = owner.auth().create_key(NewKey::default()).await.unwrap();
    let by_key = client.with_credential(made.api_key.clone());
    let token = by_key.auth().token().await.unwrap();
    by_key.storage().put("k", "v").await.unwrap();
    let listed = format!(
        "{:?} {:?}",
        owner.auth().list_keys().await.unwrap(),
        by_key.network().who_am_i().await.unwrap()
    );

    // Everything that can be refused, with a secret in it.
    let mistyped = format!("{}0", made.api_key);
    client.auth().refresh(renewed.refresh_token.clone(), "").await.unwrap();
    let errors = [
        client.auth().sign_in(used.clone()).await.unwrap_err(),
        client.auth().refresh(opened.refresh_token.clone(), "").await.unwrap_err(),
        client.auth().refresh(format!("{}0", renewed.refresh_token), "").await.unwrap_err(),
        client.auth().logout(made.api_key.clone(), "").await.unwrap_err(),
        client.with_credential(mistyped).storage().get("k").await.unwrap_err(),
        client.with_credential(renewed.access_token.clone()).storage().get("k").await.unwrap_err(),
        by_key.auth().logout_all().await.unwrap_err(),
        by_key.members().set("x", "reader").await.unwrap_err(),
        by_key.auth().create_key(NewKey::default()).await.unwrap_err(),
    ];
    let clients = format!(
        "{owner:?} {by_key:?} {:?}",
        debros_client::Config::new("a").credential(&made.api_key)
    );
    node.node().sweep().await.unwrap();
    let operator = node.node().operator_credential().to_owned();
    let folder = node.folder().to_owned();

    let secrets = [
        ("nonce", used.nonce.clone()),
        ("signature", used.signature.clone()),
        ("access token", opened.access_token),
        ("renewed access token", renewed.access_token),
        ("refresh token", opened.refresh_token),
        ("renewed refresh token", renewed.refresh_token),
        ("API key", made.api_key),
        ("token of the key", token.access_token),
        ("operator's credential", operator),
        ("private key", key.to_hex().to_string()),
    ];
    let text = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    assert!(text.contains("debros"), "the log is not listened to");
    for (name, secret) in &secrets {
        let core = core(secret);
        assert!(!text.contains(&core), "the log holds the {name}");
        assert!(!listed.contains(&core), "a list holds the {name}");
        assert!(!clients.contains(&core), "a client's Debug holds the {name}");
        for error in &errors {
            assert!(!error.message.contains(&core), "{name} in: {error}");
        }
        let mut found = Vec::new();
        find_in_files(&folder, core.as_bytes(), &mut found);
        found.retain(|path| *name != "operator's credential" || !path.ends_with("operator.key"));
        assert!(found.is_empty(), "{name} in {found:?}");
    }
    // No inner error comes out, nor a statement of the node's own.
    for error in &errors {
        for inner in [
            "SQLITE",
            "INSERT",
            "SELECT",
            "constraint",
            "used_nonces",
            "refresh_tokens",
            "panicked",
        ] {
            assert!(!error.message.contains(inner), "{error}");
        }
    }
    node.shutdown().await;
}
