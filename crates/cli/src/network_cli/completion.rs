//! Completion of command lines: at every Tab the shell asks this program, which knows its own
//! commands, options and values.

use super::args::Cli;
use super::output::Output;
use crate::cli_error::{CliError, FAILED};
use clap::CommandFactory as _;
use clap_complete::Shell;
use clap_complete::engine::complete;
use clap_complete::env::{CompleteEnv, Elvish, EnvCompleter, Fish, Powershell, Shells, Zsh};
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const PROGRAM: &str = "network-cli";
/// With this variable a shell asks, in place of running a command; its value is the shell's name.
const ASKED_BY: &str = "DEBROS_COMPLETE";
const SHELLS: Shells<'static> = Shells(&[&BashCompleter, &Elvish, &Fish, &Powershell, &Zsh]);

/// Answers a shell that asks for completions. `None`: none does.
pub(super) fn complete_from_env() -> Option<ExitCode> {
    let asked = CompleteEnv::with_factory(Cli::command).var(ASKED_BY).bin(PROGRAM).shells(SHELLS);
    match asked.try_complete(std::env::args_os(), std::env::current_dir().ok().as_deref()) {
        Ok(false) => None,
        Ok(true) => Some(ExitCode::SUCCESS),
        // A shell shows what is written in the middle of the command line.
        Err(_) => Some(ExitCode::from(FAILED)),
    }
}

/// Writes what makes a shell ask.
pub(super) fn write_script(out: Output, shell: Shell) -> Result<(), CliError> {
    let name = shell.to_string();
    let shell = SHELLS
        .completer(&name)
        .ok_or_else(|| CliError::usage(format!("there is no completion for {name}")))?;
    let mut script = Vec::new();
    shell.write_registration(ASKED_BY, PROGRAM, PROGRAM, &this_program(), &mut script)?;
    out.write_bytes(&script)
}

/// How the shell calls this program again: by its name where it was found by that, else by its
/// whole path.
fn this_program() -> String {
    let called = std::env::args_os().next().map(PathBuf::from).unwrap_or_else(|| PROGRAM.into());
    let is_path = called.parent().is_some_and(|folder| folder != Path::new(""));
    let called = if is_path { std::path::absolute(&called).unwrap_or(called) } else { called };
    called.to_string_lossy().into_owned()
}

/// Bash, which takes `--format=json` and `db:read` for three words and wants the last of them
/// alone.
struct BashCompleter;

impl EnvCompleter for BashCompleter {
    fn name(&self) -> &'static str {
        clap_complete::env::Bash.name()
    }

    fn is(&self, name: &str) -> bool {
        clap_complete::env::Bash.is(name)
    }

    fn write_registration(
        &self,
        var: &str,
        name: &str,
        bin: &str,
        completer: &str,
        buf: &mut dyn Write,
    ) -> Result<(), io::Error> {
        clap_complete::env::Bash.write_registration(var, name, bin, completer, buf)
    }

    fn write_complete(
        &self,
        cmd: &mut clap::Command,
        args: Vec<OsString>,
        current_dir: Option<&Path>,
        buf: &mut dyn Write,
    ) -> Result<(), io::Error> {
        // What the script of `write_registration` says: where the cursor is, and what parts the
        // answers.
        let variable = |name: &str| std::env::var(name).ok();
        let index = variable("_CLAP_COMPLETE_INDEX")
            .and_then(|index| index.parse().ok())
            .unwrap_or_default();
        let separator = variable("_CLAP_IFS").unwrap_or_else(|| "\n".to_owned());
        let (args, index, before) = join_words(args, index);
        let completions = complete(cmd, args, index, current_dir)?;
        let values = completions.iter().map(|candidate| candidate.get_value().to_string_lossy());
        let values: Vec<String> =
            values.map(|value| value.strip_prefix(&before).unwrap_or(&value).to_owned()).collect();
        buf.write_all(values.join(&separator).as_bytes())
    }
}

/// The words as they were typed: bash parts them at `=` and `:`. Besides them the index of the word
/// at the cursor, and what of that word stands before the part at the cursor.
fn join_words(words: Vec<OsString>, index: usize) -> (Vec<OsString>, usize, String) {
    let mut joined: Vec<OsString> = Vec::new();
    let (mut at, mut before) = (index, String::new());
    // Whether the last word ends with what parts words.
    let mut is_open = false;
    for (position, word) in words.into_iter().enumerate() {
        let parts = !is_open && joined.last().is_some_and(|last| parts_words(last, &word));
        if let Some(last) = joined.last_mut().filter(|_| parts || is_open) {
            let open = last.to_string_lossy().into_owned();
            last.push(&word);
            if position == index {
                before = if parts { last.to_string_lossy().into_owned() } else { open };
            }
        } else {
            joined.push(word);
        }
        if position == index {
            at = joined.len() - 1;
        }
        is_open = parts;
    }
    (joined, at, before)
}

/// Whether a word is what bash has parted the one before from its rest with: the `=` of an option,
/// or colons.
fn parts_words(last: &OsStr, word: &OsStr) -> bool {
    if word == "=" {
        return last.to_string_lossy().starts_with("--");
    }
    let word = word.to_string_lossy();
    !word.is_empty() && word.bytes().all(|byte| byte == b':')
}

#[cfg(test)]
mod tests {
    use super::join_words;
    use std::ffi::OsString;

    #[test]
    fn an_option_and_its_value_are_one_word() {
        let joined = |words: &[&str], index: usize| {
            let (words, index, before) =
                join_words(words.iter().map(OsString::from).collect(), index);
            (words.join(std::ffi::OsStr::new(" ")).into_string().unwrap(), index, before)
        };
        assert_eq!(joined(&["x", "a", "b"], 2), ("x a b".to_owned(), 2, String::new()));
        assert_eq!(
            joined(&["x", "--format", "=", "js"], 3),
            ("x --format=js".to_owned(), 1, "--format=".to_owned())
        );
        assert_eq!(
            joined(&["x", "--format", "="], 2),
            ("x --format=".to_owned(), 1, "--format=".to_owned())
        );
        assert_eq!(
            joined(&["x", "--format", "=", "json", "a"], 4),
            ("x --format=json a".to_owned(), 2, String::new())
        );
        assert_eq!(joined(&["x", "a", "=", "b"], 3), ("x a = b".to_owned(), 3, String::new()));
        assert_eq!(joined(&["x", "db", ":", "re"], 3), ("x db:re".to_owned(), 1, "db:".to_owned()));
        assert_eq!(joined(&["x", "db", ":"], 2), ("x db:".to_owned(), 1, "db:".to_owned()));
        let several = ["x", "--scopes", "=", "db", ":", "read,db", ":", "w", "a"];
        let before = "--scopes=db:read,db:".to_owned();
        assert_eq!(joined(&several, 7), ("x --scopes=db:read,db:w a".to_owned(), 1, before));
    }
}
