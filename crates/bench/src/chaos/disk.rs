//! Small disks for the nodes' data, and what fills them.

use anyhow::{Context as _, Result, ensure};
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

/// Enough for the data of a run; a filled one takes that much memory.
const SIZE: &str = "size=512m";
/// The file that takes all that is left.
const FILLER: &str = "filler";

/// Mounts a small file system at a folder, which it makes. It ends with the program, as its mount
/// namespace does.
///
/// # Errors
/// What `mount` says.
pub(crate) fn mount_small(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut command = Command::new("mount");
    let output = command.args(["-t", "tmpfs", "-o", SIZE, "tmpfs"]).arg(folder).output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "mount {}: {}", folder.display(), text.trim());
    Ok(())
}

/// Takes all room that is left on the disk of a folder. Called again, it takes what was given up
/// meanwhile.
///
/// # Errors
/// The file cannot be made.
pub(crate) fn fill(folder: &Path) -> Result<()> {
    let path = folder.join(FILLER);
    let file = File::options().create(true).append(true).open(&path);
    let mut file = file.with_context(|| format!("fill {}", path.display()))?;
    let block = vec![0; 1 << 20];
    // The last bytes one by one, so that not even a small file fits.
    for size in [block.len(), 4096, 64, 1] {
        while file.write_all(&block[..size]).is_ok() {}
    }
    Ok(())
}

/// Gives the room back.
///
/// # Errors
/// The file cannot be removed.
pub(crate) fn clear(folder: &Path) -> Result<()> {
    match std::fs::remove_file(folder.join(FILLER)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
