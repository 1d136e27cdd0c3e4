//! `db backup` and `db restore`.

use super::node_connection::NodeConnection;
use super::output::{
    Output, TableCell, format_size, format_time, json_list, json_time, print_note, printable,
};
use super::terminal::{ask_line, is_interactive};
use crate::cli_error::CliError;
use debros_client::Transfer;
use debros_client::rpc::event::Kind;
use debros_client::rpc::{Backup, Done};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

pub(super) async fn list(connection: &NodeConnection, out: Output) -> Result<(), CliError> {
    let backups = connection.operator_client().await?.operator().backups().await?;
    if out.is_json() {
        return out.write_json(&json_list(backups.iter().map(backup_json)));
    }
    if backups.is_empty() {
        print_note("the node keeps no backups");
        return Ok(());
    }
    let rows = backups.iter().map(|backup| {
        vec![
            TableCell::from(backup.name.as_str()),
            format_time(backup.created_at).into(),
            TableCell::Number(format_size(backup.size)),
            backup.checksum.as_str().into(),
            if backup.missing.is_empty() { "-".into() } else { missing_namespaces(backup).into() },
        ]
    });
    out.write_table(&["NAME", "CREATED", "SIZE", "SHA-256", "MISSING"], rows)
}

pub(super) async fn create(connection: &NodeConnection, out: Output) -> Result<(), CliError> {
    let transfer = connection.operator_client().await?.operator().backup().await?;
    let done = follow_transfer(transfer, "backing up").await?;
    let backup = done.backup.ok_or_else(|| {
        CliError::new("the node ended the backup without saying which copy it made")
    })?;
    out.write_result(
        || backup_json(&backup),
        || {
            format!(
                "backup {} made and verified ({})",
                printable(&backup.name),
                format_size(backup.size)
            )
        },
    )?;
    if backup.missing.is_empty() {
        return Ok(());
    }
    // The command fails, so that a script which makes backups every night does not go on in
    // silence.
    Err(CliError::new(format!(
        "backup {} is not whole: these namespaces could not be copied, because their databases are damaged or cannot be read \
         (the node's log has more): {}",
        printable(&backup.name),
        missing_namespaces(&backup)
    ))
    .with_hint("backups that are whole are kept until there is a newer whole one; restore one of them, or delete the namespaces"))
}

/// What the copy does not have, in one line.
fn missing_namespaces(backup: &Backup) -> String {
    backup.missing.iter().map(|name| printable(name)).collect::<Vec<_>>().join(", ")
}

pub(super) async fn restore(
    connection: &NodeConnection,
    out: Output,
    name: &str,
    yes: bool,
) -> Result<(), CliError> {
    if !yes && !is_interactive() {
        return Err(CliError::usage(
            "restoring replaces the data of all namespaces with the copy's: give --yes to go on without being asked",
        ));
    }
    let client = connection.operator_client().await?;
    if !yes {
        confirm_restore(name).await?;
    }
    let transfer = client.operator().restore(name).await?;
    follow_transfer(transfer, "restoring").await?;
    out.write_result(
        || json!({ "status": "ok", "restored": name }),
        || format!("restored {}", printable(name)),
    )
}

/// Asks on a terminal; a script has to say --yes.
async fn confirm_restore(name: &str) -> Result<(), CliError> {
    print_note(
        "Restoring puts the data of all namespaces back to what it was when the copy was made; what was written since is gone.\n\
         Who may act stays as it is now on the same network: API keys, members, sessions, removed signing keys. On a fresh\n\
         machine it becomes what it was in the copy.",
    );
    let answer = ask_line("Type the copy's name to go on: ".to_owned()).await?;
    if answer.is_some_and(|answer| answer == name) {
        Ok(())
    } else {
        Err(CliError::new("the answer is not the copy's name: nothing was restored"))
    }
}

/// Shows the progress on a terminal, until the operation is done.
async fn follow_transfer(mut transfer: Transfer, what: &'static str) -> Result<Done, CliError> {
    let bar = progress_bar(what);
    let result = loop {
        match transfer.next().await {
            Some(Ok(event)) => match event.kind {
                Some(Kind::Progress(progress)) => {
                    bar.set_length(progress.total);
                    bar.set_position(progress.done);
                }
                Some(Kind::Done(done)) => break Ok(done),
                _ => {}
            },
            Some(Err(error)) => break Err(error.into()),
            None => {
                break Err(CliError::unreachable(
                    "the node went away before it was done: look at `db backup --list`",
                ));
            }
        }
    };
    bar.finish_and_clear();
    result
}

/// A bar on stderr; indicatif hides it when that is no terminal.
pub(super) fn progress_bar(what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(0).with_message(what);
    if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {percent:>3} %") {
        bar.set_style(style);
    }
    bar
}

fn backup_json(backup: &Backup) -> serde_json::Value {
    json!({
        "name": backup.name,
        "created_at": json_time(backup.created_at),
        "size": backup.size,
        "checksum": backup.checksum,
        "missing": backup.missing,
    })
}
