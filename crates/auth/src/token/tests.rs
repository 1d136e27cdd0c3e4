use super::{
    Claims, LIFETIME_MS, MAX_AHEAD_MS, PublicKey, PublicKeySet, SigningKey, TokenCredential,
    is_token, issue, verify,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use debros_proto::{Code, Namespace};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use proptest::prelude::{any, proptest};
use serde_json::{Value, json};

const NOW: i64 = 1_700_000_000_123;
const WALLET: &str = "0x2c7536e3605d9c16a7a3d7b1898e529396a65c23";

fn key() -> SigningKey {
    SigningKey::from_seed([7; 32]).unwrap()
}

fn keys() -> PublicKeySet {
    [key().public_key().clone()].into_iter().collect()
}

fn claims() -> Claims {
    let namespace = Namespace::new("shop").unwrap();
    Claims::new(
        WALLET.into(),
        namespace,
        TokenCredential::Session("ses_1".into()),
        "jti_1".into(),
        NOW,
    )
}

fn refused(token: &str) -> bool {
    refused_at(token, NOW)
}

fn refused_at(token: &str, now: i64) -> bool {
    match verify(token, &keys(), now) {
        Ok(_) => false,
        Err(error) => {
            let expected = match error.code {
                Code::CredentialExpired => "the access token has expired",
                _ => "the access token is not valid",
            };
            assert!(
                error.code.is_unauthenticated() && error.message.starts_with(expected),
                "{error}"
            );
            true
        }
    }
}

fn base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The claims of a good token, as JSON.
fn payload() -> Value {
    json!({ "iss": "debros", "aud": "debros", "sub": WALLET, "iat": 1_700_000_000, "nbf": 1_700_000_000, "exp": 1_700_000_900,
        "jti": "jti_1", "namespace": "shop", "sid": "ses_1" })
}

/// A token with this header and payload, rightly signed by our key whatever they say.
fn signed(header: &str, payload: &str) -> String {
    let message = format!("{}.{}", base64(header), base64(payload));
    let signature =
        jsonwebtoken::crypto::sign(message.as_bytes(), key().encoding_key(), Algorithm::EdDSA)
            .unwrap();
    format!("{message}.{signature}")
}

fn good_header() -> String {
    json!({ "typ": "JWT", "alg": "EdDSA", "kid": key().public_key().kid() }).to_string()
}

fn with_payload(change: impl FnOnce(&mut Value)) -> String {
    let mut changed = payload();
    change(&mut changed);
    signed(&good_header(), &changed.to_string())
}

#[test]
fn a_token_is_read_as_it_was_issued() {
    let token = issue(&key(), &claims()).unwrap();
    assert_eq!(verify(&token, &keys(), NOW).unwrap(), claims());
    assert!(is_token(&token));
    let of_a_key = Claims { credential: TokenCredential::Key("key_1".into()), ..claims() };
    assert_eq!(verify(&issue(&key(), &of_a_key).unwrap(), &keys(), NOW).unwrap(), of_a_key);
}

/// Other programs read these tokens: the names and units of the claims are a promise.
#[test]
fn a_token_stands_as_documented() {
    let token = issue(&key(), &claims()).unwrap();
    let parts: Vec<Value> = token
        .split('.')
        .take(2)
        .map(|part| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap())
        .collect();
    assert_eq!(parts[0], json!({ "typ": "JWT", "alg": "EdDSA", "kid": key().public_key().kid() }));
    assert_eq!(parts[1], payload());
    // The forged ones below differ from a good one in what they say they do, and in nothing else.
    assert!(!refused(&signed(&good_header(), &payload().to_string())));
}

#[test]
fn a_token_with_any_character_changed_is_refused() {
    let token = issue(&key(), &claims()).unwrap();
    for at in 0..token.len() {
        let mut bytes = token.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        assert!(refused(std::str::from_utf8(&bytes).unwrap()), "character {at}");
        assert!(refused(&token[..at]), "cut at {at}");
    }
    // The last character has bits that belong to no byte: they are no way to write a token twice.
    let last = token.len() - 1;
    for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=".chars() {
        let other = format!("{}{letter}", &token[..last]);
        assert_eq!(refused(&other), other != token, "{letter}");
    }
    for other in [
        format!("{token}A"),
        format!("{token}."),
        format!(".{token}"),
        format!(" {token}"),
        format!("{token}\n"),
        format!("{token}="),
    ] {
        assert!(refused(&other), "{other}");
    }
}

#[test]
fn a_payload_under_the_signature_of_another_is_refused() {
    let token = issue(&key(), &claims()).unwrap();
    let parts: Vec<&str> = token.split('.').collect();
    for (field, value) in
        [("namespace", json!("other")), ("sub", json!("0x00")), ("exp", json!(9_999_999_999_i64))]
    {
        let mut changed = payload();
        changed[field] = value;
        assert!(
            refused(&format!("{}.{}.{}", parts[0], base64(changed.to_string()), parts[2])),
            "{field}"
        );
    }
}

#[test]
fn no_algorithm_but_ours_is_accepted() {
    let payload = payload().to_string();
    let kid = key().public_key().kid().to_owned();
    for alg in [
        "none", "None", "NONE", "", "eddsa", "EDDSA", "Ed25519", "ES256", "RS256", "PS256",
        "HS256", "HS512",
    ] {
        let header = json!({ "typ": "JWT", "alg": alg, "kid": kid }).to_string();
        let unsigned = format!("{}.{}.", base64(&header), base64(&payload));
        assert!(refused(&unsigned), "{alg} without a signature");
        assert!(refused(&signed(&header, &payload)), "{alg} under a good signature");
    }
    // What a verifier falls for that takes the key's type from the header: everybody knows the
    // public key.
    let public = key().public_key().clone();
    let secrets = [
        public.as_bytes().to_vec(),
        base64(public.as_bytes()).into_bytes(),
        public.kid().as_bytes().to_vec(),
    ];
    for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
        for secret in &secrets {
            let mut header = Header::new(algorithm);
            header.kid = Some(kid.clone());
            let value: Value = serde_json::from_str(&payload).unwrap();
            let forged =
                jsonwebtoken::encode(&header, &value, &EncodingKey::from_secret(secret)).unwrap();
            assert!(refused(&forged));
        }
    }
}

#[test]
fn a_header_says_what_ours_says_and_nothing_else() {
    let kid = key().public_key().kid().to_owned();
    let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": base64(key().public_key().as_bytes()) });
    let accepted = [good_header(), json!({ "alg": "EdDSA", "kid": kid }).to_string()];
    for header in accepted {
        assert!(!refused(&signed(&header, &payload().to_string())), "{header}");
    }
    let additions = [
        ("crit", json!(["exp"])),
        ("crit", json!([])),
        ("jwk", jwk),
        ("jku", json!("https://evil.example/jwks.json")),
        ("x5u", json!("https://evil.example/cert.pem")),
        ("x5c", json!([])),
        ("b64", json!(false)),
        ("enc", json!("A256GCM")),
        ("zip", json!("DEF")),
        ("cty", json!("JWT")),
        ("typ", json!("at+jwt")),
        ("typ", json!("jwt")),
        ("kid", json!(null)),
        ("kid", json!(7)),
        ("kid", json!("")),
        ("kid", json!("../../dev/null")),
        ("kid", json!(kid.to_uppercase())),
        ("x", json!({ "a": [1, 2, 3] })),
    ];
    for (field, value) in additions {
        let mut header: Value = serde_json::from_str(&good_header()).unwrap();
        header[field] = value;
        assert!(refused(&signed(&header.to_string(), &payload().to_string())), "{header}");
    }
    let twice = format!("{{\"alg\":\"EdDSA\",\"alg\":\"none\",\"kid\":\"{kid}\"}}");
    let deep = format!("{{\"alg\":\"EdDSA\",\"kid\":\"{kid}\",\"x\":{}}}", "[".repeat(500));
    for header in
        [twice.as_str(), deep.as_str(), "{}", "[]", "null", "", "\u{0}", "{\"alg\":\"EdDSA\"}"]
    {
        assert!(refused(&signed(header, &payload().to_string())), "{header}");
    }
}

#[test]
fn lesson_12_every_node_verifies_every_nodes_tokens_and_none_of_a_removed_key() {
    let (one, other) = (key(), SigningKey::from_seed([8; 32]).unwrap());
    let mut both: PublicKeySet =
        [one.public_key().clone(), other.public_key().clone()].into_iter().collect();
    let tokens = [&one, &other].map(|key| issue(key, &claims()).unwrap());
    for token in &tokens {
        assert_eq!(verify(token, &both, NOW).unwrap(), claims());
    }
    // A restarted node reads its seed back and continues with the same key.
    let restarted = SigningKey::from_hex(&one.to_hex()).unwrap();
    assert_eq!(issue(&restarted, &claims()).unwrap(), tokens[0]);
    assert!(both.remove(other.public_key().kid()) && !both.remove(other.public_key().kid()));
    assert!(verify(&tokens[0], &both, NOW).is_ok());
    assert_eq!(verify(&tokens[1], &both, NOW).unwrap_err().code, Code::Unauthenticated);
    // Our kid over another's signature.
    let mut header = Header::new(Algorithm::EdDSA);
    header.kid = Some(one.public_key().kid().to_owned());
    let forged = jsonwebtoken::encode(&header, &payload(), other.encoding_key()).unwrap();
    assert!(refused(&forged));
    assert!(verify(&tokens[0], &PublicKeySet::default(), NOW).is_err());
}

#[test]
fn a_token_of_another_issuer_or_audience_is_refused() {
    for field in ["iss", "aud"] {
        for value in [
            json!("other"),
            json!(""),
            json!("Debros"),
            json!(null),
            json!(["debros"]),
            json!(["debros", "other"]),
            json!(1),
        ] {
            assert!(
                refused(&with_payload(|payload| payload[field] = value.clone())),
                "{field} {value}"
            );
        }
        assert!(
            refused(&with_payload(|payload| _ = payload.as_object_mut().unwrap().remove(field))),
            "no {field}"
        );
    }
}

#[test]
fn a_token_is_good_from_its_issue_to_its_expiry() {
    let token = issue(&key(), &claims()).unwrap();
    let (issued_at, expires_at) = (claims().issued_at, claims().expires_at);
    assert_eq!((issued_at, expires_at), (1_700_000_000_000, 1_700_000_000_000 + LIFETIME_MS));
    for now in [issued_at, NOW, expires_at - 1, issued_at - MAX_AHEAD_MS] {
        assert!(!refused_at(&token, now), "{now}");
    }
    for now in [expires_at, expires_at + 1, issued_at - MAX_AHEAD_MS - 1, 0, i64::MIN, i64::MAX] {
        assert!(refused_at(&token, now), "{now}");
    }
    let code = |token: &str, now| verify(token, &keys(), now).unwrap_err().code;
    // Expired is said of what was good, and of nothing else.
    for (now, expected) in [
        (expires_at, Code::CredentialExpired),
        (i64::MAX, Code::CredentialExpired),
        (issued_at - MAX_AHEAD_MS - 1, Code::Unauthenticated),
    ] {
        assert_eq!(code(&token, now), expected, "{now}");
    }
    let of_another = with_payload(|payload| payload["aud"] = json!("other"));
    for forged in [format!("{token}A"), of_another] {
        assert_eq!(code(&forged, expires_at), Code::Unauthenticated);
    }
}

#[test]
fn each_time_in_a_token_counts() {
    let now = 1_700_000_000;
    for (field, value) in [
        ("exp", now),
        ("exp", now - 1),
        ("exp", i64::MIN),
        ("nbf", now + 31),
        ("nbf", i64::MAX),
        ("iat", now + 31),
        ("iat", i64::MAX),
    ] {
        assert!(refused(&with_payload(|payload| payload[field] = json!(value))), "{field} {value}");
    }
    for (field, value) in [
        ("exp", now + 1),
        ("exp", i64::MAX),
        ("nbf", now + 30),
        ("nbf", 0),
        ("iat", now + 30),
        ("iat", 0),
    ] {
        assert!(
            !refused(&with_payload(|payload| payload[field] = json!(value))),
            "{field} {value}"
        );
    }
    for field in ["exp", "nbf", "iat"] {
        assert!(
            refused(&with_payload(|payload| _ = payload.as_object_mut().unwrap().remove(field))),
            "no {field}"
        );
        for value in [json!("1700000100"), json!(null), json!(1.7e9), json!(true), json!(1e300)] {
            assert!(
                refused(&with_payload(|payload| payload[field] = value.clone())),
                "{field} {value}"
            );
        }
    }
}

#[test]
fn a_token_names_somebody_somewhere_and_one_credential() {
    let changes: [(&str, Value); 10] = [
        ("sub", json!("")),
        ("sub", json!(null)),
        ("jti", json!("")),
        ("namespace", json!("")),
        ("namespace", json!("_system")),
        ("namespace", json!("Shop")),
        ("namespace", json!("a:b")),
        ("key", json!("key_1")),
        ("sid", json!(null)),
        ("sid", json!(1)),
    ];
    for (field, value) in changes {
        assert!(
            refused(&with_payload(|payload| payload[field] = value.clone())),
            "{field} {value}"
        );
    }
}

#[test]
fn a_token_has_a_size() {
    let long = with_payload(|payload| payload["jti"] = json!("j".repeat(4000)));
    assert!(refused(&long));
    assert!(!refused(&with_payload(|payload| payload["jti"] = json!("j".repeat(2000)))));
    assert!(refused(&"e".repeat(1 << 20)));
}

#[test]
fn credentials_of_other_kinds_do_not_look_like_tokens() {
    for other in ["", "ak_00:shop", "rt_00", "op_00", "ey", "ey.a", "ey.a.b.c", "ak_a.b.c"] {
        assert!(!is_token(other), "{other}");
    }
}

/// RFC 8037, appendix A: the key of Ed25519's first test.
#[test]
fn public_keys_stand_as_rfc_8037_has_them() {
    let key =
        SigningKey::from_hex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
            .unwrap();
    let keys: PublicKeySet = [key.public_key().clone()].into_iter().collect();
    let expected = json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig",
        "kid": key.public_key().kid(), "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" }] });
    assert_eq!(serde_json::to_value(keys.to_jwks()).unwrap(), expected);
    let thumb = crate::secret::sha256(key.public_key().as_bytes());
    assert_eq!(key.public_key().kid(), &alloy_primitives::hex::encode(thumb)[..16]);
}

#[test]
fn keys_are_read_as_they_are_written_and_never_shown() {
    let key = key();
    assert_eq!(*key.to_hex(), "07".repeat(32));
    assert_eq!(SigningKey::from_hex(&key.to_hex()).unwrap().public_key(), key.public_key());
    assert_eq!(PublicKey::from_slice(key.public_key().as_bytes()).unwrap(), *key.public_key());
    assert!(!format!("{key:?}").contains("0707"));
    for wrong in [
        "",
        "07",
        &"0".repeat(63),
        &"0".repeat(65),
        &"g".repeat(64),
        &format!("0x{}", "0".repeat(62)),
    ] {
        assert_eq!(SigningKey::from_hex(wrong).unwrap_err().code, Code::InvalidArgument);
    }
    assert_eq!(PublicKey::from_slice(&[0; 31]).unwrap_err().code, Code::InvalidArgument);
}

proptest! {
    #[test]
    fn any_text_is_refused(token in any::<String>()) {
        assert!(refused(&token));
    }

    #[test]
    fn any_parts_are_refused(header in any::<Vec<u8>>(), payload in any::<Vec<u8>>(), signature in any::<Vec<u8>>()) {
        let token = format!("{}.{}.{}", base64(header), base64(payload), base64(signature));
        assert!(refused(&token));
    }

    #[test]
    fn any_signed_payload_is_read_or_refused(payload in any::<String>()) {
        assert!(refused(&signed(&good_header(), &payload)));
    }
}
