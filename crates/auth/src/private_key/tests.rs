use super::PrivateKey;
use debros_proto::Code;

/// The example of web3.js for signing texts, which every Ethereum library repeats.
const KEY: &str = "4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318";

#[test]
fn a_signature_is_what_other_ethereum_programs_make() {
    let key = PrivateKey::from_hex(KEY).unwrap();
    assert_eq!(key.wallet().checksummed(), "0x2c7536E3605D9C16a7a3D7b1898e529396a65c23");
    assert_eq!(
        key.sign_personal("Some data"),
        "0xb91467e570a6466aa9e9876cbcd013baba02900b8979d43fe208a4a4f339f5fd\
         6007e74cd82e037b800186422fc2da167c747ef045e5d18a5f5d4300f8e1a0291c"
    );
}

#[test]
fn a_key_is_read_as_it_is_written() {
    let key = PrivateKey::from_hex(&format!("0x{KEY}")).unwrap();
    assert_eq!(*key.to_hex(), KEY);
    assert_eq!(PrivateKey::from_bytes(&key.to_bytes()).unwrap().wallet(), key.wallet());
    assert_ne!(PrivateKey::generate().unwrap().wallet(), PrivateKey::generate().unwrap().wallet());
}

#[test]
fn what_is_no_key_is_refused_without_repeating_it() {
    let order = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";
    let zero = "0".repeat(64);
    for text in [
        "",
        "0x",
        &KEY[1..],
        &format!("{KEY}0"),
        &format!("0x0x{}", &KEY[2..]),
        order,
        &zero,
        &KEY.replace('4', "g"),
    ] {
        let error = PrivateKey::from_hex(text).unwrap_err();
        assert_eq!(error.code, Code::InvalidArgument, "{text}");
        assert!(text.len() < 8 || !error.message.contains(text), "{error}");
    }
}

#[test]
fn a_key_is_never_in_its_debug_output() {
    let shown = format!("{:?}", PrivateKey::from_hex(KEY).unwrap());
    assert!(!shown.contains(&KEY[..8]), "{shown}");
    assert!(shown.contains("0x2c7536e3605d9c16a7a3d7b1898e529396a65c23"), "{shown}");
}
