//! The program `network-cli`: a client for people and scripts.

mod args;
mod auth;
mod auth_args;
mod backup;
mod browser;
mod completion;
mod completion_values;
mod credential;
mod export;
mod gateway;
mod input;
mod keystore;
mod migrate;
mod namespace;
mod network;
mod output;
mod partial;
mod pubsub;
mod query;
mod schema;
mod session;
mod storage;
mod terminal;

use crate::fail::Failure;
use crate::runtime;
pub(crate) use args::scope;
use args::{Cli, Command, DbCommand, Format};
use clap::Parser as _;
use output::Output;
use session::Session;
use std::process::ExitCode;

/// Runs the program.
pub fn main() -> ExitCode {
    if let Some(code) = completion::answer() {
        return code;
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let json = cli.global.format == Format::Json;
    match run(cli) {
        Ok(code) => code,
        Err(failure) => failure.report(json),
    }
}

/// A command line that can not be read; `--help` and `--version` come this way too.
fn usage(error: &clap::Error) -> ExitCode {
    let asked: Vec<String> = std::env::args().collect();
    let json = asked.windows(2).any(|pair| matches!(pair[0].as_str(), "-f" | "--format") && pair[1] == "json")
        || asked.iter().any(|argument| matches!(argument.as_str(), "--format=json" | "-fjson"));
    if error.use_stderr() && json {
        return Failure::usage(usage_message(error)).report(true);
    }
    // A closed stdout or stderr is no reason for another error.
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(crate::fail::USAGE))
}

/// What is wrong, in one line: what clap says before its tips and the usage.
fn usage_message(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines: Vec<&str> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    let joined = lines.join(" ");
    joined.strip_prefix("error: ").unwrap_or(&joined).to_owned()
}

fn run(mut cli: Cli) -> Result<ExitCode, Failure> {
    let out = Output::new(cli.global.format);
    if let Command::Namespace(wanted) = &cli.command {
        namespace::check(&mut cli.global, wanted)?;
    }
    let Some(wanted) = offline(cli.command, out)? else {
        return Ok(ExitCode::SUCCESS);
    };
    runtime::command()?.block_on(async {
        let session = Session::open(&cli.global).await?;
        let result = command(wanted, &session, out).await;
        session.close().await;
        result
    })
}

/// Does what needs no node; gives every other command back.
fn offline(command: Command, out: Output) -> Result<Option<Command>, Failure> {
    match command {
        Command::Version => network::version(out)?,
        Command::Completions { shell } => completion::write_script(out, shell)?,
        Command::Auth(wanted) => {
            let left = runtime::command()?.block_on(async { auth::offline(out, wanted) });
            return Ok(left?.map(Command::Auth));
        }
        other => return Ok(Some(other)),
    }
    Ok(None)
}

async fn command(command: Command, session: &Session, out: Output) -> Result<ExitCode, Failure> {
    match command {
        // Answered before a node was looked for.
        Command::Version | Command::Completions { .. } => {}
        Command::Health => return network::health(session, out).await,
        Command::Peers => network::peers(session, out).await?,
        Command::Status => network::status(session, out).await?,
        Command::PeerId => network::peer_id(session, out)?,
        Command::Connect { address } => network::connect(session, out, address).await?,
        Command::Query { sql, args, text } => query::run(session, out, sql, &args, text).await?,
        Command::Storage(storage) => return storage::run(session, out, storage).await,
        Command::Pubsub(pubsub) => pubsub::run(session, out, pubsub).await?,
        Command::Auth(auth) => auth::run(session, out, auth).await?,
        Command::Namespace(wanted) => namespace::run(session, out, wanted).await?,
        Command::Db(DbCommand::Backup { list: true }) => backup::list(session, out).await?,
        Command::Db(DbCommand::Backup { list: false }) => backup::make(session, out).await?,
        Command::Db(DbCommand::Restore { name, yes }) => backup::restore(session, out, &name, yes).await?,
        Command::Db(DbCommand::Export { file, force }) => export::run(session, out, &file, force).await?,
        Command::Db(DbCommand::Migrate { dir, baseline: Some(baseline), .. }) => {
            migrate::record(session, out, &dir, baseline).await?;
        }
        Command::Db(DbCommand::Migrate { dir, dry_run, .. }) => migrate::run(session, out, &dir, dry_run).await?,
        Command::Db(DbCommand::Schema) => schema::run(session, out).await?,
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::{Cli, Command, args::StorageCommand};
    use clap::{CommandFactory as _, Parser as _};

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_usage_error_is_told_whole_in_one_line() {
        for (line, words) in [
            ("network-cli storage put", &["<KEY>"][..]),
            ("network-cli storage get", &["required arguments were not provided", "<KEY>"]),
            ("network-cli -f yaml peers", &["invalid value 'yaml'", "[possible values: ", "json"]),
        ] {
            let message = super::usage_message(&Cli::try_parse_from(line.split(' ')).unwrap_err());
            assert!(words.iter().all(|word| message.contains(word)), "{message}");
            assert!(
                !message.contains('\n') && !message.contains("Usage") && !message.starts_with("error"),
                "{message}"
            );
        }
    }

    /// Lesson 37: `storage list --format json` took "--format" as the prefix, and `--bootstrap` was ignored.
    #[test]
    fn lesson_37_global_options_stand_anywhere_and_are_never_taken_as_values() {
        for line in [
            "network-cli storage list --format json -t 5s",
            "network-cli --format json storage -t 5s list",
            "network-cli storage --format=json list -t5s",
            "network-cli -f json -t 5s storage list",
        ] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(cli.global.format, super::Format::Json, "{line}");
            assert_eq!(cli.global.timeout.as_secs(), 5, "{line}");
            match cli.command {
                Command::Storage(StorageCommand::List { prefix, limit, cursor }) => {
                    assert_eq!((prefix.as_str(), limit, cursor.as_str()), ("", None, ""))
                }
                other => panic!("{other:?}"),
            }
        }
        let cli = Cli::try_parse_from(["network-cli", "peers", "-b", "/ip4/1.2.3.4/tcp/1,/ip4/5.6.7.8/tcp/2"]).unwrap();
        assert_eq!(cli.global.bootstrap.len(), 2);
        let cli =
            Cli::try_parse_from(["network-cli", "query", "SELECT ?, ?", "-5", "-1.5e3", "--timeout", "1s"]).unwrap();
        match cli.command {
            Command::Query { args, .. } => assert_eq!(args, ["-5", "-1.5e3"]),
            other => panic!("{other:?}"),
        }
        for bad in [
            "network-cli storage list --frmt json",
            "network-cli peers -t 5",
            "network-cli peers -t 0",
            "network-cli -f yaml peers",
        ] {
            assert_eq!(Cli::try_parse_from(bad.split(' ')).unwrap_err().exit_code(), 2, "{bad}");
        }
    }
}
