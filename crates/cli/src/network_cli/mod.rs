//! The program `network-cli`: a client for people and scripts.

mod args;
mod auth;
mod auth_args;
mod backup;
mod browser;
mod cluster;
mod command_client;
mod completion;
mod completion_values;
mod credential_lookup;
mod doctor;
mod environment;
mod export;
mod gateway_lookup;
mod input;
mod keystore;
mod migrate;
mod namespace;
mod network;
mod node_connection;
pub(crate) mod output;
mod partial_file;
mod pubsub;
mod query;
mod resolved_credential;
mod schema;
mod storage;
pub(crate) mod terminal;

use crate::cli_error::CliError;
use crate::runtime;
use args::{Cli, CliCommand, DbCommand};
use clap::Parser as _;
use node_connection::NodeConnection;
use output::{Output, OutputFormat, print_note};
use std::process::ExitCode;

/// Runs the program.
pub fn main() -> ExitCode {
    if let Some(code) = completion::complete_from_env() {
        return code;
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return report_usage_error(&error),
    };
    let json = cli.global.format == OutputFormat::Json;
    match run(cli) {
        Ok(code) => code,
        Err(cli_error) => cli_error.report(json),
    }
}

/// A command line that cannot be read; `--help` and `--version` come this way too.
fn report_usage_error(error: &clap::Error) -> ExitCode {
    let asked: Vec<String> = std::env::args().collect();
    let json = asked
        .windows(2)
        .any(|pair| matches!(pair[0].as_str(), "-f" | "--format") && pair[1] == "json")
        || asked.iter().any(|argument| matches!(argument.as_str(), "--format=json" | "-fjson"));
    if error.use_stderr() && json {
        return CliError::usage(usage_message(error)).report(true);
    }
    // A closed stdout or stderr is no reason for another error.
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(crate::cli_error::USAGE))
}

/// What is wrong, in one line: what clap says before its tips and the usage.
fn usage_message(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines: Vec<&str> =
        text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    let joined = lines.join(" ");
    joined.strip_prefix("error: ").unwrap_or(&joined).to_owned()
}

fn run(mut cli: Cli) -> Result<ExitCode, CliError> {
    let out = Output::new(cli.global.format);
    if cli.global.disable_anonrc {
        print_note(
            "note: --disable-anonrc has no effect yet: nothing is routed through Anyone in this version",
        );
    }
    if let CliCommand::Namespace(wanted) = &cli.command {
        namespace::check_arguments(&mut cli.global, wanted)?;
    }
    if matches!(cli.command, CliCommand::Doctor) {
        // It has something to say also where no node answers.
        return runtime::command_runtime()?.block_on(doctor::run(&cli.global, out));
    }
    let Some(wanted) = run_offline(cli.command, out)? else {
        return Ok(ExitCode::SUCCESS);
    };
    runtime::command_runtime()?.block_on(async {
        let connection = NodeConnection::open(&cli.global).await?;
        let result = run_with_sign_in(wanted, &connection, out).await;
        connection.close().await;
        result
    })
}

/// Does what needs no node; gives every other command back.
fn run_offline(command: CliCommand, out: Output) -> Result<Option<CliCommand>, CliError> {
    match command {
        CliCommand::Version => network::version(out)?,
        CliCommand::Completions { shell } => completion::write_script(out, shell)?,
        CliCommand::Auth(wanted) => {
            let left =
                runtime::command_runtime()?.block_on(async { auth::run_offline(out, wanted) });
            return Ok(left?.map(CliCommand::Auth));
        }
        other => return Ok(Some(other)),
    }
    Ok(None)
}

/// Runs a command. One that finds no credential runs once more where somebody at a terminal signs
/// in: until it has its credential a command has read no input and changed nothing.
async fn run_with_sign_in(
    command: CliCommand,
    connection: &NodeConnection,
    out: Output,
) -> Result<ExitCode, CliError> {
    match run_command(command.clone(), connection, out).await {
        Err(missing) if auth::login::offer(connection, &missing).await? => {
            run_command(command, connection, out).await
        }
        result => result,
    }
}

async fn run_command(
    command: CliCommand,
    connection: &NodeConnection,
    out: Output,
) -> Result<ExitCode, CliError> {
    match command {
        // Answered before a node was looked for.
        CliCommand::Version | CliCommand::Completions { .. } | CliCommand::Doctor => {}
        CliCommand::Health => return network::health(connection, out).await,
        CliCommand::Peers => network::peers(connection, out).await?,
        CliCommand::Status => network::status(connection, out).await?,
        CliCommand::PeerId => network::peer_id(connection, out)?,
        CliCommand::Connect { address } => network::connect(connection, out, address).await?,
        CliCommand::Query { sql, args, text } => {
            query::run(connection, out, sql, &args, text).await?
        }
        CliCommand::Storage(storage) => return storage::run(connection, out, storage).await,
        CliCommand::Pubsub(pubsub) => pubsub::run(connection, out, pubsub).await?,
        CliCommand::Auth(auth) => auth::run(connection, out, auth).await?,
        CliCommand::Namespace(wanted) => namespace::run(connection, out, wanted).await?,
        CliCommand::Cluster(wanted) => cluster::run(connection, out, wanted).await?,
        CliCommand::Db(DbCommand::Backup { list: true }) => backup::list(connection, out).await?,
        CliCommand::Db(DbCommand::Backup { list: false }) => {
            backup::create(connection, out).await?
        }
        CliCommand::Db(DbCommand::Restore { name, yes }) => {
            backup::restore(connection, out, &name, yes).await?
        }
        CliCommand::Db(DbCommand::Export { file, force }) => {
            export::run(connection, out, &file, force).await?
        }
        CliCommand::Db(DbCommand::Migrate { dir, baseline: Some(baseline), .. }) => {
            migrate::record_baseline(connection, out, &dir, baseline).await?;
        }
        CliCommand::Db(DbCommand::Migrate { dir, dry_run, .. }) => {
            migrate::run(connection, out, &dir, dry_run).await?
        }
        CliCommand::Db(DbCommand::Schema) => schema::run(connection, out).await?,
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::{Cli, CliCommand, args::StorageCommand};
    use clap::{CommandFactory as _, Parser as _};

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_usage_error_is_reported_whole_in_one_line() {
        for (line, words) in [
            ("network-cli storage put", &["<KEY>"][..]),
            ("network-cli storage get", &["required arguments were not provided", "<KEY>"]),
            ("network-cli -f yaml peers", &["invalid value 'yaml'", "[possible values: ", "json"]),
        ] {
            let message = super::usage_message(&Cli::try_parse_from(line.split(' ')).unwrap_err());
            assert!(words.iter().all(|word| message.contains(word)), "{message}");
            assert!(
                !message.contains('\n')
                    && !message.contains("Usage")
                    && !message.starts_with("error"),
                "{message}"
            );
        }
    }

    /// Lesson 37: `storage list --format json` took "--format" as the prefix, and `--bootstrap` was
    /// ignored.
    #[test]
    fn lesson_37_global_options_stand_anywhere_and_are_never_taken_as_values() {
        for line in [
            "network-cli storage list --format json -t 5s",
            "network-cli --format json storage -t 5s list",
            "network-cli storage --format=json list -t5s",
            "network-cli -f json -t 5s storage list",
        ] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(cli.global.format, super::OutputFormat::Json, "{line}");
            assert_eq!(cli.global.timeout.as_secs(), 5, "{line}");
            match cli.command {
                CliCommand::Storage(StorageCommand::List { prefix, limit, cursor }) => {
                    assert_eq!((prefix.as_str(), limit, cursor.as_str()), ("", None, ""))
                }
                other => panic!("{other:?}"),
            }
        }
        let cli = Cli::try_parse_from([
            "network-cli",
            "peers",
            "-b",
            "/ip4/1.2.3.4/tcp/1,/ip4/5.6.7.8/tcp/2",
        ])
        .unwrap();
        assert_eq!(cli.global.bootstrap.len(), 2);
        let cli = Cli::try_parse_from([
            "network-cli",
            "query",
            "SELECT ?, ?",
            "-5",
            "-1.5e3",
            "--timeout",
            "1s",
        ])
        .unwrap();
        match cli.command {
            CliCommand::Query { args, .. } => assert_eq!(args, ["-5", "-1.5e3"]),
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
