//! Keystore files (Ethereum keystore V3) and their passwords.

use super::environment::env_variable;
use super::terminal::{SilentTerminal, is_interactive};
use crate::cli_error::CliError;
use debros_auth::PrivateKey;
use debros_auth::keystore::{self, KdfStrength, MAX_FILE_BYTES};
use debros_proto::durable_file;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use tokio::signal::unix::{Signal, SignalKind, signal};
use zeroize::Zeroizing;

/// The variable with the password, where nobody can be asked.
const PASSWORD: &str = "DEBROS_KEYSTORE_PASSWORD";
/// A password file holds one line.
const MAX_PASSWORD_BYTES: usize = 1024;

/// The key in a keystore file.
pub(super) fn open(path: &Path, password_file: Option<&Path>) -> Result<PrivateKey, CliError> {
    let shown = path.display();
    let text = read_secret_file(path, MAX_FILE_BYTES).map_err(|error| match error {
        SecretFileError::Exposed(mode) => exposed_file_error("the keystore file", path, mode),
        SecretFileError::Io(error) if error.kind() == io::ErrorKind::NotFound => {
            CliError::not_found(format!("there is no keystore file {shown}"))
                .with_hint("`network-cli auth wallet new --keystore FILE` makes one")
        }
        SecretFileError::Io(error) => {
            CliError::new(format!("the keystore file {shown} cannot be read: {error}"))
        }
    })?;
    let named = |error: debros_client::Error| {
        let mut cli_error = CliError::from(error);
        cli_error.message = format!("{shown}: {}", cli_error.message);
        cli_error.hint = None;
        cli_error
    };
    // A file that no password opens is refused before one is asked for.
    keystore::claimed_wallet(&text).map_err(named)?;
    let password = match password_from_file_or_env(password_file)? {
        Some(password) => password,
        None => PasswordPrompt::begin()?.ask(&format!("Password of {shown}: "))?,
    };
    keystore::decrypt(&text, password.as_bytes()).map_err(named)
}

/// Makes a keystore file. An existing file is never replaced.
pub(super) fn create(
    path: &Path,
    key: &PrivateKey,
    password_file: Option<&Path>,
) -> Result<(), CliError> {
    let shown = path.display();
    if path.exists() {
        return Err(CliError::usage(format!(
            "{shown} is there already, and a wallet is never written over"
        ))
        .with_hint("name another file with --keystore"));
    }
    let password = match password_from_file_or_env(password_file)? {
        Some(password) => password,
        None => PasswordPrompt::begin()?.ask_twice(&format!("Password to protect {shown}: "))?,
    };
    if password.is_empty() {
        return Err(empty_password_error());
    }
    let mut random = Zeroizing::new([0_u8; keystore::RANDOM_BYTES]);
    getrandom::fill(random.as_mut_slice())
        .map_err(|error| CliError::new(format!("no randomness: {error}")))?;
    let text = keystore::encrypt(key, password.as_bytes(), KdfStrength::Standard, *random)?;
    write_new(path, &text)
        .map_err(|error| CliError::new(format!("{shown} cannot be made: {error}")))
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    durable_file::create_private(path, format!("{text}\n").as_bytes())
}

fn empty_password_error() -> CliError {
    CliError::usage("the password is empty: the file would not be protected")
}

/// The password from a file, else from the variable.
fn password_from_file_or_env(file: Option<&Path>) -> Result<Option<Zeroizing<String>>, CliError> {
    if let Some(path) = file {
        let text = read_secret_file(path, MAX_PASSWORD_BYTES).map_err(|error| match error {
            SecretFileError::Exposed(mode) => exposed_file_error("the password file", path, mode),
            SecretFileError::Io(error) => CliError::usage(format!(
                "the password file {} cannot be read: {error}",
                path.display()
            )),
        })?;
        // The line end that editors and `echo` add is no part of it.
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        return Ok(Some(Zeroizing::new(line.to_owned())));
    }
    Ok(env_variable(PASSWORD).map(Zeroizing::new))
}

/// Asks for a password on the terminal, silent from before the first question to after the last
/// answer.
struct PasswordPrompt {
    terminal: SilentTerminal,
    /// As long as somebody listens to it, Ctrl-C does not end the process before the terminal is as
    /// it was.
    _interrupts: Signal,
}

impl PasswordPrompt {
    /// Within the async runtime, which hears the signal.
    fn begin() -> Result<Self, CliError> {
        if !is_interactive() {
            return Err(CliError::no_credential(
                "the keystore's password is needed, and there is no terminal to ask for it",
            )
            .with_hint(format!("name a file with --password-file, or set {PASSWORD}")));
        }
        let interrupts = signal(SignalKind::interrupt())?;
        let terminal = SilentTerminal::enter().map_err(|error| {
            CliError::no_credential(format!(
                "the terminal cannot be used to ask for a password: {error}"
            ))
            .with_hint(format!("name a file with --password-file, or set {PASSWORD}"))
        })?;
        Ok(Self { terminal, _interrupts: interrupts })
    }

    fn ask(&mut self, question: &str) -> Result<Zeroizing<String>, CliError> {
        match self.terminal.ask(question) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                Err(CliError::new("broken off"))
            }
            Err(error) => Err(CliError::new(format!("no password could be read: {error}"))),
            Ok(password) => Ok(password),
        }
    }

    fn ask_twice(&mut self, question: &str) -> Result<Zeroizing<String>, CliError> {
        let first = self.ask(question)?;
        if first.is_empty() {
            return Err(empty_password_error());
        }
        if *self.ask("The same again: ")? != *first {
            return Err(CliError::usage("the two passwords differ: nothing was made"));
        }
        Ok(first)
    }
}

/// Why a file with a secret was not read.
enum SecretFileError {
    Io(io::Error),
    /// Others may read or change it; its mode bits.
    Exposed(u32),
}

impl From<io::Error> for SecretFileError {
    fn from(error: io::Error) -> Self {
        SecretFileError::Io(error)
    }
}

fn exposed_file_error(what: &str, path: &Path, mode: u32) -> CliError {
    let shown = path.display();
    CliError::no_credential(format!(
        "{what} {shown} may be read or changed by other users (mode {mode:03o})"
    ))
    .with_hint(format!("chmod 600 {shown}"))
}

fn read_secret_file(path: &Path, max: usize) -> Result<Zeroizing<String>, SecretFileError> {
    let file = debros_proto::regular_file::open_or_handed_over(path)?;
    let metadata = file.metadata()?;
    // A pipe that a shell makes has no mode to look after.
    if metadata.is_file()
        && let Some(mode) = durable_file::exposed_mode(&metadata)
    {
        return Err(SecretFileError::Exposed(mode));
    }
    let mut text = Zeroizing::new(String::new());
    // One more than allowed, to tell "just fits" from "too long" without reading an endless source.
    file.take(max as u64 + 1).read_to_string(&mut text)?;
    if text.len() > max {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("it has more than {max} bytes"),
        )
        .into());
    }
    Ok(text)
}
