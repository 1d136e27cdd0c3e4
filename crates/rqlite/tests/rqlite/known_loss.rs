//! The loss of rows of rqlite 8, and the guard against it.
//!
//! About 20 s: a snapshot gives up on a reader after 5 s, and the reader has to be there longer.

use super::common::{LONG, alone};
use crate::support::{own_address, program};
use base64::Engine as _;
use debros_rqlite::{ClientError, ReadLevel, RqliteClient, Statement};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

const ROWS: u64 = 2000;

async fn insert(client: &RqliteClient, rows: u64) {
    let insert = "INSERT INTO t (body) WITH RECURSIVE c (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < ?1) SELECT printf('%0300d', x) FROM c";
    client.execute(&[Statement::new(insert).bind(rows)], LONG).await.unwrap();
}

async fn count(client: &RqliteClient) -> Result<u64, ClientError> {
    let statement = Statement::new("SELECT count(*) FROM t");
    let result = client.query(&statement, ReadLevel::Strong, LONG).await?;
    Ok(result.values[0][0].as_u64().unwrap())
}

/// Reads the table, and goes on with the same read for 8 s: a snapshot waits 5 s for it. rqlited
/// itself ends it, so that it takes the same time on every machine.
async fn long_read(address: SocketAddr, password: String) {
    let sql = "WITH RECURSIVE c (x) AS (SELECT count(*) FROM t UNION ALL SELECT x + 1 FROM c) SELECT max(x) FROM c";
    let body = serde_json::json!([sql]).to_string();
    let user = base64::engine::general_purpose::STANDARD.encode(format!("member:{password}"));
    let request = format!(
        "POST /db/query?level=none&db_timeout=8s HTTP/1.1\r\nHost: rqlite\r\nConnection: close\r\nAuthorization: Basic {user}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("query timeout"), "{answer}");
}

/// Acknowledged rows, a snapshot that a long reader spoils, and one more snapshot after it.
async fn spoil(client: &RqliteClient, password: &str) {
    let create = Statement::new("CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT)");
    client.execute(&[create], LONG).await.unwrap();
    insert(client, 1).await;
    client.snapshot().await.unwrap();
    insert(client, ROWS).await;
    let reader = tokio::spawn(long_read(client.address(), password.to_owned()));
    // For the reader to be there; nothing shows that it is.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let spoiled = client.snapshot().await;
    assert!(spoiled.is_err(), "the reader was not in the way: {spoiled:?}");
    println!("{spoiled:?}");
    reader.await.unwrap();
    insert(client, 5).await;
    client.snapshot().await.unwrap();
    assert_eq!(count(client).await, Ok(ROWS + 6), "as long as it runs, all is there");
}

#[tokio::test(flavor = "multi_thread")]
async fn guarded_no_row_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let node = alone(folder.path()).await;
    // Set soon after it serves.
    let guard = folder.path().join("store/rsnapshots/FULL_NEEDED");
    wait_for(&guard).await;
    let auth = std::fs::read(folder.path().join("auth.json")).unwrap();
    let auth: serde_json::Value = serde_json::from_slice(&auth).unwrap();
    spoil(&node.client(), auth[0]["password"].as_str().unwrap()).await;
    // A snapshot removed it.
    wait_for(&guard).await;
    node.stop(Duration::from_secs(10)).await;
    let node = alone(folder.path()).await;
    assert_eq!(count(&node.client()).await, Ok(ROWS + 6));
    node.stop(Duration::from_secs(10)).await;
}

async fn wait_for(path: &Path) {
    let until = Instant::now() + LONG;
    while !path.exists() {
        assert!(Instant::now() < until, "{} is not made", path.display());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// An rqlited without any supervision.
async fn bare(folder: &Path) -> (Child, RqliteClient) {
    let http = own_address();
    let child = Command::new(program())
        .args(["-node-id", "n1", "-http-addr", &http.to_string()])
        .args(["-raft-addr", &own_address().to_string()])
        .arg(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let client = RqliteClient::new(http, "nobody", "");
    let until = Instant::now() + LONG;
    while count(&client).await.is_err() {
        let read = Statement::new("SELECT 1");
        if client.query(&read, ReadLevel::Strong, LONG).await.is_ok() {
            break;
        }
        assert!(Instant::now() < until, "it does not start");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    (child, client)
}

/// If this fails with another rqlite, the guard has had its time.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_guard_acknowledged_rows_are_lost() {
    let folder = tempfile::tempdir().unwrap();
    let (child, client) = bare(folder.path()).await;
    spoil(&client, "").await;
    end(child);
    let (child, client) = bare(folder.path()).await;
    let left = count(&client).await;
    end(child);
    println!("{left:?} of {} rows are left", ROWS + 6);
    assert!(left != Ok(ROWS + 6), "no row was lost");
}

fn end(mut child: Child) {
    super::common::signal(child.id(), rustix::process::Signal::TERM);
    child.wait().unwrap();
}
