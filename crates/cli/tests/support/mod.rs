//! Real processes for the end-to-end tests: started on free ports of the loopback address, each in
//! a folder of its own.

pub mod cli;
pub mod http;
pub mod person;
pub mod rqlited;
pub mod socket;
pub mod terminal;
pub mod wallet;

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long anything may take before a test says that it hangs. Nothing waits for it when all is
/// well.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running program. It is killed when dropped.
pub struct Program {
    child: Child,
    output: Arc<Mutex<String>>,
    /// They read what it writes, a moment after it.
    readers: [JoinHandle<()>; 2],
}

impl Program {
    /// Starts a command and keeps what it writes.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("start {command:?}: {error}"));
        let output = Arc::new(Mutex::new(String::new()));
        let readers = [
            keep(child.stdout.take().expect("a pipe"), Arc::clone(&output)),
            keep(child.stderr.take().expect("a pipe"), Arc::clone(&output)),
        ];
        Self { child, output, readers }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the program has written so far.
    pub fn output(&self) -> String {
        self.output.lock().expect("no panic holds it").clone()
    }

    /// Kills the process as a power cut would, as far as a process can see.
    pub fn kill(&mut self) {
        self.child.kill().expect("the process is ours");
        self.child.wait().expect("the process is ours");
    }

    /// Sends a signal such as `TERM`.
    pub fn signal(&self, signal: &str) {
        let sent =
            Command::new("kill").arg(format!("-{signal}")).arg(self.pid().to_string()).status();
        assert!(sent.expect("run kill").success(), "kill -{signal}");
    }

    /// Whether the process still runs.
    pub fn is_running(&mut self) -> bool {
        self.ended().is_none()
    }

    /// How the process ended, if it did. All that it wrote is there then.
    fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().expect("the process is ours")?;
        // What it has started itself may hold its pipes for longer.
        let give_up = Instant::now() + Duration::from_secs(5);
        while !self.readers.iter().all(JoinHandle::is_finished) && Instant::now() < give_up {
            std::thread::sleep(Duration::from_millis(1));
        }
        Some(status)
    }

    /// Waits for the end of the process, `None` when it does not come in time.
    pub fn wait(&mut self, at_most: Duration) -> Option<ExitStatus> {
        let started = Instant::now();
        while started.elapsed() < at_most {
            if let Some(status) = self.ended() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    }

    /// Waits until the program has ended (true) or its gateway listens (false).
    pub fn ends_or_listens(&mut self) -> bool {
        while listening(&self.output()).is_none() {
            if !self.is_running() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        false
    }

    /// Resident memory in bytes, as Linux reports it.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))
            .expect("the process runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches("kB").trim().parse::<u64>().expect("a number") * 1024
    }

    /// Waits until the gateway in the program is ready, and returns where it listens.
    fn wait_ready(&mut self) -> SocketAddr {
        let started = Instant::now();
        loop {
            let address = listening(&self.output());
            if let Some(address) =
                address.filter(|address| http::status_of(*address, "/ready") == Some(200))
            {
                return address;
            }
            if !self.is_running() {
                panic!("the program ended before it was ready:\n{}", self.output());
            }
            assert!(started.elapsed() < PATIENCE, "the program is not ready:\n{}", self.output());
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// The address in the line by which a gateway says that it listens.
fn listening(output: &str) -> Option<SocketAddr> {
    let (_, rest) = output.split_once("the gateway listens address=")?;
    rest.split_whitespace().next()?.parse().ok()
}

impl Drop for Program {
    #[allow(clippy::print_stderr, reason = "a failed test prints what its program wrote")]
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let output = self.output();
            let lines: Vec<&str> = output.lines().collect();
            eprintln!(
                "--- what the program wrote last ---\n{}",
                lines[lines.len().saturating_sub(40)..].join("\n")
            );
        }
    }
}

fn keep(pipe: impl std::io::Read + Send + 'static, output: Arc<Mutex<String>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            let mut output = output.lock().expect("no panic holds it");
            output.push_str(&String::from_utf8_lossy(&line));
            output.push('\n');
        }
    })
}

/// A node with its gateway inside.
pub struct Node {
    pub program: Program,
    /// Where the gateway listens.
    pub address: SocketAddr,
    pub data_dir: PathBuf,
}

impl Node {
    /// Starts a node on a folder and waits until it is ready.
    pub fn start(data_dir: &Path) -> Self {
        Self::start_by(&mut Self::command(data_dir), data_dir)
    }

    /// The command that starts a node on free ports.
    pub fn command(data_dir: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_network-node"));
        without_surroundings(&mut command);
        command
            .arg("--data-dir")
            .arg(data_dir)
            .env("DEBROS_GATEWAY_ENABLED", "true")
            .env("DEBROS_GATEWAY_LISTEN_ADDR", "127.0.0.1:0")
            .env("DEBROS_NODE_LISTEN_ADDRESSES", "/ip4/127.0.0.1/tcp/0")
            .env("DEBROS_NODE_MAX_CONNECTIONS", "200");
        command
    }

    /// Starts a node by a command and waits until it is ready.
    pub fn start_by(command: &mut Command, data_dir: &Path) -> Self {
        let mut program = Program::start(command);
        let address = program.wait_ready();
        Self { program, address, data_dir: data_dir.to_owned() }
    }

    /// Starts a node of which not all probes of its health may succeed, and waits until it listens.
    pub fn start_without_probe(data_dir: &Path) -> Self {
        let mut program = Program::start(&mut Self::command(data_dir));
        assert!(!program.ends_or_listens(), "the program ended:\n{}", program.output());
        let address = listening(&program.output()).expect("it listens");
        Self { program, address, data_dir: data_dir.to_owned() }
    }

    /// Makes an API key, as an operator does on the node's machine.
    pub fn api_key(&self, namespace: &str) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_network-node"));
        without_surroundings(&mut command);
        command
            .args(["api-key", "--role", "admin", "--namespace", namespace, "--data-dir"])
            .arg(&self.data_dir);
        let output = command.output().expect("run network-node");
        assert!(output.status.success(), "{}", text_of(&output));
        String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
    }

    /// An HTTP client with a new key for a namespace.
    pub fn http(&self, namespace: &str) -> http::Http {
        http::Http::new(self.address, &self.api_key(namespace))
    }

    /// Where a client dials the node.
    pub fn peer(&self) -> String {
        let path = self.data_dir.join("peer.info");
        std::fs::read_to_string(&path).expect("peer.info").trim().to_owned()
    }

    /// Ends the node in order.
    pub fn stop(mut self) {
        self.program.signal("TERM");
        let status = self.program.wait(PATIENCE).expect("the node ends");
        assert!(status.success(), "{status}:\n{}", self.program.output());
    }
}

/// A gateway of its own in front of a node.
pub struct Gateway {
    pub program: Program,
    pub address: SocketAddr,
}

impl Gateway {
    pub fn start(node: &Node) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_network-gateway"));
        without_surroundings(&mut command);
        command.args(["--addr", "127.0.0.1:0", "--bootstrap-peers", &node.peer()]);
        Self::start_by(&mut command)
    }

    /// Starts a gateway by a command and waits until it is ready.
    pub fn start_by(command: &mut Command) -> Self {
        let mut program = Program::start(command);
        let address = program.wait_ready();
        Self { program, address }
    }
}

/// Everything that a command wrote.
pub fn text_of(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// What the person who runs the tests has set must not reach the programs.
pub fn without_surroundings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        if ["DEBROS_", "GATEWAY_", "LOG_LEVEL", "RUST_LOG", "BROWSER"]
            .iter()
            .any(|start| name_text.starts_with(start))
        {
            command.env_remove(&name);
        }
    }
}
