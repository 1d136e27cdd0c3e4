//! `json_patch` and `jsonb_patch`, for arguments that it is done with in time.
//!
//! SQLite looks each member of the patch up in the target from its beginning, so that the time
//! grows with the product of both lengths.

use super::with_plain_sqlite;
use rusqlite::functions::{Context, SubType};
use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{Error, Result, ToSql};

/// The product of both lengths, in bytes: 64 KiB each, or 4 KiB for 1 MiB. It takes half a second.
const MAX_PRODUCT: usize = 1 << 32;
/// What SQLite's JSON functions know text by that is JSON.
const JSON: u32 = b'J' as u32;

struct PatchArgument<'a>(ValueRef<'a>);

impl ToSql for PatchArgument<'_> {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(self.0))
    }
}

/// The first document changed as the second says, as text.
pub(super) fn patch_as_text(context: &Context<'_>) -> Result<(Value, SubType)> {
    let value = apply_patch(context, "json_patch", "SELECT json_patch(?1, ?2)")?;
    let subtype = matches!(value, Value::Text(_)).then_some(JSON);
    Ok((value, subtype))
}

/// The same in SQLite's binary form.
pub(super) fn patch_as_binary(context: &Context<'_>) -> Result<Value> {
    apply_patch(context, "jsonb_patch", "SELECT jsonb_patch(?1, ?2)")
}

fn apply_patch(context: &Context<'_>, name: &str, sql: &str) -> Result<Value> {
    let (target, patch) = (context.get_raw(0), context.get_raw(1));
    if argument_length(target).saturating_mul(argument_length(patch)) > MAX_PRODUCT {
        return Err(Error::UserFunctionError(
            format!(
                "{name}() would take too long: the document has {} bytes and the patch {}, and their product may be {MAX_PRODUCT}",
                argument_length(target),
                argument_length(patch)
            )
            .into(),
        ));
    }
    with_plain_sqlite(|sqlite| {
        sqlite
            .prepare_cached(sql)?
            .query_row([PatchArgument(target), PatchArgument(patch)], |row| row.get(0))
    })
    .map_err(|error| match error {
        Error::SqliteFailure(_, Some(message)) => Error::UserFunctionError(message.into()),
        other => other,
    })
}

fn argument_length(value: ValueRef<'_>) -> usize {
    match value {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.len(),
        _ => 0,
    }
}
