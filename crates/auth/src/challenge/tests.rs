use super::{
    ChallengeKey, LIFETIME_MS, MAX_AHEAD_MS, P2P_DOMAIN, P2P_URI, SignInTerms, check, issue,
    message,
};
use crate::{PrivateKey, Wallet};
use alloy_primitives::hex;
use debros_proto::{Code, Namespace};
use proptest::prelude::{any, proptest};
use std::collections::HashSet;

const NOW: i64 = 1_700_000_000_789;

fn key() -> ChallengeKey {
    ChallengeKey::new([1; 32])
}

fn owner() -> PrivateKey {
    PrivateKey::from_bytes(&[2; 32]).unwrap()
}

#[test]
fn a_refresh_token_has_one_successor_on_all_nodes_of_a_network_and_on_no_other() {
    let token = crate::secret::refresh_token([5; 32]);
    let next = key().next_refresh_token(token.expose());
    assert_eq!(
        next.expose(),
        "rt_0937dc7c9869d090e91718f5af092a17e2618422f16e69b175683dc5e697d8fb"
    );
    assert!(crate::secret::is_refresh_token(next.expose()));
    assert_eq!(next, key().next_refresh_token(token.expose()));
    let others = [
        ChallengeKey::new([2; 32]).next_refresh_token(token.expose()),
        key().next_refresh_token(next.expose()),
        key().next_refresh_token(&alloy_primitives::hex::encode(token.hash())),
    ];
    for other in others {
        assert!(other != next && other != token);
    }
}

fn namespace(name: &str) -> Namespace {
    Namespace::new(name).unwrap()
}

fn terms() -> SignInTerms {
    SignInTerms::new(
        owner().wallet(),
        namespace("shop"),
        "gateway.example",
        "https://gateway.example/v1/auth/login",
        1,
    )
    .unwrap()
}

/// Terms that differ from [`terms`] in one field each.
fn other_terms() -> Vec<SignInTerms> {
    let (wallet, uri) = (owner().wallet(), "https://gateway.example/v1/auth/login");
    let new = |wallet, name, domain, uri, chain_id| {
        SignInTerms::new(wallet, namespace(name), domain, uri, chain_id).unwrap()
    };
    vec![
        new(Wallet::from_bytes([3; 20]), "shop", "gateway.example", uri, 1),
        new(wallet, "shop2", "gateway.example", uri, 1),
        new(wallet, "shop", "evil.example", uri, 1),
        new(wallet, "shop", "gateway.example", "https://gateway.example/v1/auth/logi", 1),
        new(wallet, "shop", "gateway.example", uri, 2),
        SignInTerms::p2p(wallet, namespace("shop")),
        // Bytes moved across the border between two fields.
        new(wallet, "sho", "pgateway.example", uri, 1),
    ]
}

#[test]
fn the_message_is_eip_4361_to_the_byte() {
    let challenge = issue(&key(), &terms(), NOW, [3; 11]).unwrap();
    let expected = format!(
        "gateway.example wants you to sign in with your Ethereum account:\n\
         {}\n\
         \n\
         Sign in to the namespace shop on DeBros Network.\n\
         \n\
         URI: https://gateway.example/v1/auth/login\n\
         Version: 1\n\
         Chain ID: 1\n\
         Nonce: {NONCE}\n\
         Issued At: 2023-11-14T22:13:20Z\n\
         Expiration Time: 2023-11-14T22:18:20Z",
        owner().wallet().checksummed(),
    );
    assert_eq!(challenge.message, expected);
    assert_eq!((challenge.issued_at, challenge.expires_at), (1_700_000_000_000, 1_700_000_300_000));
}

/// Who signs nothing but what it made itself gets the same text; a node that sends anything else
/// gets no text at all.
#[test]
fn the_message_can_be_made_from_what_a_challenge_says() {
    let challenge = issue(&key(), &terms(), NOW, [3; 11]).unwrap();
    assert_eq!(message(&terms(), &challenge.nonce, challenge.issued_at), Some(challenge.message));
    for nonce in ["", &NONCE[1..], &NONCE.to_uppercase(), &format!("{}\n", &NONCE[1..])] {
        assert_eq!(message(&terms(), nonce, NOW), None, "{nonce}");
    }
    for time in [i64::MIN, -1, 1 << 60, i64::MAX] {
        assert_eq!(message(&terms(), NONCE, time), None, "{time}");
    }
}

const NONCE: &str = "006553f1000303030303030303030303a4a95365b6930525afa8b7c6e0d7f7a6";

/// Nodes of different versions have to check each other's nonces: a changed byte here breaks a
/// network.
#[test]
fn a_nonce_keeps_its_form() {
    assert_eq!(issue(&key(), &terms(), NOW, [3; 11]).unwrap().nonce, NONCE);
}

#[test]
fn a_wallet_proves_itself_with_the_message_or_the_bare_nonce() {
    let challenge = issue(&key(), &terms(), NOW, [3; 11]).unwrap();
    assert_eq!(check(&key(), &terms(), &challenge.nonce, NOW).unwrap(), challenge);
    for text in [&challenge.message, &challenge.nonce] {
        assert_eq!(
            challenge.verify_signature(&owner().sign_personal(text)).unwrap().wallet,
            owner().wallet()
        );
        let other = PrivateKey::from_bytes(&[4; 32]).unwrap();
        assert_eq!(
            challenge.verify_signature(&other.sign_personal(text)).unwrap_err().code,
            Code::Unauthenticated
        );
    }
}

#[test]
fn lesson_09_a_message_with_another_domain_uri_nonce_or_time_is_not_the_one_that_was_asked_for() {
    let challenge = issue(&key(), &terms(), NOW, [3; 11]).unwrap();
    let later = issue(&key(), &terms(), NOW + 1000, [3; 11]).unwrap();
    let message = &challenge.message;
    let mut others = vec![
        later.message,
        format!("{message}\n"),
        format!(" {message}"),
        message.replace('\n', "\r\n"),
        message.replace(&challenge.nonce, &later.nonce),
        message.replace("Nonce: 00", "Nonce: 01"),
        message.replace("22:18:20Z", "22:18:21Z"),
        message.replace("Expiration Time: 2023", "Expiration Time: 2033"),
        message.replace("22:13:20Z", "22:13:19Z"),
        message.replace("Chain ID: 1", "Chain ID: 10"),
        message.replace("Version: 1", "Version: 2"),
        message.replace(&owner().wallet().checksummed(), &owner().wallet().to_string()),
        challenge.nonce.to_uppercase(),
        format!("0x{}", challenge.nonce),
        String::new(),
    ];
    others.extend(
        other_terms().iter().map(|terms| issue(&key(), terms, NOW, [3; 11]).unwrap().message),
    );
    for text in others {
        assert_ne!(text, *message);
        assert_eq!(
            challenge.verify_signature(&owner().sign_personal(&text)).unwrap_err().code,
            Code::Unauthenticated,
            "{text}"
        );
    }
}

#[test]
fn a_nonce_is_of_one_wallet_namespace_site_and_network() {
    let nonce = issue(&key(), &terms(), NOW, [3; 11]).unwrap().nonce;
    for other in other_terms() {
        assert_eq!(
            check(&key(), &other, &nonce, NOW).unwrap_err().code,
            Code::Unauthenticated,
            "{other:?}"
        );
    }
    let of_another_network = check(&ChallengeKey::new([9; 32]), &terms(), &nonce, NOW).unwrap_err();
    assert_eq!(of_another_network.code, Code::Unauthenticated);
}

#[test]
fn a_nonce_with_any_bit_turned_was_never_issued() {
    let nonce = issue(&key(), &terms(), NOW, [3; 11]).unwrap().nonce;
    let bytes: [u8; 32] = hex::decode_to_array(&nonce).unwrap();
    for bit in 0..256 {
        let mut turned = bytes;
        turned[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(
            check(&key(), &terms(), &hex::encode(turned), NOW).unwrap_err().code,
            Code::Unauthenticated,
            "{bit}"
        );
    }
}

#[test]
fn a_nonce_is_good_for_five_minutes_and_not_from_the_future() {
    let challenge = issue(&key(), &terms(), NOW, [3; 11]).unwrap();
    let at = |now| {
        check(&key(), &terms(), &challenge.nonce, now).map(|_| ()).map_err(|error| error.code)
    };
    let issued_at = challenge.issued_at;
    assert_eq!(challenge.expires_at, issued_at + LIFETIME_MS);
    for now in [issued_at, issued_at + LIFETIME_MS - 1, issued_at - MAX_AHEAD_MS] {
        assert_eq!(at(now), Ok(()), "{now}");
    }
    for now in [issued_at + LIFETIME_MS, issued_at - MAX_AHEAD_MS - 1, 0, i64::MAX, i64::MIN] {
        assert_eq!(at(now), Err(Code::Unauthenticated), "{now}");
    }
}

#[test]
fn one_sentence_tells_nothing_about_the_reason() {
    let challenge = issue(&key(), &terms(), NOW, [3; 11]).unwrap();
    let reasons: HashSet<String> = [
        check(&key(), &terms(), &"0".repeat(64), NOW),
        check(&key(), &other_terms()[0], &challenge.nonce, NOW),
        check(&key(), &terms(), &challenge.nonce, NOW + LIFETIME_MS),
        Err(super::invalid_nonce_error()),
    ]
    .into_iter()
    .map(|checked| checked.unwrap_err().message)
    .collect();
    assert_eq!(reasons.len(), 1);
}

#[test]
fn a_nonce_of_another_form_is_an_error_of_form() {
    let nonce = issue(&key(), &terms(), NOW, [3; 11]).unwrap().nonce;
    let wrong = [
        String::new(),
        nonce[..63].into(),
        format!("{nonce}0"),
        format!("0x{}", &nonce[2..]),
        nonce.to_uppercase().replace('0', "A"),
        nonce.replace('0', "g"),
        "é".repeat(32),
    ];
    for nonce in wrong {
        assert_eq!(
            check(&key(), &terms(), &nonce, NOW).unwrap_err().code,
            Code::InvalidArgument,
            "{nonce}"
        );
    }
}

#[test]
fn a_clock_that_is_not_set_makes_no_challenge() {
    for now in [-1, i64::MIN, i64::MAX, (1_i64 << 40) * 1000, 253_402_300_800_000] {
        assert_eq!(
            issue(&key(), &terms(), now, [3; 11]).unwrap_err().code,
            Code::Internal,
            "{now}"
        );
    }
    assert!(issue(&key(), &terms(), 0, [3; 11]).is_ok());
}

#[test]
fn nonces_differ_and_so_do_the_hashes_that_are_kept() {
    let challenges = [[3; 11], [4; 11]].map(|random| issue(&key(), &terms(), NOW, random).unwrap());
    assert_ne!(challenges[0].nonce, challenges[1].nonce);
    assert_ne!(challenges[0].nonce_hash(), challenges[1].nonce_hash());
    assert_eq!(challenges[0].nonce_hash(), crate::secret::sha256(&challenges[0].nonce));
}

#[test]
fn who_names_no_site_signs_in_over_the_peer_to_peer_network() {
    let terms = SignInTerms::new(owner().wallet(), namespace("shop"), "", "", 0).unwrap();
    assert_eq!(terms, SignInTerms::p2p(owner().wallet(), namespace("shop")));
    assert_eq!((terms.domain(), terms.uri(), terms.chain_id()), (P2P_DOMAIN, P2P_URI, 1));
    // They are of the form that is asked of everyone.
    assert!(SignInTerms::new(owner().wallet(), namespace("shop"), P2P_DOMAIN, P2P_URI, 1).is_ok());
    for (domain, uri) in [("a.example", ""), ("", "https://a.example")] {
        let error =
            SignInTerms::new(owner().wallet(), namespace("shop"), domain, uri, 1).unwrap_err();
        assert_eq!(error.code, Code::InvalidArgument);
    }
}

fn fits(domain: &str, uri: &str) -> bool {
    SignInTerms::new(owner().wallet(), namespace("shop"), domain, uri, 1).is_ok()
}

#[test]
fn nothing_but_a_domain_and_a_uri_comes_into_the_signed_text() {
    let uri = "https://a.example/";
    for domain in [
        "localhost:6001",
        "a.example",
        "A.example:443",
        "10.0.0.1:80",
        "[::1]:6001",
        "[2001:db8::1]",
        "my_host",
    ] {
        assert!(fits(domain, uri), "{domain}");
    }
    let long = "a".repeat(260);
    for domain in [
        "a.example\nURI: https://evil.example",
        "a.example wants",
        "a.example\r",
        "https://a.example",
        "user@a.example",
        "a.example/path",
        "a.example:",
        "a.example:0",
        "a.example:65536",
        "a.example:+80",
        "a.example:80:80",
        ":80",
        "[::1",
        "[::1]x",
        "[a.example]",
        "ä.example",
        "a\u{0}b",
        "a%20b",
        &long,
    ] {
        assert!(!fits(domain, uri), "{domain}");
    }
    let domain = "a.example";
    for uri in
        ["https://a.example/a?b=c&d=%20#e", "p2p://debros/rpc/1.0.0", "urn:x", "http://[::1]:6001/"]
    {
        assert!(fits(domain, uri), "{uri}");
    }
    let long = format!("https://a.example/{}", "a".repeat(1024));
    for uri in [
        "https://a.example/\nVersion: 2",
        "https://a.example/ x",
        "https://a.example/\t",
        "https://a.example/\u{2028}",
        "https://a.example/ä",
        "https://a.example/<script>",
        "https://a.example/%zz",
        "https://a.example/%2",
        "//a.example",
        "a.example",
        ":x",
        "1http:x",
        "https:",
        &long,
    ] {
        assert!(!fits(domain, uri), "{uri}");
    }
}

#[test]
fn the_key_is_never_in_its_debug_output() {
    assert_eq!(format!("{:?}", ChallengeKey::new([0xab; 32])), "ChallengeKey(…)");
}

proptest! {
    #[test]
    fn every_message_has_eleven_lines_whatever_the_site_is_called(domain in any::<String>(), uri in any::<String>(), chain_id in any::<u64>()) {
        if let Ok(terms) = SignInTerms::new(owner().wallet(), namespace("shop"), &domain, &uri, chain_id) {
            let challenge = issue(&key(), &terms, NOW, [3; 11]).unwrap();
            assert_eq!(challenge.message.lines().count(), 11);
        }
    }

    #[test]
    fn a_site_of_allowed_characters_does_not_add_lines(domain in "[a-z0-9.:\\[\\]-]{1,40}", uri in "[a-z]{1,5}:[!-~]{0,60}") {
        if let Ok(terms) = SignInTerms::new(owner().wallet(), namespace("shop"), &domain, &uri, 1) {
            let challenge = issue(&key(), &terms, NOW, [3; 11]).unwrap();
            assert!(challenge.message.starts_with(&format!("{domain} wants you to")));
            assert_eq!(challenge.message.lines().nth(5), Some(format!("URI: {uri}").as_str()));
        }
    }

    #[test]
    fn any_text_as_a_nonce_is_an_error(nonce in any::<String>()) {
        assert!(check(&key(), &terms(), &nonce, NOW).is_err());
    }
}
