//! What is written through one way in is read through every other.

use crate::network::{Network, Ways};
use crate::support::http::Answer;
use crate::support::socket::{Frame, Socket};
use debros_client::PubsubEvent;
use debros_proto::json::encode_base64;
use serde_json::json;

#[tokio::test]
async fn a_value_put_through_one_way_is_read_through_all() {
    let network = Network::start();
    let Ways { inside, separate, cli, library, .. } = network.ways("ways").await;
    inside.put_value("inside", "by inside").await.ok();
    separate.put_value("separate", "by separate").await.ok();
    library.storage().put("library", "by library").await.unwrap();
    cli.text(&["storage", "put", "cli", "by cli"]);
    for key in ["inside", "separate", "library", "cli"] {
        let value = format!("by {key}");
        assert_eq!(inside.get_value(key).await.ok().body, value.as_bytes());
        assert_eq!(separate.get_value(key).await.ok().body, value.as_bytes());
        assert_eq!(library.storage().get(key).await.unwrap().unwrap().value, value);
        assert_eq!(cli.bytes(&["storage", "get", key], b""), value.as_bytes());
    }
    // Versions are the same everywhere, so a condition made on one way holds on another.
    let version = library.storage().get("cli").await.unwrap().unwrap().version;
    let tag = format!("\"{version}\"");
    for http in [&inside, &separate] {
        assert_eq!(http.get_value("cli").await.headers["etag"], tag.as_str());
    }
    let conditional = inside
        .request(reqwest::Method::PUT, "/v1/storage?key=cli")
        .header("If-Match", &tag)
        .body("newer");
    Answer::of(conditional.send().await.unwrap()).await.ok();
    let stale = separate
        .request(reqwest::Method::PUT, "/v1/storage?key=cli")
        .header("If-Match", &tag)
        .body("stale");
    Answer::of(stale.send().await.unwrap()).await.fails(412, "precondition_failed");
    assert_eq!(cli.bytes(&["storage", "get", "cli"], b""), b"newer");

    assert!(library.storage().delete("inside").await.unwrap());
    cli.text(&["storage", "delete", "separate"]);
    for key in ["inside", "separate"] {
        inside.get_value(key).await.fails(404, "not_found");
        separate.get_value(key).await.fails(404, "not_found");
        assert_eq!(cli.run(&["storage", "get", key], b"").status.code(), Some(4));
    }
    let keys = separate.get("/v1/storage/list").await.ok().json()["keys"].clone();
    assert_eq!(keys, json!(["cli", "library"]));
}

#[tokio::test]
async fn sql_written_through_one_way_is_read_through_all() {
    let network = Network::start();
    let Ways { inside, separate, cli, library, .. } = network.ways("ways").await;
    inside.create("CREATE TABLE t (way TEXT PRIMARY KEY)").await;
    let insert = "INSERT INTO t VALUES (?)";
    inside.query(insert, json!(["inside"])).await.ok();
    separate.query(insert, json!(["separate"])).await.ok();
    library.database().query(insert, ["library".into()]).await.unwrap();
    cli.text(&["query", insert, "cli"]);
    let expected = [json!(["cli"]), json!(["inside"]), json!(["library"]), json!(["separate"])];
    let select = "SELECT way FROM t ORDER BY way";
    assert_eq!(inside.rows(select, json!([])).await, expected);
    assert_eq!(separate.rows(select, json!([])).await, expected);
    assert_eq!(cli.json(&["query", select])["rows"], json!(expected));
    let rows = library.database().query(select, []).await.unwrap().rows;
    assert_eq!(serde_json::to_value(rows).unwrap(), json!(expected));
    for http in [&inside, &separate] {
        http.query(insert, json!(["cli"])).await.fails(409, "constraint");
        http.query("SELECT nonsense", json!([])).await.fails(400, "sql_error");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_published_through_one_way_arrives_through_all() {
    let network = Network::start();
    let Ways { inside, separate, cli, library, key } = network.ways("ways").await;
    let mut on_inside = Socket::open(network.node.address, &key, "news").await;
    let mut on_separate = Socket::open(network.gateway.address, &key, "news").await;
    let mut on_library = library.pubsub().subscribe("news").await.unwrap();
    let on_cli = cli.start(&["pubsub", "subscribe", "news"]);
    // It has subscribed when it says so.
    while !on_cli.output().to_lowercase().contains("subscribed") {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }

    let publish =
        |data: &str| json!({ "topic": "news", "data_base64": encode_base64(data.as_bytes()) });
    inside.post("/v1/pubsub/publish", &publish("by inside")).await.ok();
    separate.post("/v1/pubsub/publish", &publish("by separate")).await.ok();
    on_inside.send(b"by a socket inside").await;
    assert_eq!(next(&mut on_inside, 3).await.last().unwrap(), "by a socket inside");
    on_separate.send(b"by a socket elsewhere").await;
    assert_eq!(next(&mut on_separate, 4).await.last().unwrap(), "by a socket elsewhere");
    library.pubsub().publish("news", "by library").await.unwrap();
    cli.text(&["pubsub", "publish", "news", "by cli"]);

    assert_eq!(next(&mut on_inside, 3).await, ["by a socket elsewhere", "by library", "by cli"]);
    assert_eq!(next(&mut on_separate, 2).await, ["by library", "by cli"]);
    let all = [
        "by inside",
        "by separate",
        "by a socket inside",
        "by a socket elsewhere",
        "by library",
        "by cli",
    ];
    for expected in all {
        assert_eq!(
            on_library.next().await.unwrap().unwrap(),
            PubsubEvent::Message(expected.into())
        );
    }
    while !on_cli.output().contains("by cli") {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let shown = on_cli.output();
    let places: Vec<Option<usize>> = all.iter().map(|message| shown.find(message)).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{shown}");
    for http in [&inside, &separate] {
        assert_eq!(http.get("/v1/pubsub/topics").await.ok().json()["topics"], json!(["news"]));
    }
}

/// The next messages of a socket, as text.
async fn next(socket: &mut Socket, count: usize) -> Vec<String> {
    let mut texts = Vec::with_capacity(count);
    for _ in 0..count {
        match socket.next().await {
            Frame::Binary(data) => texts.push(String::from_utf8(data).unwrap()),
            other => panic!("{other:?} after {texts:?}"),
        }
    }
    texts
}

#[tokio::test]
async fn the_network_looks_the_same_through_all_ways() {
    let network = Network::start();
    let Ways { inside, separate, cli, library, .. } = network.ways("ways").await;
    let id = network.node.peer().rsplit_once("/p2p/").unwrap().1.to_owned();
    assert_eq!(library.network().status().await.unwrap().peer_id, id);
    for http in [&inside, &separate] {
        let status = http.get("/v1/network/status").await.ok().json();
        assert_eq!(status["connected"], true, "{status}");
        assert!(status["node_id"].as_str().unwrap().contains(&id), "{status}");
        assert_eq!(http.get("/health").await.ok().json()["status"], "ok");
        let peers = http.get("/v1/network/peers").await.ok().json();
        assert!(peers.is_array(), "{peers}");
        http.post("/v1/network/connect", &json!({ "multiaddr": network.node.peer() }))
            .await
            .fails(403, "forbidden");
    }
    assert!(cli.text(&["status"]).contains(&id));
    assert!(cli.text(&["health"]).contains("ok"));
    // The gateway and the library are connected to the node, and it says so to its operator and to
    // nobody else.
    assert_eq!(library.network().peers().await.unwrap(), []);
    let operator = std::fs::read_to_string(network.node.data_dir.join("operator.key")).unwrap();
    let peers = network.library("ways", operator.trim()).await.network().peers().await.unwrap();
    let own = library.peer_id().unwrap().to_string();
    assert!(peers.iter().any(|peer| peer.id == own && peer.connected), "{peers:?}");
}
