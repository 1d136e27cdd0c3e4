//! Signatures and wallets, in every form that is not the right one.

use crate::support::{Network, address, challenge, code, one_node, signed, wallet};
use debros_client::rpc::{ChallengeRequest, Proof};
use debros_client::{Code, NewKey};

/// Order of secp256k1.
const ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe,
    0xba, 0xae, 0xdc, 0xe6, 0xaf, 0x48, 0xa0, 0x3b, 0xbf, 0xd2, 0x5e, 0x8c, 0xd0, 0x36, 0x41, 0x41,
];

fn bytes(hex: &str) -> Vec<u8> {
    let hex = hex.strip_prefix("0x").unwrap_or(hex);
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The other signature that is mathematically as good: (r, n - s), with the other v.
fn with_high_s(signature: &str) -> String {
    let mut all = bytes(signature);
    let mut borrow = 0_i16;
    for at in (0..32).rev() {
        let difference = i16::from(ORDER[at]) - i16::from(all[32 + at]) - borrow;
        borrow = i16::from(difference < 0);
        all[32 + at] = u8::try_from(difference.rem_euclid(256)).unwrap();
    }
    all[64] = if all[64] == 27 { 28 } else { 27 };
    hex(&all)
}

#[tokio::test]
async fn signatures_of_another_form_are_refused_and_the_right_one_still_works() {
    let (network, node) = one_node().await;
    let client = node.client_without_credential().await;
    let asked = challenge(&client, address(1), "a").await;
    let good = signed(&asked, &wallet(1), &asked.message);
    let all = bytes(&good.signature);
    let with_v = |v: u8| hex(&[&all[..64], &[v]].concat());
    let cases = [
        ("high s", with_high_s(&good.signature)),
        ("too short", hex(&all[..64])),
        ("too long", hex(&[&all[..], &[0]].concat())),
        ("compact", hex(&all[..63])),
        ("no hex", "zz".repeat(65)),
        ("v 2", with_v(2)),
        ("v 26", with_v(26)),
        ("v 29", with_v(29)),
        ("v 37", with_v(37)),
        ("v 255", with_v(255)),
        ("r zero", hex(&[&[0; 32], &all[32..]].concat())),
        ("s zero", hex(&[&all[..32], &[0; 32], &all[64..]].concat())),
        ("r too large", hex(&[&ORDER[..], &all[32..]].concat())),
        ("empty", String::new()),
    ];
    for (name, signature) in cases {
        let proof = Proof { signature, ..good.clone() };
        assert_eq!(code(client.auth().sign_in(proof).await), Some(Code::InvalidArgument), "{name}");
    }
    assert_eq!(network.count("sessions").await, 0);
    // The same in the forms that wallets give: without 0x, upper case, v 0 and 1.
    let odd = all[64] - 27;
    let proof = Proof { signature: with_v(odd).to_uppercase(), ..good };
    client.auth().sign_in(proof).await.unwrap();
}

#[tokio::test]
async fn a_signature_by_another_key_or_over_another_text_is_refused() {
    let (network, node) = one_node().await;
    let client = node.client_without_credential().await;
    let asked = challenge(&client, address(1), "a").await;
    let other = challenge(&client, address(1), "a").await;
    let changed = |from: &str, to: &str| {
        let text = asked.message.replace(from, to);
        assert_ne!(text, asked.message, "{from}");
        text
    };
    let texts = [
        ("another text", "Sign in".to_owned()),
        ("another nonce", other.nonce.clone()),
        ("another challenge", other.message.clone()),
        ("another domain", changed("p2p.debros wants", "evil.example wants")),
        ("another URI", changed("URI: p2p://debros/rpc/1.0.0", "URI: https://evil.example")),
        ("another namespace", changed("namespace a on", "namespace b on")),
        ("another chain", changed("Chain ID: 1\n", "Chain ID: 5\n")),
        ("another version", changed("Version: 1", "Version: 2")),
        ("another nonce in the message", changed(&asked.nonce, &other.nonce)),
        ("a later expiry", changed("Expiration Time: 2", "Expiration Time: 3")),
        ("an address in lower case", changed(&address(1).checksummed(), &address(1).to_string())),
        ("a line more", format!("{}\n", asked.message)),
    ];
    // Each its own challenge's worth of attempts is not needed: the tenth is still answered for
    // itself.
    for (index, (name, text)) in texts.iter().enumerate() {
        network.clock.advance(std::time::Duration::from_secs(6));
        let error = client.auth().sign_in(signed(&asked, &wallet(1), text)).await.unwrap_err();
        assert_eq!(error.code, Code::Unauthenticated, "{index} {name}: {error}");
        assert!(error.message.contains("signature"), "{name}: {error}");
    }
    let by_another = signed(&asked, &wallet(2), &asked.message);
    assert_eq!(code(client.auth().sign_in(by_another).await), Some(Code::Unauthenticated));
    assert_eq!(network.count("sessions").await, 0);
    client.auth().sign_in(signed(&asked, &wallet(1), &asked.message)).await.unwrap();
}

/// Lesson 9: the signed text said nothing of where and for how long, so that a site could pass it
/// on.
#[tokio::test]
async fn lesson_09_a_challenge_of_one_site_does_not_work_for_another() {
    let network = Network::new().await;
    let node =
        network.node_with(|config| config.sign_in_domains = vec!["gateway.example".into()]).await;
    let client = node.client_without_credential().await;
    let site = |domain: &str, uri: &str, chain_id| ChallengeRequest {
        wallet: address(1).to_string(),
        namespace: "a".into(),
        domain: domain.into(),
        uri: uri.into(),
        chain_id,
        ..Default::default()
    };
    let asked = client
        .auth()
        .challenge(site("gateway.example", "https://gateway.example/", 10))
        .await
        .unwrap();
    assert!(asked.message.starts_with("gateway.example wants"), "{}", asked.message);
    let good = Proof {
        domain: "gateway.example".into(),
        uri: "https://gateway.example/".into(),
        chain_id: 10,
        ..signed(&asked, &wallet(1), &asked.message)
    };
    let cases = [
        ("domain", Proof { domain: "localhost".into(), ..good.clone() }),
        ("URI", Proof { uri: "https://gateway.example/other".into(), ..good.clone() }),
        ("chain", Proof { chain_id: 1, ..good.clone() }),
        (
            "no site",
            Proof { domain: String::new(), uri: String::new(), chain_id: 0, ..good.clone() },
        ),
    ];
    for (name, proof) in cases {
        assert_eq!(code(client.auth().sign_in(proof).await), Some(Code::Unauthenticated), "{name}");
    }
    client.auth().sign_in(good).await.unwrap();
    for (domain, uri) in [
        ("a\nb", "https://a"),
        ("a b", "https://a"),
        ("a", ""),
        ("", "https://a"),
        ("a", "https://a\nNonce: x"),
    ] {
        assert_eq!(
            code(client.auth().challenge(site(domain, uri, 0)).await),
            Some(Code::InvalidArgument),
            "{domain:?}"
        );
    }
}

/// Lesson 9: a site that is none of the network's had its visitors sign under its own name, and any
/// peer could use it.
#[tokio::test]
async fn lesson_09_a_foreign_site_signs_nobody_in() {
    let (network, node) = one_node().await;
    let client = node.client_without_credential().await;
    let foreign = ChallengeRequest {
        wallet: address(1).to_string(),
        namespace: "a".into(),
        domain: "evil.example".into(),
        uri: "https://evil.example/".into(),
        ..Default::default()
    };
    let refused = client.auth().challenge(foreign.clone()).await.unwrap_err();
    assert_eq!(refused.code, Code::Forbidden);
    assert!(refused.message.contains("security.sign_in_domains"), "{refused}");
    // Whoever got the challenge, the proof is refused from a peer, whatever it would open.
    let inside = node.operator_client("");
    let asked = inside.auth().challenge(foreign).await.unwrap();
    let proof = Proof {
        domain: "evil.example".into(),
        uri: "https://evil.example/".into(),
        ..signed(&asked, &wallet(1), &asked.message)
    };
    assert_eq!(code(client.auth().sign_in(proof.clone()).await), Some(Code::Forbidden));
    assert_eq!(code(client.auth().register_app(proof.clone(), "x").await), Some(Code::Forbidden));
    assert_eq!(
        code(client.auth().create_key_by_proof(proof.clone(), NewKey::default()).await),
        Some(Code::Forbidden)
    );
    assert_eq!(network.count("namespaces").await + network.count("used_nonces").await, 0);
    // A gateway in the process names itself.
    inside.auth().sign_in(proof).await.unwrap();
}

/// Lesson 9: wallets were compared with regard to case.
#[tokio::test]
async fn lesson_09_a_wallet_is_the_same_in_every_form() {
    let (network, node) = one_node().await;
    let client = node.client_without_credential().await;
    let key = wallet(1);
    let lower = key.wallet().to_string();
    let bare = lower[2..].to_owned();
    let checksummed = key.wallet().checksummed();
    let upper = format!("0x{}", bare.to_uppercase());
    let bare_checksummed = checksummed[2..].to_owned();
    for form in [&lower, &bare, &checksummed, &upper, &bare_checksummed] {
        let request =
            ChallengeRequest { wallet: form.clone(), namespace: "a".into(), ..Default::default() };
        let asked = client.auth().challenge(request).await.unwrap();
        assert_eq!(asked.wallet, lower);
        // The proof may write it in yet another form.
        let proof = Proof { wallet: upper.clone(), ..signed(&asked, &key, &asked.message) };
        assert_eq!(client.auth().sign_in(proof).await.unwrap().subject, lower, "{form}");
    }
    let wallets = network.rows("SELECT DISTINCT wallet FROM sessions").await;
    assert_eq!(wallets.len(), 1);

    // One letter of the checksum in the other case.
    let at = checksummed.rfind(|sign: char| sign.is_ascii_alphabetic()).unwrap();
    let mut mistyped = checksummed.clone().into_bytes();
    mistyped[at] ^= 0x20;
    let mistyped = String::from_utf8(mistyped).unwrap();
    for bad in [
        mistyped.as_str(),
        "",
        "0x",
        "0x12",
        &format!("{lower}0"),
        &"g".repeat(40),
        "vitalik.eth",
        &"é".repeat(20),
    ] {
        let request =
            ChallengeRequest { wallet: bad.into(), namespace: "a".into(), ..Default::default() };
        assert_eq!(
            code(client.auth().challenge(request).await),
            Some(Code::InvalidArgument),
            "{bad}"
        );
    }
    let request =
        ChallengeRequest { wallet: mistyped, namespace: "a".into(), ..Default::default() };
    assert!(client.auth().challenge(request).await.unwrap_err().message.contains("mistyped"));
}
