//! `/v1/db`.

use crate::setup::start;
use debros_proto::rpc::{Consistency, request::Call};
use serde_json::json;

/// Lessons 18 and 21: integers were rounded, BLOBs became text.
#[tokio::test]
async fn lesson_21_values_are_exact_both_ways() {
    let gateway = start().await;
    let sent = r#"[9007199254740993,-9223372036854775808,9223372036854775807,1.5,3.0,"",null,true,{"$blob":"AP8="}]"#;
    let answer = gateway.post("/v1/db/query", format!(r#"{{"sql":"ARGS","args":{sent}}}"#)).await;
    assert_eq!(answer.status, 200);
    let body = String::from_utf8(answer.body).unwrap();
    let back = sent.replace("true", "1");
    assert_eq!(
        body,
        format!(
            r#"{{"columns":["c0","c1","c2","c3","c4","c5","c6","c7","c8"],"rows":[{back}],"count":1}}"#
        )
    );
}

/// Amounts in wei and other numbers beyond 64 bits became REAL, and lost their last digits, without
/// a word.
#[tokio::test]
async fn a_number_that_does_not_fit_is_refused_with_its_place() {
    let gateway = start().await;
    let args = |args: &str| format!(r#"{{"sql":"ARGS","args":{args}}}"#);
    for (sent, place) in [
        ("[-9223372036854775809]", "args[0]: the integer -9223372036854775809"),
        ("[1,9223372036854775808]", "args[1]: the integer 9223372036854775808"),
        ("[1,2,1000000000000000000000000]", "args[2]: the integer 1000000000000000000000000"),
        ("[1e400]", "args[0]: the number 1e400"),
        ("[null,[1]]", "args[1]: an argument is an array"),
        (r#"[{"$blob":"!"}]"#, "args[0]: not base64"),
        (r#"["\ud800"]"#, "args[0]: a text"),
    ] {
        let message =
            gateway.post("/v1/db/query", args(sent)).await.assert_error(400, "invalid_argument");
        assert!(message.starts_with(place), "{sent}: {message}");
    }
    let nested = r#"{"statements":["WRITE",{"sql":"ARGS","args":[1,18446744073709551616]}]}"#;
    let answer = gateway.post("/v1/db/transaction", nested).await;
    let message = answer.assert_error(400, "invalid_argument");
    assert!(
        message.starts_with("statements[1].args[1]: ") && message.contains("send it as a string"),
        "{message}"
    );
    assert_eq!(answer.json()["statement"], 1);
    assert!(gateway.node.seen.lock().unwrap().is_empty(), "nothing was sent to the node");
    let fits =
        gateway.post("/v1/db/query", args(r#"[-0,9e999,-9e999,"-9223372036854775809"]"#)).await;
    let body = String::from_utf8(fits.body).unwrap();
    assert!(body.contains(r#""rows":[[0,9e999,-9e999,"-9223372036854775809"]]"#), "{body}");
}

#[tokio::test]
async fn a_write_says_what_it_did() {
    let gateway = start().await;
    let answer = gateway.post("/v1/db/query", r#"{"sql":"WRITE"}"#).await;
    let expected =
        r#"{"columns":[],"rows":[],"count":0,"rows_affected":2,"last_insert_id":9007199254740993}"#;
    assert_eq!(String::from_utf8(answer.body).unwrap(), expected);
}

#[tokio::test]
async fn a_large_result_is_whole() {
    let gateway = start().await;
    let answer = gateway.post("/v1/db/query", r#"{"sql":"ROWS"}"#).await;
    let json = answer.json();
    assert_eq!(json["rows"].as_array().unwrap().len(), 100_000);
    assert_eq!(json["rows"][99_999][0], 99_999);
}

/// Lesson 20: a failed transaction left its first statements applied, three times.
#[tokio::test]
async fn lesson_20_a_failed_transaction_names_the_statement_and_is_sent_once() {
    let gateway = start().await;
    let answer = gateway
        .post("/v1/db/transaction", r#"{"statements":["WRITE",{"sql":"WRITE"},"BAD"]}"#)
        .await;
    answer.assert_error(400, "sql_error");
    assert_eq!(answer.json()["statement"], 2);
    assert_eq!(gateway.node.seen.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_transaction_takes_texts_and_objects() {
    let gateway = start().await;
    let body =
        r#"{"statements":["WRITE",{"sql":"ARGS","args":[1,"x"]},{"args":null,"sql":"WRITE"}]}"#;
    let answer = gateway.post("/v1/db/transaction", body).await.json();
    assert_eq!(answer["status"], "ok");
    assert_eq!(answer["results"].as_array().unwrap().len(), 3);
    assert_eq!(answer["results"][1]["rows"], json!([[1, "x"]]));
    assert_eq!(
        gateway.post("/v1/db/transaction", r#"{"statements":[]}"#).await.json()["results"],
        json!([])
    );
}

#[tokio::test]
async fn tables_are_made_dropped_and_described() {
    let gateway = start().await;
    let created = gateway
        .post("/v1/db/create-table", r#"{"schema":"CREATE TABLE t (id INTEGER PRIMARY KEY)"}"#)
        .await;
    assert_eq!((created.status, created.json()), (201, json!({"status": "ok"})));
    let dropped = gateway.post("/v1/db/drop-table", r#"{"table":"t"}"#).await;
    assert_eq!((dropped.status, dropped.json()), (200, json!({"status": "ok"})));
    let expected = json!({"tables": [{
        "name": "t", "kind": "table", "sql": "CREATE TABLE t (id INTEGER PRIMARY KEY)",
        "columns": [{"name": "id", "type": "INTEGER", "nullable": false, "default": null, "primary_key": true}],
        "indexes": [{"name": "i", "unique": true, "columns": ["id"], "sql": null}],
    }]});
    assert_eq!(gateway.get("/v1/db/schema").await.json(), expected);
}

/// Lesson 15: the table's name was put into SQL unchecked, by anyone.
#[tokio::test]
async fn lesson_15_drop_table_passes_the_name_and_the_credential_on() {
    let gateway = start().await;
    gateway
        .request("POST", "/v1/db/drop-table", &[], r#"{"table":"t"}"#)
        .await
        .assert_error(401, "unauthenticated");
    gateway.post("/v1/db/drop-table", r#"{"table":"x; DROP TABLE y"}"#).await;
    let request = gateway.node.last_request();
    assert_eq!(request.credential, "ak_good:one");
    let Some(Call::DropTable(drop)) = request.call else { panic!("a drop") };
    assert_eq!(drop.table, "x; DROP TABLE y", "as one name, for the node to refuse");
    gateway
        .post("/v1/db/drop-table", r#"{"table":"missing"}"#)
        .await
        .assert_error(404, "not_found");
}

#[tokio::test]
async fn consistency_is_passed_on() {
    let gateway = start().await;
    for (name, level) in [
        ("none", Consistency::None),
        ("weak", Consistency::Weak),
        ("linearizable", Consistency::Linearizable),
        ("strong", Consistency::Strong),
    ] {
        gateway.post("/v1/db/query", format!(r#"{{"sql":"ARGS","consistency":"{name}"}}"#)).await;
        let Some(Call::Query(query)) = gateway.node.last_request().call else { panic!("a query") };
        assert_eq!(query.consistency(), level);
    }
    let bad = gateway.post("/v1/db/query", r#"{"sql":"ARGS","consistency":"eventual"}"#).await;
    assert!(
        bad.assert_error(400, "invalid_argument").contains("linearizable"),
        "it says what is allowed"
    );
}

#[tokio::test]
async fn every_kind_of_failure_has_its_status() {
    let gateway = start().await;
    let query = |sql: &'static str| {
        let gateway = &gateway;
        async move { gateway.post("/v1/db/query", format!(r#"{{"sql":"{sql}"}}"#)).await }
    };
    query("BAD").await.assert_error(400, "sql_error");
    query("CONSTRAINT").await.assert_error(409, "constraint");
    let busy = query("BUSY").await;
    busy.assert_error(503, "overloaded");
    assert_eq!(busy.header("retry-after"), Some("2"), "rounded up");
    query("LATE").await.assert_error(504, "unknown_outcome");
    query("FULL").await.assert_error(507, "database_full");
    query("MISMATCH").await.assert_error(422, "idempotency_mismatch");
}

#[tokio::test]
async fn json_that_does_not_fit_is_refused_with_its_place() {
    let gateway = start().await;
    let refused = |body: &'static str, code: &'static str| {
        let gateway = &gateway;
        async move { gateway.post("/v1/db/query", body).await.assert_error(400, code) }
    };
    assert!(refused("{\"sql\":\n  nope}", "malformed").await.contains("line 2, column 4"));
    refused("", "malformed").await;
    refused(r#"{"sql":"ARGS""#, "malformed").await;
    refused(r#"{"sql":"ARGS"} x"#, "malformed").await;
    refused("\u{feff}{}", "malformed").await;
    assert!(refused(r#"{"sql":"ARGS","arg":[]}"#, "invalid_argument").await.contains("`arg`"));
    refused(r#"{"sql":"ARGS","sql":"ARGS"}"#, "invalid_argument").await;
    refused(r#"{"args":[]}"#, "invalid_argument").await;
    refused(r#"{"sql":5}"#, "invalid_argument").await;
    refused(r#"["ARGS"]"#, "invalid_argument").await;
    refused(r#"{"sql":"ARGS","args":{"a":1}}"#, "invalid_argument").await;
    refused(r#"{"sql":"ARGS","args":[[1]]}"#, "invalid_argument").await;
    refused(r#"{"sql":"ARGS","args":[{"$blob":"!"}]}"#, "invalid_argument").await;
    refused(r#"{"sql":"ARGS","args":[9223372036854775808]}"#, "invalid_argument").await;
    refused(r#"{"sql":"ARGS","args":[1e400]}"#, "invalid_argument").await;
    refused(r#"{"sql":"ARGS","args":[NaN]}"#, "malformed").await;
    assert!(gateway.node.seen.lock().unwrap().is_empty(), "nothing reached the node");
}

#[tokio::test]
async fn hostile_json_is_refused_and_costs_little() {
    let gateway = start().await;
    let deep = format!(r#"{{"sql":"ARGS","args":{}}}"#, "[".repeat(100_000));
    gateway.post("/v1/db/query", deep).await.assert_error(400, "malformed");
    let deep = format!(r#"{{"x":{}}}"#, "[".repeat(100_000));
    gateway.post("/v1/db/query", deep).await.assert_error(400, "invalid_argument");
    let deep = format!(r#"{{"sql":"ARGS","args":[{}]}}"#, r#"{"a":"#.repeat(100_000));
    gateway.post("/v1/db/query", deep).await.assert_error(400, "malformed");
    let bad_utf8 = gateway.post("/v1/db/query", b"{\"sql\":\"\xff\"}").await;
    bad_utf8.assert_error(400, "malformed");
    let many = format!(r#"{{"statements":[{}"WRITE"]}}"#, "\"WRITE\",".repeat(1000));
    gateway.post("/v1/db/transaction", many).await.assert_error(400, "too_many_statements");
    let many = format!(r#"{{"sql":"ARGS","args":[{}0]}}"#, "0,".repeat(100_000));
    gateway.post("/v1/db/query", many).await;
    let Some(Call::Query(query)) = gateway.node.last_request().call else { panic!("a query") };
    assert_eq!(query.statement.unwrap().args.len(), 32_767, "one too many, for the node to refuse");
    let name = "n".repeat(200_000);
    gateway
        .post("/v1/db/query", format!(r#"{{"{name}":1}}"#))
        .await
        .assert_error(400, "invalid_argument");
    for bad in
        [r#"{"statements":"x"}"#, r#"{"statements":[5]}"#, r#"{"statements":[{"sql":"x","y":1}]}"#]
    {
        gateway.post("/v1/db/transaction", bad).await.assert_error(400, "invalid_argument");
    }
}
