//! Bytes from the operating system's random generator.

use debros_proto::{Error, Result};

/// `N` random bytes, fit for keys.
///
/// # Errors
/// `internal` when the system gives none.
pub fn bytes<const N: usize>() -> Result<[u8; N]> {
    let mut random = [0_u8; N];
    getrandom::fill(&mut random).map_err(|error| {
        Error::internal(format!("the operating system gives no random bytes: {error}"))
    })?;
    Ok(random)
}
