//! Binding the listen addresses, all or none.

use crate::host_start_error::{HostStartError, system_error};
use crate::swarm_builder::Behaviour;
use futures::{FutureExt as _, StreamExt as _};
use libp2p::core::transport::ListenerId;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{Swarm, SwarmEvent};
use libp2p::{Multiaddr, TransportError};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};

/// The listeners, and the addresses that they are bound to: one per interface where "any" was
/// configured for.
pub(crate) struct BoundListeners {
    pub(crate) listeners: Vec<ListenerId>,
    pub(crate) addresses: Vec<Multiaddr>,
}

/// Binds all addresses.
pub(crate) async fn bind(
    swarm: &mut Swarm<Behaviour>,
    addresses: &[Multiaddr],
) -> Result<BoundListeners, HostStartError> {
    let mut waiting: HashMap<ListenerId, Multiaddr> = HashMap::new();
    for address in addresses {
        check_port_is_free(address)?;
        let id = swarm.listen_on(address.clone()).map_err(|error| match error {
            TransportError::MultiaddrNotSupported(_) => {
                HostStartError::Unsupported { address: address.clone() }
            }
            TransportError::Other(error) => listen_error(address, &error),
        })?;
        waiting.insert(id, address.clone());
    }
    let mut bound =
        BoundListeners { listeners: waiting.keys().copied().collect(), addresses: Vec::new() };
    while !waiting.is_empty() {
        apply_listener_event(swarm.select_next_some().await, &mut waiting, &mut bound)?;
    }
    // The other interfaces of "any" are ready by now.
    while let Some(Some(event)) = swarm.next().now_or_never() {
        apply_listener_event(event, &mut waiting, &mut bound)?;
    }
    Ok(bound)
}

fn apply_listener_event<E>(
    event: SwarmEvent<E>,
    waiting: &mut HashMap<ListenerId, Multiaddr>,
    bound: &mut BoundListeners,
) -> Result<(), HostStartError> {
    match event {
        SwarmEvent::NewListenAddr { listener_id, address } => {
            waiting.remove(&listener_id);
            bound.addresses.push(address);
        }
        SwarmEvent::ListenerError { listener_id, error }
        | SwarmEvent::ListenerClosed { listener_id, reason: Err(error), .. } => {
            if let Some(address) = waiting.get(&listener_id) {
                return Err(listen_error(address, &error));
            }
        }
        SwarmEvent::ListenerClosed { listener_id, reason: Ok(()), .. } => {
            if let Some(address) = waiting.remove(&listener_id) {
                return Err(HostStartError::Listen { address, reason: "it closed at once".into() });
            }
        }
        _ => {}
    }
    Ok(())
}

/// libp2p lets several TCP listeners share a port, so it would not notice another program there: a
/// plain socket does.
fn check_port_is_free(address: &Multiaddr) -> Result<(), HostStartError> {
    let mut parts = address.iter();
    let ip: IpAddr = match parts.next() {
        Some(Protocol::Ip4(ip)) => ip.into(),
        Some(Protocol::Ip6(ip)) => ip.into(),
        _ => return Ok(()),
    };
    match parts.next() {
        Some(Protocol::Tcp(port)) if port != 0 => {
            match TcpListener::bind(SocketAddr::new(ip, port)) {
                Ok(_) => Ok(()),
                Err(error) => Err(listen_error(address, &error)),
            }
        }
        _ => Ok(()),
    }
}

fn listen_error(address: &Multiaddr, error: &io::Error) -> HostStartError {
    let address = address.clone();
    match system_error(error) {
        Some(cause) if cause.kind() == io::ErrorKind::AddrInUse => {
            HostStartError::InUse { address }
        }
        Some(cause) => HostStartError::Listen { address, reason: cause.to_string() },
        None => HostStartError::Listen { address, reason: error.to_string() },
    }
}
