//! The terminal: whether somebody sits there, questions, and silence while a secret is typed.

use super::output::print_note;
use crate::cli_error::CliError;
use nix::sys::termios::{
    LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr,
};
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal as _, Write as _};
use zeroize::Zeroizing;

/// Whether a user at a terminal sees a question and can answer it.
pub(crate) fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks a question and returns the line that answers it, without the blanks around it; `None` at
/// the end of the input. The question is asked on a thread of its own, so that the connection to
/// the node stays alive meanwhile.
pub(crate) async fn ask_line(question: String) -> Result<Option<String>, CliError> {
    let asked = tokio::task::spawn_blocking(move || -> io::Result<Option<String>> {
        let mut stderr = io::stderr();
        stderr.write_all(question.as_bytes())?;
        stderr.flush()?;
        let mut answer = String::new();
        if io::stdin().read_line(&mut answer)? == 0 {
            print_note("");
            return Ok(None);
        }
        Ok(Some(answer.trim().to_owned()))
    });
    let answer = asked.await.map_err(|error| CliError::new(error.to_string()))?;
    answer.map_err(|error| {
        CliError::new(format!("the answer cannot be read from the terminal: {error}"))
    })
}

/// A terminal that shows nothing of what is typed, until this is dropped.
///
/// It falls silent before the question is written, so that an immediate answer is not shown, and
/// neither is a second answer that is typed before its question. Input from before is discarded,
/// because it was shown.
pub(super) struct SilentTerminal {
    terminal: File,
    before: Termios,
}

impl SilentTerminal {
    pub(super) fn enter() -> io::Result<Self> {
        let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty")?;
        let before = tcgetattr(&terminal)?;
        // As rpassword reads: key by key, Ctrl-C among them.
        let mut silent = before.clone();
        silent.local_flags &=
            !(LocalFlags::ECHO | LocalFlags::ECHONL | LocalFlags::ICANON | LocalFlags::ISIG);
        silent.control_chars[SpecialCharacterIndices::VMIN as usize] = 1;
        silent.control_chars[SpecialCharacterIndices::VTIME as usize] = 0;
        tcsetattr(&terminal, SetArg::TCSAFLUSH, &silent)?;
        Ok(Self { terminal, before })
    }

    /// Asks for a secret.
    pub(super) fn ask(&mut self, question: &str) -> io::Result<Zeroizing<String>> {
        self.terminal.write_all(question.as_bytes())?;
        Ok(Zeroizing::new(rpassword::read_password()?))
    }
}

impl Drop for SilentTerminal {
    fn drop(&mut self) {
        // What is left over may be a secret too: the shell would show it. A terminal that is gone
        // needs nothing.
        let _ = tcsetattr(&self.terminal, SetArg::TCSAFLUSH, &self.before);
    }
}
