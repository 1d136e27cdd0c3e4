//! `db export`: the namespace's SQL database as a SQLite file.

use super::node_connection::NodeConnection;
use super::output::{Output, format_size, printable};
use super::partial_file::PartialFile;
use crate::cli_error::CliError;
use crate::signals::StopSignals;
use debros_client::Transfer;
use debros_client::rpc::event::Kind;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::path::Path;

pub(super) async fn run(
    connection: &NodeConnection,
    out: Output,
    path: &Path,
    force: bool,
) -> Result<(), CliError> {
    if !force && path.exists() {
        return Err(CliError::usage(format!(
            "{} exists: give another name, or --force to replace it",
            path.display()
        )));
    }
    let transfer = connection.user_client().await?.operator().export().await?;
    // From here on something lies on the disk that an interruption has to take away.
    let mut signals = StopSignals::of_command()?;
    // Only a complete file that was verified gets the name that was asked for.
    let mut partial = PartialFile::create(path)?;
    let bar = ProgressBar::new_spinner().with_message("exporting");
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {bytes}") {
        bar.set_style(style);
    }
    let result = tokio::select! {
        received = receive(transfer, &mut partial, &bar) => received,
        (name, code) = signals.next_stop(|| {}) => {
            bar.finish_and_clear();
            drop(partial);
            CliError::new(format!("{name}: the export was broken off, and nothing was kept")).report(out.is_json());
            // At once: closing the connection in order would wait for the node.
            std::process::exit(code)
        }
    };
    bar.finish_and_clear();
    let checksum = result?;
    let written = partial.written;
    partial.commit_to(path, force)?;
    out.write_result(
        || json!({ "status": "ok", "file": path.display().to_string(), "size": written, "checksum": checksum }),
        || {
            format!(
                "exported to {} ({}, SHA-256 {checksum})",
                printable(&path.display().to_string()),
                format_size(written)
            )
        },
    )
}

async fn receive(
    mut transfer: Transfer,
    partial: &mut PartialFile,
    bar: &ProgressBar,
) -> Result<String, CliError> {
    loop {
        match transfer.next().await {
            Some(Ok(event)) => match event.kind {
                Some(Kind::Chunk(chunk)) => {
                    partial.write(&chunk).map_err(|error| partial.write_error(&error))?;
                    bar.set_position(partial.written);
                }
                Some(Kind::Done(done)) => {
                    let checksum = partial.checksum();
                    if checksum == done.checksum {
                        return Ok(checksum);
                    }
                    return Err(CliError::new(
                        "the file does not have the checksum that the node computed: it was damaged on its way",
                    )
                    .with_hint("try again"));
                }
                _ => {}
            },
            Some(Err(error)) => return Err(error.into()),
            None => {
                return Err(CliError::unreachable(
                    "the node went away before the file was complete",
                )
                .with_hint("try again"));
            }
        }
    }
}
