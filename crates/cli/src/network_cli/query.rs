//! `query`: one SQL statement.

use super::node_connection::NodeConnection;
use super::output::{Output, TableCell, print_note};
use crate::cli_error::CliError;
use debros_client::rpc::value::Kind;
use debros_client::rpc::{StatementResult, Value};
use debros_proto::words::counted;
use serde_json::value::RawValue;

pub(super) async fn run(
    connection: &NodeConnection,
    out: Output,
    sql: String,
    args: &[String],
    text: bool,
) -> Result<(), CliError> {
    let args = args
        .iter()
        .map(|arg| if text { Ok(Value::from(arg.as_str())) } else { parse_argument(arg) });
    let args = args.collect::<Result<Vec<_>, _>>()?;
    let result = connection.user_client().await?.database().query(sql, args).await?;
    if out.is_json() { out.write_json(&result) } else { show_result(out, &result) }
}

/// An argument: what reads as a JSON number, null, true, false or BLOB is that, everything else is
/// text.
fn parse_argument(arg: &str) -> Result<Value, CliError> {
    let Ok(json) = serde_json::from_str::<&RawValue>(arg) else {
        return Ok(arg.into());
    };
    match json.get().as_bytes().first() {
        Some(b'"' | b'[') => Ok(arg.into()),
        Some(b'{') if !is_blob(json.get()) => Ok(arg.into()),
        _ => debros_proto::json::from_json(json).map_err(|error| {
            CliError::usage(format!(
                "argument {}: {}",
                debros_proto::ids::excerpt(arg),
                error.message
            ))
            .with_hint("--text passes every argument as text")
        }),
    }
}

/// Whether an object is meant as a BLOB.
fn is_blob(json: &str) -> bool {
    serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(json)
        .is_ok_and(|map| map.contains_key("$blob"))
}

fn show_result(out: Output, result: &StatementResult) -> Result<(), CliError> {
    if !result.columns.is_empty() {
        let header: Vec<&str> = result.columns.iter().map(String::as_str).collect();
        out.write_table(
            &header,
            result.rows.iter().map(|row| row.values.iter().map(value_cell).collect()),
        )?;
    }
    match result.rows_affected {
        Some(changed) => {
            let inserted = match result.last_insert_id {
                Some(id) if id != 0 => format!(", last insert id {id}"),
                _ => String::new(),
            };
            let text = format!("{} changed{inserted}", counted(changed, "row"));
            // Without a table this line is the result.
            if result.columns.is_empty() { out.write_line(&text) } else { print_summary(&text) }
        }
        None => print_summary(&counted(result.rows.len() as u64, "row")),
    }
}

fn print_summary(text: &str) -> Result<(), CliError> {
    print_note(text);
    Ok(())
}

fn value_cell(value: &Value) -> TableCell {
    match &value.kind {
        None => "NULL".into(),
        Some(Kind::Text(text)) => text.as_str().into(),
        Some(Kind::Blob(blob)) => blob_text(blob).into(),
        // As JSON writes them: 64-bit integers exact, floats with their point.
        Some(_) => TableCell::Number(serde_json::to_string(value).unwrap_or_default()),
    }
}

/// As SQL writes a BLOB; the middle of a long one is left out.
fn blob_text(blob: &[u8]) -> String {
    let hex = debros_proto::hex::encode(&blob[..blob.len().min(32)]);
    if blob.len() > 32 {
        format!("x'{hex}…' ({} bytes)", blob.len())
    } else {
        format!("x'{hex}'")
    }
}

#[cfg(test)]
mod tests {
    use super::{Value, blob_text, parse_argument};

    #[test]
    fn arguments_have_the_type_that_they_read_as() {
        assert_eq!(parse_argument("42").unwrap(), Value::from(42));
        assert_eq!(parse_argument("-9223372036854775808").unwrap(), Value::from(i64::MIN));
        assert_eq!(
            parse_argument("9007199254740993").unwrap(),
            Value::from(9_007_199_254_740_993_i64)
        );
        assert_eq!(parse_argument("1.50").unwrap(), Value::from(1.5));
        assert_eq!(parse_argument("null").unwrap(), Value::NULL);
        assert_eq!(parse_argument("true").unwrap(), Value::from(1));
        assert_eq!(parse_argument(r#"{"$blob":"AP8="}"#).unwrap(), Value::from(vec![0_u8, 255]));
        for text in
            ["", "abc", "007", "+1", "1,5", "NaN", "\"quoted\"", "[1]", "{\"a\":1}", "nul", "'42'"]
        {
            assert_eq!(parse_argument(text).unwrap(), Value::from(text), "{text}");
        }
        // What comes out can be sent in again; what would become another number is refused.
        assert_eq!(parse_argument("-9e999").unwrap(), Value::from(f64::NEG_INFINITY));
        assert_eq!(parse_argument("-0").unwrap(), Value::from(0));
        for bad in [
            "9223372036854775808",
            "-9223372036854775809",
            "1e400",
            r#"{"$blob":"!"}"#,
            r#"{"$blob":1}"#,
        ] {
            assert_eq!(parse_argument(bad).unwrap_err().exit, 2, "{bad}");
        }
    }

    #[test]
    fn blobs_read_as_sql_writes_them() {
        assert_eq!(blob_text(&[0, 255]), "x'00ff'");
        assert!(blob_text(&[7; 100]).ends_with("…' (100 bytes)"));
    }
}
