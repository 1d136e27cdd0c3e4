use super::{
    api_key, api_key_namespace, constant_time_eq, is_refresh_token, new_id, refresh_token, sha256,
};
use debros_proto::Namespace;
use proptest::prelude::{any, proptest};

fn shop() -> Namespace {
    Namespace::new("shop").unwrap()
}

#[test]
fn lesson_11_what_is_kept_of_a_secret_is_its_sha_256() {
    let key = api_key([0xab; 24], &shop());
    assert_eq!(key.expose(), format!("ak_{}:shop", "ab".repeat(24)));
    assert_eq!(key.prefix(), "ak_abababab");
    assert_eq!(key.hash(), sha256(key.expose()));
    let token = refresh_token([0xcd; 32]);
    assert_eq!(token.expose(), format!("rt_{}", "cd".repeat(32)));
    assert_eq!(token.hash(), sha256(token.expose()));
    let digest = alloy_primitives::hex::encode(sha256("abc"));
    assert_eq!(digest, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

#[test]
fn a_secret_is_never_in_its_debug_output() {
    assert_eq!(format!("{:?}", api_key([0xab; 24], &shop())), "Secret(ak_abababab…)");
}

#[test]
fn lesson_05_the_form_of_a_key_names_one_namespace() {
    let digits = "ab".repeat(24);
    assert_eq!(api_key_namespace(&format!("ak_{digits}:shop")), Some(shop()));
    for wrong in [
        String::new(),
        "ak_".into(),
        format!("ak_{digits}"),
        format!("ak_{digits}:"),
        format!("ak_{digits}:a:b"),
        format!("ak_{digits}:Shop"),
        format!("ak_{digits}:_system"),
        format!("ak_{}:shop", &digits[1..]),
        format!("ak_{}:shop", digits.to_uppercase()),
        format!("AK_{digits}:shop"),
        format!(" ak_{digits}:shop"),
        format!("rt_{digits}:shop"),
    ] {
        assert_eq!(api_key_namespace(&wrong), None, "{wrong}");
    }
}

#[test]
fn a_refresh_token_has_one_form() {
    let digits = "cd".repeat(32);
    assert!(is_refresh_token(&format!("rt_{digits}")));
    for wrong in [
        String::new(),
        "rt_".into(),
        digits.clone(),
        format!("rt_{digits}0"),
        format!("rt_{}", digits.to_uppercase()),
    ] {
        assert!(!is_refresh_token(&wrong), "{wrong}");
    }
}

#[test]
fn ids_and_hashes() {
    assert_eq!(new_id("key", [1; 8]), "key_0101010101010101");
    assert!(
        constant_time_eq(&sha256("a"), &sha256("a"))
            && !constant_time_eq(&sha256("a"), &sha256("b"))
    );
}

proptest! {
    #[test]
    fn any_text_is_read_or_not(text in any::<String>()) {
        let _ = (api_key_namespace(&text), is_refresh_token(&text));
    }
}
