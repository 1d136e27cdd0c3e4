//! `db backup` and `db restore`.

use super::output::{Output, Shown, json_list, json_time, note, printable, size, time};
use super::session::Session;
use crate::fail::Failure;
use debros_client::Transfer;
use debros_client::rpc::event::Kind;
use debros_client::rpc::{Backup, Done};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::io::{self, IsTerminal as _, Write as _};

pub(super) async fn list(session: &Session, out: Output) -> Result<(), Failure> {
    let backups = session.operator().await?.operator().backups().await?;
    if out.is_json() {
        return out.json(&json_list(backups.iter().map(backup_json)));
    }
    if backups.is_empty() {
        note("the node keeps no backups");
        return Ok(());
    }
    let rows = backups.iter().map(|backup| {
        vec![
            Shown::from(backup.name.as_str()),
            time(backup.created_at).into(),
            Shown::Number(size(backup.size)),
            backup.checksum.as_str().into(),
            if backup.missing.is_empty() { "-".into() } else { missing(backup).into() },
        ]
    });
    out.table(&["NAME", "CREATED", "SIZE", "SHA-256", "MISSING"], rows)
}

pub(super) async fn make(session: &Session, out: Output) -> Result<(), Failure> {
    let transfer = session.operator().await?.operator().backup().await?;
    let done = follow(transfer, "backing up").await?;
    let backup =
        done.backup.ok_or_else(|| Failure::new("the node ended the backup without saying which copy it made"))?;
    out.result(
        || backup_json(&backup),
        || format!("backup {} made and verified ({})", printable(&backup.name), size(backup.size)),
    )?;
    if backup.missing.is_empty() {
        return Ok(());
    }
    // The command fails, so that a script which makes backups every night does not go on in silence.
    Err(Failure::new(format!(
        "backup {} is not whole: these namespaces could not be copied, because their databases are damaged or can not be read \
         (the node's log has more): {}",
        printable(&backup.name),
        missing(&backup)
    ))
    .hint("backups that are whole are kept until there is a newer whole one; restore one of them, or delete the namespaces"))
}

/// What the copy does not have, in one line.
fn missing(backup: &Backup) -> String {
    backup.missing.iter().map(|name| printable(name)).collect::<Vec<_>>().join(", ")
}

pub(super) async fn restore(session: &Session, out: Output, name: &str, yes: bool) -> Result<(), Failure> {
    if !yes {
        confirm(name)?;
    }
    let transfer = session.operator().await?.operator().restore(name).await?;
    follow(transfer, "restoring").await?;
    out.result(|| json!({ "status": "ok", "restored": name }), || format!("restored {}", printable(name)))
}

/// Asks on a terminal, and only there: a script has to say --yes.
fn confirm(name: &str) -> Result<(), Failure> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Failure::usage(
            "restoring replaces the data of all namespaces with the copy's: give --yes to go on without being asked",
        ));
    }
    note(
        "Restoring puts the data of all namespaces back to what it was when the copy was made; what was written since is gone.\n\
         Who may act stays as it is now on the same network: API keys, members, sessions, removed signing keys. On a fresh\n\
         machine it becomes what it was in the copy.",
    );
    // When stderr is gone the answer will not fit either.
    let _ = write!(io::stderr(), "Type the copy's name to go on: ");
    let mut answer = String::new();
    let read = io::stdin().read_line(&mut answer);
    read.map_err(|error| Failure::new(format!("the answer can not be read from the terminal: {error}")))?;
    if answer.trim() == name {
        Ok(())
    } else {
        Err(Failure::new("the answer is not the copy's name: nothing was restored"))
    }
}

/// Shows the progress on a terminal, until the operation is done.
async fn follow(mut transfer: Transfer, what: &'static str) -> Result<Done, Failure> {
    let bar = progress(what);
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
                break Err(Failure::unreachable("the node went away before it was done: look at `db backup --list`"));
            }
        }
    };
    bar.finish_and_clear();
    result
}

/// A bar on stderr; indicatif hides it when that is no terminal.
pub(super) fn progress(what: &'static str) -> ProgressBar {
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
