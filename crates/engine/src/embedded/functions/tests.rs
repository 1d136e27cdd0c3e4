//! The functions against SQLite's own.

use super::register_linear_functions;
use proptest::prelude::*;
use rusqlite::Connection;
use rusqlite::types::{Value, ValueRef};

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        "[abé]{0,8}".prop_map(Value::Text),
        "[0-2aé \u{800}\u{0}-]{0,8}".prop_map(Value::Text),
        proptest::collection::vec(0u8..3, 0..6).prop_map(Value::Blob),
        proptest::collection::vec(
            prop_oneof![Just(0x41), Just(0x80), Just(0xbf), Just(0xc3), Just(0xe0), Just(0xff)],
            0..9
        )
        .prop_map(Value::Blob),
        (-200i64..200).prop_map(Value::Integer),
        (-5.0..5.0f64).prop_map(Value::Real),
        Just(Value::Null),
    ]
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![Just("null".to_owned()), Just("1".to_owned()), Just("\"a\"".to_owned())];
    let tree = leaf.prop_recursive(3, 12, 4, |inner| {
        proptest::collection::vec(("[ab]{1,2}", inner), 0..4).prop_map(|members| {
            let members: Vec<String> =
                members.into_iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
            format!("{{{}}}", members.join(","))
        })
    });
    prop_oneof![8 => tree.prop_map(Value::Text), 1 => any_value()]
}

/// The value with its type and bytes; `None` for an error.
fn ask(
    db: &Connection,
    sql: &str,
    args: (&Value, &Value, &Value),
) -> Option<(rusqlite::types::Type, Vec<u8>)> {
    db.query_row(sql, args, |row| {
        let value = row.get_ref(0)?;
        let bytes = match value {
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.to_vec(),
            other => format!("{other:?}").into_bytes(),
        };
        Ok((value.data_type(), bytes))
    })
    .ok()
}

fn both() -> (Connection, Connection) {
    let (plain, ours) =
        (Connection::open_in_memory().unwrap(), Connection::open_in_memory().unwrap());
    register_linear_functions(&ours).unwrap();
    (plain, ours)
}

proptest! {
    #[test]
    fn they_do_what_sqlites_own_do(text in any_value(), part in any_value(), by in any_value()) {
        let (plain, ours) = both();
        for function in [
            "instr(?1, ?2), ?3", "replace(?1, ?2, ?3)", "trim(?1), ?2, ?3", "trim(?1, ?2), ?3", "ltrim(?1, ?2), ?3",
            "rtrim(?1, ?2), ?3", "unhex(?1, ?2), ?3", "unhex(hex(?1) || ?2 || hex(?3), ?2)",
        ] {
            // A BLOB stands for text of any bytes too.
            for sql in [
                format!("SELECT {function}"),
                format!("SELECT {function}").replace("?1", "CAST(?1 AS TEXT)").replace("?2", "CAST(?2 AS TEXT)"),
            ] {
                let args = (&text, &part, &by);
                prop_assert_eq!(ask(&plain, &sql, args), ask(&ours, &sql, args), "{}", sql);
            }
        }
    }

    #[test]
    fn patching_does_what_sqlites_own_does(target in any_json(), patch in any_json()) {
        let (plain, ours) = both();
        for sql in [
            "SELECT json_patch(?1, ?2), ?3", "SELECT jsonb_patch(?1, ?2), ?3", "SELECT json_patch(jsonb(?1), ?2), ?3",
            "SELECT json_array(json_patch(?1, ?2), json(jsonb_patch(?1, ?2))), ?3",
        ] {
            let args = (&target, &patch, &Value::Null);
            prop_assert_eq!(ask(&plain, sql, args), ask(&ours, sql, args), "{}", sql);
        }
    }
}

#[test]
fn hostile_arguments_take_linear_time() {
    let (_, db) = both();
    let sql = "SELECT instr(zeroblob(8000000), CAST(zeroblob(4000000) || x'01' AS BLOB)),
        length(replace(hex(zeroblob(4000000)), hex(zeroblob(2000000)) || '1', 'x'))";
    let found: (i64, i64) = db.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    assert_eq!(found, (0, 8_000_000));
    let many = "WITH RECURSIVE c(n) AS (SELECT 256 UNION ALL SELECT n + 1 FROM c WHERE n < 40000) \
        SELECT group_concat(char(n), '') FROM c";
    for (sql, length) in [
        (
            "length(trim(printf('%.*c', 3000000, 'a'), printf('%.*c', 2000000, 'b') || 'a'))"
                .to_owned(),
            0,
        ),
        (
            format!(
                "length(trim(replace(printf('%.*c', 500000, 'a'), 'a', 'é'), ({many}) || 'é'))"
            ),
            0,
        ),
        // Runs of bytes that are no characters, and a set of such runs.
        (
            "length(CAST(trim(CAST(unhex(printf('%.*c', 1000000, '8')) AS TEXT),
                CAST(x'88' || x'c3' || unhex(printf('%.*c', 1000000, '8')) AS TEXT)) AS BLOB))"
                .to_owned(),
            0,
        ),
        (
            "length(unhex(printf('%.*c', 3000000, '-'), printf('%.*c', 3000000, 'b') || '-'))"
                .to_owned(),
            0,
        ),
    ] {
        let found: i64 = db.query_row(&format!("SELECT {sql}"), [], |row| row.get(0)).unwrap();
        assert_eq!(found, length, "{sql}");
    }
}

#[test]
fn a_patch_that_would_take_too_long_is_refused_and_says_why() {
    let (_, db) = both();
    let sql = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 300000),
            j(o) AS (SELECT json_group_object('k' || x, 1) FROM c)
        SELECT length(json_patch(o, o)) FROM j";
    let error = db.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap_err().to_string();
    assert!(error.contains("json_patch()") && error.contains("bytes"), "{error}");
    let small = "SELECT json_patch(printf('{\"a\":\"%.*c\"}', 1000000, 'x'), '{\"a\":1}')";
    assert_eq!(db.query_row(small, [], |row| row.get::<_, String>(0)).unwrap(), "{\"a\":1}");
}
