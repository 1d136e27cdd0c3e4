//! `query`: one SQL statement.

use super::output::{Output, Shown, note};
use super::session::Session;
use crate::fail::Failure;
use debros_client::rpc::value::Kind;
use debros_client::rpc::{StatementResult, Value};
use debros_proto::words::counted;
use serde_json::value::RawValue;

pub(super) async fn run(
    session: &Session,
    out: Output,
    sql: String,
    args: &[String],
    text: bool,
) -> Result<(), Failure> {
    let args = args.iter().map(|arg| if text { Ok(Value::from(arg.as_str())) } else { value(arg) });
    let args = args.collect::<Result<Vec<_>, _>>()?;
    let result = session.user().await?.database().query(sql, args).await?;
    if out.is_json() { out.json(&result) } else { show(out, &result) }
}

/// An argument: what reads as a JSON number, null, true, false or BLOB is that, everything else is text.
fn value(arg: &str) -> Result<Value, Failure> {
    let Ok(json) = serde_json::from_str::<&RawValue>(arg) else {
        return Ok(arg.into());
    };
    match json.get().as_bytes().first() {
        Some(b'"' | b'[') => Ok(arg.into()),
        Some(b'{') if !is_blob(json.get()) => Ok(arg.into()),
        _ => debros_proto::json::from_json(json).map_err(|error| {
            Failure::usage(format!("argument {}: {}", debros_proto::ids::excerpt(arg), error.message))
                .hint("--text passes every argument as text")
        }),
    }
}

/// Whether an object is meant as a BLOB.
fn is_blob(json: &str) -> bool {
    serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(json).is_ok_and(|map| map.contains_key("$blob"))
}

fn show(out: Output, result: &StatementResult) -> Result<(), Failure> {
    if !result.columns.is_empty() {
        let header: Vec<&str> = result.columns.iter().map(String::as_str).collect();
        out.table(&header, result.rows.iter().map(|row| row.values.iter().map(shown).collect()))?;
    }
    match result.rows_affected {
        Some(changed) => {
            let inserted = match result.last_insert_id {
                Some(id) if id != 0 => format!(", last insert id {id}"),
                _ => String::new(),
            };
            let text = format!("{} changed{inserted}", counted(changed, "row"));
            // Without a table this line is the result.
            if result.columns.is_empty() { out.line(&text) } else { said(&text) }
        }
        None => said(&counted(result.rows.len() as u64, "row")),
    }
}

fn said(text: &str) -> Result<(), Failure> {
    note(text);
    Ok(())
}

fn shown(value: &Value) -> Shown {
    match &value.kind {
        None => "NULL".into(),
        Some(Kind::Text(text)) => text.as_str().into(),
        Some(Kind::Blob(blob)) => blob_text(blob).into(),
        // As JSON writes them: 64-bit integers exact, floats with their point.
        Some(_) => Shown::Number(serde_json::to_string(value).unwrap_or_default()),
    }
}

/// As SQL writes a BLOB; the middle of a long one is left out.
fn blob_text(blob: &[u8]) -> String {
    let hex = debros_proto::hex::encode(&blob[..blob.len().min(32)]);
    if blob.len() > 32 { format!("x'{hex}…' ({} bytes)", blob.len()) } else { format!("x'{hex}'") }
}

#[cfg(test)]
mod tests {
    use super::{Value, blob_text, value};

    #[test]
    fn arguments_have_the_type_that_they_read_as() {
        assert_eq!(value("42").unwrap(), Value::from(42));
        assert_eq!(value("-9223372036854775808").unwrap(), Value::from(i64::MIN));
        assert_eq!(value("9007199254740993").unwrap(), Value::from(9_007_199_254_740_993_i64));
        assert_eq!(value("1.50").unwrap(), Value::from(1.5));
        assert_eq!(value("null").unwrap(), Value::NULL);
        assert_eq!(value("true").unwrap(), Value::from(1));
        assert_eq!(value(r#"{"$blob":"AP8="}"#).unwrap(), Value::from(vec![0_u8, 255]));
        for text in ["", "abc", "007", "+1", "1,5", "NaN", "\"quoted\"", "[1]", "{\"a\":1}", "nul", "'42'"] {
            assert_eq!(value(text).unwrap(), Value::from(text), "{text}");
        }
        // What comes out can be sent in again; what would become another number is refused.
        assert_eq!(value("-9e999").unwrap(), Value::from(f64::NEG_INFINITY));
        assert_eq!(value("-0").unwrap(), Value::from(0));
        for bad in ["9223372036854775808", "-9223372036854775809", "1e400", r#"{"$blob":"!"}"#, r#"{"$blob":1}"#] {
            assert_eq!(value(bad).unwrap_err().exit, 2, "{bad}");
        }
    }

    #[test]
    fn blobs_read_as_sql_writes_them() {
        assert_eq!(blob_text(&[0, 255]), "x'00ff'");
        assert!(blob_text(&[7; 100]).ends_with("…' (100 bytes)"));
    }
}
