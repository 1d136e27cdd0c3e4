//! A disk that is really full: a small file system of its own, in a mount namespace that ends with
//! the test. Where none can be made, the test says that it was left out.

#![allow(clippy::print_stdout, reason = "whoever runs the tests has to know what was not tested")]

#[allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]
mod support;

use reqwest::Method;
use serde_json::json;
use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::Path;
use std::process::Command;
use support::Node;
use support::http::{Answer, Http};

const TEST: &str = "a_full_disk_loses_nothing_and_takes_again_when_there_is_room";
/// Where the small disk is, in the process that has one.
const DISK: &str = "FULL_DISK_TEST_FOLDER";
const VALUE: usize = 60_000;
const ROW: usize = 20_000;

#[test]
fn a_full_disk_loses_nothing_and_takes_again_when_there_is_room() {
    match std::env::var_os(DISK) {
        Some(disk) => {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(on_a_small_disk(Path::new(&disk)));
        }
        None => run_again_with_a_small_disk(),
    }
}

/// Runs this test once more, in a process whose view of the file system has a small disk in it.
fn run_again_with_a_small_disk() {
    let folder = tempfile::tempdir().unwrap();
    let mount = "mount -t tmpfs -o size=12m tmpfs \"$0\"";
    // As root of a user namespace, which anyone may be on most systems; else as root.
    let ways = [&["--user", "--map-root-user", "--mount"][..], &["--mount"]];
    let unshare = |flags: &[&str], script: &str| {
        let mut command = Command::new("unshare");
        command.args(flags).args(["sh", "-c", script]).arg(folder.path());
        command
    };
    let possible = ways
        .into_iter()
        .find(|flags| unshare(flags, mount).output().is_ok_and(|output| output.status.success()));
    let Some(flags) = possible else {
        // Not by a macro: what those write is only shown when a test fails.
        let _ = writeln!(std::io::stderr(), "skipped: {TEST}: no file system can be mounted here");
        return;
    };
    let status = unshare(flags, &format!("{mount} && exec \"$@\""))
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", TEST, "--nocapture"])
        .env(DISK, folder.path())
        .status()
        .unwrap();
    assert!(status.success(), "the test failed in the process with a small disk");
}

/// What was acknowledged.
#[derive(Default)]
struct Acknowledged {
    values: Vec<usize>,
    rows: Vec<i64>,
}

async fn put(http: &Http, number: usize) -> Answer {
    http.put_value(&format!("k{number}"), vec![number as u8; VALUE]).await
}

async fn insert(http: &Http, number: i64) -> Answer {
    http.query("INSERT INTO t VALUES (?, zeroblob(?))", json!([number, ROW])).await
}

impl Acknowledged {
    /// Writes until nothing more is taken, values and rows in turn.
    async fn fill(&mut self, http: &Http) {
        let (mut puts, mut inserts) = (true, true);
        let first = self.values.len() + self.rows.len();
        for number in first.. {
            if puts {
                let answer = put(http, number).await;
                match answer.status {
                    201 => self.values.push(number),
                    _ => puts = full(answer),
                }
            }
            if inserts {
                let number = number as i64;
                let answer = insert(http, number).await;
                match answer.status {
                    200 => self.rows.push(number),
                    _ => inserts = full(answer),
                }
            }
            if !puts && !inserts {
                return;
            }
            assert!(number < first + 10_000, "the disk does not fill");
        }
    }

    async fn assert_there(&self, http: &Http) {
        for number in &self.values {
            let value = http.get_value(&format!("k{number}")).await.ok();
            assert!(value.body == vec![*number as u8; VALUE], "k{number} has changed");
        }
        let rows = http.rows("SELECT id FROM t WHERE length(body) = ?", json!([ROW])).await;
        let there: Vec<i64> = rows.iter().map(|row| row[0].as_i64().unwrap()).collect();
        let missing: Vec<&i64> =
            self.rows.iter().filter(|number| !there.contains(number)).collect();
        assert!(missing.is_empty(), "rows {missing:?} were acknowledged and are gone");
    }
}

/// A refusal for want of room, and no other.
fn full(answer: Answer) -> bool {
    let text = answer.fails(507, "disk_full").text();
    assert!(text.contains("disk") && text.contains("full"), "{text}");
    false
}

/// Takes the room that is left.
fn take_all(path: &Path) {
    let mut file = File::create(path).unwrap();
    loop {
        match file.write(&[0; 4096]) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::StorageFull => return,
            Err(error) => panic!("{error}"),
        }
    }
}

async fn on_a_small_disk(disk: &Path) {
    let (data_dir, rest) = (disk.join("node"), disk.join("rest"));
    let spare = [disk.join("spare-1"), disk.join("spare-2")];
    for file in &spare {
        std::fs::write(file, vec![0; 2 << 20]).unwrap();
    }
    let mut node = Node::start(&data_dir);
    let key = node.api_key("full");
    let http = Http::new(node.address, &key);
    http.create("CREATE TABLE t (id INTEGER PRIMARY KEY, body BLOB)").await;
    let mut acknowledged = Acknowledged::default();
    acknowledged.fill(&http).await;
    println!(
        "{} values and {} rows until the disk was full",
        acknowledged.values.len(),
        acknowledged.rows.len()
    );
    assert!(acknowledged.values.len() > 10 && acknowledged.rows.len() > 10);
    // Reads go on, and so do writes as soon as there is room, without a restart.
    acknowledged.assert_there(&http).await;
    std::fs::remove_file(&spare[0]).unwrap();
    let before = (acknowledged.values.len(), acknowledged.rows.len());
    acknowledged.fill(&http).await;
    assert!(
        acknowledged.values.len() > before.0 && acknowledged.rows.len() > before.1,
        "nothing more was taken"
    );

    node.program.kill();
    take_all(&rest);
    // Without any room it starts all the same: who is to make room has to see what is there, and to
    // delete.
    let node = Node::start_without_probe(&data_dir);
    let http = Http::new(node.address, &key);
    acknowledged.assert_there(&http).await;
    full(put(&http, 2_000_000).await);
    let gone = acknowledged.values.remove(0);
    let delete = http.request(Method::DELETE, "/v1/storage").query(&[("key", format!("k{gone}"))]);
    let answer = delete.send().await.unwrap();
    assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    let said = node.program.output();
    assert!(said.contains("ERROR") && said.contains("the disk is full"), "{said}");
    // After a stop in order as well, which takes the logs away.
    node.stop();
    let more = disk.join("more");
    take_all(&more);
    let mut node = Node::start_without_probe(&data_dir);
    acknowledged.assert_there(&Http::new(node.address, &key)).await;
    node.program.kill();

    for file in [&rest, &more, &spare[1]] {
        std::fs::remove_file(file).unwrap();
    }
    let node = Node::start(&data_dir);
    let http = Http::new(node.address, &key);
    acknowledged.assert_there(&http).await;
    put(&http, 1_000_000).await.ok();
    insert(&http, 1_000_000).await.ok();
    node.stop();
}
