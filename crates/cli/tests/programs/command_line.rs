//! What the programs print: help, results, errors. Snapshots hold what is the same at every run.

use crate::support::cli::Cli;
use crate::support::{Node, text_of, without_surroundings};
use std::process::Command;

fn program(path: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(path);
    without_surroundings(&mut command);
    // The width of help is that of the terminal.
    let output = command.args(arguments).env("COLUMNS", "100").output().unwrap();
    (output.status.code(), text_of(&output))
}

#[test]
fn help_reads_well() {
    let cli = env!("CARGO_BIN_EXE_network-cli");
    let pages: [(&str, &[&str]); 5] = [
        ("cli", &["--help"]),
        ("query", &["query", "--help"]),
        ("storage", &["storage", "--help"]),
        ("db", &["db", "-h"]),
        ("put", &["storage", "put", "--help"]),
    ];
    for (name, arguments) in pages {
        let (code, text) = program(cli, arguments);
        assert_eq!(code, Some(0), "{text}");
        insta::assert_snapshot!(format!("help_{name}"), text);
    }
    let (code, text) = program(env!("CARGO_BIN_EXE_network-node"), &["--help"]);
    assert_eq!(code, Some(0), "{text}");
    insta::assert_snapshot!("help_node", text);
    let (code, text) = program(env!("CARGO_BIN_EXE_network-gateway"), &["--help"]);
    assert_eq!(code, Some(0), "{text}");
    insta::assert_snapshot!("help_gateway", text);
}

#[test]
fn versions_and_completions_need_no_node() {
    for path in [
        env!("CARGO_BIN_EXE_network-cli"),
        env!("CARGO_BIN_EXE_network-node"),
        env!("CARGO_BIN_EXE_network-gateway"),
    ] {
        let (code, text) = program(path, &["--version"]);
        assert_eq!(code, Some(0));
        assert!(text.contains(env!("CARGO_PKG_VERSION")) && text.contains("(commit "), "{text}");
    }
    let (code, text) = program(env!("CARGO_BIN_EXE_network-cli"), &["version", "--format", "json"]);
    assert_eq!(code, Some(0));
    let version: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    assert!(version["build_time"].as_str().unwrap().ends_with('Z'));
    for shell in ["bash", "zsh", "fish"] {
        let (code, text) = program(env!("CARGO_BIN_EXE_network-cli"), &["completions", shell]);
        assert!(code == Some(0) && text.contains("network-cli"), "{shell}");
    }
}

#[test]
fn an_option_without_effect_says_so_beside_the_result() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_network-cli"));
    without_surroundings(&mut command);
    let output = command.args(["--disable-anonrc", "version"]).output().unwrap();
    let (stdout, stderr) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success() && stdout.starts_with("network-cli "), "{stdout}");
    assert!(stderr.contains("--disable-anonrc has no effect yet"), "{stderr}");
}

/// As the gateway does with `limit=0`.
#[test]
fn a_list_of_no_keys_is_refused_before_a_node_is_looked_for() {
    for bad in ["0", "-1", "x"] {
        let (code, text) =
            program(env!("CARGO_BIN_EXE_network-cli"), &["storage", "list", "--", "", bad]);
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains("not a whole number of at least 1"), "{text}");
    }
}

#[test]
fn usage_errors_end_with_2_and_are_json_when_asked() {
    let cli = env!("CARGO_BIN_EXE_network-cli");
    for arguments in [
        &["frobnicate"][..],
        &[],
        &["storage", "put", "k"],
        &["status", "-b", "nonsense"],
        &["peers", "--production"],
    ] {
        let (code, text) = program(cli, arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {text}");
    }
    for arguments in [
        &["frobnicate", "--format", "json"][..],
        &["-fjson", "storage", "put", "k"],
        &["status", "-b", "x", "-f", "json"],
    ] {
        let (code, text) = program(cli, arguments);
        assert_eq!(code, Some(2), "{text}");
        let error: serde_json::Value =
            serde_json::from_str(text.trim()).unwrap_or_else(|_| panic!("{text}"));
        assert_eq!(error["code"], "usage", "{text}");
    }
}

#[test]
fn results_stand_on_stdout_in_a_form_that_stays() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(&folder.path().join("node"));
    let cli = Cli::new(&node, &node.api_key("shop"), folder.path());
    let mut seen = String::new();
    let lines: [&[&str]; 16] = [
        &[
            "query",
            "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT NOT NULL DEFAULT 'x', data BLOB, weight REAL)",
        ],
        &["query", "CREATE UNIQUE INDEX by_name ON t (name, lower(name))"],
        &[
            "query",
            "INSERT INTO t (name, data, weight) VALUES (?, ?, ?)",
            "two\nlines \u{1b}[31m",
            "{\"$blob\":\"AP8=\"}",
            "-1.5",
        ],
        &["query", "INSERT INTO t (name, data, weight) VALUES (?, ?, ?)", "ключ", "null", "3"],
        &["query", "SELECT *, 9007199254740993 AS big FROM t"],
        &["query", "SELECT *, 9007199254740993 AS big FROM t", "--format", "json"],
        &["query", "UPDATE t SET weight = 1 RETURNING id"],
        &["query", "SELECT ?", "42", "--text", "--format", "json"],
        &["query", "SELECT 1 WHERE 0"],
        &["db", "schema"],
        &["storage", "list"],
        &["storage", "list", "-f", "json"],
        &["storage", "delete", "missing"],
        &["storage", "delete", "missing", "-f", "json"],
        &["pubsub", "publish", "news", "hello"],
        &["pubsub", "topics", "--format=json"],
    ];
    for arguments in lines {
        let output = cli.run(arguments, b"");
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text_of(&output));
        let (out, said) =
            (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        seen.push_str(&format!("$ {arguments:?}\n{out}"));
        if !said.is_empty() {
            seen.push_str(&format!("[stderr] {said}"));
        }
    }
    insta::assert_snapshot!("results", seen);
}

#[test]
fn values_are_written_exactly_and_lists_have_no_end_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(&folder.path().join("node"));
    let cli = Cli::new(&node, &node.api_key("shop"), folder.path());
    let bytes: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    std::fs::write(folder.path().join("value"), &bytes).unwrap();
    cli.bytes(&["storage", "put", "from-stdin", "-"], &bytes);
    cli.bytes(&["storage", "put", "from-file", "@value"], b"");
    cli.bytes(&["storage", "put", "as-it-stands", "@value", "--text"], b"");
    cli.bytes(&["storage", "put", "empty", ""], b"");
    assert_eq!(cli.bytes(&["storage", "get", "from-stdin"], b""), bytes);
    assert_eq!(cli.bytes(&["storage", "get", "from-file"], b""), bytes);
    assert_eq!(cli.bytes(&["storage", "get", "as-it-stands"], b""), b"@value");
    assert_eq!(cli.bytes(&["storage", "get", "empty"], b""), b"");
    let shown = cli.json(&["storage", "get", "as-it-stands"]);
    assert_eq!((shown["value"].as_str(), shown["size"].as_u64()), (Some("QHZhbHVl"), Some(6)));

    // More keys than a page of the node holds.
    let http = node.http("shop");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut puts = tokio::task::JoinSet::new();
        for worker in 0..15 {
            let http = http.clone();
            puts.spawn(async move {
                for number in 0..70 {
                    http.put_value(&format!("p/{number:04}-{worker}"), "x").await.ok();
                }
            });
        }
        puts.join_all().await;
    });
    let listed = cli.text(&["storage", "list", "p/"]);
    let keys: Vec<&str> = listed.lines().collect();
    assert!(keys.len() == 1050 && keys.is_sorted(), "{}", keys.len());
    let all = cli.json(&["storage", "list", "p/"]);
    assert_eq!((all["keys"].as_array().unwrap().len(), all.get("next_cursor")), (1050, None));
    assert_eq!(cli.text(&["storage", "list", "p/", "1001"]).lines().count(), 1001);
    let page = cli.json(&["storage", "list", "p/", "4"]);
    assert_eq!(page["keys"].as_array().unwrap().len(), 4);
    let cursor = page["next_cursor"].as_str().unwrap();
    let next = cli.json(&["storage", "list", "p/", "1050", "--cursor", cursor]);
    assert_eq!((next["keys"].as_array().unwrap().len(), &next["keys"][0]), (1046, &all["keys"][4]));
}

#[test]
fn exit_codes_tell_what_happened() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(&folder.path().join("node"));
    let cli = Cli::new(&node, &node.api_key("shop"), folder.path());
    for (arguments, code, word) in [
        (&["query", "SELEC 1"][..], 1, "syntax error"),
        (&["query", "SELECT ?", "9223372036854775808"], 2, "64 bits"),
        (&["storage", "get", "missing"], 4, "missing"),
        (&["storage", "exists", "missing"], 4, "false"),
        (&["storage", "put", "", "x"], 2, "key"),
        (&["storage", "put", "k", "@no-such-file"], 2, "no-such-file"),
        (&["connect", "nonsense"], 1, "operator"),
        (&["db", "migrate", "no-such-folder"], 2, "no-such-folder"),
        (&["storage", "list", "-n", "other"], 1, "namespace"),
    ] {
        let output = cli.run(arguments, b"");
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text_of(&output));
        assert!(text_of(&output).contains(word), "{arguments:?}: {}", text_of(&output));
    }
    let output = cli.run(&["query", "SELECT * FROM nowhere", "-f", "json"], b"");
    let error: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!((error["code"].as_str(), output.status.code()), (Some("sql_error"), Some(1)));
    assert!(output.stdout.is_empty());
    let missing = cli.run(&["storage", "exists", "missing", "-f", "json"], b"");
    assert_eq!(
        (missing.stdout.as_slice(), missing.stderr.as_slice()),
        (&b"{\"exists\":false}\n"[..], &b""[..])
    );
}

#[test]
fn a_subscriber_prints_each_message_and_ends_at_its_time() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(&folder.path().join("node"));
    let cli = Cli::new(&node, &node.api_key("shop"), folder.path());
    let mut subscriber = cli.start(&["pubsub", "subscribe", "news", "--format", "json"]);
    while !subscriber.output().contains("subscribed to news") {
        assert!(subscriber.is_running(), "{}", subscriber.output());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    cli.text(&["pubsub", "publish", "news", "same"]);
    cli.text(&["pubsub", "publish", "news", "same"]);
    cli.bytes(&["pubsub", "publish", "news", "-"], &[0, 255]);
    while subscriber.output().matches("data_base64").count() < 3 {
        assert!(subscriber.is_running(), "{}", subscriber.output());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    subscriber.signal("INT");
    assert!(
        subscriber.wait(crate::support::PATIENCE).unwrap().success(),
        "{}",
        subscriber.output()
    );
    let output = subscriber.output();
    let messages: Vec<serde_json::Value> =
        output.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let texts: Vec<&serde_json::Value> = messages.iter().map(|message| &message["text"]).collect();
    assert_eq!(
        texts,
        [&serde_json::json!("same"), &serde_json::json!("same"), &serde_json::Value::Null]
    );
    assert_eq!(messages[2]["data_base64"], "AP8=");
    let timed = cli.run(&["pubsub", "subscribe", "news", "100ms"], b"");
    assert_eq!(timed.status.code(), Some(0), "{}", text_of(&timed));
}
