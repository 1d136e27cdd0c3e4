//! A database from before wallets could sign in.

use crate::support::{address, code, session, try_sign_in, wallet};
use debros_client::Code;
use debros_testkit::TestNode;

/// What a node of the first version left: keys, pairs and applications, an SQL database alone, and
/// no owners.
async fn old_folder() -> (TestNode, String) {
    let node = TestNode::start().await;
    let key = node.api_key("keyed").await;
    let client = node.client_with("keyed", &key).await;
    client.storage().put("k", "v").await.unwrap();
    for namespace in ["pairs", "tables", "apps"] {
        let operator = node.operator_client(namespace);
        match namespace {
            "pairs" => drop(operator.storage().put("k", "v").await.unwrap()),
            "tables" => {
                operator.database().create_table("CREATE TABLE t (a)").await.unwrap();
                operator.database().query("INSERT INTO t VALUES (7)", []).await.unwrap();
            }
            _ => drop(operator.apps().create("n", "k").await.unwrap()),
        }
    }
    (node, key)
}

/// Takes the second migration back, and those after it: what is left is what the first version
/// wrote.
fn undo(path: &std::path::Path) {
    let db = rusqlite::Connection::open(path).unwrap();
    db.execute_batch(
        "DROP TABLE namespace_usage; DROP INDEX namespaces_owner; DROP INDEX audit_events_at; DROP TABLE grants; DROP TABLE used_nonces; DROP TABLE secrets; DROP TABLE sessions; \
         DROP TABLE refresh_tokens; DROP TABLE signing_keys; ALTER TABLE api_keys DROP COLUMN wallet; \
         ALTER TABLE apps DROP COLUMN wallet; ALTER TABLE namespaces DROP COLUMN owner; \
         DELETE FROM namespaces WHERE name <> 'keyed'; DELETE FROM schema_migrations WHERE version >= 2;",
    )
    .unwrap();
}

#[tokio::test]
async fn an_old_database_keeps_everything_and_belongs_to_the_operator() {
    let (node, key) = old_folder().await;
    let db = node.folder().join("node/db/system.db");
    let node = node.restart_after(|| undo(&db)).await;
    let client = node.client_with("keyed", &key).await;
    assert_eq!(client.storage().get("k").await.unwrap().unwrap().value, "v");
    assert_eq!(client.network().who_am_i().await.unwrap().role, "admin");
    assert_eq!(node.operator_client("pairs").storage().get("k").await.unwrap().unwrap().value, "v");
    let rows =
        node.operator_client("tables").database().query("SELECT a FROM t", []).await.unwrap().rows;
    assert_eq!(rows[0].values[0].as_integer(), Some(7));
    assert_eq!(node.operator_client("apps").apps().list().await.unwrap().len(), 1);

    let stranger = node.client_without_credential().await;
    for namespace in ["keyed", "pairs", "tables", "apps"] {
        assert_eq!(
            code(try_sign_in(&stranger, &wallet(1), namespace).await),
            Some(Code::Forbidden),
            "{namespace}"
        );
        let owner = node.operator_client(namespace).members().list().await.unwrap();
        assert_eq!((owner[0].wallet.as_str(), owner.len()), ("operator", 1));
    }
    // The operator hands a namespace on.
    node.operator_client("pairs").members().set(address(1).to_string(), "admin").await.unwrap();
    let admin = session(&node, 1, "pairs").await;
    assert_eq!(admin.storage().get("k").await.unwrap().unwrap().value, "v");
}

/// Nothing of the namespaces' files is asked of a caller: they are known before the first sign-in
/// after the migration.
#[tokio::test]
async fn an_sql_database_alone_is_never_a_strangers() {
    let (node, _) = old_folder().await;
    let db = node.folder().join("node/db/system.db");
    let node = node.restart_after(|| undo(&db)).await;
    let stranger = node.client_without_credential().await;
    assert_eq!(code(try_sign_in(&stranger, &wallet(1), "tables").await), Some(Code::Forbidden));
}
