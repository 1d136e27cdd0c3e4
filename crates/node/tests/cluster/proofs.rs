//! Who is a node, at the calls themselves.

use crate::support::{LONG, first_node, join};
use debros_client::rpc::request::Call;
use debros_client::rpc::{self, Request, response};
use debros_client::{Code, Error};
use debros_p2p::{Channel, Host, HostConfig, Keypair, PeerId};
use debros_proto::call_kinds::{CALL_KINDS, CallRequirement};
use debros_testkit::TestNode;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use std::path::Path;

pub(crate) async fn call(channel: &Channel, call: Call) -> Result<response::Result, Error> {
    let request = Request { call: Some(call), ..Default::default() };
    channel.call(request, LONG).await.map(|answer| answer.result.unwrap())
}

/// A host of its own, with an identity and a connection to a node.
async fn connect(keypair: Keypair, node: &TestNode) -> (Host, Channel) {
    let host = Host::start(HostConfig::client(keypair, "test"), None).await.unwrap();
    let peer = host.connect(node.address().parse().unwrap(), LONG).await.unwrap();
    let channel = host.open(peer).await.unwrap();
    (host, channel)
}

/// What is in a node's key file.
pub(crate) struct KeyFile {
    pub(crate) cluster_id: String,
    pub(crate) secret: [u8; 32],
}

impl KeyFile {
    pub(crate) fn read(folder: &Path) -> Self {
        let text = std::fs::read_to_string(folder.join("cluster.key")).unwrap();
        let line = |word: &str| {
            let line = text.lines().find(|line| line.starts_with(word)).unwrap();
            line.rsplit_once(' ').unwrap().1.to_owned()
        };
        let secret = debros_proto::hex::decode(&line("key ")).unwrap();
        Self { cluster_id: line("cluster "), secret }
    }

    fn derive(&self, label: &str) -> [u8; 32] {
        // HKDF-SHA-256 with one block, written out: the wire format is pinned here.
        let mac = |key: &[u8], parts: &[&[u8]]| -> [u8; 32] {
            let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
            parts.iter().for_each(|part| mac.update(part));
            mac.finalize().into_bytes().into()
        };
        let extracted = mac(&[0; 32], &[&self.secret]);
        mac(&extracted, &[b"debros cluster v1: ", label.as_bytes(), &[1]])
    }

    pub(crate) fn id(&self) -> Vec<u8> {
        self.derive("public id")[..8].to_vec()
    }

    pub(crate) fn proof(
        &self,
        direction: &str,
        (dialer, dialer_nonce): (PeerId, &[u8]),
        (listener, listener_nonce): (PeerId, &[u8]),
    ) -> Vec<u8> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.derive("proof")).unwrap();
        let (dialer, listener) = (dialer.to_bytes(), listener.to_bytes());
        let domain = b"debros cluster proof v1".as_slice();
        let fields: [&[u8]; 6] =
            [domain, direction.as_bytes(), &dialer, &listener, dialer_nonce, listener_nonce];
        for field in fields {
            mac.update(&(field.len() as u64).to_be_bytes());
            mac.update(field);
        }
        mac.finalize().into_bytes().to_vec()
    }

    pub(crate) fn hello(&self, name: &str) -> rpc::NodeHelloRequest {
        rpc::NodeHelloRequest {
            cluster_id: self.cluster_id.clone(),
            nonce: vec![7; 32].into(),
            protocol_version: 1,
            key_ids: vec![self.id().into()],
            name: name.into(),
            incarnation: vec![9; 16].into(),
        }
    }
}

/// The first call of a proof with the identity and the key that a node has on the disk, from
/// another process than that node's.
pub(crate) async fn hello_as(folder: &Path, to: &TestNode, name: &str) -> Result<(), Error> {
    let keypair = debros_p2p::identity::load_or_create(&folder.join("identity.key")).unwrap();
    let (_host, channel) = connect(keypair, to).await;
    call(&channel, Call::NodeHello(KeyFile::read(folder).hello(name))).await.map(|_| ())
}

/// Whoever passes a call on is believed about its caller, its operator among them.
#[tokio::test]
async fn only_a_proven_node_passes_calls_on() {
    let one = first_node("one").await;
    let two = join("two", &one).await;
    crate::support::all_connected(&[&one, &two]).await;
    let admin = one.api_key("a").await;
    let passed_on = |call: Call, credential: &str, operator: bool| Request {
        call: Some(call),
        credential: credential.to_owned(),
        relayed: Some(rpc::RelayedCaller { operator }),
        ..Default::default()
    };
    let who = || Call::WhoAmI(rpc::WhoAmIRequest::default());
    let (_host, stranger) = connect(Keypair::generate_ed25519(), &one).await;
    let inside = Channel::local(one.node().handler());
    for channel in [&stranger, &inside] {
        for (call, credential, operator) in [
            (who(), "", true),
            (who(), admin.as_str(), false),
            (who(), one.node().operator_credential(), false),
            (Call::Health(rpc::HealthRequest::default()), "", false),
        ] {
            let refused = channel.call(passed_on(call, credential, operator), LONG).await;
            assert_eq!(refused.unwrap_err().code, Code::Forbidden);
        }
    }

    let proven = two.node().members().channel(&one.node().peer_id()).unwrap();
    let identity = async |credential: &str, operator| {
        let answer = proven.call(passed_on(who(), credential, operator), LONG).await?;
        let Some(response::Result::WhoAmI(who)) = answer.result else { panic!("{answer:?}") };
        Ok::<_, Error>((who.namespace, who.operator))
    };
    assert_eq!(identity("", true).await.unwrap(), (String::new(), true));
    assert_eq!(identity(&admin, false).await.unwrap(), ("a".to_owned(), false));
    assert_eq!(identity("", false).await.unwrap_err().code, Code::Unauthenticated);
    // A caller is no node, whoever passes its call on.
    let nodes = Call::ExchangeNodes(rpc::ExchangeNodesRequest::default());
    let refused = proven.call(passed_on(nodes, "", true), LONG).await;
    assert_eq!(refused.unwrap_err().code, Code::Forbidden);
    // It may name any site, as a gateway inside the node; a peer may not.
    let challenge = || {
        Call::Challenge(rpc::ChallengeRequest {
            wallet: "0x7e5f4552091a69125d5dfcb7b8c2659029395bdf".to_owned(),
            namespace: "a".to_owned(),
            domain: "gateway.example".to_owned(),
            uri: "https://gateway.example/".to_owned(),
            ..Default::default()
        })
    };
    let request = Request { call: Some(challenge()), ..Default::default() };
    assert_eq!(stranger.call(request, LONG).await.unwrap_err().code, Code::Forbidden);
    proven.call(passed_on(challenge(), "", false), LONG).await.unwrap();
}

#[tokio::test]
async fn only_a_proven_node_makes_the_calls_of_nodes() {
    let one = first_node("one").await;
    let two = join("two", &one).await;
    crate::support::all_connected(&[&one, &two]).await;
    let calls = || {
        [
            Call::ExchangeNodes(rpc::ExchangeNodesRequest::default()),
            Call::ReplaceClusterKey(rpc::ReplaceClusterKeyRequest { key: None }),
            Call::FollowLog(rpc::FollowLogRequest {}),
            Call::FetchFiles(rpc::FetchFilesRequest::default()),
            Call::Checksum(rpc::ChecksumRequest::default()),
            Call::DataHealth(rpc::DataHealthRequest {}),
            Call::LeaderPosition(rpc::LeaderPositionRequest::default()),
            Call::LeaderWrite(rpc::LeaderWriteRequest::default()),
        ]
    };
    let kinds = CALL_KINDS.iter().filter(|kind| kind.requires == CallRequirement::Node).count();
    assert_eq!(calls().len(), kinds, "a new call of nodes has to be tried here");
    let (_host, channel) = connect(Keypair::generate_ed25519(), &one).await;
    let admin = one.api_key("a").await;
    for credential in ["", "x", admin.as_str(), one.node().operator_credential()] {
        let mut said = Vec::new();
        for call in calls() {
            let request = Request {
                call: Some(call),
                credential: credential.to_owned(),
                ..Default::default()
            };
            said.push(channel.call(request, LONG).await.unwrap_err());
        }
        assert!(said.iter().all(|error| error.code == Code::Forbidden && *error == said[0]));
    }
    // Not from within the process either.
    let local = Channel::local(one.node().handler());
    for call in calls() {
        assert_eq!(self::call(&local, call).await.unwrap_err().code, Code::Forbidden);
    }
    // The node of the cluster may.
    let member = two.node().members().channel(&one.node().peer_id()).unwrap();
    call(&member, Call::ExchangeNodes(rpc::ExchangeNodesRequest::default())).await.unwrap();
}

/// A node's identity in a process that the test controls.
async fn impostor_free_node() -> (TestNode, Keypair, KeyFile) {
    let one = first_node("one").await;
    let two = join("two", &one).await;
    crate::support::all_connected(&[&one, &two]).await;
    let folder = two.folder().join("node");
    let keypair = debros_p2p::identity::load_or_create(&folder.join("identity.key")).unwrap();
    let key = KeyFile::read(&folder);
    two.shutdown().await;
    crate::support::connected(&one, &[]).await;
    (one, keypair, key)
}

#[tokio::test]
async fn a_proof_is_good_once_on_its_connection_and_in_its_direction() {
    let (one, keypair, key) = impostor_free_node().await;
    let (own, other) = (keypair.public().to_peer_id(), one.node().peer_id());
    let (_host, channel) = connect(keypair.clone(), &one).await;
    let (_host_two, channel_two) = connect(keypair.clone(), &one).await;
    let hello = || Call::NodeHello(key.hello("two"));
    let begin = async |channel: &Channel| match call(channel, hello()).await.unwrap() {
        response::Result::NodeHello(answer) => answer,
        other => panic!("{other:?}"),
    };
    let prove = async |channel: &Channel, proof: Vec<u8>| {
        call(channel, Call::NodeProof(rpc::NodeProofRequest { proof: proof.into() })).await
    };
    let exchange =
        async |channel: &Channel| call(channel, Call::ExchangeNodes(Default::default())).await;
    let nonce = [7; 32];
    let answer = begin(&channel).await;
    let good = |answer: &rpc::NodeHelloResponse| {
        key.proof("from dialer", (own, &nonce), (other, &answer.nonce))
    };
    assert_eq!(
        answer.proof,
        key.proof("from listener", (own, &nonce), (other, &answer.nonce)),
        "the other side proves itself first"
    );
    // Sent back.
    assert_eq!(prove(&channel, answer.proof.to_vec()).await.unwrap_err().code, Code::Forbidden);
    // A failed one is used up.
    assert_eq!(prove(&channel, good(&answer)).await.unwrap_err().code, Code::Forbidden);
    // On another connection than the one that it was begun on.
    let answer = begin(&channel).await;
    assert_eq!(prove(&channel_two, good(&answer)).await.unwrap_err().code, Code::Forbidden);
    assert_eq!(exchange(&channel_two).await.unwrap_err().code, Code::Forbidden);
    assert!(prove(&channel, good(&answer)).await.is_ok());
    exchange(&channel).await.unwrap();
    // Sent again: on the same connection, and after a new beginning, whose nonce is another.
    assert_eq!(prove(&channel, good(&answer)).await.unwrap_err().code, Code::Forbidden);
    let next = begin(&channel_two).await;
    assert_ne!(next.nonce, answer.nonce);
    assert_eq!(prove(&channel_two, good(&answer)).await.unwrap_err().code, Code::Forbidden);
}

#[tokio::test]
async fn another_key_another_cluster_and_another_peer_are_refused_by_name() {
    let (one, keypair, key) = impostor_free_node().await;
    let (_host, channel) = connect(keypair.clone(), &one).await;
    let refused = async |channel: &Channel, hello| {
        call(channel, Call::NodeHello(hello)).await.unwrap_err().message
    };
    let mut hello = key.hello("two");
    hello.key_ids = vec![vec![1; 8].into()];
    let error = refused(&channel, hello).await;
    assert!(error.contains("keys of the two nodes differ"), "{error}");
    let mut hello = key.hello("two");
    hello.cluster_id = "0".repeat(32);
    let error = refused(&channel, hello).await;
    assert!(error.contains("this node is of the cluster"), "{error}");
    let mut hello = key.hello("two");
    hello.protocol_version = 2;
    assert!(refused(&channel, hello).await.contains("version 2"));
    let error = refused(&channel, key.hello("one")).await;
    assert!(error.contains("has the name \"one\""), "{error}");
    // Who holds the key, and is not in the register.
    let (_host, stranger) = connect(Keypair::generate_ed25519(), &one).await;
    let error = refused(&stranger, key.hello("three")).await;
    assert!(error.contains("has to join with a token"), "{error}");
    // A wrong key under the right id.
    let wrong = KeyFile { cluster_id: key.cluster_id.clone(), secret: [3; 32] };
    let answer = call(&channel, Call::NodeHello(key.hello("two"))).await.unwrap();
    let response::Result::NodeHello(answer) = answer else { panic!("{answer:?}") };
    let (own, other) = (keypair.public().to_peer_id(), one.node().peer_id());
    let proof = wrong.proof("from dialer", (own, &[7; 32]), (other, &answer.nonce));
    let proof = Call::NodeProof(rpc::NodeProofRequest { proof: proof.into() });
    let error = call(&channel, proof).await.unwrap_err();
    assert!(error.message.contains("does not hold"), "{error}");
}

#[tokio::test]
async fn nodes_have_a_place_where_all_connections_are_in_use() {
    let one = TestNode::start_with(|config| {
        config.node_id = "one".into();
        config.max_connections = 2;
    })
    .await;
    one.operator_client("").cluster().init().await.unwrap();
    let two = join("two", &one).await;
    let three = join("three", &one).await;
    crate::support::all_connected(&[&one, &two, &three]).await;
    // The places of others are all there.
    let _clients = [
        connect(Keypair::generate_ed25519(), &one).await,
        connect(Keypair::generate_ed25519(), &one).await,
    ];
    let two = two.restart_with(|config| config.node_id = "two".into()).await;
    crate::support::all_connected(&[&one, &two, &three]).await;
}
