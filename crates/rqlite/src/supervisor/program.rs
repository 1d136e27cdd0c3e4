//! Where `rqlited` is, and what it can do.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

const PROGRAM: &str = "rqlited";
const TOOLS: &str = ".tools";
/// It prints its flags in a few milliseconds; a machine under load may take longer.
const HELP_TIMEOUT: Duration = Duration::from_secs(20);

/// Why there is no program to run.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It is where the configuration says, on no PATH and in no `.tools/`.
    #[error(
        "no rqlited is on the PATH or in .tools/: run `make tools` in the project's folder, which \
         fetches one, or install rqlite and set database.rqlited_path"
    )]
    NotFound,
    /// The configured path is no program.
    #[error(
        "database.rqlited_path is {path}, where no program is: correct it, or remove it and run \
         `make tools` in the project's folder"
    )]
    NotThere {
        /// The configured path.
        path: PathBuf,
    },
    /// It does not run.
    #[error("{path} cannot be run: {reason}; `make tools` in the project's folder fetches another")]
    NotRunnable {
        /// The program.
        path: PathBuf,
        /// What happened.
        reason: String,
    },
    /// It is another program, or a version without something that is needed.
    #[error("{path} is no rqlited that can be used: {reason}")]
    Unusable {
        /// The program.
        path: PathBuf,
        /// What is missing.
        reason: String,
    },
}

/// Finds `rqlited`: at the configured path and nowhere else if there is one, else on the PATH, in
/// `.tools/` of the current folder, beside this executable, and in `.tools/` beside or above it.
/// Folders in which every user of the machine can put a program are left out.
///
/// # Errors
/// When it is nowhere; the error says what to do.
pub fn find_program(configured: Option<&Path>) -> Result<PathBuf, ProgramError> {
    if let Some(path) = configured {
        return if is_program(path) {
            Ok(path.to_owned())
        } else {
            Err(ProgramError::NotThere { path: path.to_owned() })
        };
    }
    let executable = env::current_exe().ok();
    let here = env::current_dir().ok();
    let path = env::var_os("PATH");
    places(path, here.as_deref(), executable.as_deref(), others_write_in)
        .into_iter()
        .find(|path| is_program(path))
        .ok_or(ProgramError::NotFound)
}

fn places(
    path: Option<OsString>,
    here: Option<&Path>,
    executable: Option<&Path>,
    others_write_in: impl Fn(&Path) -> bool,
) -> Vec<PathBuf> {
    let mut places: Vec<_> =
        path.iter().flat_map(env::split_paths).map(|folder| folder.join(PROGRAM)).collect();
    // The executable itself is no folder.
    let above: Vec<_> =
        executable.into_iter().flat_map(|executable| executable.ancestors().skip(1)).collect();
    let in_tools = |folder: &Path| folder.join(TOOLS).join(PROGRAM);
    places.extend(here.filter(|folder| !others_write_in(folder)).map(in_tools));
    places.extend(above.first().map(|folder| folder.join(PROGRAM)));
    places.extend(above.into_iter().filter(|folder| !others_write_in(folder)).map(in_tools));
    places
}

/// Whether any user of the machine can make a file there, as in `/tmp`.
fn others_write_in(folder: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(folder).is_ok_and(|folder| folder.permissions().mode() & 0o002 != 0)
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path)
        .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// What a program can do: read from what it says of its flags, because what it says of its version
/// is not always true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Features {
    flags: BTreeSet<String>,
    /// Whether `setpriv` can bind the child's life to ours.
    pub(super) dies_with_parent: bool,
}

impl Features {
    /// Runs `rqlited -h`.
    pub(super) async fn probe(program: &Path) -> Result<Self, ProgramError> {
        let help = run(Command::new(program).arg("-h"))
            .await
            .map_err(|reason| ProgramError::NotRunnable { path: program.to_owned(), reason })?;
        let bound = run(Command::new(super::command_line::SETPRIV)
            .args(super::command_line::DIE_WITH_PARENT)
            .arg("true"))
        .await;
        let features = Self { flags: flags_of(&help), dies_with_parent: bound.is_ok() };
        for flag in
            ["node-id", "http-addr", "raft-addr", "auth", "join-as", "raft-election-timeout"]
        {
            if !features.has(flag) {
                return Err(ProgramError::Unusable {
                    path: program.to_owned(),
                    reason: format!("it knows no flag -{flag}; rqlite 8.26 or newer is needed"),
                });
            }
        }
        Ok(features)
    }

    /// Whether it knows a flag; without the hyphen.
    pub fn has(&self, flag: &str) -> bool {
        self.flags.contains(flag)
    }

    /// Whether it is of version 10 or later, whose snapshots are made in another way.
    pub fn is_version_10(&self) -> bool {
        self.has("raft-heartbeat-timeout")
    }

    /// Whether a read that takes longer than 5 s can make a later snapshot lose rows, which is then
    /// guarded against. It is so in all of version 8. Where it was mended in version 9 cannot be
    /// probed, and what guards version 8 harms the later ones: there it says `false`.
    pub fn loses_rows_on_long_reads(&self) -> bool {
        // Both came with version 9 or later.
        !self.has("cdc-config") && !self.is_version_10()
    }
}

/// What a program prints, on both ways out. Go's flags are printed on the second, with status 0 or 2.
async fn run(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = match tokio::time::timeout(HELP_TIMEOUT, output).await {
        Ok(output) => output.map_err(|error| error.to_string())?,
        Err(_) => return Err(format!("it did not answer within {HELP_TIMEOUT:?}")),
    };
    if !matches!(output.status.code(), Some(0 | 2)) {
        return Err(output.status.to_string());
    }
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    Ok(text)
}

/// Flags stand at the start of a line, indented by two.
fn flags_of(help: &str) -> BTreeSet<String> {
    let named = help.lines().filter_map(|line| line.strip_prefix("  -"));
    named.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::{Features, ProgramError, find_program, flags_of, places};
    use std::path::{Path, PathBuf};

    fn features(help: &str) -> Features {
        Features { flags: flags_of(help), dies_with_parent: true }
    }

    #[test]
    fn what_it_can_do_is_read_from_its_flags() {
        let old = features(
            "Usage: rqlited [flags]\n  -on-disk-path string\n    \tPath -with hyphens\n  -fk\n    \tEnable\n",
        );
        assert!(old.has("on-disk-path") && old.has("fk") && !old.has("with"));
        assert!(old.loses_rows_on_long_reads() && !old.is_version_10());
        assert!(!features("  -cdc-config string\n").loses_rows_on_long_reads());
        let new = features("  -raft-heartbeat-timeout duration\n");
        assert!(new.is_version_10() && !new.loses_rows_on_long_reads());
    }

    #[test]
    fn it_is_looked_for_on_the_path_here_and_above_the_executable() {
        let found = places(
            Some("/a:/b".into()),
            Some(Path::new("/here")),
            Some(Path::new("/tmp/p/target/debug/network-node")),
            |folder| folder == Path::new("/tmp"),
        );
        let found: Vec<_> = found.iter().map(|path| path.display().to_string()).collect();
        let expected = [
            "/a/rqlited",
            "/b/rqlited",
            "/here/.tools/rqlited",
            "/tmp/p/target/debug/rqlited",
            "/tmp/p/target/debug/.tools/rqlited",
            "/tmp/p/target/.tools/rqlited",
            "/tmp/p/.tools/rqlited",
            "/.tools/rqlited",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_configured_path_is_the_only_one_and_the_error_says_what_to_do() {
        let path = PathBuf::from("/nowhere/rqlited");
        let error = find_program(Some(&path)).unwrap_err();
        assert!(matches!(error, ProgramError::NotThere { .. }));
        assert!(error.to_string().contains("make tools"), "{error}");
        assert!(ProgramError::NotFound.to_string().contains("make tools"));
    }
}
