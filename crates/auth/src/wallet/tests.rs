use super::Wallet;
use debros_proto::Code;
use proptest::prelude::{any, proptest};

/// The examples of EIP-55.
const CHECKSUMMED: [&str; 8] = [
    "0x52908400098527886E0F7030069857D2E4169EE7",
    "0x8617E340B3D01FA5F11F306F4090FD50E238070D",
    "0xde709f2102306220921060314715629080e2fb77",
    "0x27b1fdb04752bbc536007a920d24acb045561c26",
    "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
    "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
    "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
    "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
];

#[test]
fn lesson_09_a_wallet_is_one_wallet_in_every_spelling() {
    for text in CHECKSUMMED {
        let wallet = Wallet::parse(text).unwrap();
        assert_eq!(wallet.checksummed(), text);
        assert_eq!(wallet.to_string(), text.to_lowercase());
        let digits = &text[2..];
        let upper = digits.to_uppercase();
        let spellings = [
            digits.to_owned(),
            text.to_lowercase(),
            digits.to_lowercase(),
            upper.clone(),
            format!("0X{upper}"),
            format!("0x{upper}"),
            format!("0X{digits}"),
        ];
        for spelling in spellings {
            assert_eq!(Wallet::parse(&spelling).unwrap(), wallet, "{spelling}");
        }
    }
}

#[test]
fn a_wrong_checksum_is_a_typing_error() {
    for text in CHECKSUMMED.iter().skip(4) {
        // The same address with the case of one letter turned, and with one digit mistyped.
        let at = text.rfind(|letter: char| letter.is_ascii_lowercase()).unwrap();
        let mut turned = (*text).to_owned();
        turned.replace_range(at..=at, &text[at..=at].to_uppercase());
        let at = text.rfind(|digit: char| digit.is_ascii_digit()).unwrap();
        let mut mistyped = (*text).to_owned();
        mistyped.replace_range(at..=at, if &text[at..=at] == "1" { "2" } else { "1" });
        for wrong in [turned, mistyped] {
            let error = Wallet::parse(&wrong).unwrap_err();
            assert_eq!(error.code, Code::InvalidArgument);
            assert!(error.message.contains("mistyped"), "{error}");
        }
    }
}

#[test]
fn what_is_no_address_is_refused() {
    let wrong = [
        "",
        "0x",
        "0x52908400098527886E0F7030069857D2E4169EE",
        "0x52908400098527886E0F7030069857D2E4169EE77",
        "0x0x2908400098527886E0F7030069857D2E4169EE7",
        "52908400098527886E0F7030069857D2E4169E0x",
        " 0x52908400098527886E0F7030069857D2E4169EE7",
        "0x52908400098527886E0F7030069857D2E4169EE7\n",
        "0x52908400098527886E0F7030069857D2E4169EEg",
        "0x5290840009852788６E0F7030069857D2E4169EE",
        "vitalik.eth",
    ];
    for text in wrong {
        assert_eq!(Wallet::parse(text).unwrap_err().code, Code::InvalidArgument, "{text:?}");
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in any::<String>()) {
        let _ = Wallet::parse(&text);
    }

    #[test]
    fn every_address_is_read_in_both_of_its_forms(bytes in any::<[u8; 20]>()) {
        let wallet = Wallet::from_bytes(bytes);
        assert_eq!(Wallet::parse(&wallet.to_string()).unwrap(), wallet);
        assert_eq!(Wallet::parse(&wallet.checksummed()).unwrap(), wallet);
    }
}
