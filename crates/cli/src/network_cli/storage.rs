//! `storage …`: key-value pairs.

use super::args::StorageCommand;
use super::input;
use super::node_connection::NodeConnection;
use super::output::{Output, format_size, json_time, print_note, printable};
use crate::cli_error::{CliError, NOT_FOUND};
use debros_client::rpc::Entry;
use debros_client::{Client, PutOptions};
use debros_gateway::answers::ListAnswer;
use debros_proto::json::encode_base64;
use debros_proto::limits::{MAX_LIST_LIMIT, MAX_VALUE_BYTES};
use debros_proto::words::counted;
use serde_json::json;
use std::process::ExitCode;
use std::time::Duration;

pub(super) async fn run(
    connection: &NodeConnection,
    out: Output,
    command: StorageCommand,
) -> Result<ExitCode, CliError> {
    let client = connection.user_client().await?;
    match command {
        StorageCommand::Put { key, value, text, ttl } => {
            let value = input::read(value, text, MAX_VALUE_BYTES)?;
            put(&client, out, key, value, ttl).await?;
        }
        StorageCommand::Get { key } => get(&client, out, key).await?,
        StorageCommand::List { prefix, limit, cursor } => {
            list(&client, out, &prefix, limit, cursor).await?
        }
        StorageCommand::Delete { key } => delete(&client, out, key).await?,
        StorageCommand::Exists { key } => return exists(&client, out, key).await,
    }
    Ok(ExitCode::SUCCESS)
}

async fn put(
    client: &Client,
    out: Output,
    key: String,
    value: Vec<u8>,
    ttl: Option<Duration>,
) -> Result<(), CliError> {
    // Whole seconds, and never less than was asked for.
    let ttl_seconds = ttl.map(|span| span.as_secs() + u64::from(span.subsec_nanos() > 0));
    let options = PutOptions { ttl_seconds, ..PutOptions::default() };
    let stored = client.storage().put_with(key.clone(), value, options).await?;
    out.write_result(
        || json!({ "status": "ok", "key": key, "size": stored.size, "version": stored.version }),
        || {
            format!(
                "stored {} ({}, version {})",
                printable(&key),
                counted(stored.size, "byte"),
                stored.version
            )
        },
    )
}

async fn get(client: &Client, out: Output, key: String) -> Result<(), CliError> {
    let found = client.storage().get(key.clone()).await?;
    let entry =
        found.ok_or_else(|| CliError::not_found(format!("there is no key {}", printable(&key))))?;
    if out.is_json() {
        return out.write_json(&entry_json(&key, &entry));
    }
    if !out.is_terminal() {
        return out.write_bytes(&entry.value);
    }
    match std::str::from_utf8(&entry.value) {
        // On a terminal nothing but text is written, and the next prompt starts on a line of its
        // own.
        Ok(text) if text.split(['\n', '\t']).all(|part| printable(part) == part) => {
            out.write_bytes(&entry.value)?;
            if text.ends_with('\n') || text.is_empty() { Ok(()) } else { out.write_line("") }
        }
        _ => {
            print_note(&format!(
                "{} of binary data, not shown on a terminal",
                format_size(entry.value.len() as u64)
            ));
            print_note("hint: write it to a file with `> FILE`, or use --format json for base64");
            Ok(())
        }
    }
}

fn entry_json(key: &str, entry: &Entry) -> serde_json::Value {
    json!({
        "key": key,
        "value": encode_base64(&entry.value),
        "size": entry.value.len(),
        "version": entry.version,
        "expires_at": entry.expires_at.and_then(json_time),
    })
}

/// Reads page after page, so that a list has no length at which it ends by itself.
async fn list(
    client: &Client,
    out: Output,
    prefix: &str,
    limit: Option<u64>,
    mut cursor: String,
) -> Result<(), CliError> {
    let mut left = limit.unwrap_or(u64::MAX);
    let mut all = Vec::new();
    while left > 0 {
        // At most MAX_LIST_LIMIT, which fits.
        let wanted = u32::try_from(left.min(MAX_LIST_LIMIT.into())).unwrap_or(MAX_LIST_LIMIT);
        let page = client.storage().list(prefix, wanted, cursor).await?;
        left = left.saturating_sub(page.keys.len() as u64);
        if out.is_json() {
            all.extend(page.keys);
        } else {
            let lines: String =
                page.keys.iter().map(|key| format!("{}\n", printable(key))).collect();
            out.write_bytes(lines.as_bytes())?;
        }
        cursor = page.next_cursor;
        if cursor.is_empty() {
            break;
        }
    }
    if out.is_json() {
        return out.write_json(&ListAnswer::new(all, cursor));
    }
    if !cursor.is_empty() {
        print_note("more keys follow; a larger LIMIT shows them");
    }
    Ok(())
}

async fn delete(client: &Client, out: Output, key: String) -> Result<(), CliError> {
    let deleted = client.storage().delete(key.clone()).await?;
    out.write_result(
        || json!({ "status": "ok", "key": key, "deleted": deleted }),
        || {
            let key = printable(&key);
            if deleted { format!("deleted {key}") } else { format!("there was no key {key}") }
        },
    )
}

async fn exists(client: &Client, out: Output, key: String) -> Result<ExitCode, CliError> {
    let exists = client.storage().exists(key).await?;
    out.write_result(|| json!({ "exists": exists }), || exists.to_string())?;
    Ok(if exists { ExitCode::SUCCESS } else { ExitCode::from(NOT_FOUND) })
}
