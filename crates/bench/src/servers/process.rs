//! A server as a child process on a free loopback port, with a folder of its own.

use anyhow::{Context as _, Result, bail};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running server. Dropping it kills the process.
#[derive(Debug)]
pub(crate) struct ServerProcess {
    child: Child,
    log: PathBuf,
    started: Instant,
}

impl ServerProcess {
    /// Starts a program; its output goes to `<folder>/<name>.log`.
    pub(crate) fn start(command: &mut Command, folder: &Path, name: &str) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log)?;
        let started = Instant::now();
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("start {}", command.get_program().to_string_lossy()))?;
        Ok(Self { child, log, started })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until a GET of the path answers 200, and returns how long that took since the process
    /// was started.
    pub(crate) fn wait_ready(&mut self, address: SocketAddr, path: &str) -> Result<Duration> {
        self.wait_ready_within(address, path, Duration::from_secs(30))
    }

    /// As [`wait_ready`](Self::wait_ready), for so long from now on.
    pub(crate) fn wait_ready_within(
        &mut self,
        address: SocketAddr,
        path: &str,
        within: Duration,
    ) -> Result<Duration> {
        let began = Instant::now();
        loop {
            if answers_200(address, path) {
                return Ok(self.started.elapsed());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended with {status} before it was ready:\n{}", self.log_tail());
            }
            if began.elapsed() > within {
                bail!("the server is not ready after {within:?}:\n{}", self.log_tail());
            }
            std::thread::sleep(Duration::from_micros(500));
        }
    }

    /// How the process ended and its last output, if it has ended.
    pub(crate) fn exit_message(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok().flatten()?;
        Some(format!("the server ended with {status}:\n{}", self.log_tail()))
    }

    /// Asks the process to end, and waits until it has.
    pub(crate) fn stop(mut self) -> Result<()> {
        Command::new("kill").arg(self.pid().to_string()).status().context("run kill")?;
        self.child.wait()?;
        Ok(())
    }

    /// The last lines of the process's output.
    pub(crate) fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that was free a short time ago, for servers that take a fixed address.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// A free port on the loopback address.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?)))
}

fn answers_200(address: SocketAddr, path: &str) -> bool {
    let attempt = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
        let mut start = [0; 12];
        stream.read_exact(&mut start)?;
        Ok(start.ends_with(b" 200"))
    };
    attempt().unwrap_or(false)
}
