//! The users that the child knows.
//!
//! There is one, for us and for the other nodes: a call that a node passes on to the leader carries
//! the user of the node that passes it on, so the leader has to know that one as well.

use super::StartError;
use super::data_lock::DataLock;
use debros_proto::durable_file::{self, FileReaders};
use debros_proto::hex;
use std::io;
use std::path::PathBuf;

/// The user's name.
pub(super) const USER: &str = "member";

pub(super) struct Credentials {
    pub(super) path: PathBuf,
    pub(super) password: String,
}

/// Writes the file anew at each start, so that an old password is good for nothing.
pub(super) fn write(
    lock: &DataLock,
    join_password: Option<&str>,
) -> Result<Credentials, StartError> {
    let password = match join_password {
        Some(password) => password.to_owned(),
        None => random_password().map_err(|source| StartError::io("choose a password", source))?,
    };
    let users = serde_json::json!([{ "username": USER, "password": password, "perms": ["all"] }]);
    let path = lock.auth_file();
    durable_file::replace(&path, users.to_string().as_bytes(), FileReaders::Owner)
        .map_err(|source| StartError::file(&path, source))?;
    Ok(Credentials { path, password })
}

fn random_password() -> io::Result<String> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(hex::encode(&bytes))
}
