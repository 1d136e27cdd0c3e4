//! Addresses in settings: of peers, hosts, gateways and networks.

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
pub(super) fn parse_network(text: &str) -> Option<ipnet::IpNet> {
    text.parse().ok().or_else(|| text.parse::<std::net::IpAddr>().ok().map(ipnet::IpNet::from))
}

/// Whether a text is a host and a port, to listen on perhaps a port alone.
pub(super) fn is_host_port(text: &str, to_listen: bool) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let host_fits = (host.is_empty() && to_listen) || is_host(host);
    let port_fits = port.bytes().all(|byte| byte.is_ascii_digit())
        && port.parse::<u16>().is_ok_and(|port| to_listen || port > 0);
    host_fits && port_fits
}

/// Whether a text may be the name or the address of a host.
pub(super) fn is_host(text: &str) -> bool {
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
