//! Kinds of settings: how each reads as text, and how it is written back.

use super::units::{duration_text, parse_duration, parse_size, size_text};
use debros_auth::wallet::Wallet;
use std::time::Duration;

/// What a setting holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingValue {
    /// `true` or `false`.
    Bool(bool),
    /// Text, a path or an address.
    Text(String),
    /// A whole number.
    Integer(u64),
    /// A time span.
    Duration(Duration),
    /// A number of bytes.
    Size(u64),
    /// Several texts.
    List(Vec<String>),
}

/// What values a setting takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettingKind {
    /// `true` or `false`.
    Bool,
    /// Any text.
    Text,
    /// A namespace.
    Namespace,
    /// A path; a relative one starts at the folder that the program was started in.
    Path,
    /// One of a few words.
    Choice(&'static [&'static str]),
    /// A whole number.
    Integer {
        /// The smallest.
        min: u64,
        /// The largest.
        max: u64,
    },
    /// A time span.
    Duration {
        /// The shortest.
        min: Duration,
        /// The longest.
        max: Duration,
        /// Whether 0 is allowed too, for "off".
        off: bool,
    },
    /// A number of bytes.
    Size {
        /// The smallest.
        min: u64,
        /// Whether 0 is allowed too, for "off".
        off: bool,
    },
    /// `host:port` or `:port` to listen on; port 0 lets the system choose.
    ListenAddress,
    /// `host` or `host:port`, or nothing.
    Host,
    /// `host:port`, `http://host:port` or a multiaddr, or nothing.
    JoinAddress,
    /// Where browsers find a gateway: `https://host` or `http://host:port`, perhaps with a path, or
    /// nothing.
    WebAddress,
    /// Several texts.
    List(ListItemKind),
}

/// What stands in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListItemKind {
    /// Any text.
    Text,
    /// A multiaddr to listen on.
    Multiaddr,
    /// A multiaddr with a peer id.
    Peer,
    /// A namespace.
    Namespace,
    /// `key:namespace`; never printed.
    ApiKey,
    /// An Ethereum address.
    Wallet,
    /// A site as browsers show it: `host` or `host:port`.
    Authority,
    /// A network in CIDR notation, or one address.
    Network,
}

/// A value as it came: one text, or several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RawSetting {
    /// One text.
    One(String),
    /// A list.
    Many(Vec<String>),
}

impl SettingKind {
    /// What is allowed, as it stands after "write".
    pub fn describe_allowed(self) -> String {
        match self {
            SettingKind::Bool => "true or false".into(),
            SettingKind::Text => "text".into(),
            SettingKind::Namespace => {
                "1 to 63 of a-z, 0-9, _ and -, starting with a letter or digit".into()
            }
            SettingKind::Path => "a path".into(),
            SettingKind::Choice(words) => words.join(", "),
            SettingKind::Integer { min, max } => format!("a whole number from {min} to {max}"),
            SettingKind::Duration { min, max, off } => format!(
                "a time span from {} to {} such as 15s, 500ms or 24h{}",
                duration_text(min),
                duration_text(max),
                if off { ", or 0 for off" } else { "" }
            ),
            SettingKind::Size { min, off } => format!(
                "a size of at least {} such as 1073741824, 512MB or 1GiB{}",
                size_text(min),
                if off { ", or 0 for off" } else { "" }
            ),
            SettingKind::ListenAddress => "host:port or :port".into(),
            SettingKind::Host => "host or host:port".into(),
            SettingKind::JoinAddress => "host:port, http://host:port or a multiaddr".into(),
            SettingKind::WebAddress => {
                "an address such as https://api.example.org, perhaps with a port and a path".into()
            }
            SettingKind::List(ListItemKind::Text) => "a list of texts".into(),
            SettingKind::List(ListItemKind::Multiaddr) => {
                "a list of multiaddrs such as /ip4/0.0.0.0/tcp/4001".into()
            }
            SettingKind::List(ListItemKind::Peer) => {
                "a list of multiaddrs such as /ip4/192.0.2.1/tcp/4001/p2p/<peer id>".into()
            }
            SettingKind::List(ListItemKind::Namespace) => "a list of namespaces".into(),
            SettingKind::List(ListItemKind::ApiKey) => "a list of key:namespace pairs".into(),
            SettingKind::List(ListItemKind::Wallet) => {
                "a list of Ethereum addresses, 0x and 40 hex digits each".into()
            }
            SettingKind::List(ListItemKind::Authority) => {
                "a list of names such as gw.example.org or gw.example.org:8443".into()
            }
            SettingKind::List(ListItemKind::Network) => {
                "a list of networks such as 10.0.0.0/8 or 2001:db8::/32".into()
            }
        }
    }

    /// Whether the value is a secret, which is never printed.
    pub fn is_secret(self) -> bool {
        self == SettingKind::List(ListItemKind::ApiKey)
    }

    /// Reads a value. A list may come as one text with commas, as from an environment variable.
    ///
    /// # Errors
    /// What is wrong with it, for a message that goes on with what is allowed.
    pub fn parse(self, raw: &RawSetting) -> Result<SettingValue, String> {
        match (self, raw) {
            (SettingKind::List(item), RawSetting::Many(texts)) => {
                parse_list(item, texts.iter().map(String::as_str))
            }
            (SettingKind::List(item), RawSetting::One(text)) => {
                parse_list(item, text.split(',').map(str::trim).filter(|text| !text.is_empty()))
            }
            (_, RawSetting::Many(_)) => Err("a list is not one value".into()),
            (_, RawSetting::One(text)) => self.parse_one(text),
        }
    }

    fn parse_one(self, text: &str) -> Result<SettingValue, String> {
        let shown = debros_proto::ids::excerpt(text);
        let fail = |what: &str| Err(format!("\"{shown}\" {what}"));
        match self {
            SettingKind::Bool => match text {
                "true" => Ok(SettingValue::Bool(true)),
                "false" => Ok(SettingValue::Bool(false)),
                _ => fail("is neither true nor false"),
            },
            SettingKind::Text | SettingKind::Path => {
                if text.chars().any(char::is_control) {
                    fail("holds a control character")
                } else {
                    Ok(SettingValue::Text(text.into()))
                }
            }
            SettingKind::Namespace => match debros_proto::Namespace::new(text) {
                Ok(_) => Ok(SettingValue::Text(text.into())),
                Err(_) => fail("is not a namespace"),
            },
            SettingKind::Choice(words) if words.contains(&text) => {
                Ok(SettingValue::Text(text.into()))
            }
            SettingKind::Choice(_) => fail("is not one of the choices"),
            SettingKind::Integer { min, max } => match text.parse::<u64>() {
                Ok(number) if (min..=max).contains(&number) => Ok(SettingValue::Integer(number)),
                Ok(_) => fail("is out of range"),
                Err(_) => fail("is not a whole number in range"),
            },
            SettingKind::Duration { min, max, off } => match parse_duration(text) {
                Some(Duration::ZERO) if off => Ok(SettingValue::Duration(Duration::ZERO)),
                Some(span) if (min..=max).contains(&span) => Ok(SettingValue::Duration(span)),
                Some(_) => fail("is out of range"),
                None => fail("is not a time span"),
            },
            SettingKind::Size { min, off } => match parse_size(text) {
                Some(0) if off => Ok(SettingValue::Size(0)),
                Some(size) if size >= min => Ok(SettingValue::Size(size)),
                Some(_) => fail("is out of range"),
                None => fail("is not a size"),
            },
            SettingKind::ListenAddress => {
                if is_host_port(text, true) {
                    Ok(SettingValue::Text(text.into()))
                } else {
                    fail("is not an address to listen on")
                }
            }
            SettingKind::Host => {
                if text.is_empty() || is_host(text) || is_host_port(text, false) {
                    Ok(SettingValue::Text(text.into()))
                } else {
                    fail("is neither a host nor host:port")
                }
            }
            SettingKind::JoinAddress => {
                let rest = text
                    .strip_prefix("http://")
                    .or_else(|| text.strip_prefix("https://"))
                    .unwrap_or(text);
                let is_multiaddr =
                    text.starts_with('/') && text.parse::<debros_client::Multiaddr>().is_ok();
                if text.is_empty()
                    || is_multiaddr
                    || is_host_port(rest.trim_end_matches('/'), false)
                {
                    Ok(SettingValue::Text(text.into()))
                } else {
                    fail("is not an address to join")
                }
            }
            SettingKind::WebAddress => {
                if text.is_empty() || is_web_address(text) {
                    Ok(SettingValue::Text(text.into()))
                } else {
                    fail("is not the address of a gateway in a browser")
                }
            }
            SettingKind::List(_) => fail("is not a list"),
        }
    }
}

fn parse_list<'a>(
    item: ListItemKind,
    texts: impl Iterator<Item = &'a str>,
) -> Result<SettingValue, String> {
    let mut list = Vec::new();
    for text in texts {
        check_item(item, text)?;
        if list.iter().any(|known| known == text) {
            // The text is not repeated here: it may be a secret.
            return Err(format!("the list holds its item number {} twice", list.len() + 1));
        }
        list.push(text.to_owned());
    }
    Ok(SettingValue::List(list))
}

fn check_item(item: ListItemKind, text: &str) -> Result<(), String> {
    let shown = debros_proto::ids::excerpt(text);
    match item {
        ListItemKind::Text if text.is_empty() => Err("the list holds an empty text".into()),
        ListItemKind::Text => Ok(()),
        ListItemKind::Multiaddr => match text.parse::<debros_client::Multiaddr>() {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("\"{shown}\" is not a multiaddr ({error})")),
        },
        ListItemKind::Peer if is_placeholder(text) => Ok(()),
        ListItemKind::Peer => match text.parse::<debros_client::Multiaddr>() {
            Ok(_) if peer_id_of(text).is_some() => Ok(()),
            Ok(_) => Err(format!("\"{shown}\" does not end with /p2p/<peer id>")),
            Err(error) => Err(format!("\"{shown}\" is not a multiaddr ({error})")),
        },
        ListItemKind::Namespace => match debros_proto::Namespace::new(text) {
            Ok(_) => Ok(()),
            Err(_) => Err(format!("\"{shown}\" is not a namespace")),
        },
        ListItemKind::Wallet => match text.parse::<Wallet>() {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("\"{shown}\" is not a wallet: {error}")),
        },
        ListItemKind::Authority if is_web_address(&format!("https://{text}")) && !text.contains('/') => Ok(()),
        ListItemKind::Authority => Err(format!("\"{shown}\" is not the name of a site: write host or host:port")),
        ListItemKind::Network if parse_network(text).is_some() => Ok(()),
        ListItemKind::Network => Err(format!("\"{shown}\" is neither a network nor an address")),
        // The key itself is checked by the gateway; here only that the pair has its two halves, and
        // nothing is shown.
        ListItemKind::ApiKey => {
            match text.rsplit_once(':') {
                Some((key, namespace)) if !key.is_empty() && debros_proto::Namespace::new(namespace).is_ok() => Ok(()),
                _ => Err("an item is not a key, a colon and a namespace (it is not shown, because it may be a secret)"
                    .into()),
            }
        }
    }
}

/// The peer id that a multiaddr ends with.
pub(crate) fn peer_id_of(address: &str) -> Option<debros_client::PeerId> {
    address.rsplit_once("/p2p/")?.1.parse().ok()
}

/// Whether a bootstrap peer still has a placeholder such as `<YOUR_BOOTSTRAP_PEER_ID>` where its id
/// belongs.
pub(crate) fn is_placeholder(peer: &str) -> bool {
    peer.rsplit_once("/p2p/").is_some_and(|(address, id)| {
        let name = id.strip_prefix('<').and_then(|id| id.strip_suffix('>')).unwrap_or_default();
        !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
            && address.parse::<debros_client::Multiaddr>().is_ok()
    })
}

impl SettingValue {
    /// As it stands in YAML.
    pub fn to_yaml(&self) -> String {
        match self {
            SettingValue::Bool(flag) => flag.to_string(),
            SettingValue::Text(text) => quote_yaml(text),
            SettingValue::Integer(number) => number.to_string(),
            SettingValue::Duration(span) => duration_text(*span),
            SettingValue::Size(size) => size_text(*size),
            SettingValue::List(items) => {
                format!(
                    "[{}]",
                    items.iter().map(|item| quote_yaml(item)).collect::<Vec<_>>().join(", ")
                )
            }
        }
    }

    /// As one plain text, lists with commas: how "off" values are compared and notices show them.
    pub fn to_plain(&self) -> String {
        match self {
            SettingValue::Text(text) => text.clone(),
            SettingValue::List(items) => items.join(","),
            other => other.to_yaml(),
        }
    }
}

/// A YAML double-quoted text; JSON's escapes are YAML's too.
fn quote_yaml(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Scheme, host, perhaps a port and a path that does not end with a slash: no user, no query,
/// nothing to escape.
pub(crate) fn is_web_address(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")) else {
        return false;
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let fits =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'.' | b'-' | b'_' | b'~');
    (is_host(authority) || is_host_port(authority, false))
        && !path.ends_with('/')
        && !path.contains("//")
        && path.bytes().all(fits)
}

/// The networks of a list that the table has checked.
pub(super) fn parse_networks(texts: &[String]) -> Vec<ipnet::IpNet> {
    texts.iter().filter_map(|text| parse_network(text)).collect()
}

/// The network that a text stands for; an address alone is a network of one.
fn parse_network(text: &str) -> Option<ipnet::IpNet> {
    text.parse().ok().or_else(|| text.parse::<std::net::IpAddr>().ok().map(ipnet::IpNet::from))
}

fn is_host_port(text: &str, to_listen: bool) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let host_fits = (host.is_empty() && to_listen) || is_host(host);
    let port_fits = port.bytes().all(|byte| byte.is_ascii_digit())
        && port.parse::<u16>().is_ok_and(|port| to_listen || port > 0);
    host_fits && port_fits
}

fn is_host(text: &str) -> bool {
    if let Some(inner) = text.strip_prefix('[') {
        return inner
            .strip_suffix(']')
            .is_some_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok());
    }
    !text.is_empty()
        && text.len() <= 253
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::{ListItemKind, RawSetting, SettingKind, SettingValue, is_placeholder};

    #[test]
    fn addresses_are_checked() {
        let reads =
            |kind: SettingKind, text: &str| kind.parse(&RawSetting::One(text.into())).is_ok();
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
        let reads =
            |kind: SettingKind, text: &str| kind.parse(&RawSetting::One(text.into())).is_ok();
        let wallets = SettingKind::List(ListItemKind::Wallet);
        assert!(reads(wallets, "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"));
        assert!(reads(wallets, "f39fd6e51aad88f6f4ce6ab8827279cfffb92266"));
        // One letter in the other case: the checksum of EIP-55 does not fit.
        for bad in ["0xF39Fd6e51aad88F6F4ce6aB8827279cffFb92266", "0xf39f", "owner", "0x"] {
            assert!(!reads(wallets, bad), "{bad}");
        }
        let sites = SettingKind::List(ListItemKind::Authority);
        assert!(reads(sites, "gw.example,gw.example:8443,192.0.2.1,[2001:db8::1]:8080"));
        for bad in
            ["https://gw.example", "gw.example/path", "user@gw.example", "a b", "gw.example:x"]
        {
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
        let reads = |text: String| {
            SettingKind::List(ListItemKind::Peer).parse(&RawSetting::Many(vec![text]))
        };
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
}
