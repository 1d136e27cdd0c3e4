//! Values come back as they went in.

use super::{assert_code, query, query_refused, single_value};
use crate::Engine;
use bytes::Bytes;
use debros_proto::Code;
use debros_proto::rpc::Value;
use std::sync::Arc;

async fn echo(engine: &Arc<dyn Engine>, value: Value) -> Value {
    query(engine, "CREATE TABLE IF NOT EXISTS v(x)", &[]).await.unwrap();
    query(engine, "DELETE FROM v", &[]).await.unwrap();
    query(engine, "INSERT INTO v VALUES (?1)", &[value]).await.unwrap();
    single_value(&query(engine, "SELECT x FROM v", &[]).await.unwrap())
}

/// 64 bits, whether stored or in the text.
pub async fn integers_are_exact(engine: Arc<dyn Engine>) {
    for integer in [0i64, -1, 9_007_199_254_740_993, i64::MAX, i64::MIN] {
        assert_eq!(echo(&engine, Value::from(integer)).await, Value::from(integer));
    }
    let literal = query(&engine, "SELECT 9007199254740993", &[]).await.unwrap();
    assert_eq!(single_value(&literal), Value::from(9_007_199_254_740_993i64));
}

/// Doubles bit by bit; SQLite has no NaN and stores NULL.
pub async fn reals_are_exact(engine: Arc<dyn Engine>) {
    for real in [0.1, -2.5e-300, 1e308, f64::MIN_POSITIVE, f64::INFINITY, f64::NEG_INFINITY, 3.0] {
        assert_eq!(echo(&engine, Value::from(real)).await, Value::from(real), "{real}");
    }
    assert_eq!(echo(&engine, Value::from(f64::NAN)).await, Value::NULL);
}

/// Empty is not NULL, and NUL is a character.
pub async fn texts_and_blobs_are_exact(engine: Arc<dyn Engine>) {
    for value in [
        Value::NULL,
        Value::from(""),
        Value::from("a\0b"),
        Value::from("é🔑\u{10ffff}"),
        Value::from(Bytes::new()),
        Value::from(vec![0u8, 255, 0]),
        Value::from((0..=255).collect::<Vec<u8>>()),
        Value::from("x".repeat(1 << 20)),
    ] {
        assert_eq!(echo(&engine, value.clone()).await, value);
    }
}

/// `CAST(x'ff' AS TEXT)` is no text: it is refused, not mended.
pub async fn text_that_is_not_utf8_is_refused(engine: Arc<dyn Engine>) {
    let error = query_refused(&engine, "SELECT CAST(x'ff' AS TEXT) AS odd").await;
    assert_code(&error, Code::Sql, "not UTF-8");
    assert!(error.message.contains("odd"), "{error}");
    let bytes = query(&engine, "SELECT CAST(CAST(x'ff' AS TEXT) AS BLOB)", &[]).await.unwrap();
    assert_eq!(single_value(&bytes), Value::from(vec![0xffu8]));
}
