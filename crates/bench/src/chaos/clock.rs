//! Clocks that are wrong: a library that is loaded into a node moves its wall clock. It is compiled
//! when a run begins, with the C compiler that the node needs too. rqlited asks the kernel itself,
//! so its clock stays right.

use anyhow::{Context as _, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCE: &str = include_str!("clock.c");

/// The library, and the files with the offset of each node.
#[derive(Debug)]
pub(crate) struct ClockLibrary {
    library: PathBuf,
    folder: PathBuf,
}

impl ClockLibrary {
    /// Compiles the library into a folder.
    ///
    /// # Errors
    /// There is no C compiler `cc`, or what it says.
    pub(crate) fn build(folder: &Path) -> Result<Self> {
        let (source, library) = (folder.join("clock.c"), folder.join("clock.so"));
        std::fs::write(&source, SOURCE)?;
        let mut command = Command::new("cc");
        command.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source);
        let output = command.output().context("run cc")?;
        ensure!(output.status.success(), "cc: {}", String::from_utf8_lossy(&output.stderr));
        Ok(Self { library, folder: folder.to_owned() })
    }

    /// Has a program use the clock of a node.
    ///
    /// # Errors
    /// The file cannot be made.
    pub(crate) fn load_into(&self, command: &mut Command, node: usize) -> Result<()> {
        let offset = self.offset_file(node);
        if !offset.exists() {
            std::fs::write(&offset, 0_i64.to_ne_bytes())?;
        }
        command.env("LD_PRELOAD", &self.library).env("CHAOS_CLOCK", offset);
        Ok(())
    }

    /// Moves a node's clock away from the right time, while it runs.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn set(&self, node: usize, milliseconds: i64) -> Result<()> {
        use std::os::unix::fs::FileExt as _;
        let file = std::fs::File::options().write(true).open(self.offset_file(node))?;
        file.write_all_at(&(milliseconds * 1_000_000).to_ne_bytes(), 0)?;
        Ok(())
    }

    fn offset_file(&self, node: usize) -> PathBuf {
        self.folder.join(format!("clock-{}", node + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::ClockLibrary;
    use std::process::Command;
    use std::time::{SystemTime, UNIX_EPOCH};

    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[test]
    fn a_moved_clock_is_the_one_that_a_program_sees() {
        let folder = tempfile::tempdir().unwrap();
        let clock = ClockLibrary::build(folder.path()).unwrap();
        let mut date = Command::new("date");
        clock.load_into(date.arg("+%s"), 0).unwrap();
        let mut seconds_ahead = || {
            let text = String::from_utf8(date.output().unwrap().stdout).unwrap();
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
            text.trim().parse::<i64>().unwrap() - i64::try_from(now).unwrap()
        };
        assert!(seconds_ahead().abs() < 100);
        clock.set(0, 1_000_000).unwrap();
        assert!((900..1100).contains(&seconds_ahead()));
        clock.set(0, -1_000_000).unwrap();
        assert!((-1100..-900).contains(&seconds_ahead()));
    }
}
