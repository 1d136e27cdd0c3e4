//! A terminal with somebody before it.

use super::PATIENCE;
use super::person::Person;
use nix::pty::{OpenptyResult, openpty};
use nix::sys::termios::{LocalFlags, tcgetattr};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// A command whose input and errors are a terminal.
pub struct OnTerminal {
    child: Child,
    keyboard: File,
    screen: Arc<Mutex<String>>,
}

impl OnTerminal {
    pub fn start(person: &Person, args: &[&str]) -> Self {
        let mut command = person.command(args);
        // A program in place of a browser, which does nothing.
        command.env("BROWSER", "true");
        Self::spawn(command)
    }

    /// Runs a command as it is.
    pub fn spawn(command: Command) -> Self {
        let terminal = Self::spawn_unread(command, openpty(None, None).expect("a terminal"));
        terminal.read();
        terminal
    }

    /// Runs a command on a terminal from which nothing is read yet.
    pub fn spawn_unread(mut command: Command, pty: OpenptyResult) -> Self {
        let stderr = pty.slave.try_clone().expect("a handle");
        command.stdin(Stdio::from(pty.slave)).stdout(Stdio::piped()).stderr(Stdio::from(stderr));
        let child = command.spawn().expect("run network-cli");
        drop(command);
        Self {
            child,
            keyboard: File::from(pty.master),
            screen: Arc::new(Mutex::new(String::new())),
        }
    }

    /// Begins to read what the terminal shows.
    pub fn read(&self) {
        let mut shown = self.keyboard.try_clone().expect("a handle");
        let kept = Arc::clone(&self.screen);
        std::thread::spawn(move || {
            let mut buffer = [0; 1024];
            // It ends with an error when the program has closed the terminal.
            while let Ok(length @ 1..) = shown.read(&mut buffer) {
                kept.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..length]));
            }
        });
    }

    /// Whether the terminal shows what is typed.
    pub fn echoes(&self) -> bool {
        tcgetattr(&self.keyboard).expect("a terminal").local_flags.contains(LocalFlags::ECHO)
    }

    /// What Ctrl-C sends. The command has no controlling terminal, so the key itself would reach
    /// nobody.
    pub fn interrupt(&self) {
        let sent = Command::new("kill").arg("-INT").arg(self.child.id().to_string()).status();
        assert!(sent.expect("run kill").success());
    }

    /// What the terminal shows.
    pub fn screen(&self) -> String {
        self.screen.lock().unwrap().clone()
    }

    pub fn shows(&self, text: &str) {
        let started = Instant::now();
        while !self.screen.lock().unwrap().contains(text) {
            assert!(
                started.elapsed() < PATIENCE,
                "{text} is not in {:?}",
                self.screen.lock().unwrap()
            );
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    pub fn types(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).unwrap();
    }

    pub fn code(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
