//! Attacks on the space that the databases may take.

use super::attacker::Attacker;
use anyhow::{Result, ensure};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long an attacker tries to fill all space.
const FILLING: Duration = Duration::from_secs(30);
const VALUE: usize = 4 << 20;
/// When no more of a size fits, a quarter of it is tried, down to this.
const SMALLEST: usize = 1 << 10;
const JSON: &str = "Content-Type: application/json\r\n";

/// Values of 4 MiB, each under a key of its own.
pub(crate) async fn fill_with_values(attacker: Attacker) -> Result<()> {
    fill_until_refused(attacker, 4, "KiB stored", VALUE, |number, size| FillRequest {
        method: "PUT",
        target: format!("/v1/storage?key=fill-{number}"),
        headers: String::new(),
        body: vec![b'x'; size],
    })
    .await
}

/// Rows of 4 MiB in a table of its own.
pub(crate) async fn fill_with_rows(attacker: Attacker) -> Result<()> {
    let (status, body) = attacker.query("CREATE TABLE fill (a)").await?;
    ensure!(status == 200, "CREATE TABLE: {status} {body}");
    fill_until_refused(attacker, 4, "KiB inserted", VALUE, |_, size| FillRequest {
        method: "POST",
        target: "/v1/db/query".to_owned(),
        headers: JSON.to_owned(),
        body: serde_json::json!({ "sql": format!("INSERT INTO fill VALUES (zeroblob({size}))") })
            .to_string()
            .into(),
    })
    .await
}

/// One small value again and again, each time with another idempotency key.
pub(crate) async fn fill_with_records(attacker: Attacker) -> Result<()> {
    fill_until_refused(attacker, 64, "records made", SMALLEST, |number, _| FillRequest {
        method: "PUT",
        target: "/v1/storage?key=record".to_owned(),
        headers: format!("Idempotency-Key: {number:0>255}\r\n"),
        body: b"x".to_vec(),
    })
    .await
}

/// A write of an attacker.
struct FillRequest {
    method: &'static str,
    target: String,
    headers: String,
    body: Vec<u8>,
}

/// Writes on so many lanes at a time, and returns when a write of the smallest size is refused, or
/// [`FILLING`] is over. The lanes try on, more slowly, until the attack ends. `success` is the name
/// under which what was written is counted.
async fn fill_until_refused(
    attacker: Attacker,
    lanes: usize,
    success: &'static str,
    largest: usize,
    write: fn(u64, usize) -> FillRequest,
) -> Result<()> {
    let (next, refused) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let give_up = Instant::now() + FILLING;
    for _ in 0..lanes {
        let (one, next, refused) = (attacker.clone(), Arc::clone(&next), Arc::clone(&refused));
        attacker.spawn(async move {
            let (mut stream, mut size) = (None, largest);
            loop {
                let FillRequest { method, target, headers, body } =
                    write(next.fetch_add(1, Ordering::Relaxed), size);
                let mut kept = match stream.take() {
                    Some(kept) => kept,
                    None => match one.connect().await {
                        Ok(fresh) => fresh,
                        Err(_) => {
                            one.tally.count("connections refused");
                            tokio::time::sleep(Duration::from_millis(100)).await;
                            continue;
                        }
                    },
                };
                match one.send_request_on(&mut kept, method, &target, &headers, &body).await {
                    Ok((200..=299, _)) => {
                        one.tally.add(success, (size / SMALLEST) as u64);
                        stream = Some(kept);
                        continue;
                    }
                    Ok((status, answer)) => {
                        one.tally.count(format!("refused: {status} {}", error_code_in(&answer)));
                        // "Come back later" is not the end of the space.
                        if !matches!(status, 429 | 503) {
                            if size > SMALLEST {
                                size /= 4;
                                continue;
                            }
                            refused.store(true, Ordering::Relaxed);
                        }
                    }
                    Err(_) => one.tally.count("connections broken"),
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
    }
    while !refused.load(Ordering::Relaxed) && Instant::now() < give_up {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    if !refused.load(Ordering::Relaxed) {
        attacker.tally.count(format!("not refused within {} s", FILLING.as_secs()));
    }
    Ok(())
}

/// Whether an attacker that filled everything with values can make room again.
pub(crate) async fn delete_a_value(attacker: Attacker) {
    count_deletion(
        &attacker,
        attacker.send_request("DELETE", "/v1/storage?key=fill-0", "", b"").await,
    );
}

/// Whether an attacker that filled everything with rows can make room again.
pub(crate) async fn delete_rows(attacker: Attacker) {
    count_deletion(&attacker, attacker.query("DELETE FROM fill").await);
}

/// Whether an attacker that filled everything with records can still delete its value.
pub(crate) async fn delete_the_value_of_records(attacker: Attacker) {
    count_deletion(
        &attacker,
        attacker.send_request("DELETE", "/v1/storage?key=record", "", b"").await,
    );
}

fn count_deletion(attacker: &Attacker, outcome: Result<(u16, String)>) {
    let outcome = match outcome {
        Ok((status, answer)) => format!("{status} {}", error_code_in(&answer)),
        Err(error) => error.root_cause().to_string(),
    };
    attacker.tally.count(format!("its own delete: {}", outcome.trim_end()));
}

/// The code in an error's body.
fn error_code_in(answer: &str) -> String {
    let parsed: serde_json::Value = serde_json::from_str(answer).unwrap_or_default();
    parsed["code"].as_str().unwrap_or_default().to_owned()
}
