//! SQL results as JSON, written straight from SQLite's own memory.

use rusqlite::Statement;
use rusqlite::types::{Value, ValueRef};
use std::io::Write as _;

/// `{"columns":[…],"rows":[[…]],"count":n}`
pub(super) fn rows(statement: &mut Statement<'_>, args: Vec<Value>) -> rusqlite::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(b"{\"columns\":[");
    let width = statement.column_count();
    for (index, name) in statement.column_names().enumerate() {
        write_separator(&mut out, index);
        write_string(&mut out, name);
    }
    out.extend_from_slice(b"],\"rows\":[");
    let mut count = 0;
    let mut rows = statement.query(rusqlite::params_from_iter(args))?;
    while let Some(row) = rows.next()? {
        write_separator(&mut out, count);
        out.push(b'[');
        for index in 0..width {
            write_separator(&mut out, index);
            write_value(&mut out, row.get_ref(index)?);
        }
        out.push(b']');
        count += 1;
    }
    // Writing into a Vec cannot fail.
    let _ = write!(out, "],\"count\":{count}}}");
    Ok(out)
}

/// An argument; `None` if SQLite has no value for it.
pub(super) fn argument(json: serde_json::Value) -> Option<Value> {
    Some(match json {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(flag) => Value::Integer(flag.into()),
        serde_json::Value::Number(number) => match number.as_i64() {
            Some(integer) => Value::Integer(integer),
            None => Value::Real(number.as_f64()?),
        },
        serde_json::Value::String(text) => Value::Text(text),
        serde_json::Value::Array(_) | serde_json::Value::Object(_) => return None,
    })
}

fn write_separator(out: &mut Vec<u8>, index: usize) {
    if index > 0 {
        out.push(b',');
    }
}

fn write_string(out: &mut Vec<u8>, text: &str) {
    let _ = serde_json::to_writer(out, text);
}

fn write_value(out: &mut Vec<u8>, value: ValueRef<'_>) {
    let _ = match value {
        ValueRef::Null => out.write_all(b"null"),
        ValueRef::Integer(integer) => write!(out, "{integer}"),
        ValueRef::Real(real) => serde_json::to_writer(out, &real).map_err(Into::into),
        ValueRef::Text(text) => {
            serde_json::to_writer(out, &String::from_utf8_lossy(text)).map_err(Into::into)
        }
        // The bench stores no BLOB in its tables; hexadecimal shows one all the same.
        ValueRef::Blob(blob) => {
            write!(out, "\"{}\"", blob.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
        }
    };
}
