//! Keystore files (Ethereum keystore V3) and their passwords.

use super::credential::is_interactive;
use super::session::variable;
use super::terminal::SilentTerminal;
use crate::fail::Failure;
use debros_auth::PrivateKey;
use debros_auth::keystore::{self, MAX_FILE_BYTES, Strength};
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use tokio::signal::unix::{Signal, SignalKind, signal};
use zeroize::Zeroizing;

/// The variable with the password, where nobody can be asked.
const PASSWORD: &str = "DEBROS_KEYSTORE_PASSWORD";
/// A password file holds one line.
const MAX_PASSWORD_BYTES: usize = 1024;

/// The key in a keystore file.
pub(super) fn open(path: &Path, password_file: Option<&Path>) -> Result<PrivateKey, Failure> {
    let shown = path.display();
    let text = read(path, MAX_FILE_BYTES).map_err(|error| match error {
        Unread::Exposed(mode) => exposed("the keystore file", path, mode),
        Unread::Io(error) if error.kind() == io::ErrorKind::NotFound => {
            Failure::not_found(format!("there is no keystore file {shown}"))
                .hint("`network-cli auth wallet new --keystore FILE` makes one")
        }
        Unread::Io(error) => Failure::new(format!("the keystore file {shown} can not be read: {error}")),
    })?;
    let named = |error: debros_client::Error| {
        let mut failure = Failure::from(error);
        failure.message = format!("{shown}: {}", failure.message);
        failure.hint = None;
        failure
    };
    // A file that can not be opened by any password is told before one is asked for.
    keystore::wallet(&text).map_err(named)?;
    let password = match given_password(password_file)? {
        Some(password) => password,
        None => Question::begin()?.ask(&format!("Password of {shown}: "))?,
    };
    keystore::decrypt(&text, password.as_bytes()).map_err(named)
}

/// Makes a keystore file. An existing file is never replaced.
pub(super) fn make(path: &Path, key: &PrivateKey, password_file: Option<&Path>) -> Result<(), Failure> {
    let shown = path.display();
    if path.exists() {
        return Err(Failure::usage(format!("{shown} is there already, and a wallet is never written over"))
            .hint("name another file with --keystore"));
    }
    let password = match given_password(password_file)? {
        Some(password) => password,
        None => Question::begin()?.ask_twice(&format!("Password to protect {shown}: "))?,
    };
    if password.is_empty() {
        return Err(no_password());
    }
    let mut random = Zeroizing::new([0_u8; keystore::RANDOM_BYTES]);
    getrandom::fill(random.as_mut_slice()).map_err(|error| Failure::new(format!("no randomness: {error}")))?;
    let text = keystore::encrypt(key, password.as_bytes(), Strength::Standard, *random)?;
    write_new(path, &text).map_err(|error| Failure::new(format!("{shown} can not be made: {error}")))
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()
}

fn no_password() -> Failure {
    Failure::usage("the password is empty: the file would not be protected")
}

/// The password from a file, else from the variable.
fn given_password(file: Option<&Path>) -> Result<Option<Zeroizing<String>>, Failure> {
    if let Some(path) = file {
        let text = read(path, MAX_PASSWORD_BYTES).map_err(|error| match error {
            Unread::Exposed(mode) => exposed("the password file", path, mode),
            Unread::Io(error) => {
                Failure::usage(format!("the password file {} can not be read: {error}", path.display()))
            }
        })?;
        // The line end that editors and `echo` add is no part of it.
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        return Ok(Some(Zeroizing::new(line.to_owned())));
    }
    Ok(variable(PASSWORD).map(Zeroizing::new))
}

/// Asks for a password on the terminal, silent from before the first question to after the last answer.
struct Question {
    terminal: SilentTerminal,
    /// As long as somebody listens to it, Ctrl-C does not end the process before the terminal is as it was.
    _interrupts: Signal,
}

impl Question {
    /// Within the async runtime, which hears the signal.
    fn begin() -> Result<Self, Failure> {
        if !is_interactive() {
            return Err(Failure::no_credential(
                "the keystore's password is needed, and there is no terminal to ask for it",
            )
            .hint(format!("name a file with --password-file, or set {PASSWORD}")));
        }
        let interrupts = signal(SignalKind::interrupt())?;
        let terminal = SilentTerminal::enter().map_err(|error| {
            Failure::no_credential(format!("the terminal can not be used to ask for a password: {error}"))
                .hint(format!("name a file with --password-file, or set {PASSWORD}"))
        })?;
        Ok(Self { terminal, _interrupts: interrupts })
    }

    fn ask(&mut self, question: &str) -> Result<Zeroizing<String>, Failure> {
        match self.terminal.ask(question) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(Failure::new("broken off")),
            Err(error) => Err(Failure::new(format!("no password could be read: {error}"))),
            Ok(password) => Ok(password),
        }
    }

    fn ask_twice(&mut self, question: &str) -> Result<Zeroizing<String>, Failure> {
        let first = self.ask(question)?;
        if first.is_empty() {
            return Err(no_password());
        }
        if *self.ask("The same again: ")? != *first {
            return Err(Failure::usage("the two passwords differ: nothing was made"));
        }
        Ok(first)
    }
}

/// Why a file with a secret was not read.
enum Unread {
    Io(io::Error),
    /// Others may read or change it; its mode bits.
    Exposed(u32),
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Self {
        Unread::Io(error)
    }
}

fn exposed(what: &str, path: &Path, mode: u32) -> Failure {
    let shown = path.display();
    Failure::no_credential(format!("{what} {shown} may be read or changed by other users (mode {mode:03o})"))
        .hint(format!("chmod 600 {shown}"))
}

fn read(path: &Path, max: usize) -> Result<Zeroizing<String>, Unread> {
    let file = debros_proto::regular_file::open_or_handed_over(path)?;
    let metadata = file.metadata()?;
    let mode = metadata.permissions().mode() & 0o777;
    // A pipe that a shell makes has no mode to look after.
    if metadata.is_file() && mode & 0o077 != 0 {
        return Err(Unread::Exposed(mode));
    }
    let mut text = Zeroizing::new(String::new());
    // One more than allowed, to tell "just fits" from "too long" without reading an endless source.
    file.take(max as u64 + 1).read_to_string(&mut text)?;
    if text.len() > max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it has more than {max} bytes")).into());
    }
    Ok(text)
}
