//! Values come back exactly as they went in, through every way.

use crate::network::{Network, Ways};
use crate::support::http::Http;
use crate::support::text_of;
use debros_client::rpc::{Statement, Value};
use debros_client::{Code, Error};
use serde_json::json;

const MAX_VALUE: usize = 4 << 20;

/// SQL values, and what each looks like in JSON.
fn sql_values() -> Vec<(Value, &'static str)> {
    vec![
        (Value::from(9_007_199_254_740_993_i64), "9007199254740993"),
        (Value::from(-9_007_199_254_740_993_i64), "-9007199254740993"),
        (Value::from(i64::MAX), "9223372036854775807"),
        (Value::from(i64::MIN), "-9223372036854775808"),
        (Value::from(0), "0"),
        (Value::from(0.1), "0.1"),
        (Value::from(3.0), "3.0"),
        (Value::from(f64::MAX), "1.7976931348623157e+308"),
        (Value::from(5e-324), "5e-324"),
        (Value::from(f64::INFINITY), "9e999"),
        (Value::from(f64::NEG_INFINITY), "-9e999"),
        (Value::NULL, "null"),
        (Value::from(""), r#""""#),
        (Value::from("Grüße, 世界 🦀 \u{10ffff}"), "\"Grüße, 世界 🦀 \u{10ffff}\""),
        (
            Value::from("quote \" backslash \\ tab \t line\n"),
            r#""quote \" backslash \\ tab \t line\n""#,
        ),
        (Value::from("nul \0 inside"), "\"nul \\u0000 inside\""),
        (Value::from(Vec::<u8>::new()), r#"{"$blob":""}"#),
        (Value::from(vec![0_u8, 255, 0, 10]), r#"{"$blob":"AP8ACg=="}"#),
    ]
}

#[tokio::test]
async fn sql_values_are_exact_through_every_way() {
    let network = Network::start();
    let ways = network.ways("values").await;
    let Ways { inside, separate, cli, library, .. } = &ways;
    inside.create("CREATE TABLE v (id INTEGER PRIMARY KEY, v)").await;
    let values = sql_values();
    for (id, (value, json)) in values.iter().enumerate() {
        let id = i64::try_from(id).unwrap();
        library
            .database()
            .query("INSERT INTO v VALUES (?, ?)", [id.into(), value.clone()])
            .await
            .unwrap();
        for (offset, http) in [(1000, inside), (2000, separate)] {
            let body = format!(
                r#"{{"sql":"INSERT INTO v VALUES (?, ?)","args":[{},{json}]}}"#,
                offset + id
            );
            let request = http
                .request(reqwest::Method::POST, "/v1/db/query")
                .header("Content-Type", "application/json");
            let status = request.body(body).send().await.unwrap().status().as_u16();
            assert_eq!(status, 200, "what comes out can be sent in: {json}");
        }
    }
    let select = "SELECT v FROM v WHERE id = ";
    for (id, (value, json)) in values.iter().enumerate() {
        for offset in [0, 1000, 2000] {
            let sql = format!("{select}{}", id + offset);
            let expected = format!(r#"{{"columns":["v"],"rows":[[{json}]],"count":1}}"#);
            for http in [inside, separate] {
                let answer = http.query(&sql, json!([])).await.ok();
                assert_eq!(String::from_utf8(answer.body).unwrap(), expected);
            }
            let result = library.database().query(&sql, []).await.unwrap();
            assert_eq!(&result.rows[0].values[0], value, "{json}");
        }
        let shown = cli.json_text(&["query", &format!("{select}{id}")]);
        assert_eq!(shown.trim_end(), format!(r#"{{"columns":["v"],"rows":[[{json}]],"count":1}}"#));
    }
}

/// SQLite has no NaN: it keeps NULL in its place.
#[tokio::test]
async fn nan_becomes_null() {
    let network = Network::start();
    let ways = network.ways("values").await;
    let stored =
        ways.library.database().query("SELECT ?, typeof(?1)", [f64::NAN.into()]).await.unwrap();
    assert_eq!(stored.rows[0].values, [Value::NULL, "null".into()]);
    let computed = ways.inside.rows("SELECT 9e999 - 9e999", json!([])).await;
    assert_eq!(computed, [json!([null])]);
    assert_eq!(ways.separate.rows("SELECT 9e999 - 9e999", json!([])).await, [json!([null])]);
    assert!(ways.cli.json_text(&["query", "SELECT 9e999 - 9e999"]).contains("[[null]]"));
}

/// Keys and values of the key-value storage.
fn pairs() -> Vec<(&'static str, Vec<u8>)> {
    let any_bytes =
        (0..MAX_VALUE).map(|index| (index ^ (index >> 8) ^ (index >> 16)) as u8).collect();
    vec![
        ("empty", Vec::new()),
        ("nul", b"\0".to_vec()),
        ("Schlüssel/mit ?&=%+# 世界 🦀", "Wert 世界 🦀".into()),
        ("all bytes", (0..=255).collect()),
        ("line end", b"no newline is added\n\n".to_vec()),
        ("4 MiB", any_bytes),
    ]
}

#[tokio::test]
async fn stored_values_are_exact_through_every_way() {
    let network = Network::start();
    let Ways { inside, separate, cli, library, .. } = network.ways("values").await;
    for (key, value) in pairs() {
        inside.put_value(&format!("inside {key}"), value.clone()).await.ok();
        separate.put_value(&format!("separate {key}"), value.clone()).await.ok();
        library.storage().put(format!("library {key}"), value.clone()).await.unwrap();
        cli.bytes(&["storage", "put", &format!("cli {key}"), "-"], &value);
        for by in ["inside", "separate", "library", "cli"] {
            let name = format!("{by} {key}");
            // Not by assert_eq: 4 MiB are no message.
            assert!(
                inside.get_value(&name).await.ok().body == value,
                "{name} through the gateway inside"
            );
            assert!(
                separate.get_value(&name).await.ok().body == value,
                "{name} through a separate gateway"
            );
            let entry = library.storage().get(name.as_str()).await.unwrap().expect("it is there");
            assert!(entry.value == value, "{name} through the library");
            assert!(
                cli.bytes(&["storage", "get", &name], b"") == value,
                "{name} through the command line"
            );
        }
    }
}

#[tokio::test]
async fn a_value_of_more_than_4_mib_is_refused_by_every_way() {
    let network = Network::start();
    let Ways { inside, separate, cli, library, .. } = network.ways("values").await;
    let value = vec![7_u8; MAX_VALUE + 1];
    for http in [&inside, &separate] {
        http.put_value("big", value.clone()).await.fails(413, "too_large");
    }
    let error = library.storage().put("big", value.clone()).await.unwrap_err();
    assert_eq!(error.code, Code::TooLarge);
    let output = cli.run(&["storage", "put", "big", "-"], &value);
    assert!(
        !output.status.success() && text_of(&output).contains("4194304"),
        "{}",
        text_of(&output)
    );
    // Nothing changed, and the node goes on.
    inside.get_value("big").await.fails(404, "not_found");
    for http in [&inside, &separate] {
        http.put_value("small", "x").await.ok();
    }
}

#[tokio::test]
async fn a_transaction_has_up_to_1000_statements() {
    let network = Network::start();
    let Ways { inside, separate, library, .. } = network.ways("values").await;
    inside.create("CREATE TABLE t (id INTEGER PRIMARY KEY, way TEXT)").await;
    let insert = |id: i64, way: &str| {
        Statement::new("INSERT INTO t VALUES (?, ?)", [Value::from(id), Value::from(way)])
    };
    let as_json = |statements: &[Statement]| -> serde_json::Value {
        statements.iter().map(|s| json!({ "sql": s.sql, "args": s.args })).collect()
    };
    for (index, http) in [&inside, &separate].into_iter().enumerate() {
        let first = i64::try_from(index).unwrap() * 10_000;
        let mut statements: Vec<Statement> =
            (first..first + 1000).map(|id| insert(id, "http")).collect();
        let results = http.transaction(&as_json(&statements)).await.ok().json();
        let results = results["results"].as_array().unwrap();
        assert_eq!(results.len(), 1000);
        assert!(results.iter().zip(first..).all(|(result, id)| result["last_insert_id"] == id));
        statements
            .iter_mut()
            .zip(first + 5000..)
            .for_each(|(statement, id)| statement.args[0] = id.into());
        statements.push(insert(first + 9999, "one too many"));
        http.transaction(&as_json(&statements)).await.fails(400, "too_many_statements");
    }
    let results =
        library.database().transaction((20_000..21_000).map(|id| insert(id, "p2p"))).await.unwrap();
    assert_eq!((results.len(), results[999].last_insert_id), (1000, Some(20_999)));
    let refused = library
        .database()
        .transaction((25_000..26_001).map(|id| insert(id, "p2p")))
        .await
        .unwrap_err();
    assert_eq!(refused.code, Code::TooManyStatements);
    assert_eq!(
        inside.integer("SELECT count(*) FROM t").await,
        3000,
        "what was refused changed nothing"
    );
    // One bad statement in the midst: its index, and nothing of the others.
    let mut statements: Vec<Statement> = (30_000..30_100).map(|id| insert(id, "p2p")).collect();
    statements[57] = insert(0, "there already");
    let Error { code, statement, .. } =
        library.database().transaction(statements.clone()).await.unwrap_err();
    assert_eq!((code, statement), (Code::Constraint, Some(57)));
    for http in [&inside, &separate] {
        let answer = http.transaction(&as_json(&statements)).await.fails(409, "constraint");
        assert_eq!(answer.json()["statement"], 57);
    }
    assert_eq!(inside.integer("SELECT count(*) FROM t").await, 3000);
}

#[tokio::test]
async fn ten_thousand_rows_come_back_in_full() {
    let network = Network::start();
    let Ways { inside, separate, cli, library, .. } = network.ways("values").await;
    let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000)
               SELECT 9007199254740992 + i, 'row ' || i, CAST('b' || i AS BLOB) FROM n";
    let row = |i: i64| -> [Value; 3] {
        [
            (9_007_199_254_740_992 + i).into(),
            format!("row {i}").into(),
            format!("b{i}").into_bytes().into(),
        ]
    };
    let result = library.database().query(sql, []).await.unwrap();
    assert_eq!(result.rows.len(), 10_000);
    assert!(result.rows.iter().zip(1..).all(|(found, i)| found.values == row(i)));
    let exact = |rows: &serde_json::Value| {
        let rows = rows.as_array().expect("rows");
        assert_eq!(rows.len(), 10_000);
        let expected = (1..).map(|i| serde_json::to_value(row(i)).unwrap());
        assert!(rows.iter().zip(expected).all(|(found, expected)| *found == expected));
    };
    for http in [&inside, &separate] {
        exact(&all(http, sql).await);
    }
    exact(&cli.json(&["query", sql])["rows"]);
}

async fn all(http: &Http, sql: &str) -> serde_json::Value {
    http.query(sql, json!([])).await.ok().json()["rows"].clone()
}
