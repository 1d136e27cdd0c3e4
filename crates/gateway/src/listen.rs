//! From the configured address to a listening socket.

use crate::config::{GatewayConfig, GatewayStartError};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::net::{TcpListener, TcpSocket, lookup_host};

/// Connections that the system queues until they are accepted.
const BACKLOG: u32 = 1024;

/// Binds the configured address.
pub(crate) async fn bind_configured(
    config: &GatewayConfig,
) -> Result<TcpListener, GatewayStartError> {
    let open = !config.require_auth && !config.insecure_public;
    let addresses = resolve_addresses(&config.listen, open).await?;
    if open && let Some(public) = addresses.iter().find(|address| !address.ip().is_loopback()) {
        return Err(GatewayStartError::Public { address: *public });
    }
    let mut failure = None;
    for address in addresses {
        match bind_socket(address) {
            Ok(listener) => return Ok(listener),
            Err(source) => failure = failure.or(Some(GatewayStartError::Bind { address, source })),
        }
    }
    Err(failure.unwrap_or_else(|| address_error(&config.listen, "the name has no address")))
}

/// The addresses to try, in order.
async fn resolve_addresses(listen: &str, open: bool) -> Result<Vec<SocketAddr>, GatewayStartError> {
    let (host, port) =
        listen.rsplit_once(':').ok_or_else(|| address_error(listen, "it names no port"))?;
    let port: u16 = port
        .parse()
        .map_err(|_| address_error(listen, "the port is not a number from 0 to 65535"))?;
    if host.is_empty() {
        // No host: all addresses, or the loopback address where no other is allowed. A machine
        // without IPv6 gets the IPv4 form.
        let hosts: &[IpAddr] = if open {
            &[IpAddr::V4(Ipv4Addr::LOCALHOST)]
        } else {
            &[IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::UNSPECIFIED)]
        };
        return Ok(hosts.iter().map(|host| SocketAddr::new(*host, port)).collect());
    }
    if let Ok(address) = listen.parse() {
        return Ok(vec![address]);
    }
    if host.contains(':') {
        return Err(address_error(listen, "an IPv6 address stands in brackets"));
    }
    let found = lookup_host((host, port))
        .await
        .map_err(|error| address_error(listen, &format!("the name has no address ({error})")))?;
    Ok(found.collect())
}

fn bind_socket(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Lets a gateway start again while the system still remembers connections of the last one.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn address_error(listen: &str, reason: &str) -> GatewayStartError {
    GatewayStartError::Address { listen: listen.to_owned(), reason: reason.to_owned() }
}
