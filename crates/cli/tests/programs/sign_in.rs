//! `auth login` with a keystore, over P2P alone, and what follows from it: several wallets, silent
//! refresh, the end.

use crate::support::person::Person;
use crate::support::wallet::{Keystore, Wallet};
use crate::support::{Node, text_of};
use serde_json::json;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use tempfile::TempDir;

/// A node without a gateway, and somebody elsewhere who has wallets.
struct Scene {
    node: Node,
    person: Person,
    keystores: [Keystore; 2],
    wallets: [Wallet; 2],
    // Last, so that it goes when nobody uses it any more.
    _folder: TempDir,
}

impl Scene {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let node = Node::start(&folder.path().join("node"));
        let person = Person::new(&folder.path().join("home"), &node.peer());
        let wallets = [Wallet::numbered(1), Wallet::numbered(2)];
        let keystores = [wallets[0].keystore(&person.home), wallets[1].keystore(&person.home)];
        Self { node, person, keystores, wallets, _folder: folder }
    }

    fn sign_in(&self, index: usize, namespace: &str) -> serde_json::Value {
        let how = self.keystores[index].options();
        self.person.json(&[&["auth", "login", "--namespace", namespace][..], &how].concat())
    }

    /// Makes the stored access tokens look as if their time were over.
    fn expire(&self) {
        self.person.change("access_expires_at", &json!(1));
    }
}

fn session_of(person: &Person) -> String {
    person.stored()["credentials"][0]["refresh_token"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_keystore_signs_in_over_p2p_and_commands_use_the_session() {
    let scene = Scene::start();
    let person = &scene.person;
    let address = &scene.wallets[0].address;
    let signed_in = scene.sign_in(0, "shop");
    assert_eq!((&signed_in["wallet"], &signed_in["namespace"]), (&json!(address), &json!("shop")));
    let who = person.json(&["auth", "whoami"]);
    assert_eq!((&who["method"], &who["subject"]), (&json!("jwt"), &json!(address)), "{who}");
    assert_eq!((&who["namespace"], &who["role"]), (&json!("shop"), &json!("owner")), "{who}");
    // RFC 3339 in UTC is in order of time.
    assert!(
        who["expires_at"].as_str().unwrap()
            > debros_proto::time::rfc3339_millis(debros_proto::now_ms()).as_str()
    );
    person.text(&["storage", "put", "k", "v"]);
    assert_eq!(person.text(&["storage", "get", "k"]), "v");
    assert_eq!(person.text(&["auth", "token"]).split('.').count(), 3, "a JWT");
    let mode = std::fs::metadata(person.credentials_file()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);

    // Keys of the wallet's own: made, listed, revoked.
    let made = person.json(&["auth", "keys", "create", "--name", "ci", "--scopes", "storage:read"]);
    assert_eq!((&made["wallet"], &made["namespace"]), (&json!(address), &json!("shop")));
    let id = made["id"].as_str().unwrap();
    assert!(person.text(&["auth", "keys", "list"]).contains(id));
    assert_eq!(person.json(&["auth", "keys", "revoke", id])["revoked"], json!(true));
    let members = person.json(&["auth", "members", "list"]);
    assert_eq!(members["items"][0]["wallet"], address.as_str());
}

#[test]
fn several_wallets_are_kept_and_use_chooses_among_them() {
    let scene = Scene::start();
    let person = &scene.person;
    scene.sign_in(0, "shop");
    scene.sign_in(1, "club");
    let subject =
        |args: &[&str]| person.json(&[&["auth", "whoami"], args].concat())["subject"].clone();
    let [first, second] = [&scene.wallets[0].address, &scene.wallets[1].address];
    assert_eq!(subject(&[]), second.as_str(), "the last one");
    assert_eq!(subject(&["-n", "shop"]), first.as_str(), "the only one of that namespace");
    person.text(&["auth", "use", first]);
    assert_eq!(subject(&[]), first.as_str());
    let stored = person.json(&["auth", "wallets"]);
    let current: Vec<_> = stored["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|entry| entry["current"] == true)
        .collect();
    assert_eq!((&stored["count"], current.len()), (&json!(2), 1), "{stored}");
    assert_eq!(current[0]["wallet"], first.as_str());
    let table = person.text(&["auth", "wallets"]);
    assert!(
        table.contains(first.as_str()) && table.contains(second.as_str()) && !table.contains("rt_"),
        "{table}"
    );
    // Mixed case with its checksum names the same wallet; another wallet is not there.
    person.text(&["auth", "use", &scene.wallets[1].key.wallet().checksummed()]);
    assert_eq!(subject(&[]), second.as_str());
    person.fails(&["auth", "use", &Wallet::numbered(3).address], 4);
    person.fails(&["auth", "use", "nonsense"], 2);

    // What belongs to another wallet is refused, until the owner grants it.
    let how = scene.keystores[1].options();
    let said = person.fails(&[&["auth", "login", "-n", "shop"][..], &how].concat(), 1);
    assert!(said.contains("belongs to somebody else"), "{said}");
    person.text(&["auth", "use", first]);
    person.text(&["auth", "members", "set", second, "reader"]);
    scene.sign_in(1, "shop");
    person.fails(&["storage", "put", "k", "v"], 1);
    assert_eq!(person.text(&["storage", "list"]), "");
    person.text(&["auth", "use", first, "-n", "shop"]);
    assert_eq!(person.json(&["auth", "members", "remove", second])["removed"], json!(true));
}

#[test]
fn a_member_gives_up_its_own_role_and_an_owner_stays() {
    let scene = Scene::start();
    let person = &scene.person;
    let [owner, member] = [&scene.wallets[0].address, &scene.wallets[1].address];
    scene.sign_in(0, "shop");
    for role in ["reader", "admin"] {
        person.text(&["auth", "use", owner, "-n", "shop"]);
        person.text(&["auth", "members", "set", member, role]);
        scene.sign_in(1, "shop");
        let said = person.fails(&["auth", "members", "remove", owner], 1);
        assert!(said.contains("error: "), "{role}: {said}");
        assert_eq!(
            person.json(&["auth", "members", "remove", member])["removed"],
            json!(true),
            "{role}"
        );
        let said = person.fails(&["storage", "list"], 1);
        assert!(said.contains("belongs to somebody else"), "{role}: {said}");
    }
    person.text(&["auth", "use", owner, "-n", "shop"]);
    let said = person.fails(&["auth", "members", "remove", owner], 1);
    assert!(said.contains("owns the namespace") && said.contains("deleting it"), "{said}");
    assert_eq!(person.json(&["auth", "members", "list"])["count"], json!(1));
}

#[test]
fn an_access_token_that_ended_is_refreshed_silently() {
    let scene = Scene::start();
    let person = &scene.person;
    scene.sign_in(0, "shop");
    let before = session_of(person);
    person.text(&["storage", "put", "k", "v"]);
    assert_eq!(session_of(person), before, "not before it is needed");
    scene.expire();
    let output = person.run(&["storage", "get", "k"]);
    assert!(output.status.success() && output.stdout == b"v", "{}", text_of(&output));
    assert!(output.stderr.is_empty(), "silently: {}", text_of(&output));
    let after = session_of(person);
    assert_ne!(after, before);
    // One that the node does not take, though its time is not over, is refreshed once as well.
    person.change("access_token", &json!("nonsense"));
    assert_eq!(person.text(&["storage", "get", "k"]), "v");
    assert_ne!(session_of(person), after);
}

/// A refresh token that is used twice ends the session. Commands that find an expired token at the
/// same moment must not do that to each other.
#[test]
fn commands_at_once_do_not_end_the_session_for_each_other() {
    let scene = Scene::start();
    let person = &scene.person;
    scene.sign_in(0, "shop");
    person.text(&["storage", "put", "k", "v"]);
    for _ in 0..3 {
        scene.expire();
        let mut running: Vec<_> = (0..4)
            .map(|_| {
                let mut command = person.command(&["storage", "get", "k"]);
                command
                    .stdout(std::process::Stdio::piped())
                    .stderr(std::process::Stdio::piped())
                    .spawn()
                    .unwrap()
            })
            .collect();
        for child in running.drain(..) {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success() && output.stdout == b"v", "{}", text_of(&output));
        }
    }
    scene.expire();
    assert_eq!(person.text(&["storage", "get", "k"]), "v", "the session lives");
}

#[test]
fn a_session_that_was_ended_elsewhere_is_told_with_what_to_do() {
    let scene = Scene::start();
    let person = &scene.person;
    scene.sign_in(0, "shop");
    // Somebody has a copy of the refresh token, and uses it first.
    let elsewhere = Person::new(&scene.person.home.join("elsewhere"), &scene.node.peer());
    std::fs::create_dir(elsewhere.home.join(".debros")).unwrap();
    std::fs::set_permissions(
        elsewhere.home.join(".debros"),
        std::fs::Permissions::from_mode(0o700),
    )
    .unwrap();
    std::fs::copy(person.credentials_file(), elsewhere.credentials_file()).unwrap();
    elsewhere.change("access_expires_at", &json!(1));
    assert_eq!(elsewhere.text(&["storage", "list"]), "");
    // It goes on with what it got: from now on the first token is no repetition any more.
    elsewhere.change("access_expires_at", &json!(1));
    assert_eq!(elsewhere.text(&["storage", "list"]), "");
    scene.expire();
    let said = person.fails(&["storage", "list"], 3);
    assert!(
        said.contains("has ended")
            && said.contains("auth login")
            && said.contains("DEBROS_API_KEY"),
        "{said}"
    );
    // The reuse ended the session of both.
    elsewhere.change("access_expires_at", &json!(1));
    elsewhere.fails(&["storage", "list"], 3);
    // The tokens are not kept, the wallet stays chosen: no other one acts in its place unasked.
    let stored = person.stored();
    assert!(stored["credentials"][0].get("refresh_token").is_none(), "{stored}");
    scene.sign_in(1, "club");
    person.text(&["auth", "use", &scene.wallets[0].address]);
    let said = person.fails(&["storage", "list"], 3);
    assert!(said.contains("has ended"), "{said}");
    scene.sign_in(0, "shop");
    assert_eq!(person.text(&["storage", "list"]), "");
}

#[test]
fn logout_ends_the_session_at_the_node_and_here() {
    let scene = Scene::start();
    let person = &scene.person;
    scene.sign_in(0, "shop");
    let token = person.text(&["auth", "token"]);
    assert_eq!(person.json(&["auth", "logout"])["revoked"], json!(1));
    assert_eq!(person.stored()["credentials"], json!([]));
    person.fails(&["storage", "list"], 3);
    person.fails(&["auth", "logout"], 3);
    until_refused(person, &token);
    // All of them: those of other programs too.
    let other = Person::new(&person.home.join("other"), &scene.node.peer());
    let how = scene.keystores[0].options();
    other.text(&[&["auth", "login", "-n", "shop"][..], &how].concat());
    let token = other.text(&["auth", "token"]);
    scene.sign_in(0, "shop");
    assert_eq!(person.json(&["auth", "logout", "--all"])["revoked"], json!(2));
    until_refused(&other, &token);
}

/// Signing in again drops no key that works, and leaves no session behind that nobody uses.
#[test]
fn a_second_sign_in_keeps_the_stored_key_and_ends_the_session_before() {
    let scene = Scene::start();
    let person = &scene.person;
    scene.sign_in(0, "shop");
    let old = person.text(&["auth", "token"]);
    let made = person.json(&[
        "auth",
        "keys",
        "create",
        "--save",
        "--scopes",
        "storage:read, storage:write",
    ]);
    assert_eq!(made["scopes"], json!(["storage:read", "storage:write"]));
    let key = made["api_key"].as_str().unwrap();
    scene.sign_in(0, "shop");
    assert_eq!(person.text(&["auth", "token"]), key);
    until_refused(person, &old);
    person.text(&["auth", "keys", "revoke", made["id"].as_str().unwrap()]);
    scene.sign_in(0, "shop");
    assert_eq!(
        person.json(&["auth", "whoami"])["method"],
        "jwt",
        "a key that is not valid any more goes"
    );
    assert_eq!(
        person.json(&["auth", "logout", "--all"])["revoked"],
        json!(1),
        "the sessions before have ended"
    );
}

/// Signing out says what it did: a key that stays valid is named, and stays stored.
#[test]
fn logout_after_the_session_ended_revokes_the_key_or_says_that_it_lives() {
    let scene = Scene::start();
    let person = &scene.person;
    let end_session = || {
        person.change("access_expires_at", &json!(1));
        person.change("refresh_token", &json!("rt_of_another_time"));
    };
    scene.sign_in(0, "shop");
    let made = person.json(&["auth", "keys", "create", "--save"]);
    let (id, key) = (made["id"].as_str().unwrap(), made["api_key"].as_str().unwrap());
    end_session();
    for _ in 0..2 {
        let said = person.fails(&["auth", "logout"], 1);
        assert!(
            said.contains(id)
                && said.contains("stays valid")
                && said.contains("auth login -n shop"),
            "{said}"
        );
        assert!(!said.contains(key) && said.contains(&format!("auth keys revoke {id}")), "{said}");
        assert_eq!(person.text(&["auth", "token"]), key, "nothing is forgotten");
    }
    person.fails(&["auth", "logout", "--all"], 3);
    // As the hint says it.
    scene.sign_in(0, "shop");
    assert_eq!(person.json(&["auth", "logout"])["api_key"], "revoked");
    until_refused(person, key);

    // An admin's key revokes itself.
    scene.sign_in(0, "shop");
    let made = person.json(&["auth", "keys", "create", "--save", "--role", "admin"]);
    end_session();
    let out = person.json(&["auth", "logout"]);
    assert_eq!((&out["api_key"], &out["revoked"]), (&json!("revoked"), &json!(0)));
    until_refused(person, made["api_key"].as_str().unwrap());
    assert_eq!(person.stored()["credentials"], json!([]));
}

/// Whoever signed out acts as nobody, not as another wallet that is stored for another namespace.
#[test]
fn after_logout_no_other_stored_wallet_acts() {
    let scene = Scene::start();
    let person = &scene.person;
    let (first, second) = (&scene.wallets[0].address, &scene.wallets[1].address);
    scene.sign_in(0, "shop");
    scene.sign_in(1, "club");
    person.text(&["auth", "logout"]);
    for args in [
        &["storage", "put", "k", "v"][..],
        &["auth", "whoami"],
        &["auth", "token"],
        &["auth", "keys", "list"],
        &["auth", "logout"],
        &["storage", "list", "-n", "shop"],
    ] {
        let said = person.fails(args, 3);
        assert!(
            said.contains("auth wallets") && said.contains("auth use WALLET"),
            "{args:?}: {said}"
        );
        assert!(!said.contains(first.as_str()), "{said}");
    }
    let said = person.fails(&["storage", "list", "-n", "club"], 3);
    assert!(said.contains("no credential") && !said.contains(second.as_str()), "{said}");
    person.text(&["auth", "use", first]);
    assert_eq!(person.json(&["auth", "whoami"])["subject"], first.as_str());
}

/// A credential that was revoked is refused within 5 seconds: a command that starts later is not
/// served.
pub(crate) fn until_refused(person: &Person, credential: &str) {
    let revoked = std::time::Instant::now();
    loop {
        let late = revoked.elapsed() > std::time::Duration::from_secs(5);
        let output = person
            .command(&["storage", "list"])
            .env("DEBROS_API_KEY", credential)
            .output()
            .unwrap();
        match output.status.code() {
            Some(3) => return,
            Some(0) => assert!(!late, "still served after 5 seconds"),
            other => panic!("{other:?}: {}", text_of(&output)),
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// Lesson 37: prompts without a terminal.
#[test]
fn lesson_37_without_a_terminal_nothing_is_asked_and_the_way_out_is_named() {
    let scene = Scene::start();
    for args in
        [&["storage", "list"][..], &["auth", "whoami"], &["auth", "token"], &["query", "SELECT 1"]]
    {
        let said = scene.person.fails(args, 3);
        assert!(
            said.contains("DEBROS_API_KEY")
                && said.contains("--keystore FILE --password-file FILE"),
            "{said}"
        );
        assert!(!said.contains("[Y/n]"), "{said}");
        let said = scene.person.fails(&[args, &["--format", "json"]].concat(), 3);
        let error: serde_json::Value = serde_json::from_str(said.trim()).unwrap();
        assert!(error["hint"].as_str().unwrap().contains("DEBROS_API_KEY"), "{error}");
    }
}

#[test]
fn credentials_that_others_may_read_are_refused_with_how_to_mend_it() {
    let scene = Scene::start();
    let person = &scene.person;
    scene.sign_in(0, "shop");
    let set_mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap()
    };
    set_mode(&person.credentials_file(), 0o644);
    let said = person.fails(&["storage", "list"], 3);
    assert!(said.contains("chmod 600 ") && said.contains("credentials.json"), "{said}");
    let how = scene.keystores[0].options();
    person.fails(&[&["auth", "login", "-n", "shop"][..], &how].concat(), 3);
    set_mode(&person.credentials_file(), 0o600);
    assert_eq!(person.text(&["storage", "list"]), "");
}

/// The keys that tokens are signed with: another one from now on; and the end of one.
#[test]
fn rotation_logs_nobody_out_and_a_removed_key_ends_its_tokens() {
    let scene = Scene::start();
    let person = &scene.person;
    scene.sign_in(0, "shop");
    let old = person.text(&["auth", "token"]);
    let kid = kid_of(&old);
    let operate = |args: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_network-node"));
        crate::support::without_surroundings(&mut command);
        command.args(args).arg("--data-dir").arg(&scene.node.data_dir).output().unwrap()
    };
    let rotated = operate(&["rotate-key"]);
    assert!(rotated.status.success(), "{}", text_of(&rotated));
    let new_kid = text_of(&rotated).trim().to_owned();
    assert_ne!(new_kid, kid);
    assert_eq!(person.text(&["storage", "list"]), "");
    assert_eq!(person.text(&["auth", "token"]), old, "the old token is as good as before");
    scene.expire();
    assert_eq!(kid_of(&person.text(&["auth", "token"])), new_kid);

    let removed = operate(&["remove-signing-key", &kid]);
    assert!(
        removed.status.success()
            && text_of(&removed).contains(&format!("removed the signing key {kid}")),
        "{}",
        text_of(&removed)
    );
    until_refused(person, &old);
    assert_eq!(person.text(&["storage", "list"]), "", "the session lives on with another key");
    assert_eq!(operate(&["remove-signing-key", &kid]).status.code(), Some(4));
    assert_eq!(operate(&["remove-signing-key", "nonsense"]).status.code(), Some(4));
}

fn kid_of(token: &str) -> String {
    // The URL's alphabet.
    let text = token.split('.').next().unwrap().replace('-', "+").replace('_', "/");
    let header = debros_proto::json::decode_base64(&text).unwrap();
    let header: serde_json::Value = serde_json::from_slice(&header).unwrap();
    header["kid"].as_str().unwrap().to_owned()
}
