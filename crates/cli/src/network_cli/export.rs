//! `db export`: the namespace's SQL database as a SQLite file.

use super::output::{Output, printable, size};
use super::session::Session;
use crate::fail::Failure;
use debros_client::Transfer;
use debros_client::rpc::event::Kind;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

pub(super) async fn run(session: &Session, out: Output, path: &Path, force: bool) -> Result<(), Failure> {
    if !force && path.exists() {
        return Err(Failure::usage(format!("{} exists: give another name, or --force to replace it", path.display())));
    }
    let transfer = session.user().await?.operator().export().await?;
    // Only a complete file that was verified gets the name that was asked for.
    let mut partial = Partial::create(path)?;
    let bar = ProgressBar::new_spinner().with_message("exporting");
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {bytes}") {
        bar.set_style(style);
    }
    let result = receive(transfer, &mut partial, &bar).await;
    bar.finish_and_clear();
    let checksum = result?;
    let written = partial.written;
    partial.finish(path, force)?;
    out.result(
        || json!({ "status": "ok", "file": path.display().to_string(), "size": written, "checksum": checksum }),
        || format!("exported to {} ({}, SHA-256 {checksum})", printable(&path.display().to_string()), size(written)),
    )
}

async fn receive(mut transfer: Transfer, partial: &mut Partial, bar: &ProgressBar) -> Result<String, Failure> {
    loop {
        match transfer.next().await {
            Some(Ok(event)) => match event.kind {
                Some(Kind::Chunk(chunk)) => {
                    partial.write(&chunk)?;
                    bar.set_position(partial.written);
                }
                Some(Kind::Done(done)) => {
                    let checksum = partial.checksum();
                    if checksum == done.checksum {
                        return Ok(checksum);
                    }
                    return Err(Failure::new(
                        "the file does not have the checksum that the node computed: it was damaged on its way",
                    )
                    .hint("try again"));
                }
                _ => {}
            },
            Some(Err(error)) => return Err(error.into()),
            None => {
                return Err(Failure::unreachable("the node went away before the file was complete").hint("try again"));
            }
        }
    }
}

/// A file that is being received. It goes away unless it is finished.
struct Partial {
    path: PathBuf,
    file: File,
    hash: Sha256,
    written: u64,
    finished: bool,
}

impl Partial {
    fn create(target: &Path) -> Result<Self, Failure> {
        let mut name =
            target.file_name().ok_or_else(|| Failure::usage(format!("{} names no file", target.display())))?.to_owned();
        name.push(format!(".{}.part", std::process::id()));
        let path = target.with_file_name(name);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|error| Failure::usage(format!("{} can not be written: {error}", path.display())))?;
        Ok(Self { path, file, hash: Sha256::new(), written: 0, finished: false })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.hash.update(bytes);
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn checksum(&self) -> String {
        self.hash.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn finish(mut self, target: &Path, replace: bool) -> Result<(), Failure> {
        self.file.sync_all()?;
        if replace {
            fs::rename(&self.path, target)?;
            self.finished = true;
            return Ok(());
        }
        // A link, unlike a rename, never replaces what appeared meanwhile. Some file systems have none.
        match fs::hard_link(&self.path, target) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists && !target.exists() => {
                fs::rename(&self.path, target)?;
                self.finished = true;
                Ok(())
            }
            linked => linked.map_err(|error| Failure::new(format!("{}: {error}", target.display()))),
        }
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.finished {
            // Nothing can be done about a failure here.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Partial;

    #[test]
    fn only_a_finished_file_stays_and_it_replaces_nothing_unasked() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("x.db");
        let mut partial = Partial::create(&target).unwrap();
        partial.write(b"abc").unwrap();
        assert_eq!(partial.checksum(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        drop(partial);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);

        let mut partial = Partial::create(&target).unwrap();
        partial.write(b"new").unwrap();
        std::fs::write(&target, "came meanwhile").unwrap();
        partial.finish(&target, false).unwrap_err();
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "came meanwhile");

        let partial = Partial::create(&target).unwrap();
        partial.finish(&target, true).unwrap();
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
