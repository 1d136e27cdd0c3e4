//! How SQL values read in JSON: integers and floats as numbers, text as strings, NULL as null, a
//! BLOB as `{"$parse_blob":"<base64>"}`; booleans in arguments become 0 and 1. 64-bit integers
//! survive unchanged.
//!
//! JSON has no infinities: an infinite REAL is written as the number `9e999` or `-9e999`, which
//! every parser that follows IEEE 754 reads as infinity, and which SQLite's own JSON functions
//! write too.

use crate::error::{Error, Result};
use crate::rpc::{Row, StatementResult, Value, value::Kind};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::ser::{SerializeMap, SerializeSeq, Serializer};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.kind {
            None => serializer.serialize_unit(),
            Some(Kind::Integer(integer)) => serializer.serialize_i64(*integer),
            Some(Kind::Real(real)) if real.is_infinite() => {
                infinity_json(*real).serialize(serializer)
            }
            Some(Kind::Real(real)) => serializer.serialize_f64(*real),
            Some(Kind::Text(text)) => serializer.serialize_str(text),
            Some(Kind::Blob(blob)) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("$blob", &STANDARD.encode(blob))?;
                map.end()
            }
        }
    }
}

fn infinity_json(real: f64) -> Box<RawValue> {
    let text = if real > 0.0 { "9e999" } else { "-9e999" };
    RawValue::from_string(text.to_owned()).unwrap_or_else(|_| unreachable!("a JSON number"))
}

/// Values of a row as a JSON array.
impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(Some(self.values.len()))?;
        for value in &self.values {
            seq.serialize_element(value)?;
        }
        seq.end()
    }
}

/// `{columns, rows, count}`, and for a write also `rows_affected` and `last_insert_id`.
impl Serialize for StatementResult {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("columns", &self.columns)?;
        map.serialize_entry("rows", &self.rows)?;
        map.serialize_entry("count", &self.rows.len())?;
        if let Some(rows_affected) = self.rows_affected {
            map.serialize_entry("rows_affected", &rows_affected)?;
        }
        if let Some(last_insert_id) = self.last_insert_id {
            map.serialize_entry("last_insert_id", &last_insert_id)?;
        }
        map.end()
    }
}

/// An argument: any JSON value but an array, and no object but `{"$parse_blob":"…"}`. Read from
/// JSON text only: how a number is written says what it is.
impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_json(<&RawValue>::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// Reads one argument.
///
/// A number without fraction and exponent is an integer, `-0` too, and any other a REAL. What was
/// written out can be read again: an exponent of 999 or more stands for infinity. No number becomes
/// another one in silence.
///
/// # Errors
/// `invalid_argument` for an array, an object other than a BLOB, bad base64, or a number that
/// neither a 64-bit integer nor a double holds.
pub fn from_json(json: &RawValue) -> Result<Value> {
    let text = json.get();
    match text.as_bytes().first() {
        Some(b'n') => Ok(Value::NULL),
        Some(b't') => Ok(true.into()),
        Some(b'f') => Ok(false.into()),
        Some(b'"') => parse_string(text).map(Value::from),
        Some(b'{') => parse_blob(text),
        Some(b'[') => Err(Error::invalid(
            "an argument is an array: pass each value as an argument of its own, or as JSON text",
        )),
        _ => parse_number(text),
    }
}

fn parse_string(text: &str) -> Result<String> {
    if let Some(plain) = text.get(1..text.len() - 1)
        && !plain.contains('\\')
    {
        return Ok(plain.to_owned());
    }
    serde_json::from_str(text)
        .map_err(|_| Error::invalid("a text holds an escape sequence that is no character"))
}

fn parse_blob(text: &str) -> Result<Value> {
    match serde_json::from_str(text) {
        Ok(serde_json::Value::Object(map)) if map.len() == 1 => match map.get("$blob") {
            Some(serde_json::Value::String(text)) => Some(decode_base64(text).map(Value::from)),
            _ => None,
        },
        _ => None,
    }
    .unwrap_or_else(|| {
        Err(Error::invalid("an argument is an object: only {\"$blob\":\"<base64>\"} is one"))
    })
}

fn parse_number(text: &str) -> Result<Value> {
    let Some(exponent) = text
        .split_once(['e', 'E'])
        .map(|(_, exponent)| exponent)
        .or(text.contains('.').then_some("0"))
    else {
        return text.parse::<i64>().map(Value::from).map_err(|_| {
            Error::invalid(format!(
                "the integer {} does not fit into 64 bits with a sign: send it as a string",
                crate::ids::excerpt(text)
            ))
        });
    };
    let real = text.parse::<f64>().map_err(|_| Error::invalid("a number is not one"))?;
    // An exponent that no i64 holds is far over 999, or far below.
    let is_infinity =
        exponent.parse::<i64>().map_or(!exponent.starts_with('-'), |exponent| exponent >= 999);
    if real.is_infinite() && !is_infinity {
        return Err(Error::invalid(format!(
            "the number {} is larger than a double holds: send it as a string, or 9e999 for infinity",
            crate::ids::excerpt(text)
        )));
    }
    Ok(real.into())
}

/// Reads standard base64, with or without its padding.
///
/// # Errors
/// `invalid_argument` when it is not base64.
pub fn decode_base64(text: &str) -> Result<Vec<u8>> {
    STANDARD_NO_PAD
        .decode(text.trim_end_matches('='))
        .map_err(|error| Error::invalid(format!("not base64 (standard alphabet): {error}")))
}

/// Writes standard base64 with padding.
pub fn encode_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::{decode_base64, encode_base64};
    use crate::rpc::value::Kind;
    use crate::rpc::{Row, StatementResult, Value};
    use proptest::prelude::{Just, Strategy, any, prop_assert_eq, prop_oneof, proptest};

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::NULL),
            any::<i64>().prop_map(Value::from),
            any::<f64>()
                .prop_filter("SQLite has no NaN", |real| !real.is_nan())
                .prop_map(Value::from),
            prop_oneof![Just(f64::INFINITY), Just(f64::NEG_INFINITY)].prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            any::<Vec<u8>>().prop_map(Value::from),
        ]
    }

    proptest! {
        #[test]
        fn values_survive_json(value in value()) {
            let text = serde_json::to_string(&value).unwrap();
            let back: Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(back, value);
        }

        #[test]
        fn base64_survives(bytes in any::<Vec<u8>>()) {
            prop_assert_eq!(decode_base64(&encode_base64(&bytes)).unwrap(), bytes);
        }
    }

    /// Lesson 21: integers over 2^53 came back rounded.
    #[test]
    fn lesson_21_large_integers_are_exact() {
        for integer in [9_007_199_254_740_993_i64, i64::MAX, i64::MIN] {
            let text = serde_json::to_string(&Value::from(integer)).unwrap();
            assert_eq!(text, integer.to_string());
            assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), Value::from(integer));
        }
        // Nor is a number that does not fit rounded in silence, such as an amount in wei.
        for over in [
            "9223372036854775808",
            "-9223372036854775809",
            "1000000000000000000000000",
            "18446744073709551616",
        ] {
            let error = serde_json::from_str::<Value>(over).unwrap_err().to_string();
            assert!(error.contains(over) && error.contains("send it as a string"), "{error}");
        }
    }

    #[test]
    fn how_a_number_is_written_says_what_it_is() {
        let read =
            |text: &str| serde_json::from_str::<Value>(text).map(|value| value.kind).ok().flatten();
        for (text, integer) in [("0", 0), ("-0", 0), ("-1", -1), (" 7 ", 7)] {
            assert_eq!(read(text), Some(Kind::Integer(integer)), "{text}");
        }
        for (text, real) in [
            ("0.0", 0.0),
            ("1e3", 1000.0),
            ("1E+3", 1000.0),
            ("9223372036854775808.0", 9_223_372_036_854_775_808.0),
            ("1e-400", 0.0),
            ("1e-99999999999999999999", 0.0),
            ("0e999", 0.0),
            ("9e999", f64::INFINITY),
            ("-9e999", f64::NEG_INFINITY),
            ("9.0e+999", f64::INFINITY),
            ("1E99999999999999999999", f64::INFINITY),
        ] {
            assert_eq!(read(text), Some(Kind::Real(real)), "{text}");
        }
        let negative_zero = read("-0.0");
        assert!(
            matches!(negative_zero, Some(Kind::Real(real)) if real == 0.0 && real.is_sign_negative())
        );
        for bad in [
            "1e400",
            "-1e309",
            "179769313486231570000e300",
            "+1",
            "01",
            "1.",
            ".5",
            "1e",
            "NaN",
            "Infinity",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_text_is_read_with_its_escapes() {
        let read = |text: &str| serde_json::from_str::<Value>(text);
        assert_eq!(read(r#""a\"b\\c\u00e9\n""#).unwrap(), Value::from("a\"b\\cé\n"));
        assert_eq!(read("\"\"").unwrap(), Value::from(""));
        assert_eq!(read("\"日本\"").unwrap(), Value::from("日本"));
        assert!(read(r#""\ud800""#).is_err());
    }

    #[test]
    fn floats_stay_floats() {
        assert_eq!(serde_json::to_string(&Value::from(3.0)).unwrap(), "3.0");
        assert_eq!(serde_json::from_str::<Value>("3.0").unwrap(), Value::from(3.0));
        assert_eq!(serde_json::to_string(&Value::from(f64::NEG_INFINITY)).unwrap(), "-9e999");
    }

    /// Lesson 18: a BLOB came back as base64 text.
    #[test]
    fn lesson_18_a_blob_is_marked_as_one() {
        let text = serde_json::to_string(&Value::from(vec![0_u8, 255])).unwrap();
        assert_eq!(text, r#"{"$blob":"AP8="}"#);
        assert_eq!(
            serde_json::from_str::<Value>(r#"{"$blob":"AP8"}"#).unwrap(),
            Value::from(vec![0_u8, 255])
        );
        assert_eq!(serde_json::from_str::<Value>("true").unwrap(), Value::from(1));
    }

    #[test]
    fn arguments_that_are_no_value_are_refused() {
        for bad in [
            "[1]",
            "{}",
            r#"{"$blob":1}"#,
            r#"{"$blob":"!"}"#,
            r#"{"$blob":"AP8=","x":1}"#,
            r#"{"a":"b"}"#,
        ] {
            assert!(serde_json::from_str::<Value>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_result_has_the_documented_shape() {
        let mut result = StatementResult {
            columns: vec!["a".into()],
            rows: vec![Row { values: vec![1.into()] }],
            ..Default::default()
        };
        assert_eq!(
            serde_json::to_string(&result).unwrap(),
            r#"{"columns":["a"],"rows":[[1]],"count":1}"#
        );
        result.rows_affected = Some(1);
        result.last_insert_id = Some(7);
        let text = serde_json::to_string(&result).unwrap();
        assert!(text.ends_with(r#""count":1,"rows_affected":1,"last_insert_id":7}"#), "{text}");
    }
}
