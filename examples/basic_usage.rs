//! A walk through everything that an application does: storage, SQL, pub/sub and network
//! information.
//!
//! Run it beside `make dev`:
//!
//! ```console
//! make run-example
//! ```
//!
//! By hand it needs to know a node and an API key or an access token; the namespace is the
//! credential's, or the one that `DEBROS_NAMESPACE` names:
//!
//! ```console
//! DEBROS_BOOTSTRAP_PEERS=/ip4/127.0.0.1/tcp/4001/p2p/<peer id> DEBROS_API_KEY=ak_… \
//!     cargo run -p debros-client --example basic_usage
//! ```

// An example speaks to a person.
#![allow(clippy::print_stdout)]

use debros_client::{Client, Config, PubsubEvent, Result};
use std::env;

#[tokio::main]
async fn main() -> Result<()> {
    let peers = required("DEBROS_BOOTSTRAP_PEERS");
    let key = required("DEBROS_API_KEY");
    // A credential belongs to one namespace, which is meant when none is named.
    let mut config = Config::new(env::var("DEBROS_NAMESPACE").unwrap_or_default()).credential(key);
    for peer in peers.split(',') {
        config = config.bootstrap_peer(peer.trim());
    }
    let client = Client::connect(config).await?;
    println!("connected to {}", client.node().map_or_else(|| "?".into(), |node| node.to_string()));
    let who = client.network().who_am_i().await?;
    println!("acting in namespace {} as {} ({})", who.namespace, who.subject, who.role);

    storage(&client).await?;
    database(&client).await?;
    pubsub(&client).await?;
    network(&client).await?;

    client.close().await;
    Ok(())
}

async fn storage(client: &Client) -> Result<()> {
    let storage = client.storage();
    let put = storage.put("example/greeting", "hello").await?;
    println!("storage: stored {} bytes as version {}", put.size, put.version);
    if let Some(entry) = storage.get("example/greeting").await? {
        println!("storage: read back {:?}", entry.value);
    }
    println!("storage: keys under example/: {:?}", storage.list("example/", 0, "").await?.keys);
    println!("storage: deleted: {}", storage.delete("example/greeting").await?);
    Ok(())
}

async fn database(client: &Client) -> Result<()> {
    let database = client.database();
    database
        .create_table(
            "CREATE TABLE IF NOT EXISTS example_users (id INTEGER PRIMARY KEY, name TEXT NOT NULL)",
        )
        .await?;
    let insert =
        database.query("INSERT INTO example_users (name) VALUES (?)", ["Ada".into()]).await?;
    println!("database: inserted row {}", insert.last_insert_id.unwrap_or_default());
    // All or none: these two stand or fall together.
    database
        .transaction([
            "UPDATE example_users SET name = 'Ada Lovelace' WHERE name = 'Ada'",
            "INSERT INTO example_users (name) VALUES ('Grace Hopper')",
        ])
        .await?;
    let users = database.query("SELECT id, name FROM example_users ORDER BY id", []).await?;
    for row in &users.rows {
        println!("database: {:?} {:?}", row.values[0].as_integer(), row.values[1].as_text());
    }
    database.drop_table("example_users").await
}

async fn pubsub(client: &Client) -> Result<()> {
    let pubsub = client.pubsub();
    let mut subscription = pubsub.subscribe("example/news").await?;
    pubsub.publish("example/news", "it works").await?;
    match subscription.next().await {
        Some(Ok(PubsubEvent::Message(message))) => println!("pubsub: received {message:?}"),
        Some(Ok(other)) => println!("pubsub: {other:?}"),
        Some(Err(error)) => return Err(error),
        None => println!("pubsub: the subscription ended"),
    }
    println!("pubsub: live topics: {:?}", pubsub.topics().await?);
    Ok(())
}

async fn network(client: &Client) -> Result<()> {
    let status = client.network().status().await?;
    println!(
        "network: node {} is up for {} ms with {} peers",
        status.node_id, status.uptime_ms, status.peer_count
    );
    for peer in client.network().peers().await? {
        println!("network: peer {} ({}) connected: {}", peer.id, peer.agent, peer.connected);
    }
    for check in client.health().await?.checks {
        println!(
            "health: {} {} in {} µs",
            check.name,
            if check.ok { "ok" } else { "FAILED" },
            check.took_us
        );
    }
    Ok(())
}

fn required(variable: &str) -> String {
    env::var(variable).unwrap_or_else(|_| {
        panic!("set {variable}: see the head of this example, or run `make run-example`")
    })
}
