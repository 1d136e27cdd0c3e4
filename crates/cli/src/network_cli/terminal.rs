//! The terminal while a secret is typed.

use nix::sys::termios::{
    LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr,
};
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use zeroize::Zeroizing;

/// A terminal that shows nothing of what is typed, until this is dropped.
///
/// It falls silent before the question is written: who answers at once is not shown, and neither is
/// who types the second answer before the second question. What was typed before is thrown away,
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
