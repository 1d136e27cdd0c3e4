use super::{recover, verify};
use crate::PrivateKey;
use alloy_primitives::{U256, hex, uint};
use debros_proto::Code;
use proptest::prelude::{any, proptest};

const ORDER: U256 = uint!(0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141_U256);
const TEXT: &str = "Some data";

fn key() -> PrivateKey {
    PrivateKey::from_bytes(&[9; 32]).unwrap()
}

fn signed() -> [u8; 65] {
    hex::decode_to_array(key().sign_personal(TEXT)).unwrap()
}

fn with_v(v: u8) -> String {
    let mut bytes = signed();
    bytes[64] = v;
    hex::encode(bytes)
}

fn with_scalars(r: U256, s: U256, v: u8) -> String {
    hex::encode([&r.to_be_bytes::<32>()[..], &s.to_be_bytes::<32>()[..], &[v]].concat())
}

#[test]
fn the_signer_is_recovered_in_every_allowed_spelling() {
    let signature = key().sign_personal(TEXT);
    let digits = signature.strip_prefix("0x").unwrap().to_owned();
    let v = signed()[64];
    for spelling in [
        signature.clone(),
        digits.clone(),
        digits.to_uppercase(),
        format!("0X{digits}"),
        with_v(v),
        with_v(v - 27),
    ] {
        let signer = recover(TEXT, &spelling).unwrap();
        assert_eq!(signer.wallet, key().wallet());
        assert_eq!(verify(key().wallet(), TEXT, &spelling).unwrap(), signer);
        assert_eq!((signer.public_key[0], signer.public_key_hex().len()), (4, 132));
    }
}

#[test]
fn a_signature_of_another_key_or_text_is_refused() {
    let other = PrivateKey::from_bytes(&[8; 32]).unwrap();
    for (wallet, text, signature) in [
        (key().wallet(), TEXT, other.sign_personal(TEXT)),
        (other.wallet(), TEXT, key().sign_personal(TEXT)),
        (key().wallet(), "Some data ", key().sign_personal(TEXT)),
        (key().wallet(), "", key().sign_personal(TEXT)),
        // The other parity gives another key.
        (key().wallet(), TEXT, with_v(55 - signed()[64])),
    ] {
        assert_eq!(verify(wallet, text, &signature).unwrap_err().code, Code::Unauthenticated);
    }
}

/// (r, n - s) with the other parity is as valid as (r, s), for the mathematics.
#[test]
fn the_high_s_twin_of_a_valid_signature_is_refused() {
    let bytes = signed();
    let [r, s] = [&bytes[..32], &bytes[32..64]].map(U256::from_be_slice);
    let v = bytes[64];
    assert!(recover(TEXT, &with_scalars(r, s, v)).is_ok());
    for v in [v, 55 - v, v - 27, 28 - v] {
        let error = recover(TEXT, &with_scalars(r, ORDER - s, v)).unwrap_err();
        assert_eq!(error.code, Code::InvalidArgument);
        assert!(error.message.contains("low form"), "{error}");
    }
    // The highest low s there is has nothing wrong with its form.
    let middle = ORDER >> 1;
    assert_ne!(
        recover(TEXT, &with_scalars(r, middle, 27)).map(|_| ()).map_err(|error| error.code),
        Err(Code::InvalidArgument)
    );
    let above = recover(TEXT, &with_scalars(r, middle + U256::from(1), 27)).unwrap_err();
    assert_eq!(above.code, Code::InvalidArgument);
}

#[test]
fn v_is_one_of_four() {
    for v in (0..=255).filter(|v| ![0, 1, 27, 28].contains(v)) {
        let error = recover(TEXT, &with_v(v)).unwrap_err();
        assert_eq!(error.code, Code::InvalidArgument, "{v}");
        assert!(error.message.contains("(v)"), "{error}");
    }
}

#[test]
fn r_and_s_are_in_their_range() {
    let one = U256::from(1);
    for (r, s) in [
        (U256::ZERO, one),
        (one, U256::ZERO),
        (ORDER, one),
        (one, ORDER),
        (U256::MAX, one),
        (one, U256::MAX),
    ] {
        assert_eq!(recover(TEXT, &with_scalars(r, s, 27)).unwrap_err().code, Code::InvalidArgument);
    }
    // 5 is the x of no point of the curve: well-formed, and of nobody.
    assert_eq!(
        recover(TEXT, &with_scalars(U256::from(5), one, 27)).unwrap_err().code,
        Code::Unauthenticated
    );
}

#[test]
fn a_signature_has_65_bytes_in_hexadecimal() {
    let digits = hex::encode(signed());
    let wrong = [
        String::new(),
        "0x".into(),
        digits[..128].into(),
        digits[..129].into(),
        format!("{digits}0"),
        format!("{digits}00"),
        format!("0x0x{}", &digits[2..]),
        format!("0x{}", digits.replace(&digits[..1], "g")),
        format!(" {}", &digits[1..]),
        "é".repeat(65),
        "f".repeat(1 << 20),
    ];
    for signature in wrong {
        let error = recover(TEXT, &signature).unwrap_err();
        assert_eq!(error.code, Code::InvalidArgument);
        assert!(error.message.len() < 300);
    }
}

proptest! {
    #[test]
    fn any_text_as_a_signature_is_an_error(signature in any::<String>()) {
        assert!(recover(TEXT, &signature).is_err());
    }

    #[test]
    fn any_bytes_as_a_signature_are_not_the_wallets(bytes in proptest::collection::vec(any::<u8>(), 64), odd in any::<bool>()) {
        let signature = format!("{}{}", hex::encode(bytes), if odd { "1c" } else { "1b" });
        assert!(verify(key().wallet(), TEXT, &signature).is_err());
    }
}
