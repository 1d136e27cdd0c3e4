//! `network-cli` as somebody with a home of their own runs it, without a credential in a variable.

use super::{Program, text_of, without_surroundings};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

pub struct Person {
    pub home: PathBuf,
    node: String,
}

impl Person {
    /// Somebody who keeps their things in a folder and talks to the node at an address.
    pub fn new(home: &Path, node: &str) -> Self {
        std::fs::create_dir_all(home).expect("a folder");
        Self { home: home.to_owned(), node: node.to_owned() }
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_network-cli"));
        without_surroundings(&mut command);
        command
            .args(args)
            .args(["--bootstrap", &self.node])
            .env("HOME", &self.home)
            .current_dir(&self.home);
        command.stdin(Stdio::null());
        command
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("run network-cli")
    }

    /// Starts a command that goes on.
    pub fn start(&self, args: &[&str]) -> Program {
        Program::start(&mut self.command(args))
    }

    /// What a command that must succeed writes to stdout.
    #[track_caller]
    pub fn text(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", text_of(&output));
        String::from_utf8(output.stdout).expect("UTF-8").trim_end().to_owned()
    }

    /// The same as JSON.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        let text = self.text(&[args, &["--format", "json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}: {text}"))
    }

    /// What a command that must end with this code writes.
    #[track_caller]
    pub fn fails(&self, args: &[&str], code: i32) -> String {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", text_of(&output));
        text_of(&output)
    }

    /// The stored credentials.
    pub fn credentials_file(&self) -> PathBuf {
        self.home.join(".debros/credentials.json")
    }

    /// The stored credentials as JSON.
    pub fn stored(&self) -> Value {
        let text = std::fs::read_to_string(self.credentials_file()).expect("credentials");
        serde_json::from_str(&text).expect("JSON")
    }

    /// Changes a field of every stored credential.
    pub fn change(&self, field: &str, value: &Value) {
        let mut stored = self.stored();
        for entry in stored["credentials"].as_array_mut().expect("a list") {
            entry[field] = value.clone();
        }
        std::fs::write(self.credentials_file(), stored.to_string()).expect("write");
    }
}
