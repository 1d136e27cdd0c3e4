//! What the services promise, through the Rust client over P2P.

use bytes::Bytes;
use debros_client::rpc::{Condition, Statement, Value};
use debros_client::{Client, Code, PubsubEvent, PutOptions};
use debros_testkit::TestNode;

async fn node_and_client() -> (TestNode, Client) {
    let node = TestNode::start().await;
    let client = node.client("a").await;
    (node, client)
}

/// Lessons 16 to 18: a put reported success and stored nothing; bytes came back as base64 text.
#[tokio::test]
async fn lesson_16_17_18_what_is_put_is_there_byte_by_byte() {
    let (node, client) = node_and_client().await;
    let values: Vec<Bytes> = vec![
        Bytes::new(),
        vec![0, 0xff, 0xfe].into(),
        "text".into(),
        (0..=255).collect::<Vec<u8>>().into(),
        vec![7; 4 << 20].into(),
    ];
    for (index, value) in values.iter().enumerate() {
        client.storage().put(format!("k{index}"), value.clone()).await.unwrap();
    }
    let node = node.restart().await;
    let client = node.client("a").await;
    for (index, value) in values.iter().enumerate() {
        assert_eq!(
            client.storage().get(format!("k{index}")).await.unwrap().unwrap().value,
            value,
            "k{index}"
        );
    }
    let over = client.storage().put("big", vec![0; (4 << 20) + 1]).await.unwrap_err();
    assert_eq!(over.code, Code::TooLarge);
    assert!(client.storage().get("big").await.unwrap().is_none());
}

/// Lesson 19: a prefix was a LIKE pattern, without order and without pages.
#[tokio::test]
async fn lesson_19_a_prefix_is_bytes_and_pages_follow_each_other() {
    let (_node, client) = node_and_client().await;
    for key in ["a_1", "ab", "A_1", "a%", "a_", "a_é", "b"] {
        client.storage().put(key, "").await.unwrap();
    }
    assert_eq!(client.storage().list("a_", 0, "").await.unwrap().keys, ["a_", "a_1", "a_é"]);
    assert_eq!(client.storage().list("a%", 0, "").await.unwrap().keys, ["a%"]);
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = client.storage().list("", 2, cursor).await.unwrap();
        assert!(page.keys.len() <= 2);
        seen.extend(page.keys);
        cursor = page.next_cursor;
        if cursor.is_empty() {
            break;
        }
    }
    assert_eq!(seen, ["A_1", "a%", "a_", "a_1", "a_é", "ab", "b"]);
    assert_eq!(client.storage().list("", 1001, "").await.unwrap_err().code, Code::InvalidArgument);
    assert_eq!(
        client.storage().list("", 1, "not a cursor").await.unwrap_err().code,
        Code::InvalidArgument
    );
}

#[tokio::test]
async fn a_put_or_delete_happens_only_under_its_condition() {
    let (_node, client) = node_and_client().await;
    let absent = Condition { if_exists: Some(false), ..Default::default() };
    let options = |condition| PutOptions { condition, ttl_seconds: None };
    let first = client.storage().put_with("k", "1", options(absent)).await.unwrap().version;
    let refused = client.storage().put_with("k", "2", options(absent)).await.unwrap_err();
    assert_eq!(refused.code, Code::PreconditionFailed);
    let at = |version| Condition { if_version: Some(version), ..Default::default() };
    let second = client.storage().put_with("k", "2", options(at(first))).await.unwrap().version;
    assert_ne!(first, second);
    assert_eq!(
        client.storage().delete_if("k", at(first)).await.unwrap_err().code,
        Code::PreconditionFailed
    );
    assert!(client.storage().delete_if("k", at(second)).await.unwrap());
    assert!(!client.storage().delete("k").await.unwrap());
    assert!(
        client.storage().put("k", "3").await.unwrap().version > second,
        "no version comes twice"
    );
}

/// Lesson 1: any key could read every tenant's tables, and the system's.
#[tokio::test]
async fn lesson_01_sql_reaches_the_callers_own_namespace_and_nothing_else() {
    let node = TestNode::start().await;
    let (a, b) = (node.client("a").await, node.client("b").await);
    a.database().create_table("CREATE TABLE t (who TEXT); CREATE TABLE only_a (x)").await.unwrap();
    b.database().create_table("CREATE TABLE t (who TEXT)").await.unwrap();
    a.database().query("INSERT INTO t VALUES ('a')", []).await.unwrap();
    let rows = b.database().query("SELECT * FROM t", []).await.unwrap().rows;
    assert!(rows.is_empty());
    for hostile in [
        "SELECT * FROM only_a",
        "SELECT * FROM api_keys",
        "DROP TABLE api_keys",
        "SELECT * FROM \"ns::a::t\"",
        "SELECT * FROM kv",
        "ATTACH DATABASE 'system.db' AS s",
        "PRAGMA database_list",
        "SELECT * FROM pragma_database_list",
        "SELECT load_extension('x')",
        "VACUUM INTO 'copy.db'",
    ] {
        let error = b.database().query(hostile, []).await.expect_err(hostile);
        assert!(
            matches!(error.code, Code::Sql | Code::StatementNotAllowed),
            "{hostile}: {error:?}"
        );
    }
    let names = b.database().query("SELECT name FROM sqlite_master", []).await.unwrap().rows;
    assert_eq!(names.len(), 1);
}

/// Lesson 15: the name of a table to drop was put into the statement as it came.
#[tokio::test]
async fn lesson_15_a_tables_name_is_a_name_and_nothing_else() {
    let (_node, client) = node_and_client().await;
    client
        .database()
        .create_table("CREATE TABLE t (a); CREATE TABLE \"odd \"\" name\" (a)")
        .await
        .unwrap();
    for hostile in [
        "t; DROP TABLE t",
        "t\" --",
        "x\"; DROP TABLE t; --",
        "main.t",
        "api_keys",
        "sqlite_master",
    ] {
        let error = client.database().drop_table(hostile).await.expect_err(hostile);
        assert!(error.code != Code::Internal, "{hostile}: {error:?}");
    }
    assert_eq!(client.database().schema().await.unwrap().len(), 2);
    client.database().drop_table("odd \" name").await.unwrap();
    assert_eq!(client.database().drop_table("odd \" name").await.unwrap_err().code, Code::NotFound);
}

/// Lesson 20: a transaction was a row of single writes, repeated as a whole.
#[tokio::test]
async fn lesson_20_a_transaction_happens_as_a_whole_or_not_at_all() {
    let (_node, client) = node_and_client().await;
    client.database().create_table("CREATE TABLE t (a UNIQUE)").await.unwrap();
    let error = client
        .database()
        .transaction([
            "INSERT INTO t VALUES (1)",
            "INSERT INTO t VALUES (2)",
            "INSERT INTO nowhere VALUES (1)",
        ])
        .await
        .unwrap_err();
    assert_eq!((error.code, error.statement), (Code::Sql, Some(2)));
    let count = client.database().query("SELECT count(*) FROM t", []).await.unwrap();
    assert_eq!(count.rows[0].values[0].as_integer(), Some(0));
    let results = client
        .database()
        .transaction(["INSERT INTO t VALUES (1)", "SELECT a FROM t", "UPDATE t SET a = 5"])
        .await
        .unwrap();
    assert_eq!(results[1].rows[0].values[0].as_integer(), Some(1));
    assert_eq!(results[2].rows_affected, Some(1));
}

/// Lesson 21: what writes was guessed from the first word; integers came back rounded.
#[tokio::test]
async fn lesson_21_sqlite_tells_what_writes_and_values_come_back_exact() {
    let (_node, client) = node_and_client().await;
    client.database().create_table("CREATE TABLE t (a)").await.unwrap();
    for write in [
        "WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x",
        "-- a comment first\n INSERT INTO t VALUES (2)",
        "/* ; */ REPLACE INTO t VALUES (3)",
        "INSERT INTO t VALUES (4) RETURNING a",
    ] {
        assert_eq!(
            client.database().query(write, []).await.unwrap().rows_affected,
            Some(1),
            "{write}"
        );
    }
    let values: Vec<Value> = vec![
        9_007_199_254_740_993_i64.into(),
        i64::MIN.into(),
        1.5.into(),
        f64::MAX.into(),
        "".into(),
        "é\u{1F600}".into(),
        Bytes::new().into(),
        vec![0_u8, 255].into(),
        Value::NULL,
    ];
    for value in values {
        let result = client.database().query("SELECT ?1", [value.clone()]).await.unwrap();
        assert_eq!(result.rows[0].values[0], value);
    }
    let nan = client.database().query("SELECT ?1", [f64::NAN.into()]).await.unwrap();
    assert!(nan.rows[0].values[0].is_null());
}

#[tokio::test]
async fn a_write_with_an_idempotency_key_happens_once() {
    let (node, client) = node_and_client().await;
    client.database().create_table("CREATE TABLE t (id INTEGER PRIMARY KEY, a)").await.unwrap();
    let insert = || Statement::new("INSERT INTO t (a) VALUES (?)", [1.into()]);
    let first = client.once("one").database().transaction([insert()]).await.unwrap();
    let again = client.once("one").database().transaction([insert()]).await.unwrap();
    assert_eq!(first, again);
    let other = client
        .once("one")
        .database()
        .transaction([Statement::from("DELETE FROM t")])
        .await
        .unwrap_err();
    assert_eq!(other.code, Code::IdempotencyMismatch);
    let count = client.database().query("SELECT count(*) FROM t", []).await.unwrap();
    assert_eq!(count.rows[0].values[0].as_integer(), Some(1));

    let version = client.once("put").storage().put("k", "1").await.unwrap().version;
    client.storage().put("k", "2").await.unwrap();
    assert_eq!(client.once("put").storage().put("k", "1").await.unwrap().version, version);
    assert_eq!(client.storage().get("k").await.unwrap().unwrap().value, "2");

    let app = client.once("app").apps().create("n", "k").await.unwrap();
    assert_eq!(client.once("app").apps().create("n", "k").await.unwrap(), app);
    let elsewhere = node.client("b").await;
    assert_ne!(
        elsewhere.once("app").apps().create("n", "k").await.unwrap().app_id,
        app.app_id,
        "a key is its namespace's"
    );

    let mut subscription = client.pubsub().subscribe("t").await.unwrap();
    client.once("pub").pubsub().publish("t", "1").await.unwrap();
    client.once("pub").pubsub().publish("t", "1").await.unwrap();
    client.pubsub().publish("t", "2").await.unwrap();
    let mut messages = Vec::new();
    while messages.len() < 2 {
        messages.push(subscription.next().await.unwrap().unwrap());
    }
    assert_eq!(messages, [PubsubEvent::Message("1".into()), PubsubEvent::Message("2".into())]);
}

#[tokio::test]
async fn lesson_04_pubsub_and_apps_stay_in_their_namespace() {
    let node = TestNode::start().await;
    let (a, b) = (node.client("a").await, node.client("b").await);
    let mut in_b = b.pubsub().subscribe("chat").await.unwrap();
    a.pubsub().publish("chat", "for a").await.unwrap();
    b.pubsub().publish("chat", "for b").await.unwrap();
    assert_eq!(in_b.next().await.unwrap().unwrap(), PubsubEvent::Message("for b".into()));
    assert!(a.pubsub().topics().await.unwrap().is_empty());
    let app = a.apps().create("app", "key").await.unwrap();
    assert!(app.app_id.starts_with("app_") && app.namespace == "a");
    assert!(b.apps().list().await.unwrap().is_empty());
    assert_eq!(b.apps().get(&app.app_id).await.unwrap_err().code, Code::NotFound);
    assert_eq!(
        b.apps().update(&app.app_id, Some("x".into()), None).await.unwrap_err().code,
        Code::NotFound
    );
    assert_eq!(b.apps().delete(&app.app_id).await.unwrap_err().code, Code::NotFound);
    let updated = a.apps().update(&app.app_id, Some("new".into()), None).await.unwrap();
    assert_eq!((updated.name.as_str(), updated.public_key.as_str()), ("new", "key"));
    a.apps().delete(&app.app_id).await.unwrap();
    assert!(a.apps().list().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_client_finds_the_restarted_node_again_and_its_subscription_says_so() {
    let node = TestNode::start().await;
    let client = node.client("a").await;
    assert_eq!(client.node(), Some(node.node().peer_id()));
    let mut subscription = client.pubsub().subscribe("t").await.unwrap();
    client.storage().put("k", "v").await.unwrap();
    let node = node.restart().await;
    assert_eq!(client.storage().get("k").await.unwrap().unwrap().value, "v");
    assert_eq!(subscription.next().await.unwrap().unwrap(), PubsubEvent::Reconnected);
    client.pubsub().publish("t", "again").await.unwrap();
    assert_eq!(subscription.next().await.unwrap().unwrap(), PubsubEvent::Message("again".into()));
    client.close().await;
    assert_eq!(client.storage().get("k").await.unwrap_err().code, Code::Unavailable);
    node.shutdown().await;
}

/// Lesson 27: two clients linked by a node never exchanged a message.
#[tokio::test]
async fn lesson_27_two_clients_of_a_node_exchange_messages() {
    let node = TestNode::start().await;
    let (one, two) = (node.client("a").await, node.client("a").await);
    let mut subscription = two.pubsub().subscribe("t").await.unwrap();
    for number in 0..100 {
        one.pubsub().publish("t", format!("{number}")).await.unwrap();
    }
    for number in 0..100 {
        assert_eq!(
            subscription.next().await.unwrap().unwrap(),
            PubsubEvent::Message(format!("{number}").into())
        );
    }
}

#[tokio::test]
async fn a_backup_is_made_verified_listed_and_restored() {
    let node = TestNode::start().await;
    let client = node.client("a").await;
    client.storage().put("k", "old").await.unwrap();
    client.database().create_table("CREATE TABLE t (a)").await.unwrap();
    let operator = node.operator_client("a");
    let made = finish(operator.operator().backup().await.unwrap()).await.backup.unwrap();
    assert_eq!(operator.operator().backups().await.unwrap()[0].name, made.name);
    client.storage().put("k", "new").await.unwrap();
    client.database().drop_table("t").await.unwrap();
    finish(operator.operator().restore(&made.name).await.unwrap()).await;
    assert_eq!(client.storage().get("k").await.unwrap().unwrap().value, "old");
    assert_eq!(client.database().schema().await.unwrap().len(), 1);
}

async fn finish(mut transfer: debros_client::Transfer) -> debros_client::rpc::Done {
    use debros_client::rpc::event::Kind;
    loop {
        match transfer.next().await.expect("an end").unwrap().kind {
            Some(Kind::Done(done)) => return done,
            Some(Kind::Progress(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn an_export_is_a_whole_database() {
    use debros_client::rpc::event::Kind;
    let (_node, client) = node_and_client().await;
    client.database().create_table("CREATE TABLE t (a)").await.unwrap();
    client.database().query("INSERT INTO t VALUES (1), (2), (3)", []).await.unwrap();
    let mut transfer = client.operator().export().await.unwrap();
    let mut bytes = Vec::new();
    let checksum = loop {
        match transfer.next().await.unwrap().unwrap().kind.unwrap() {
            Kind::Chunk(chunk) => bytes.extend_from_slice(&chunk),
            Kind::Done(done) => break done.checksum,
            other => panic!("{other:?}"),
        }
    };
    assert!(bytes.starts_with(b"SQLite format 3\0") && checksum.len() == 64);
}
