//! What each kind of setting takes.

use super::{ListItemKind, RawSetting, SettingKind, SettingValue, is_placeholder};

#[test]
fn addresses_are_checked() {
    let reads = |kind: SettingKind, text: &str| kind.parse(&RawSetting::One(text.into())).is_ok();
    for good in [":8080", "127.0.0.1:0", "localhost:8080", "[::1]:8080", "0.0.0.0:65535"] {
        assert!(reads(SettingKind::ListenAddress, good), "{good}");
    }
    for bad in ["", "8080", ":", ":x", ":65536", "::1:8080", "a b:1", "[::1:8080", ":+1"] {
        assert!(!reads(SettingKind::ListenAddress, bad), "{bad}");
    }
    assert!(
        reads(SettingKind::Host, "")
            && reads(SettingKind::Host, "127.0.0.1")
            && reads(SettingKind::Host, "db.example.org:5001")
    );
    assert!(!reads(SettingKind::Host, "a/b") && !reads(SettingKind::Host, "host:0"));
    for good in ["", "10.0.0.1:7001", "http://127.0.0.1:5001", "/ip4/10.0.0.1/tcp/4001"] {
        assert!(reads(SettingKind::JoinAddress, good), "{good}");
    }
    assert!(
        !reads(SettingKind::JoinAddress, "10.0.0.1")
            && !reads(SettingKind::JoinAddress, "/nonsense/1")
    );
}

#[test]
fn wallets_networks_and_origins_are_checked() {
    let reads = |kind: SettingKind, text: &str| kind.parse(&RawSetting::One(text.into())).is_ok();
    let wallets = SettingKind::List(ListItemKind::Wallet);
    assert!(reads(wallets, "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"));
    assert!(reads(wallets, "f39fd6e51aad88f6f4ce6ab8827279cfffb92266"));
    // One letter in the other case: the checksum of EIP-55 does not fit.
    for bad in ["0xF39Fd6e51aad88F6F4ce6aB8827279cffFb92266", "0xf39f", "owner", "0x"] {
        assert!(!reads(wallets, bad), "{bad}");
    }
    let sites = SettingKind::List(ListItemKind::Authority);
    assert!(reads(sites, "gw.example,gw.example:8443,192.0.2.1,[2001:db8::1]:8080"));
    for bad in ["https://gw.example", "gw.example/path", "user@gw.example", "a b", "gw.example:x"] {
        assert!(!reads(sites, bad), "{bad}");
    }
    let networks = SettingKind::List(ListItemKind::Network);
    assert!(reads(networks, "10.0.0.0/8,192.0.2.1,2001:db8::/32,::1"));
    for bad in ["10.0.0.0/33", "proxy.example", "10.0.0", "*"] {
        assert!(!reads(networks, bad), "{bad}");
    }
    for good in [
        "",
        "https://api.example.org",
        "http://127.0.0.1:8080",
        "https://[::1]:8443",
        "https://example.org/debros",
    ] {
        assert!(reads(SettingKind::WebAddress, good), "{good}");
    }
    for bad in [
        "api.example.org",
        "ftp://x",
        "https://x/",
        "https://x/a?b",
        "https://u@x",
        "https://x?y",
        "https://x/<a>",
        "https://",
        "javascript:x",
    ] {
        assert!(!reads(SettingKind::WebAddress, bad), "{bad}");
    }
}

#[test]
fn peers_need_an_id_and_a_placeholder_is_told_from_a_mistake() {
    let id = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp";
    let reads =
        |text: String| SettingKind::List(ListItemKind::Peer).parse(&RawSetting::Many(vec![text]));
    assert!(reads(format!("/ip4/127.0.0.1/tcp/4001/p2p/{id}")).is_ok());
    assert!(reads("/ip4/127.0.0.1/tcp/4001".into()).unwrap_err().contains("/p2p/"));
    assert!(reads("/ip4/127.0.0.1/tcp/4001/p2p/xyz".into()).is_err());
    assert!(is_placeholder("/ip4/127.0.0.1/tcp/4001/p2p/<YOUR_BOOTSTRAP_PEER_ID>"));
    for bad in [
        "/ip4/127.0.0.1/tcp/4001/p2p/<>",
        "/nonsense/p2p/<YOUR_ID>",
        "/ip4/127.0.0.1/tcp/4001/p2p/<your id>",
    ] {
        assert!(!is_placeholder(bad) && reads(bad.into()).is_err(), "{bad}");
    }
}

#[test]
fn lists_come_from_yaml_and_from_variables_and_never_show_a_key() {
    let kind = SettingKind::List(ListItemKind::ApiKey);
    let list = SettingValue::List(vec!["ak_1:a".into(), "ak_2:b".into()]);
    assert_eq!(kind.parse(&RawSetting::One("ak_1:a, ak_2:b,".into())), Ok(list.clone()));
    assert_eq!(kind.parse(&RawSetting::Many(vec!["ak_1:a".into(), "ak_2:b".into()])), Ok(list));
    for bad in ["hunter2", "hunter2:BAD", ":a", "hunter2:a,hunter2:a"] {
        assert!(!kind.parse(&RawSetting::One(bad.into())).unwrap_err().contains("hunter2"));
    }
}
