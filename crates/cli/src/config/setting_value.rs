//! Kinds of settings: how each reads as text, and how it is written back.

use super::addresses::{
    is_host, is_host_port, is_placeholder, is_web_address, parse_network, peer_id_of,
};
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

#[cfg(test)]
mod tests;
