//! Namespaces as things: listed, described, deleted, and what the next owner of a name finds.

use crate::support::{
    TIMEOUT, address, code, one_node, proof, session, sign_in, try_sign_in, wallet,
};
use debros_client::rpc::{NamespaceInfo, Statement, Value};
use debros_client::{Client, Code, NewKey, Scope};
use debros_engine::embedded::{EmbeddedConfig, EmbeddedEngine};
use debros_engine::{CallOptions, TargetDatabase};
use debros_proto::Namespace;
use debros_testkit::TestNode;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Something of everything, and a write of each service that is kept under an idempotency key.
async fn fill(client: &Client, mark: &str) {
    client.database().create_table("CREATE TABLE t (a)").await.unwrap();
    client.database().query("INSERT INTO t VALUES (?)", [Value::from(mark)]).await.unwrap();
    client.storage().put("k", mark.to_owned()).await.unwrap();
    client.apps().create(mark, "key").await.unwrap();
    once(client, mark).await;
}

/// Writes under the same keys in every namespace; what they answer.
async fn once(client: &Client, mark: &str) -> (String, Option<i64>) {
    let app = client.once("app").apps().create(format!("{mark} once"), "key").await.unwrap();
    client.once("put").storage().put("once", mark.to_owned()).await.unwrap();
    client.once("publish").pubsub().publish("news", mark.to_owned()).await.unwrap();
    let written = client.once("sql").database().query("CREATE TABLE once (a)", []).await.unwrap();
    (app.name, written.last_insert_id)
}

async fn names(client: &Client) -> Vec<String> {
    client
        .namespaces()
        .list("", "", 0)
        .await
        .unwrap()
        .namespaces
        .into_iter()
        .map(|info| info.name)
        .collect()
}

#[tokio::test]
async fn the_next_owner_of_a_deleted_namespace_finds_nothing_of_it() {
    let (network, node) = one_node().await;
    let opened = sign_in(&node, 1, "a").await;
    let owner = node.client_with("a", &opened.access_token).await;
    let neighbour = session(&node, 4, "b").await;
    fill(&owner, "old").await;
    fill(&neighbour, "neighbour").await;
    let key = owner.auth().create_key(NewKey::default()).await.unwrap().api_key;
    let by_key = node.client_with("a", &key).await;
    by_key.storage().get("k").await.unwrap();
    owner.members().set(address(2).to_string(), "writer").await.unwrap();
    let member = session(&node, 2, "a").await;
    let mut heard = member.pubsub().subscribe("news").await.unwrap();
    owner.pubsub().publish("news", "unread").await.unwrap();

    let deleted = owner.namespaces().delete("a").await.unwrap();
    assert_eq!((deleted.name.as_str(), deleted.tables, deleted.rows, deleted.keys), ("a", 2, 1, 2));

    // No credential of it is good any more, and what was open ends.
    for client in [&owner, &member, &by_key] {
        // The sessions were ended; of the key nothing is left that could say so.
        let expected = if std::ptr::eq(client, &by_key) {
            Code::Unauthenticated
        } else {
            Code::CredentialRevoked
        };
        assert_eq!(code(client.storage().get("k").await), Some(expected));
        assert_eq!(code(client.namespaces().get().await), Some(expected));
    }
    let stranger = node.client_without_credential().await;
    assert_eq!(
        code(stranger.auth().refresh(opened.refresh_token.as_str(), "a").await),
        Some(Code::Unauthenticated)
    );
    loop {
        match tokio::time::timeout(TIMEOUT, heard.next()).await.expect("an end") {
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                assert_eq!(error.code, Code::CredentialRevoked);
                break;
            }
            None => break,
        }
    }
    for table in ["sessions", "api_keys", "grants", "apps"] {
        assert_eq!(network.count(&format!("{table} WHERE namespace = 'a'")).await, 0, "{table}");
    }
    assert_eq!(
        network.count("refresh_tokens WHERE session NOT IN (SELECT id FROM sessions)").await,
        0
    );
    assert_eq!(network.count("_debros_idempotency WHERE ns = 'a'").await, 0);
    assert_eq!(network.count("_debros_idempotency WHERE ns = 'b'").await, 3, "the neighbour's");
    assert_eq!(network.count("namespaces WHERE name = 'a'").await, 0);
    assert_eq!(
        network.count("audit_events WHERE kind = 'namespace_deleted' AND namespace = 'a'").await,
        1
    );

    // The name is free, and what comes next is new.
    let next = session(&node, 3, "a").await;
    let info = next.namespaces().get().await.unwrap();
    assert_eq!((info.owner, info.role.as_str()), (address(3).to_string(), "owner"));
    assert_eq!((info.tables, info.rows, info.keys, info.sql_bytes), (0, 0, 0, 0));
    assert!(next.storage().list("", 0, "").await.unwrap().keys.is_empty());
    assert!(next.database().schema().await.unwrap().is_empty());
    assert_eq!(code(next.database().query("SELECT * FROM t", []).await), Some(Code::Sql));
    assert!(next.apps().list().await.unwrap().is_empty());
    assert!(next.auth().list_keys().await.unwrap().is_empty());
    assert_eq!(next.members().list().await.unwrap().len(), 1);
    assert!(next.pubsub().topics().await.unwrap().is_empty());
    let mut news = next.pubsub().subscribe("news").await.unwrap();
    // The idempotency keys of before act: none of them gives an old answer.
    assert_eq!(once(&next, "new").await.0, "new once");
    assert_eq!(next.storage().get("once").await.unwrap().unwrap().value, "new");
    assert_eq!(next.database().schema().await.unwrap().len(), 1);
    let event = tokio::time::timeout(TIMEOUT, news.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(event, debros_client::PubsubEvent::Message("new".into()));
    // The old owner is a stranger, and the neighbour has lost nothing.
    assert_eq!(code(try_sign_in(&stranger, &wallet(1), "a").await), Some(Code::Forbidden));
    assert_eq!(neighbour.storage().get("k").await.unwrap().unwrap().value, "neighbour");
    assert_eq!(neighbour.namespaces().get().await.unwrap().tables, 2);
}

#[tokio::test]
async fn only_its_owner_and_the_operator_delete_a_namespace_and_only_when_they_name_it() {
    let (_network, node) = one_node().await;
    let owner = session(&node, 1, "a").await;
    fill(&owner, "kept").await;
    owner.members().set(address(2).to_string(), "admin").await.unwrap();
    let admin = session(&node, 2, "a").await;
    let key = NewKey { role: "admin".into(), ..Default::default() };
    let key = owner.auth().create_key(key).await.unwrap().api_key;
    let other = session(&node, 3, "b").await;
    let refused = [
        ("an admin", code(admin.namespaces().delete("a").await)),
        ("the owner's key", code(node.client_with("a", &key).await.namespaces().delete("a").await)),
        ("an operator's key", code(node.client("ops").await.namespaces().delete("ops").await)),
    ];
    for (who, code) in refused {
        assert_eq!(code, Some(Code::Forbidden), "{who}");
    }
    // Another owner cannot even name it.
    assert_eq!(code(other.namespaces().delete("a").await), Some(Code::InvalidArgument));
    let opened = sign_in(&node, 3, "b").await;
    let liar = node.client_with("a", &opened.access_token).await;
    assert_eq!(code(liar.namespaces().delete("a").await), Some(Code::NamespaceMismatch));
    assert_eq!(code(liar.namespaces().get().await), Some(Code::NamespaceMismatch));
    assert_eq!(
        code(node.client_without_credential().await.namespaces().delete("a").await),
        Some(Code::Unauthenticated)
    );
    for unconfirmed in ["", "A", "b", "a ", "ns::a::"] {
        assert_eq!(
            code(owner.namespaces().delete(unconfirmed).await),
            Some(Code::InvalidArgument),
            "{unconfirmed:?}"
        );
    }
    assert_eq!(owner.storage().get("k").await.unwrap().unwrap().value, "kept");

    // An open namespace is the operator's, and so is what the operator made.
    let open = session(&node, 1, "default").await;
    open.storage().put("k", "v").await.unwrap();
    let error = open.namespaces().delete("default").await.unwrap_err();
    assert_eq!(error.code, Code::Forbidden);
    assert!(error.message.contains("operator"), "{}", error.message);
    for namespace in ["default", "ops", "a"] {
        node.operator_client(namespace).namespaces().delete(namespace).await.unwrap();
    }
    assert_eq!(
        code(node.operator_client("a").namespaces().delete("a").await),
        Some(Code::NotFound)
    );
    assert_eq!(code(node.operator_client("never").namespaces().get().await), Some(Code::NotFound));
    assert_eq!(
        code(node.operator_client("").namespaces().delete("").await),
        Some(Code::InvalidArgument)
    );
    assert_eq!(code(owner.storage().get("k").await), Some(Code::CredentialRevoked));
}

/// What the operator uses again after a deletion is the operator's again, not that of the first
/// wallet that comes.
#[tokio::test]
async fn a_deleted_namespace_that_the_operator_uses_again_is_claimed_again() {
    let (network, node) = one_node().await;
    let operator = node.operator_client("ops");
    operator.storage().put("k", "v").await.unwrap();
    operator.namespaces().delete("ops").await.unwrap();
    assert_eq!(network.owner("ops").await, None);
    operator.storage().put("k", "secret").await.unwrap();
    assert_eq!(network.owner("ops").await.as_deref(), Some("operator"));
    assert_eq!(
        code(try_sign_in(&node.client_without_credential().await, &wallet(1), "ops").await),
        Some(Code::Forbidden)
    );
}

#[tokio::test]
async fn everybody_lists_what_is_theirs() {
    let (_network, node) = one_node().await;
    let owner = session(&node, 1, "alpha").await;
    session(&node, 1, "beta").await;
    let other = session(&node, 2, "gamma").await;
    other.members().set(address(1).to_string(), "reader").await.unwrap();
    fill(&owner, "x").await;
    assert_eq!(names(&owner).await, ["alpha", "beta", "gamma"]);
    let listed = owner.namespaces().list("", "", 0).await.unwrap().namespaces;
    let roles: Vec<&str> = listed.iter().map(|info| info.role.as_str()).collect();
    assert_eq!(roles, ["owner", "owner", "reader"]);
    assert_eq!((listed[0].tables, listed[0].rows, listed[0].keys), (2, 1, 2));
    assert!(listed[0].created_at > 0 && listed[0].sql_bytes > 0 && listed[0].rows_are_exact);
    assert_eq!(names(&other).await, ["gamma"]);

    // A key for a program sees its own; one that manages its namespace acts for its wallet.
    let program = owner.auth().create_key(NewKey::default()).await.unwrap().api_key;
    assert_eq!(names(&node.client_with("alpha", &program).await).await, ["alpha"]);
    let manager = NewKey { role: "admin".into(), ..Default::default() };
    let manager = owner.auth().create_key(manager).await.unwrap().api_key;
    let manager = node.client_with("alpha", &manager).await;
    assert_eq!(names(&manager).await, ["alpha", "beta", "gamma"]);
    assert_eq!(manager.namespaces().list("", "", 0).await.unwrap().namespaces[0].role, "admin");
    assert_eq!(names(&node.client("of-operator").await).await, ["of-operator"]);
    assert_eq!(
        code(node.client_without_credential().await.namespaces().list("", "", 0).await),
        Some(Code::Unauthenticated)
    );

    // The operator sees all, page by page.
    let operator = node.operator_client("");
    let (mut all, mut after) = (Vec::<NamespaceInfo>::new(), String::new());
    loop {
        let page = operator.namespaces().list("", after, 2).await.unwrap();
        assert!(page.namespaces.len() <= 2);
        all.extend(page.namespaces);
        after = all.last().unwrap().name.clone();
        if !page.more {
            break;
        }
    }
    let all: Vec<&str> = all.iter().map(|info| info.name.as_str()).collect();
    assert_eq!(all, ["alpha", "beta", "gamma", "of-operator"]);
    let some = operator.namespaces().list("be", "", 0).await.unwrap();
    assert_eq!(
        (some.namespaces.len(), some.namespaces[0].role.as_str(), some.more),
        (1, "operator", false)
    );
    assert_eq!(owner.namespaces().list("", "alpha", 1).await.unwrap().namespaces[0].name, "beta");
    assert_eq!(code(owner.namespaces().list("", "", 1001).await), Some(Code::InvalidArgument));
    // A prefix is text, not a pattern.
    for pattern in ["%", "_lpha", "a*", "'"] {
        assert!(
            owner.namespaces().list(pattern, "", 0).await.unwrap().namespaces.is_empty(),
            "{pattern}"
        );
    }
}

/// A damaged database is its owner's trouble: the operator sees the others, what is wrong with this
/// one, and can delete it.
#[tokio::test]
async fn a_damaged_namespace_is_listed_with_its_problem_and_can_be_deleted() {
    let node = TestNode::start().await;
    for name in ["dam", "well"] {
        node.operator_client(name).database().create_table("CREATE TABLE t (a)").await.unwrap();
    }
    let data = node.folder().join("node/db");
    let node = node.restart_after(|| damage(&data)).await;
    assert_eq!(
        code(node.operator_client("dam").database().query("SELECT 1", []).await),
        Some(Code::Corrupt)
    );
    let listed = node.operator_client("").namespaces().list("", "", 0).await.unwrap().namespaces;
    let listed: Vec<_> = listed
        .iter()
        .map(|info| (info.name.as_str(), info.problem.is_empty(), info.tables))
        .collect();
    assert_eq!(listed, [("dam", false, 0), ("well", true, 1)]);
    let info = node.operator_client("dam").namespaces().get().await.unwrap();
    assert!(info.problem.contains("damaged") && info.sql_bytes > 0, "{info:?}");
    let deleted = node.operator_client("dam").namespaces().delete("dam").await.unwrap();
    assert!(deleted.problem.contains("damaged"), "{deleted:?}");
    assert_eq!(code(node.operator_client("dam").namespaces().get().await), Some(Code::NotFound));
    node.operator_client("dam").database().create_table("CREATE TABLE t (a)").await.unwrap();
}

fn damage(data: &Path) {
    let path = data.join("ns/dam.db");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[4096..12288].fill(0xa5);
    std::fs::write(&path, bytes).unwrap();
    std::fs::remove_file(data.join("CLEAN")).unwrap();
}

/// Whoever lists page by page does not lose what comes after a namespace that is being deleted.
#[tokio::test]
async fn a_page_whose_namespaces_are_all_being_deleted_says_where_to_go_on() {
    const SLOW: &str =
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
    let folder = tempfile::tempdir().unwrap();
    let config = EmbeddedConfig {
        statement_time: Duration::from_secs(3),
        ..EmbeddedConfig::new(folder.path())
    };
    let node = TestNode::start_on(Arc::new(EmbeddedEngine::open(config).unwrap()), |_| {}).await;
    for name in ["a", "b"] {
        node.operator_client(name).database().create_table("CREATE TABLE t (a)").await.unwrap();
    }
    let (slow, leaving, operator) =
        (node.operator_client("a"), node.operator_client("a"), node.operator_client(""));
    // The deletion waits for the statement.
    let slow = tokio::spawn(async move { slow.database().query(SLOW, []).await });
    let leaving = tokio::spawn(async move { leaving.namespaces().delete("a").await });
    let page = loop {
        let page = operator.namespaces().list("", "", 1).await.unwrap();
        if page.namespaces.first().is_none_or(|first| first.name != "a") {
            break page;
        }
    };
    assert_eq!((page.namespaces.len(), page.more, page.next.as_str()), (0, true, "a"));
    let rest = operator.namespaces().list("", page.next, 1).await.unwrap();
    assert_eq!((rest.namespaces[0].name.as_str(), rest.more, rest.next.as_str()), ("b", false, ""));
    leaving.await.unwrap().unwrap();
    let _ = slow.await.unwrap();
}

/// A stranger learns that a name is taken, and not by whom.
#[tokio::test]
async fn a_stranger_is_not_told_whether_a_name_is_a_wallets_or_the_operators() {
    let (_network, node) = one_node().await;
    session(&node, 1, "taken").await;
    node.operator_client("other").storage().put("k", "v").await.unwrap();
    let stranger = node.client_without_credential().await;
    let mut texts = Vec::new();
    for name in ["taken", "other"] {
        let error = try_sign_in(&stranger, &wallet(2), name).await.unwrap_err();
        assert_eq!(error.code, Code::Forbidden, "{error:?}");
        texts.push(error.message.replace(name, "NAME"));
    }
    assert_eq!(texts[0], texts[1]);
}

/// An owner whose check a node still believes cannot delete what has become another's.
#[tokio::test]
async fn a_deletion_that_comes_late_does_not_hit_the_next_owner() {
    let (network, node) = one_node().await;
    let other = network.node().await;
    let opened = sign_in(&node, 1, "a").await;
    let (here, there) = (
        node.client_with("a", &opened.access_token).await,
        other.client_with("a", &opened.access_token).await,
    );
    there.storage().list("", 0, "").await.unwrap();
    here.namespaces().delete("a").await.unwrap();
    let next = session(&node, 2, "a").await;
    next.storage().put("k", "of the next").await.unwrap();
    assert_eq!(code(there.namespaces().delete("a").await), Some(Code::Unauthenticated));
    assert_eq!(next.storage().get("k").await.unwrap().unwrap().value, "of the next");
    assert_eq!(network.owner("a").await, Some(address(2).to_string()));
}

#[tokio::test]
async fn of_many_deletions_at_once_each_says_the_truth() {
    let (_network, node) = one_node().await;
    let owner = session(&node, 1, "a").await;
    fill(&owner, "x").await;
    let others =
        [("even", session(&node, 2, "even").await), ("odd", session(&node, 3, "odd").await)];
    let deletions = (0..10).map(|_| async { owner.namespaces().delete("a").await });
    let writes = (0..10).map(|_| async { owner.storage().put("late", "v").await });
    let elsewhere =
        others.iter().map(|(name, client)| async move { client.namespaces().delete(*name).await });
    let (deleted, written, elsewhere) = futures::future::join3(
        futures::future::join_all(deletions),
        futures::future::join_all(writes),
        futures::future::join_all(elsewhere),
    )
    .await;
    assert!(elsewhere.iter().all(Result::is_ok), "{elsewhere:?}");
    assert_eq!(deleted.iter().filter(|result| result.is_ok()).count(), 1, "{deleted:?}");
    for error in deleted
        .into_iter()
        .filter_map(Result::err)
        .chain(written.into_iter().filter_map(Result::err))
    {
        // A session that is gone is one that was revoked.
        assert!(
            error.code.is_unauthenticated()
                || matches!(error.code, Code::Unavailable | Code::NotFound),
            "{error:?}"
        );
    }
    let next = session(&node, 9, "a").await;
    assert!(
        next.storage().list("", 0, "").await.unwrap().keys.is_empty(),
        "no late write is there"
    );
}

/// As a crash between the data's end and the name's leaves it.
#[tokio::test]
async fn the_name_of_an_interrupted_deletion_is_taken_until_the_next_start_frees_it() {
    let (network, node) = one_node().await;
    session(&node, 1, "a").await;
    let options = CallOptions {
        consistency: Default::default(),
        deadline: Instant::now() + TIMEOUT,
        idempotency_key: None,
        caller: Default::default(),
        read_only: false,
    };
    let tombstone = "UPDATE namespaces SET owner = '' WHERE name = 'a'".into();
    network.engine.query(&TargetDatabase::System, tombstone, options).await.unwrap();
    let stranger = node.client_without_credential().await;
    for number in [1, 2] {
        let entered = try_sign_in(&stranger, &wallet(number), "a").await;
        assert_eq!(code(entered), Some(Code::Forbidden), "{number}");
    }
    let node = network.restart(node).await;
    assert_eq!(sign_in(&node, 2, "a").await.role, "owner");
}

#[tokio::test]
async fn a_quota_is_told_and_a_write_over_it_names_it() {
    const QUOTA: u64 = 256 << 10;
    let node =
        TestNode::start_with(|config| config.database.max_namespace_size = Some(QUOTA)).await;
    let client = session(&node, 1, "a").await;
    client.database().create_table("CREATE TABLE t (a)").await.unwrap();
    assert_eq!(client.namespaces().get().await.unwrap().max_bytes, Some(QUOTA));
    let error = loop {
        match client.database().query("INSERT INTO t VALUES (zeroblob(20000))", []).await {
            Ok(_) => {
                assert!(client.namespaces().get().await.unwrap().rows < 100, "no limit is kept")
            }
            Err(error) => break error,
        }
    };
    assert_eq!(error.code, Code::QuotaExceeded);
    assert!(error.message.contains("max_namespace_size"), "{}", error.message);
    // What is deleted leaves room inside, which is reported, and used again.
    client.database().query("DELETE FROM t", []).await.unwrap();
    let info = client.namespaces().get().await.unwrap();
    assert!(info.free_bytes > QUOTA / 2 && info.free_bytes < info.sql_bytes, "{info:?}");
    client.database().query("INSERT INTO t VALUES (zeroblob(20000))", []).await.unwrap();
    assert!(client.namespaces().get().await.unwrap().free_bytes < info.free_bytes);
    let neighbour = session(&node, 2, "b").await;
    neighbour.database().create_table("CREATE TABLE t (a)").await.unwrap();
    client.namespaces().delete("a").await.unwrap();
    assert_eq!(session(&node, 3, "a").await.namespaces().get().await.unwrap().sql_bytes, 0);
}

/// Four namespaces of one wallet filled the node.
#[tokio::test]
async fn the_namespaces_of_one_wallet_have_a_quota_together() {
    let node = TestNode::start_with(|config| {
        config.database.max_namespace_size = Some(2 << 20);
        config.database.max_owner_size = Some(3 << 20);
    })
    .await;
    const ROW: &str = "CREATE TABLE t AS SELECT zeroblob(1300000) AS a";
    let own = |name: &'static str| session(&node, 1, name);
    let (first, second, third) = (own("first").await, own("second").await, own("third").await);
    for client in [&first, &second] {
        client.database().query(ROW, []).await.unwrap();
    }
    let error = third.database().query(ROW, []).await.unwrap_err();
    assert_eq!(error.code, Code::QuotaExceeded);
    assert!(error.message.contains("max_owner_size"), "{}", error.message);
    // Whose the namespace is counts, not who writes: a neighbour in its own, a guest in the
    // owner's.
    session(&node, 2, "other").await.database().query(ROW, []).await.unwrap();
    third.members().set(address(2).to_string(), "writer").await.unwrap();
    let guest = session(&node, 2, "third").await;
    assert_eq!(code(guest.database().query(ROW, []).await), Some(Code::QuotaExceeded));
    first.namespaces().delete("first").await.unwrap();
    third.database().query(ROW, []).await.unwrap();
}

/// A sign-in claims a namespace and the first statement makes its database. Tells besides how long
/// both take: `cargo test -p debros-node --test auth first_use -- --nocapture`.
#[tokio::test]
#[allow(clippy::print_stdout, reason = "a measurement")]
async fn the_first_use_of_a_namespace_makes_it() {
    let (_network, node) = one_node().await;
    let stranger = node.client_without_credential().await;
    let (mut claims, mut creations) = (Vec::new(), Vec::new());
    for number in 1..=20 {
        let namespace = Namespace::new(&format!("n{number}")).unwrap();
        let looks = node.operator_client(namespace.as_str());
        assert_eq!(
            code(looks.namespaces().get().await),
            Some(Code::NotFound),
            "{namespace} is there before its use"
        );
        let proof = proof(&stranger, &wallet(number), namespace.as_str()).await;
        let began = Instant::now();
        let opened = stranger.auth().sign_in(proof).await.unwrap();
        claims.push(began.elapsed());
        let claimed = looks.namespaces().get().await.unwrap();
        assert_eq!((claimed.owner, claimed.tables), (address(number).to_string(), 0));
        let client = stranger.with_credential(opened.access_token);
        let began = Instant::now();
        client.database().create_table("CREATE TABLE t (a)").await.unwrap();
        creations.push(began.elapsed());
        assert_eq!(client.namespaces().get().await.unwrap().tables, 1);
    }
    for (what, mut took) in [("sign-in that claims", claims), ("first CREATE TABLE", creations)] {
        took.sort();
        println!("{what}: median {:?}, longest {:?}", took[took.len() / 2], took[took.len() - 1]);
    }
}

fn by(deadline: Instant) -> CallOptions {
    CallOptions {
        consistency: Default::default(),
        deadline,
        idempotency_key: None,
        caller: Default::default(),
        read_only: false,
    }
}

/// Its caller got the error that there was no time, and the namespace went later, with what was
/// written in between.
#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_that_waits_past_its_deadline_deletes_nothing() {
    let (network, node) = one_node().await;
    let slow = session(&node, 1, "slow").await;
    let queued = session(&node, 2, "queued").await;
    let last = session(&node, 3, "last").await;
    slow.database().create_table("CREATE TABLE t (a)").await.unwrap();
    queued.storage().put("k", "kept").await.unwrap();
    last.storage().put("k", "x").await.unwrap();
    let place = TargetDatabase::Namespace(Namespace::new("slow").unwrap());
    let run = |sql: &str, time: Duration| {
        let (engine, place, statement) =
            (network.engine.clone(), place.clone(), Statement::from(sql));
        async move { engine.query(&place, statement, by(Instant::now() + time)).await.map(|_| ()) }
    };
    let endless = "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n";
    // Longer than what follows takes on a busy machine; the engine's own limit is longer still.
    let running = tokio::spawn(run(endless, Duration::from_secs(8)));
    // The writer is at it when no other write comes to its turn.
    let half = Duration::from_millis(500);
    while tokio::time::timeout(half, run("INSERT INTO t VALUES (1)", half)).await.is_ok() {}
    assert!(!running.is_finished(), "{:?}", running.await);
    let deletion = tokio::spawn(async move { slow.namespaces().delete("slow").await });
    let operator = node.operator_client("slow");
    while code(operator.storage().get("k").await) != Some(Code::Unavailable) {}

    // Long enough that the node's answer, a tenth of it before its end, comes before the client gives
    // up on a busy machine.
    let hasty = queued.scoped(Scope { timeout: Duration::from_secs(2), ..queued.scope().clone() });
    assert_eq!(code(hasty.namespaces().delete("queued").await), Some(Code::DeadlineExceeded));
    queued.storage().put("k", "later").await.unwrap();
    assert_eq!(running.await.unwrap().map_err(|error| error.code), Err(Code::DeadlineExceeded));
    deletion.await.unwrap().unwrap();
    // This one comes after all that waited.
    last.namespaces().delete("last").await.unwrap();
    assert_eq!(queued.storage().get("k").await.unwrap().unwrap().value, "later");
    assert_eq!(network.owner("slow").await, None);
}

/// A start that knew of a deletion only its tombstone gave the data to the first wallet that signed
/// in.
#[tokio::test]
async fn a_deleted_name_that_has_data_is_the_operators_and_not_the_next_wallets() {
    let (network, node) = one_node().await;
    node.operator_client("pairs").storage().put("k", "v").await.unwrap();
    node.operator_client("rows").database().create_table("CREATE TABLE t (a)").await.unwrap();
    for name in ["pairs", "rows", "empty"] {
        let sql = "INSERT INTO namespaces (name, created_at, owner) VALUES (?, 1, '') ON CONFLICT DO UPDATE SET owner = ''";
        let statement = Statement::new(sql, [name.into()]);
        network
            .engine
            .query(&TargetDatabase::System, statement, by(Instant::now() + TIMEOUT))
            .await
            .unwrap();
    }
    let node = network.restart(node).await;
    for (name, owner) in [("pairs", Some("operator")), ("rows", Some("operator")), ("empty", None)]
    {
        assert_eq!(network.owner(name).await.as_deref(), owner, "{name}");
    }
    let stranger = node.client_without_credential().await;
    assert_eq!(code(try_sign_in(&stranger, &wallet(1), "pairs").await), Some(Code::Forbidden));
    assert_eq!(code(try_sign_in(&stranger, &wallet(1), "rows").await), Some(Code::Forbidden));
    session(&node, 1, "empty").await;
}
