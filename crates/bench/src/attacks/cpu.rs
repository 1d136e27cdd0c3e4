//! Attacks on the node's time: keeping threads and the writer busy.

use super::attacker::Attacker;
use anyhow::Result;
use std::time::Duration;

/// A statement that ends only when the node ends it.
const ENDLESS: &str =
    "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT count(*) FROM c";
const VALUE: usize = 4 << 20;
/// Keys of large values: they replace each other, so that space does not run out.
const KEYS: usize = 4;

/// Endless reads, one at a time of each caller.
pub(crate) async fn read_endlessly(attacker: Attacker) -> Result<()> {
    for one in attacker.callers() {
        attacker.spawn(async move {
            loop {
                match one.query(ENDLESS).await {
                    Ok((status, _)) => one.tally.count(format!("endless reads ended: {status}")),
                    Err(_) => one.tally.count("connections broken"),
                }
                // A refused connection must not become an attack on the attacker's own processor.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
    }
    Ok(())
}

/// A stream of values of 4 MiB.
pub(crate) async fn put_large_values(attacker: Attacker) -> Result<()> {
    for number in 0..KEYS {
        let one = attacker.clone();
        attacker.spawn(async move {
            let (target, body) = (format!("/v1/storage?key=stream-{number}"), vec![b'x'; VALUE]);
            loop {
                let Ok(mut stream) = one.connect().await else {
                    one.tally.count("connections refused");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                };
                loop {
                    match one.send_request_on(&mut stream, "PUT", &target, "", &body).await {
                        Ok((200..=299, _)) => one.tally.add("MiB put", (VALUE >> 20) as u64),
                        Ok((status, _)) => {
                            one.tally.count(format!("puts refused: {status}"));
                            tokio::time::sleep(Duration::from_millis(10)).await;
                            break;
                        }
                        Err(_) => {
                            one.tally.count("connections broken");
                            tokio::time::sleep(Duration::from_millis(10)).await;
                            break;
                        }
                    }
                }
            }
        });
    }
    Ok(())
}
