//! How SQL values read in JSON: integers and floats as numbers, text as strings, NULL as null, a BLOB as
//! `{"$blob":"<base64>"}`; booleans in arguments become 0 and 1. 64-bit integers survive unchanged.
//!
//! JSON has no infinities: an infinite REAL is written as the number `9e999` or `-9e999`, which every parser that
//! follows IEEE 754 reads as infinity, and which SQLite's own JSON functions write too.

use crate::error::{Error, Result};
use crate::rpc::{Row, StatementResult, Value, value::Kind};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::ser::{SerializeMap, SerializeSeq, Serializer};
use serde::{Deserialize, Deserializer, Serialize};

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.kind {
            None => serializer.serialize_unit(),
            Some(Kind::Integer(integer)) => serializer.serialize_i64(*integer),
            Some(Kind::Real(real)) if real.is_infinite() => infinity(*real).serialize(serializer),
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

fn infinity(real: f64) -> Box<serde_json::value::RawValue> {
    let text = if real > 0.0 { "9e999" } else { "-9e999" };
    serde_json::value::RawValue::from_string(text.to_owned()).unwrap_or_else(|_| unreachable!("a JSON number"))
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

/// An argument: any JSON value but an array, and no object but `{"$blob":"…"}`.
impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = serde_json::Value::deserialize(deserializer)?;
        from_json(json).map_err(serde::de::Error::custom)
    }
}

/// Reads one argument.
///
/// # Errors
/// `invalid_argument` for an array, an object other than a BLOB, bad base64, or a number that neither a 64-bit integer
/// nor a double holds.
pub fn from_json(json: serde_json::Value) -> Result<Value> {
    match json {
        serde_json::Value::Null => Ok(Value::NULL),
        serde_json::Value::Bool(flag) => Ok(flag.into()),
        serde_json::Value::String(text) => Ok(text.into()),
        serde_json::Value::Number(number) => from_number(&number),
        serde_json::Value::Object(map) => match map.get("$blob") {
            Some(serde_json::Value::String(text)) if map.len() == 1 => Ok(Value::from(decode_base64(text)?)),
            _ => Err(Error::invalid("an argument is an object: only {\"$blob\":\"<base64>\"} is one")),
        },
        serde_json::Value::Array(_) => {
            Err(Error::invalid("an argument is an array: pass each value as an argument of its own, or as JSON text"))
        }
    }
}

fn from_number(number: &serde_json::Number) -> Result<Value> {
    if let Some(integer) = number.as_i64() {
        return Ok(integer.into());
    }
    if number.is_u64() {
        return Err(Error::invalid(format!("the integer {number} does not fit into 64 bits with a sign")));
    }
    number.as_f64().map(Value::from).ok_or_else(|| Error::invalid("a number is out of range"))
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
    use crate::rpc::{Row, StatementResult, Value};
    use proptest::prelude::{Strategy, any, prop_assert_eq, prop_oneof, proptest};

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            proptest::strategy::Just(Value::NULL),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_filter("JSON has no NaN", |real| real.is_finite()).prop_map(Value::from),
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
        assert!(serde_json::from_str::<Value>("9223372036854775808").is_err());
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
        assert_eq!(serde_json::from_str::<Value>(r#"{"$blob":"AP8"}"#).unwrap(), Value::from(vec![0_u8, 255]));
        assert_eq!(serde_json::from_str::<Value>("true").unwrap(), Value::from(1));
    }

    #[test]
    fn arguments_that_are_no_value_are_refused() {
        for bad in ["[1]", "{}", r#"{"$blob":1}"#, r#"{"$blob":"!"}"#, r#"{"$blob":"AP8=","x":1}"#, r#"{"a":"b"}"#] {
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
        assert_eq!(serde_json::to_string(&result).unwrap(), r#"{"columns":["a"],"rows":[[1]],"count":1}"#);
        result.rows_affected = Some(1);
        result.last_insert_id = Some(7);
        let text = serde_json::to_string(&result).unwrap();
        assert!(text.ends_with(r#""count":1,"rows_affected":1,"last_insert_id":7}"#), "{text}");
    }
}
