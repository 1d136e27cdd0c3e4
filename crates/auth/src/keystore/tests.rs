use super::{KdfStrength, RANDOM_BYTES, claimed_wallet, decrypt, encrypt};
use crate::PrivateKey;
use debros_proto::Code;
use proptest::prelude::{any, proptest};
use serde_json::{Value, json};

/// The two examples of the Web3 Secret Storage definition.
const PBKDF2: &str = r#"{"crypto":{"cipher":"aes-128-ctr","cipherparams":{"iv":"6087dab2f9fdbbfaddc31a909735c1e6"},
    "ciphertext":"5318b4d5bcd28de64ee5559e671353e16f075ecae9f99c7a79a38af5f869aa46","kdf":"pbkdf2",
    "kdfparams":{"c":262144,"dklen":32,"prf":"hmac-sha256",
    "salt":"ae3cd4e7013836a3df6bd7241b12db061dbe2c6785853cce422d148a624ce0bd"},
    "mac":"517ead924a9d0dc3124507e3393d175ce3ff7c1e96529c6c555ce9e51205e9b2"},
    "id":"3198bc9c-6672-5ab3-d995-4942343ae5b6","version":3}"#;
const SCRYPT: &str = r#"{"crypto":{"cipher":"aes-128-ctr","cipherparams":{"iv":"83dbcc02d8ccb40e466191a123791e0e"},
    "ciphertext":"d172bf743a674da9cdad04534d56926ef8358534d458fffccd4e6ad2fbde479c","kdf":"scrypt",
    "kdfparams":{"dklen":32,"n":262144,"p":8,"r":1,
    "salt":"ab0c7876052600dd703518d6fc3fe8984592145b591fc8fb5c6d43190334ba19"},
    "mac":"2103ac29920d71da29f15d75b4a16dbe95cfd7ff8faea1056c33131d846e3097"},
    "id":"3198bc9c-6672-5ab3-d995-4942343ae5b6","version":3}"#;
const PASSWORD: &str = "testpassword";
const SECRET: &str = "7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d";

fn changed(change: impl FnOnce(&mut Value)) -> String {
    let mut file: Value = serde_json::from_str(&light()).unwrap();
    change(&mut file);
    file.to_string()
}

fn light() -> String {
    encrypt(&PrivateKey::from_hex(SECRET).unwrap(), PASSWORD, KdfStrength::Light, [5; RANDOM_BYTES])
        .unwrap()
}

#[test]
fn the_examples_of_the_definition_are_read() {
    for file in [PBKDF2, SCRYPT] {
        assert_eq!(*decrypt(file, PASSWORD).unwrap().to_hex(), SECRET);
        assert_eq!(claimed_wallet(file).unwrap(), None);
    }
    let early = SCRYPT.replace("\"crypto\"", "\"Crypto\"");
    assert_eq!(*decrypt(&early, PASSWORD).unwrap().to_hex(), SECRET);
}

#[test]
fn what_is_written_is_read_back_with_the_password_alone() {
    let file = light();
    let key = decrypt(&file, PASSWORD).unwrap();
    assert_eq!(*key.to_hex(), SECRET);
    assert_eq!(claimed_wallet(&file).unwrap(), Some(key.wallet()));
    assert!(!file.contains(SECRET));
    let parsed: Value = serde_json::from_str(&file).unwrap();
    let id = parsed["id"].as_str().unwrap();
    assert_eq!((id.len(), &id[14..15], &id[8..9]), (36, "4", "-"));
}

#[test]
fn a_wrong_password_is_told_from_a_damaged_file() {
    for wrong in ["", "Testpassword", "testpassword "] {
        let error = decrypt(&light(), wrong).unwrap_err();
        assert_eq!(error.code, Code::Unauthenticated);
        assert!(error.message.contains("password"), "{error}");
    }
    let damaged: [(String, &str); 9] = [
        (light()[..200].to_owned(), "line"),
        ("{}".into(), "crypto"),
        (changed(|file| file["version"] = json!(1)), "version"),
        (changed(|file| file["crypto"]["cipher"] = json!("aes-256-gcm")), "cipher"),
        (changed(|file| file["crypto"]["cipherparams"]["iv"] = json!("00")), "iv"),
        (changed(|file| file["crypto"]["mac"] = json!("zz")), "hexadecimal"),
        (changed(|file| file["crypto"]["ciphertext"] = json!("0011")), "ciphertext"),
        (changed(|file| file["crypto"]["kdf"] = json!("argon2")), "argon2"),
        (
            changed(|file| file["address"] = json!("0x00000000000000000000000000000000000000aa")),
            "address",
        ),
    ];
    for (file, named) in damaged {
        let error = decrypt(&file, PASSWORD).unwrap_err();
        assert_eq!(error.code, Code::InvalidArgument, "{error}");
        assert!(error.message.contains(named), "{named}: {error}");
    }
}

/// A user that names another file by mistake does not find its secrets in a log.
#[test]
fn an_error_repeats_nothing_of_the_file() {
    for file in [
        r#"{"crypto":"s3cret"}"#,
        r#""s3cret""#,
        r#"{"crypto":{"cipherparams":{"iv":["s3cret"]}}}"#,
    ] {
        let error = decrypt(file, PASSWORD).unwrap_err();
        assert!(error.message.contains("line 1") && !error.message.contains("s3cret"), "{error}");
    }
}

/// Each of these would take more memory or time than the machine has, or trip the libraries;
/// refusing is immediate.
#[test]
fn hostile_parameters_are_refused_before_anything_is_computed() {
    let with = |params: Value| changed(|file| file["crypto"]["kdfparams"] = params);
    let salt = "00".repeat(32);
    let scrypt = |n: Value, r: Value, p: Value, dklen: Value| {
        with(json!({ "n": n, "r": r, "p": p, "dklen": dklen, "salt": salt }))
    };
    let files = [
        scrypt(json!(1_u64 << 26), json!(8), json!(1), json!(32)),
        scrypt(json!(1_u64 << 63), json!(u32::MAX), json!(u32::MAX), json!(32)),
        scrypt(json!(4096), json!(8), json!(1 << 20), json!(32)),
        scrypt(json!(4095), json!(8), json!(1), json!(32)),
        scrypt(json!(0), json!(8), json!(1), json!(32)),
        scrypt(json!(1), json!(8), json!(1), json!(32)),
        scrypt(json!(4096), json!(0), json!(1), json!(32)),
        scrypt(json!(4096), json!(8), json!(0), json!(32)),
        scrypt(json!(4096), json!(8), json!(1), json!(16)),
        scrypt(json!(4096), json!(8), json!(1), json!(u64::MAX)),
        scrypt(json!(-1), json!(8), json!(1), json!(32)),
        scrypt(json!("4096"), json!(8), json!(1), json!(32)),
        with(json!({ "n": 4096, "r": 8, "p": 1, "dklen": 32, "salt": "00".repeat(2000) })),
        with(json!(null)),
    ];
    for file in files {
        let error = decrypt(&file, PASSWORD).unwrap_err();
        assert_eq!(error.code, Code::InvalidArgument, "{error}");
    }
    let pbkdf2 = |rounds: u64, prf: &str| {
        changed(|file| {
            file["crypto"]["kdf"] = json!("pbkdf2");
            file["crypto"]["kdfparams"] =
                json!({ "c": rounds, "prf": prf, "dklen": 32, "salt": salt });
        })
    };
    for file in
        [pbkdf2(0, "hmac-sha256"), pbkdf2(4_000_000_000, "hmac-sha256"), pbkdf2(1, "hmac-md5")]
    {
        assert_eq!(decrypt(&file, PASSWORD).unwrap_err().code, Code::InvalidArgument);
    }
    let huge = format!("{{\"pad\":\"{}\"}}", " ".repeat(super::MAX_FILE_BYTES));
    assert_eq!(decrypt(&huge, PASSWORD).unwrap_err().code, Code::InvalidArgument);
}

proptest! {
    #[test]
    fn any_text_is_an_error_and_never_a_panic(text in any::<String>()) {
        assert!(claimed_wallet(&text).is_err());
    }

    #[test]
    fn a_file_with_any_character_replaced_does_not_panic(at in 0_usize..500, by in any::<char>()) {
        let file: String = light_once().chars().enumerate().map(|(index, old)| if index == at { by } else { old }).collect();
        let _ = claimed_wallet(&file);
    }
}

fn light_once() -> &'static str {
    static FILE: std::sync::LazyLock<String> = std::sync::LazyLock::new(light);
    &FILE
}
