//! What is asked on a terminal, where somebody can answer.

use crate::support::person::Person;
use crate::support::{Node, PATIENCE};
use nix::pty::openpty;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// A command whose input and errors are a terminal.
pub(crate) struct OnTerminal {
    child: Child,
    keyboard: File,
    screen: Arc<Mutex<String>>,
}

impl OnTerminal {
    fn start(person: &Person, args: &[&str]) -> Self {
        let mut command = person.command(args);
        // A program in place of a browser, which does nothing.
        command.env("BROWSER", "true");
        Self::spawn(command)
    }

    pub(crate) fn spawn(mut command: Command) -> Self {
        let pty = openpty(None, None).expect("a terminal");
        let stderr = pty.slave.try_clone().expect("a handle");
        command.stdin(Stdio::from(pty.slave)).stdout(Stdio::piped()).stderr(Stdio::from(stderr));
        let child = command.spawn().expect("run network-cli");
        drop(command);
        let keyboard = File::from(pty.master);
        let mut shown = keyboard.try_clone().expect("a handle");
        let screen = Arc::new(Mutex::new(String::new()));
        let kept = Arc::clone(&screen);
        std::thread::spawn(move || {
            let mut buffer = [0; 1024];
            // It ends with an error when the program has closed the terminal.
            while let Ok(length @ 1..) = shown.read(&mut buffer) {
                kept.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..length]));
            }
        });
        Self { child, keyboard, screen }
    }

    pub(crate) fn screen(&self) -> String {
        self.screen.lock().unwrap().clone()
    }

    pub(crate) fn shows(&self, text: &str) {
        let started = Instant::now();
        while !self.screen.lock().unwrap().contains(text) {
            assert!(started.elapsed() < PATIENCE, "{text} is not in {:?}", self.screen.lock().unwrap());
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    pub(crate) fn types(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).unwrap();
    }

    /// The exit code; `None` when the command does not end in time.
    pub(crate) fn code(&mut self) -> Option<i32> {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        None
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_command_that_needs_a_credential_offers_the_sign_in_in_the_browser() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(&folder.path().join("data/node1"));
    let person = Person::new(folder.path(), &node.peer());
    for no in ["n\n", "no\n", "what?\n", "\u{4}"] {
        let mut command = OnTerminal::start(&person, &["storage", "list"]);
        command.shows("Sign in with a wallet in the browser now? [Y/n]");
        command.types(no);
        assert_eq!(command.code(), Some(3), "{no:?}");
        command.shows("DEBROS_API_KEY");
    }
    for yes in ["\n", "y\n", "Yes\n"] {
        let mut command = OnTerminal::start(&person, &["storage", "list", "-n", "shop"]);
        command.shows("[Y/n]");
        command.types(yes);
        command.shows(&format!("http://{}/v1/auth/login?callback=", node.address));
        command.shows("&namespace=shop");
    }
}
