//! `network-node recover`: the survivor of a cluster whose majority is lost for good.

use crate::cluster::{LONG, Member, cli, exits, start_cluster, token, until_answered, wait_for};
use crate::support::http::Http;
use crate::support::{Program, text_of, without_surroundings};
use serde_json::{Value, json};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// `recover` with the settings of a member.
fn recovery(member: &Member, more: &[&str]) -> Command {
    let set_up = member.command(&[]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_network-node"));
    without_surroundings(&mut command);
    for (name, value) in set_up.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    command.env("DEBROS_NODE_ID", member.name);
    command.arg("recover").args(more).arg("--data-dir").arg(&member.data);
    command.stdin(Stdio::null());
    command
}

fn recover(member: &Member, more: &[&str]) -> Output {
    recovery(member, more).output().unwrap()
}

/// The last entry in the log of a member's rqlited.
async fn last_entry(member: &Member) -> u64 {
    let users = std::fs::read(member.data.join("rqlite/auth.json")).unwrap();
    let users: Value = serde_json::from_slice(&users).unwrap();
    let text = |field: &str| users[0][field].as_str().unwrap().to_owned();
    let url = format!(
        "http://{}/db/query?level=none&q=SELECT%20max(entry)%20FROM%20log",
        member.rqlite_http()
    );
    let request = reqwest::Client::new().get(url);
    let answer = request.basic_auth(text("username"), Some(text("password"))).send().await.unwrap();
    let answer: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    answer["results"][0]["values"][0][0].as_u64().unwrap_or_else(|| panic!("{answer}"))
}

/// Begins to recover and kills that when it has changed something.
fn break_off(member: &Member, key: &[u8]) {
    let mut begun = Program::start(&mut recovery(member, &["--yes"]));
    let until = Instant::now() + LONG;
    while std::fs::read(member.data.join("cluster.key")).unwrap() == key {
        assert!(begun.is_running() && Instant::now() < until, "{}", begun.output());
        std::thread::sleep(Duration::from_millis(1));
    }
    begun.kill();
}

/// Inserts a row, again with the same key until it is there.
async fn insert(http: &Http, id: &str) {
    let until = Instant::now() + LONG;
    let body = json!({ "sql": "INSERT INTO rows VALUES (?)", "args": [id] });
    loop {
        let request = http.request(reqwest::Method::POST, "/v1/db/query").json(&body);
        match request.header("Idempotency-Key", id).send().await {
            Ok(answer) if answer.status().is_success() => return,
            other => assert!(Instant::now() < until, "{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn rows(http: &Http) -> Vec<String> {
    let body = json!({ "sql": "SELECT id FROM rows ORDER BY id", "consistency": "linearizable" });
    let until = Instant::now() + LONG;
    loop {
        let answer = http.post("/v1/db/query", &body).await;
        if answer.status != 503 || Instant::now() > until {
            let answer: Value = answer.ok().json();
            let rows = answer["rows"].as_array().unwrap().iter();
            return rows.map(|row| row[0].as_str().unwrap().to_owned()).collect();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_survivor_goes_on_alone_with_everything_and_takes_new_nodes() {
    let folder = tempfile::tempdir().unwrap();
    let members = ["one", "two", "three"].map(|name| Member::new(folder.path(), name));
    let mut nodes = start_cluster(&[&members[0], &members[1], &members[2]]);
    let survivor = &members[2];
    wait_for(&survivor.data, &["one", "three", "two"]);
    let key = nodes[0].api_key("default");
    let through = |member: &Member| Http::new(member.gateway(), &key);
    let http = through(&members[0]);
    http.create("CREATE TABLE rows (id TEXT NOT NULL PRIMARY KEY)").await;
    let expected: Vec<String> = (0..40).map(|number| format!("r{number:02}")).collect();
    for id in &expected[..20] {
        insert(&http, id).await;
    }
    assert_eq!(rows(&through(survivor)).await, expected[..20]);
    // What comes now is in the log of its rqlited alone: it applies nothing any more.
    nodes[2].program.signal("STOP");
    for id in &expected[20..] {
        insert(&http, id).await;
    }
    let until = Instant::now() + LONG;
    while last_entry(survivor).await < last_entry(&members[0]).await {
        assert!(Instant::now() < until, "its rqlited does not get the entries");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    let said = exits(&recover(survivor, &["--yes"]), 1);
    assert!(said.contains("runs (process") && said.contains("stop it first"), "{said}");
    members[2].kill(nodes.pop().unwrap());
    for member in [&members[1], &members[0]] {
        member.kill(nodes.pop().unwrap());
        std::fs::rename(&member.data, folder.path().join(format!("{}-lost", member.name))).unwrap();
    }

    let before = std::fs::read(survivor.data.join("cluster.key")).unwrap();
    let said = exits(&recover(survivor, &[]), 2);
    assert!(said.contains("give --yes"), "{said}");
    assert_eq!(std::fs::read(survivor.data.join("cluster.key")).unwrap(), before);
    break_off(survivor, &before);
    let said = exits(&recover(survivor, &["--yes"]), 0);
    for part in ["one (", "two (", "seen last at 2", "cannot be reached", "removed: one, two"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let after = std::fs::read_to_string(survivor.data.join("cluster.key")).unwrap();
    assert!(after.as_bytes() != before && !after.contains("previous"));
    exits(&recover(survivor, &["--yes"]), 0);

    let _alone = survivor.start(&[]);
    let http = through(survivor);
    assert_eq!(rows(&http).await, expected);
    insert(&http, "s").await;
    assert_eq!(wait_for(&survivor.data, &["three"])["nodes"].as_array().unwrap().len(), 1);
    // One that was believed to be lost does not come back with what it holds.
    let lost = folder.path().join("two-lost");
    std::fs::rename(&lost, &members[1].data).unwrap();
    let mut back = Program::start(&mut members[1].command(&[]));

    let made = until_answered(|| token(&survivor.data));
    let line = String::from_utf8(made.stdout).unwrap();
    let new = Member::new(folder.path(), "new");
    let _joined = new.start(&["--join", line.trim()]);
    wait_for(&survivor.data, &["new", "three"]);
    let all: Vec<String> = expected.iter().cloned().chain(["s".to_owned()]).collect();
    assert_eq!(rows(&through(&new)).await, all);
    insert(&through(&new), "t").await;
    assert!(back.is_running(), "it waits for its majority: {}", back.output());
    let doctor = cli(&survivor.data, &["doctor"]);
    assert_eq!(doctor.status.code(), Some(0), "{}", text_of(&doctor));
}
