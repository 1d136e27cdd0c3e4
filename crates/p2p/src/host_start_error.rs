//! Why a host does not start.

use libp2p::Multiaddr;
use std::io;

/// Why a host did not start.
#[derive(Debug, thiserror::Error)]
pub enum HostStartError {
    /// Another program listens there.
    #[error(
        "the address {address} is in use: stop the program that listens there, or choose another port"
    )]
    InUse {
        /// The address as it was given.
        address: Multiaddr,
    },
    /// The address is none that this host can listen on.
    #[error(
        "cannot listen on {address}: give an address like /ip4/0.0.0.0/tcp/4001 or /ip4/0.0.0.0/udp/4001/quic-v1"
    )]
    Unsupported {
        /// The address as it was given.
        address: Multiaddr,
    },
    /// The system refused the address.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// The address as it was given.
        address: Multiaddr,
        /// What the system said.
        reason: String,
    },
    /// The transports could not be set up.
    #[error("cannot set up the network: {0}")]
    Transport(String),
}

/// The system's own error inside the wrappings of the transports. Some of them pass its text on and
/// hide itself, so the number is read from the text.
pub(crate) fn system_error(error: &io::Error) -> Option<io::Error> {
    let number = error.raw_os_error().or_else(|| {
        let text = error.to_string();
        let (_, after) = text.rsplit_once("(os error ")?;
        after.split_once(')')?.0.parse().ok()
    })?;
    Some(io::Error::from_raw_os_error(number))
}

#[cfg(test)]
mod tests {
    use super::system_error;
    use std::io;

    #[test]
    fn the_systems_error_is_found_behind_wrappings() {
        let original = io::Error::from_raw_os_error(13);
        let text = format!("outer: {original}");
        for error in [original, io::Error::other(text)] {
            assert_eq!(system_error(&error).unwrap().kind(), io::ErrorKind::PermissionDenied);
        }
        assert!(system_error(&io::Error::other("(os error x)")).is_none());
    }
}
