//! Where the gateway of a node on this machine is: the file `gateway.url` beside the node's
//! `peer.info`, written while the gateway runs.

use debros_proto::durable_file::{self, FileReaders};
use std::io;
use std::path::{Path, PathBuf};

const FILE: &str = "gateway.url";

/// The file in a node's data folder, for as long as the gateway runs. It is removed when this is
/// dropped.
#[derive(Debug)]
pub(crate) struct GatewayUrlFile(PathBuf);

/// Writes the URL, in one step: a reader sees the old file or the new one.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn write(data_dir: &Path, url: &str) -> io::Result<GatewayUrlFile> {
    let path = data_dir.join(FILE);
    durable_file::replace(&path, format!("{url}\n").as_bytes(), FileReaders::Umask)?;
    Ok(GatewayUrlFile(path))
}

impl Drop for GatewayUrlFile {
    fn drop(&mut self) {
        // Left behind, it names a gateway that does not answer, which a reader finds out.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The URL of the gateway of the node with this data folder.
pub(crate) fn read(data_dir: &Path) -> Option<String> {
    let text = debros_proto::regular_file::read_to_string(&data_dir.join(FILE)).ok()?;
    parse(text.trim()).ok()
}

/// A gateway's URL, checked: scheme, host, perhaps a port and a path; what follows is appended to
/// it.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn parse(text: &str) -> Result<String, String> {
    let url = text.strip_suffix('/').unwrap_or(text);
    if !url.is_empty() && crate::config::is_web_address(url) {
        return Ok(url.to_owned());
    }
    let shown = debros_proto::ids::excerpt(text);
    Err(format!("\"{shown}\" is not the URL of a gateway; write http://host:port or https://host"))
}

/// Whether a URL leads to this machine.
pub(crate) fn is_loopback(url: &str) -> bool {
    let Some((_, rest)) = url.split_once("://") else { return false };
    let authority = rest.split('/').next().unwrap_or_default();
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next(),
        None => authority.split(':').next(),
    };
    let host = host.unwrap_or_default();
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::{is_loopback, parse, read, write};

    #[test]
    fn the_file_is_there_while_the_gateway_runs() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()), None);
        let written = write(dir.path(), "http://127.0.0.1:8080").unwrap();
        assert_eq!(read(dir.path()).as_deref(), Some("http://127.0.0.1:8080"));
        drop(written);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left over");
        std::fs::write(dir.path().join("gateway.url"), "javascript:alert(1)").unwrap();
        assert_eq!(read(dir.path()), None);
    }

    #[test]
    fn urls_are_checked() {
        assert_eq!(parse("https://api.example.org/").unwrap(), "https://api.example.org");
        for bad in ["", "/", "api.example.org", "https://x/v1?y", "file:///etc/passwd"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        for here in
            ["http://127.0.0.1:1", "http://[::1]:1", "http://localhost", "https://127.0.0.2"]
        {
            assert!(is_loopback(here), "{here}");
        }
        for elsewhere in
            ["", "http://127.0.0.1.example.org", "https://192.0.2.1", "http://[2001:db8::1]:1"]
        {
            assert!(!is_loopback(elsewhere), "{elsewhere}");
        }
    }
}
