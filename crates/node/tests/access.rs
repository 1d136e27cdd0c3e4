//! Who may do what, at the node itself: every call over P2P, without any gateway that could check
//! first.

use debros_client::rpc::request::Call;
use debros_client::rpc::{self, Request};
use debros_client::{Client, Code, Config};
use debros_p2p::{Channel, Host, HostConfig};
use debros_proto::call_kinds::{CALL_KINDS, CallKind, CallRequirement};
use debros_testkit::TestNode;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(60);

/// One call of each kind that needs a credential, well-formed, so that only the credential can be
/// what is wrong.
fn calls() -> Vec<Call> {
    let statement = || Some(rpc::Statement::from("CREATE TABLE leak (a)"));
    vec![
        Call::Peers(rpc::PeersRequest {}),
        Call::ConnectPeer(rpc::ConnectPeerRequest { multiaddr: "/ip4/127.0.0.1/tcp/1".into() }),
        Call::DisconnectPeer(rpc::DisconnectPeerRequest::default()),
        Call::WhoAmI(rpc::WhoAmIRequest {}),
        Call::CreateApiKey(rpc::CreateApiKeyRequest {
            namespace: "a".into(),
            role: "admin".into(),
            ..Default::default()
        }),
        Call::ListApiKeys(rpc::ListApiKeysRequest {}),
        Call::RevokeApiKey(rpc::RevokeApiKeyRequest { id: "x".into() }),
        Call::ListApps(rpc::ListAppsRequest {}),
        Call::CreateApp(rpc::CreateAppRequest { name: "n".into(), public_key: "k".into() }),
        Call::GetApp(rpc::GetAppRequest { app_id: "x".into() }),
        Call::UpdateApp(rpc::UpdateAppRequest { app_id: "x".into(), ..Default::default() }),
        Call::DeleteApp(rpc::DeleteAppRequest { app_id: "x".into() }),
        Call::Query(rpc::QueryRequest { statement: statement(), ..Default::default() }),
        Call::Transaction(rpc::TransactionRequest {
            statements: statement().into_iter().collect(),
        }),
        Call::CreateTable(rpc::CreateTableRequest { schema: "CREATE TABLE leak (a)".into() }),
        Call::DropTable(rpc::DropTableRequest { table: "t".into() }),
        Call::Schema(rpc::SchemaRequest {}),
        Call::Backup(rpc::BackupRequest {}),
        Call::ListBackups(rpc::ListBackupsRequest {}),
        Call::Restore(rpc::RestoreRequest { name: "x".into() }),
        Call::Export(rpc::ExportRequest {}),
        Call::Put(rpc::PutRequest { key: "leak".into(), ..Default::default() }),
        Call::Get(rpc::GetRequest { key: "k".into(), consistency: 0 }),
        Call::Delete(rpc::DeleteRequest { key: "k".into(), condition: None }),
        Call::Exists(rpc::ExistsRequest { key: "k".into(), consistency: 0 }),
        Call::List(rpc::ListRequest::default()),
        Call::Publish(rpc::PublishRequest { topic: "t".into(), data: "x".into() }),
        Call::Subscribe(rpc::SubscribeRequest { topic: "t".into() }),
        Call::Topics(rpc::TopicsRequest {}),
        Call::Token(rpc::TokenRequest {}),
        Call::ListMembers(rpc::ListMembersRequest {}),
        Call::SetMember(rpc::SetMemberRequest { wallet: "0".repeat(40), role: "admin".into() }),
        Call::RemoveMember(rpc::RemoveMemberRequest { wallet: "0".repeat(40) }),
        Call::RotateSigningKey(rpc::RotateSigningKeyRequest {}),
        Call::RemoveSigningKey(rpc::RemoveSigningKeyRequest { kid: "x".into() }),
        Call::ListNamespaces(rpc::ListNamespacesRequest::default()),
        Call::GetNamespace(rpc::GetNamespaceRequest {}),
        // Not confirmed: whatever is allowed, nothing goes.
        Call::DeleteNamespace(rpc::DeleteNamespaceRequest { confirm: "x".into() }),
        // In a cluster already, or not there: whatever is allowed, nothing changes.
        Call::CreateJoinToken(rpc::CreateJoinTokenRequest {}),
        Call::ClusterStatus(rpc::ClusterStatusRequest { diagnose: true }),
        Call::RemoveNode(rpc::RemoveNodeRequest { node: "x".into() }),
        Call::StepDown(rpc::StepDownRequest {}),
        Call::InitCluster(rpc::InitClusterRequest {}),
    ]
}

/// The name of a call in the table of calls: that of its variant, in snake case.
fn name_of(call: &Call) -> String {
    let debug = format!("{call:?}");
    let variant = debug.split('(').next().unwrap();
    let mut name = String::new();
    for sign in variant.chars() {
        if sign.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(sign.to_ascii_lowercase());
    }
    name
}

/// A call that is added later is in the tests below, or this test fails.
#[test]
fn every_call_that_needs_a_credential_is_tested_without_one() {
    let mut tested: Vec<String> = calls().iter().map(name_of).collect();
    // Those of nodes: `cluster.rs`.
    let (public, others): (Vec<&CallKind>, Vec<&CallKind>) = CALL_KINDS
        .iter()
        .filter(|kind| kind.requires != CallRequirement::Node)
        .partition(|kind| kind.requires == CallRequirement::Nothing);
    let mut known: Vec<&str> = others.iter().map(|kind| kind.name).collect();
    tested.sort();
    known.sort();
    assert_eq!(tested, known);
    let public: Vec<&str> = public.iter().map(|kind| kind.name).collect();
    assert_eq!(
        public,
        [
            "health",
            "status",
            "challenge",
            "sign_in",
            "register_app",
            "create_api_key_by_proof",
            "refresh",
            "logout",
            "jwks",
            "node_hello",
            "node_proof",
            "join_cluster"
        ]
    );
}

/// The access token of a wallet that signed in.
async fn session(node: &TestNode, namespace: &str) -> String {
    session_of(node, 1, namespace).await
}

async fn session_of(node: &TestNode, number: u8, namespace: &str) -> String {
    let client = node.client_without_credential().await;
    let key = debros_auth::PrivateKey::from_bytes(&[number; 32]).unwrap();
    let wallet = key.wallet().to_string();
    let request =
        rpc::ChallengeRequest { wallet, namespace: namespace.into(), ..Default::default() };
    let asked = client.auth().challenge(request).await.unwrap();
    let proof = rpc::Proof {
        signature: key.sign_personal(&asked.message),
        wallet: asked.wallet,
        namespace: asked.namespace,
        nonce: asked.nonce,
        ..Default::default()
    };
    client.auth().sign_in(proof).await.unwrap().access_token
}

async fn channel(node: &TestNode) -> (Host, Channel) {
    let host =
        Host::start(HostConfig::client(debros_p2p::Keypair::generate_ed25519(), "test"), None)
            .await
            .unwrap();
    let peer = host.connect(node.address().parse().unwrap(), TIMEOUT).await.unwrap();
    let channel = host.open(peer).await.unwrap();
    (host, channel)
}

async fn code_of(
    channel: &Channel,
    credential: &str,
    namespace: &str,
    call: Call,
) -> Result<(), Code> {
    code_with(channel, credential, namespace, call, false).await
}

async fn code_with(
    channel: &Channel,
    credential: &str,
    namespace: &str,
    call: Call,
    lent: bool,
) -> Result<(), Code> {
    let stream =
        matches!(call, Call::Subscribe(_) | Call::Backup(_) | Call::Restore(_) | Call::Export(_));
    let (credential, namespace) = (credential.into(), namespace.into());
    let request = Request { credential, namespace, lent, call: Some(call), ..Default::default() };
    let outcome = if stream {
        channel.open(request, TIMEOUT).await.map(|_| ())
    } else {
        channel.call(request, TIMEOUT).await.map(|_| ())
    };
    outcome.map_err(|error| error.code)
}

/// Lessons 6 and 7: any peer could read and write any namespace, because only the client library
/// checked.
#[tokio::test]
async fn lesson_06_a_peer_without_a_valid_credential_is_refused_every_call() {
    let node = TestNode::start().await;
    let key = node.api_key("a").await;
    let (_host, channel) = channel(&node).await;
    let mistyped = format!("{key}x");
    for credential in ["", "x", "op_", "ak_:a", "ak_0000:a", mistyped.as_str(), &"x".repeat(10_000)]
    {
        for call in calls() {
            let name = format!("{call:?}");
            let refused = code_of(&channel, credential, "a", call).await;
            assert_eq!(refused, Err(Code::Unauthenticated), "{name} with {credential:.20}");
        }
    }
    let client = node.client_with("a", &key).await;
    assert!(client.storage().list("", 0, "").await.unwrap().keys.is_empty());
    assert!(client.database().schema().await.unwrap().is_empty());
}

/// Lesson 7: the namespace was a field of the request, believed as it came.
#[tokio::test]
async fn lesson_07_a_request_that_names_another_namespace_is_refused() {
    let node = TestNode::start().await;
    node.api_key("b").await;
    let key = node.api_key("a").await;
    let token = node.client_with("a", &key).await.auth().token().await.unwrap().access_token;
    let session = session(&node, "c").await;
    let (_host, channel) = channel(&node).await;
    for (credential, own) in [(&key, "a"), (&token, "a"), (&session, "c")] {
        let who = Call::WhoAmI(rpc::WhoAmIRequest {});
        assert_eq!(code_of(&channel, credential, own, who).await, Ok(()));
        for named in ["b", "_system", "A", "a ", "ns::a"] {
            for call in calls() {
                let name = format!("{call:?}");
                let refused = code_of(&channel, credential, named, call).await;
                assert_eq!(refused, Err(Code::NamespaceMismatch), "{name} in {named}");
            }
        }
    }
}

/// Something of everything, with a word in it.
async fn fill(client: &Client, word: &str) {
    client.storage().put("k", word.to_owned()).await.unwrap();
    client.storage().put(word.to_owned(), "v").await.unwrap();
    client.database().create_table("CREATE TABLE t (a)").await.unwrap();
    client.database().query("INSERT INTO t VALUES (?)", [word.into()]).await.unwrap();
    client.database().create_table(format!("CREATE TABLE {word} (a)")).await.unwrap();
    client.apps().create(word, word).await.unwrap();
    client
        .auth()
        .create_key(debros_client::NewKey { name: word.into(), ..Default::default() })
        .await
        .unwrap();
}

/// Every call there is, by the owner of one namespace on a node that serves another one with
/// tables, keys, topics and applications of the same names.
#[tokio::test]
async fn no_call_tells_the_owner_of_one_namespace_that_another_exists() {
    let node = TestNode::start().await;
    let alice = node.client_with("alphaspace", &session(&node, "alphaspace").await).await;
    fill(&alice, "word_of_alice").await;
    let _listening = [
        alice.pubsub().subscribe("t").await.unwrap(),
        alice.pubsub().subscribe("word_of_alice").await.unwrap(),
    ];
    let token = session_of(&node, 2, "betaspace").await;
    let bob = node.client_with("betaspace", &token).await;
    fill(&bob, "word_of_bob").await;
    let (_host, channel) = channel(&node).await;
    let alice_wallet = debros_auth::PrivateKey::from_bytes(&[1; 32]).unwrap().wallet().to_string();
    let mut all_said = String::new();
    for call in calls() {
        let name = format!("{call:?}");
        let request =
            Request { credential: token.clone(), call: Some(call.clone()), ..Default::default() };
        let said = if request.opens_stream() {
            match channel.open(request, TIMEOUT).await {
                // An export's first pieces hold the schema and small tables.
                Ok((response, mut events)) if matches!(call, Call::Export(_)) => {
                    let mut said = format!("{response:?}");
                    while let Some(Ok(event)) = futures::StreamExt::next(&mut events).await {
                        if let Some(rpc::event::Kind::Chunk(chunk)) = event.kind {
                            said += &String::from_utf8_lossy(&chunk).replace("ns::", "");
                        }
                    }
                    said
                }
                outcome => format!("{:?}", outcome.map(|(response, _)| response)),
            }
        } else {
            format!("{:?}", channel.call(request, TIMEOUT).await)
        };
        for mark in ["alice", "alphaspace", "ns::", &alice_wallet] {
            assert!(!said.contains(mark), "{name} reveals {mark}: {said}");
        }
        all_said += &said;
    }
    assert!(all_said.contains("word_of_bob") && all_said.contains("betaspace"), "{all_said}");
    // What is another's is refused like what does not exist.
    for call in calls() {
        let name = format!("{call:?}");
        let hers = code_of(&channel, &token, "alphaspace", call.clone()).await;
        assert_eq!(hers, code_of(&channel, &token, "nospace", call).await, "{name}");
        assert_eq!(hers, Err(Code::NamespaceMismatch), "{name}");
    }
}

#[tokio::test]
async fn only_the_operator_runs_the_node() {
    let node = TestNode::start().await;
    let key = node.api_key("a").await;
    let (_host, channel) = channel(&node).await;
    let operate = |call: &Call| {
        matches!(
            call,
            Call::ConnectPeer(_)
                | Call::DisconnectPeer(_)
                | Call::RotateSigningKey(_)
                | Call::RemoveSigningKey(_)
                | Call::Backup(_)
                | Call::ListBackups(_)
                | Call::Restore(_)
        )
    };
    for call in calls().into_iter().filter(operate) {
        let name = format!("{call:?}");
        assert_eq!(code_of(&channel, &key, "", call).await, Err(Code::Forbidden), "{name}");
    }
}

#[tokio::test]
async fn a_reader_reads_and_a_writer_writes() {
    let node = TestNode::start().await;
    let writer = node.client("a").await;
    writer.storage().put("k", "v").await.unwrap();
    writer.database().create_table("CREATE TABLE t (a)").await.unwrap();
    let reader = node.client_with("a", &node.api_key_with("a", "reader", &[]).await).await;

    assert!(reader.storage().get("k").await.unwrap().is_some());
    assert_eq!(reader.database().query("SELECT count(*) FROM t", []).await.unwrap().rows.len(), 1);
    let forbidden = [
        reader.storage().put("k", "changed").await.err(),
        reader.storage().delete("k").await.err(),
        reader.database().query("INSERT INTO t VALUES (1)", []).await.err(),
        reader
            .database()
            .query("WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x", [])
            .await
            .err(),
        reader.database().query("DELETE FROM t RETURNING a", []).await.err(),
        reader.database().transaction(["INSERT INTO t VALUES (1)"]).await.err(),
        reader.database().create_table("CREATE TABLE u (a)").await.err(),
        reader.database().drop_table("t").await.err(),
        reader.pubsub().publish("t", "x").await.err(),
        reader.apps().create("n", "k").await.err(),
        reader.auth().list_keys().await.err(),
    ];
    for (index, error) in forbidden.into_iter().enumerate() {
        assert_eq!(error.map(|error| error.code), Some(Code::Forbidden), "attempt {index}");
    }
    assert_eq!(writer.storage().get("k").await.unwrap().unwrap().value, "v");
    let rows = writer.database().query("SELECT count(*) FROM t", []).await.unwrap().rows;
    assert_eq!(rows[0].values[0].as_integer(), Some(0));
}

#[tokio::test]
async fn scopes_restrict_a_key() {
    let node = TestNode::start().await;
    let client = node
        .client_with(
            "a",
            &node.api_key_with("a", "writer", &["storage:read", "pubsub:publish"]).await,
        )
        .await;
    assert!(client.storage().get("k").await.unwrap().is_none());
    client.pubsub().publish("t", "x").await.unwrap();
    assert_eq!(client.storage().put("k", "v").await.unwrap_err().code, Code::Forbidden);
    assert_eq!(client.database().query("SELECT 1", []).await.unwrap_err().code, Code::Forbidden);
    assert_eq!(client.pubsub().topics().await.unwrap_err().code, Code::Forbidden);
    let stores = node
        .client_with("a", &node.api_key_with("a", "writer", &["storage:write", "apps:write"]).await)
        .await;
    stores.storage().put("k", "v").await.unwrap();
    stores.apps().create("n", "k").await.unwrap();
    assert!(stores.storage().delete("k").await.unwrap());
    assert_eq!(stores.storage().get("k").await.unwrap_err().code, Code::Forbidden);
    let me = client.network().who_am_i().await.unwrap();
    assert_eq!((me.role.as_str(), me.namespace.as_str()), ("writer", "a"));
    assert_eq!(me.scopes, ["storage:read", "pubsub:publish"]);
}

#[tokio::test]
async fn a_revoked_key_stops_working_at_once_and_stays_revoked_after_a_restart() {
    let node = TestNode::start().await;
    let admin = node.client("a").await;
    let key = node.api_key_with("a", "writer", &[]).await;
    let client = node.client_with("a", &key).await;
    client.storage().put("k", "v").await.unwrap();
    let keys = admin.auth().list_keys().await.unwrap();
    let id = keys.iter().find(|known| known.role == "writer").unwrap().id.clone();
    assert!(admin.auth().revoke_key(&id).await.unwrap());
    assert_eq!(client.storage().get("k").await.unwrap_err().code, Code::CredentialRevoked);
    assert!(!admin.auth().revoke_key(&id).await.unwrap());
    assert_eq!(admin.auth().revoke_key("key_none").await.unwrap_err().code, Code::NotFound);

    let other = node.client("b").await;
    assert_eq!(other.auth().revoke_key(&id).await.unwrap_err().code, Code::NotFound);
    let node = node.restart().await;
    let again = node.client_with("a", &key).await;
    assert_eq!(again.storage().get("k").await.unwrap_err().code, Code::CredentialRevoked);
}

#[tokio::test]
async fn a_revoked_key_loses_its_open_subscription() {
    let node = TestNode::start().await;
    let admin = node.client("a").await;
    let client = node.client_with("a", &node.api_key_with("a", "reader", &[]).await).await;
    let mut subscription = client.pubsub().subscribe("t").await.unwrap();
    let keys = admin.auth().list_keys().await.unwrap();
    let id = keys.iter().find(|known| known.role == "reader").unwrap().id.clone();
    admin.auth().revoke_key(&id).await.unwrap();
    let ended = tokio::time::timeout(TIMEOUT, subscription.next()).await.expect("an end");
    assert_eq!(ended.unwrap().unwrap_err().code, Code::CredentialRevoked);
    assert!(admin.pubsub().topics().await.unwrap().is_empty());
}

/// Lesson 11: keys stood in the database as they are.
#[tokio::test]
async fn lesson_11_the_data_folder_holds_no_api_key() {
    let node = TestNode::start().await;
    let key = node.api_key("a").await;
    let client = node.client_with("a", &key).await;
    client.storage().put("k", "v").await.unwrap();
    let listed = client.auth().list_keys().await.unwrap();
    assert!(listed.iter().all(|known| !key.starts_with(&known.prefix) || known.prefix.len() < 16));
    let secret = key.split(':').next().unwrap().as_bytes().to_vec();
    let mut folders = vec![node.folder().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = std::fs::read(&path).unwrap();
                assert!(
                    !bytes.windows(secret.len()).any(|window| window == secret),
                    "{}",
                    path.display()
                );
            }
        }
    }
}

/// Lesson 22: every authorised request wrote to the database.
#[tokio::test]
async fn lesson_22_reading_writes_nothing() {
    let node = TestNode::start().await;
    let client = node.client("a").await;
    client.storage().put("k", "v").await.unwrap();
    let wal = node.folder().join("node/db/system.db-wal");
    let before = std::fs::read(&wal).unwrap();
    for _ in 0..50 {
        client.storage().get("k").await.unwrap();
        client.network().who_am_i().await.unwrap();
    }
    assert!(std::fs::read(&wal).unwrap() == before, "the write-ahead log has changed");
}

/// Lesson 33: health and status were constants, or refused.
#[tokio::test]
async fn lesson_33_health_and_status_are_measured_and_public() {
    let node = TestNode::start().await;
    let anyone = Client::connect(Config::new("").bootstrap_peer(node.address())).await.unwrap();
    let health = anyone.health().await.unwrap();
    let names: Vec<&str> = health.checks.iter().map(|check| check.name.as_str()).collect();
    assert_eq!(names, ["database_write", "database_read", "pubsub"]);
    assert!(health.checks.iter().all(|check| check.ok && check.took_us > 0), "{health:?}");
    let status = anyone.network().status().await.unwrap();
    assert_eq!(status.peer_id, node.node().peer_id().to_string());
    assert!(status.peer_count >= 1 && status.database_size > 0, "{status:?}");
    let peers = node.operator_client("a").network().peers().await.unwrap();
    assert!(peers.iter().any(|peer| peer.connected));
}

/// Who else uses the node, from where and when, is not a tenant's business. A gateway's static keys
/// saw what the operator sees, because the credential behind them is the operator's.
#[tokio::test]
async fn a_credential_that_is_lent_is_a_writers_whoever_it_belongs_to() {
    let node = TestNode::start().await;
    let writer = node.api_key_with("a", "writer", &[]).await;
    let (_host, channel) = channel(&node).await;
    let operator = node.node().operator_credential();
    for call in calls() {
        let name = name_of(&call);
        let lent = code_with(&channel, operator, "a", call.clone(), true).await;
        // An operator's credential has no token and manages no keys of a wallet, lent or not.
        if name == "token" {
            assert_eq!(lent, Err(Code::Forbidden));
            continue;
        }
        let own = code_of(&channel, &writer, "a", call).await;
        assert_eq!(
            lent == Err(Code::Forbidden),
            own == Err(Code::Forbidden),
            "{name}: {lent:?}, a writer {own:?}"
        );
    }
    let scope = debros_client::Scope { lent: true, ..node.operator_client("a").scope().clone() };
    let lent = node.operator_client("a").scoped(scope);
    let who = lent.network().who_am_i().await.unwrap();
    assert_eq!((who.role.as_str(), who.operator), ("writer", false));
    assert_eq!(
        node.operator_client("a").network().peers().await.unwrap().len(),
        1,
        "the channel above"
    );
    assert!(lent.network().peers().await.unwrap().is_empty(), "clients and gateways are private");
}

#[tokio::test]
async fn a_tenant_sees_full_nodes_and_an_operator_all_peers() {
    let node = TestNode::start().await;
    let other = TestNode::start().await;
    let (tenant, neighbour) = (node.client("a").await, node.client("b").await);
    node.operator_client("a").operator().connect_peer(other.address()).await.unwrap();
    let ids = |peers: Vec<debros_client::rpc::Peer>| {
        peers.into_iter().map(|peer| peer.id).collect::<Vec<_>>()
    };
    let full_node = other.node().peer_id().to_string();
    // The other node identifies itself in a moment.
    let began = std::time::Instant::now();
    let seen = loop {
        let seen = ids(tenant.network().peers().await.unwrap());
        if !seen.is_empty() || began.elapsed() > TIMEOUT {
            break seen;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(seen, std::slice::from_ref(&full_node));
    let all = ids(node.operator_client("a").network().peers().await.unwrap());
    for peer in
        [full_node, tenant.peer_id().unwrap().to_string(), neighbour.peer_id().unwrap().to_string()]
    {
        assert!(all.contains(&peer), "{peer} in {all:?}");
    }
}

#[tokio::test]
async fn a_stopped_node_finishes_and_leaves_no_peer_info() {
    let node = TestNode::start().await;
    let client = node.client("a").await;
    client.storage().put("k", "v").await.unwrap();
    let peer_info = node.folder().join("node/peer.info");
    assert!(
        std::fs::read_to_string(&peer_info).unwrap().contains(&node.node().peer_id().to_string())
    );
    let local = node.operator_client("a");
    let mut subscription = local.pubsub().subscribe("t").await.unwrap();
    let stopping = tokio::spawn(node.shutdown());
    assert!(subscription.next().await.is_none(), "a subscription ends in order");
    stopping.await.unwrap();
    assert!(!peer_info.exists());
    assert_eq!(local.storage().get("k").await.unwrap_err().code, Code::Unavailable);
}
