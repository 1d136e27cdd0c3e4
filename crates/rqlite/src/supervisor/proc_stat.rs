//! What Linux tells about a process.

use std::fs;
use std::path::Path;

/// The memory that a process has, in bytes.
pub(super) fn resident_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// Whether a process runs `rqlited`, or is about to, with this folder: the last of its arguments.
/// A process that has ended and was not waited for has none.
pub(super) fn has_folder(pid: u32, folder: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt as _;
    let Ok(arguments) = fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    let mut arguments = arguments.strip_suffix(b"\0").unwrap_or(&arguments).rsplit(|b| *b == 0);
    arguments.next() == Some(folder.as_os_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::{has_folder, resident_bytes};
    use std::path::Path;
    use std::process::{Command, Stdio};

    #[test]
    fn a_process_is_known_by_its_last_argument() {
        let mut command = Command::new("tail");
        let mut child =
            command.args(["-f", "--", "/dev/null"]).stdout(Stdio::null()).spawn().unwrap();
        // Until `exec` the child is a copy of this test.
        while !has_folder(child.id(), Path::new("/dev/null")) {
            std::thread::yield_now();
        }
        assert!(!has_folder(child.id(), Path::new("/dev")));
        assert!(resident_bytes(child.id()).is_some_and(|bytes| bytes > 0));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!has_folder(child.id(), Path::new("/dev/null")));
    }
}
