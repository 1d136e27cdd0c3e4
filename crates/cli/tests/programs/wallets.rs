//! Wallets in keystore files, without a node: `auth wallet new` and `auth sign`.

use crate::support::person::Person;
use crate::support::text_of;
use crate::support::wallet::{PASSWORD, Wallet, write_private};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

/// Nobody listens there, and nobody has to.
const NOBODY: &str =
    "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp";

#[test]
fn a_new_wallet_is_a_keystore_file_that_only_its_owner_reads_and_nothing_writes_over() {
    let folder = tempfile::tempdir().unwrap();
    let person = Person::new(folder.path(), NOBODY);
    write_private(&folder.path().join("password"), &format!("{PASSWORD}\n"));
    let new =
        ["auth", "wallet", "new", "--keystore", "deep/wallet.json", "--password-file", "password"];
    let address = person.text(&new);
    assert!(address.starts_with("0x") && address.len() == 42, "{address}");
    let path = folder.path().join("deep/wallet.json");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(&path).unwrap();
    let keystore: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&keystore["version"], &keystore["crypto"]["kdf"]),
        (&3.into(), &"scrypt".into()),
        "{text}"
    );
    let said = person.fails(&new, 2);
    assert!(
        said.contains("never written over") && std::fs::read_to_string(&path).unwrap() == text,
        "{said}"
    );
    // It opens with its password, and signs as the wallet that was printed.
    let signed = person.json(&[
        "auth",
        "sign",
        "--keystore",
        "deep/wallet.json",
        "--password-file",
        "password",
        "hello",
    ]);
    assert_eq!(signed["wallet"], address.as_str());
    let signature = signed["signature"].as_str().unwrap();
    let wallet = debros_auth::Wallet::parse(&address).unwrap();
    debros_auth::signature::verify(wallet, "hello", signature).unwrap();
    // Without a name it lies beside the credentials.
    let output = person
        .command(&["auth", "wallet", "new"])
        .env("DEBROS_KEYSTORE_PASSWORD", PASSWORD)
        .output()
        .unwrap();
    let other = String::from_utf8(output.stdout).unwrap();
    assert_ne!(other.trim(), address);
    assert!(
        folder.path().join(".debros/keystores").join(format!("{}.json", other.trim())).exists()
    );
}

#[test]
fn a_text_is_signed_as_wallets_do_it() {
    let folder = tempfile::tempdir().unwrap();
    let person = Person::new(folder.path(), NOBODY);
    let wallet = Wallet::numbered(1);
    let keystore = wallet.keystore(folder.path());
    let sign = |message: &str| {
        [&["auth", "sign"][..], &keystore.options(), &[message]].concat().join("\u{0}")
    };
    let args = sign("-x\nline");
    let args: Vec<&str> = args.split('\u{0}').collect();
    assert_eq!(person.text(&args), wallet.key.sign_personal("-x\nline"));
    // From stdin: the line end of `echo` is no part of it.
    let args = sign("-");
    let mut command = person.command(&args.split('\u{0}').collect::<Vec<_>>());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"two\nlines\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(text_of(&output).trim(), wallet.key.sign_personal("two\nlines"));
}

/// Lesson 37: prompts without a terminal.
#[test]
fn lesson_37_without_a_terminal_no_password_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let person = Person::new(folder.path(), NOBODY);
    let keystore = Wallet::numbered(1).keystore(folder.path());
    let file = keystore.file.to_str().unwrap();
    for args in [
        &["auth", "sign", "--keystore", file, "x"][..],
        &["auth", "wallet", "new", "--keystore", "new.json"],
    ] {
        let said = person.fails(args, 3);
        assert!(
            said.contains("--password-file") && said.contains("DEBROS_KEYSTORE_PASSWORD"),
            "{said}"
        );
        assert!(!said.contains("Password of") && !said.contains("Password to"), "{said}");
    }
    assert!(!folder.path().join("new.json").exists());
    let said = person.fails(&["-f", "json", "auth", "sign", "--keystore", file, "x"], 3);
    let error: serde_json::Value = serde_json::from_str(said.trim()).unwrap();
    assert_eq!(error["code"], "unauthenticated");
}

#[test]
fn a_keystore_or_password_that_others_may_read_or_change_is_refused_with_how_to_mend_it() {
    let folder = tempfile::tempdir().unwrap();
    let person = Person::new(folder.path(), NOBODY);
    let keystore = Wallet::numbered(1).keystore(folder.path());
    let sign = [&["auth", "sign"][..], &keystore.options(), &["x"]].concat();
    for file in [&keystore.file, &keystore.password_file] {
        for mode in [0o640, 0o604, 0o620, 0o602] {
            std::fs::set_permissions(file, std::fs::Permissions::from_mode(mode)).unwrap();
            let said = person.fails(&sign, 3);
            let shown = file.display();
            assert!(
                said.contains(&format!("chmod 600 {shown}"))
                    && said.contains(&format!("mode {mode:o}")),
                "{said}"
            );
        }
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
        person.text(&sign);
    }
}

#[test]
fn a_wrong_password_or_a_hostile_file_is_refused_without_its_content() {
    let folder = tempfile::tempdir().unwrap();
    let person = Person::new(folder.path(), NOBODY);
    let keystore = Wallet::numbered(1).keystore(folder.path());
    let sign = |file: &str| {
        let mut command = person.command(&["auth", "sign", "--keystore", file, "x"]);
        let output = command.env("DEBROS_KEYSTORE_PASSWORD", "hunter2").output().unwrap();
        (output.status.code(), text_of(&output))
    };
    let file = keystore.file.to_str().unwrap();
    let (code, said) = sign(file);
    assert!(
        code == Some(3) && said.contains("password") && !said.contains("hunter2"),
        "{code:?} {said}"
    );
    let (code, _) = sign("missing.json");
    assert_eq!(code, Some(4));

    let good = std::fs::read_to_string(file).unwrap();
    let mut costly: serde_json::Value = serde_json::from_str(&good).unwrap();
    costly["crypto"]["kdfparams"]["n"] = (1_u64 << 40).into();
    let hostile = [
        ("costly", costly.to_string()),
        ("empty", String::new()),
        ("array", "[[[[".repeat(10_000)),
        ("secret", r#"{"crypto":"s3cret"}"#.into()),
        ("long", " ".repeat(1 << 20)),
        (
            "version",
            good.replace("\"version\":3", "\"version\":1")
                .replace("\"version\": 3", "\"version\": 1"),
        ),
    ];
    for (name, text) in hostile {
        write_private(&folder.path().join(name), &text);
        let (code, said) = sign(name);
        assert!(matches!(code, Some(1 | 2)) && said.contains(name), "{name}: {code:?} {said}");
        assert!(
            !said.contains("s3cret") && !said.contains("hunter2") && said.len() < 1000,
            "{said}"
        );
    }
    let (code, said) = sign("/dev/zero");
    assert!(code == Some(1), "{said}");
}
