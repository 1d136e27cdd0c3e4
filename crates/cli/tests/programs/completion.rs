//! Completion, as the shells themselves ask for it. Bash is everywhere; the others are asked where
//! they are installed.

use crate::support::wallet::write_private;
use crate::support::without_surroundings;
use serde_json::json;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::process::Command;

/// What a shell offers for the last word of each line, its words parted as the shell parts them.
const LINES: [(&str, &[&str], &[&str]); 16] = [
    ("network-cli st", &["status", "storage"], &["pubsub"]),
    ("network-cli storage ", &["put", "get", "list"], &["status"]),
    ("network-cli storage put --t", &["--text", "--ttl", "--timeout"], &["--format"]),
    ("network-cli auth keys create --role ", &["reader", "writer", "admin"], &["--role"]),
    ("network-cli auth members set 0x1 ", &["reader", "writer", "admin"], &[]),
    ("network-cli -f ", &["table", "json"], &["storage"]),
    ("network-cli storage list --format ", &["table", "json"], &["list"]),
    ("network-cli db migrate fol", &["folder"], &["file"]),
    (
        "network-cli auth keys create --scopes ",
        &["db:read", "db:write", "apps:write"],
        &["--scopes"],
    ),
    (
        "network-cli auth keys create --scopes db:read,stor",
        &["db:read,storage:read", "db:read,storage:write"],
        &[],
    ),
    ("network-cli auth use ", &[WALLET, "operator"], &[]),
    ("network-cli auth members remove ", &[WALLET], &["operator"]),
    ("network-cli storage list -n ", &["club", "shop"], &[]),
    ("network-cli namespace info sh", &["shop"], &["club"]),
    (
        "network-cli db restore ",
        &["20261124T101112131Z", "20261125T101112131Z"],
        &["20261126T101112131Z.partial"],
    ),
    ("network-cli status -b ", &[NODE], &[]),
];

const WALLET: &str = "0x00000000000000000000000000000000000000aa";
const NODE: &str =
    "/ip4/127.0.0.1/tcp/4001/p2p/12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp";

fn has(program: &str) -> bool {
    Command::new(program).arg("-c").arg(":").output().is_ok_and(|output| output.status.success())
}

/// Runs a shell's script in the folder that is the home too.
fn run(shell: &mut Command, dir: &Path) -> String {
    without_surroundings(shell);
    let bin = Path::new(env!("CARGO_BIN_EXE_network-cli")).parent().unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    let output = shell.env("PATH", path).env("HOME", dir).current_dir(dir).output().unwrap();
    let (out, said) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.is_empty(), "{out}{said}");
    out.into_owned()
}

/// Holds `folder/` and `file`, two stored credentials, and what a node has left behind: no node
/// runs.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let node = dir.path().join("data/node1");
    for name in ["20261124T101112131Z", "20261125T101112131Z", "20261126T101112131Z.partial"] {
        std::fs::create_dir_all(node.join("backups").join(name)).unwrap();
    }
    std::fs::write(node.join("peer.info"), NODE).unwrap();
    let entry = |namespace: &str, wallet: &str| json!({ "peer_id": "12D3", "namespace": namespace, "wallet": wallet, "api_key": "ak_x", "stored_at": 1 });
    let stored = json!({ "version": 2, "credentials": [entry("shop", WALLET), entry("club", "")] });
    std::fs::DirBuilder::new().mode(0o700).create(dir.path().join(".debros")).unwrap();
    write_private(&dir.path().join(".debros/credentials.json"), &stored.to_string());
    std::fs::create_dir(dir.path().join("folder")).unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    dir
}

fn check(shell: &str, line: &str, offered: &str, wanted: &[&str], unwanted: &[&str]) {
    let offered: Vec<&str> = offered.lines().filter_map(|line| line.split('\t').next()).collect();
    let offers = |word: &&str| offered.iter().any(|offer| offer.trim_end_matches('/') == *word);
    assert!(
        wanted.iter().all(offers) && !unwanted.iter().any(offers),
        "{shell}: {line:?} offers {offered:?}"
    );
}

/// The function that the script binds, called with what readline hands over.
#[test]
fn bash_completes_below_the_first_word() {
    let dir = folder();
    let complete = |words: &str| {
        let script = format!(
            "source <(network-cli completions bash)\n\
             COMP_WORDS=({words}) COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 )) COMP_TYPE=9\n\
             bound=$(complete -p network-cli); bound=${{bound#* -F }}; bound=${{bound%% *}}\n\
             \"$bound\" network-cli \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"\n\
             (( ${{#COMPREPLY[@]}} == 0 )) || printf '%s\\n' \"${{COMPREPLY[@]}}\"\n"
        );
        run(Command::new("bash").args(["--norc", "--noprofile", "-c", &script]), dir.path())
    };
    for (line, wanted, unwanted) in LINES {
        let words =
            if line.ends_with(' ') { format!("{line}''") } else { line.replace(':', " : ") };
        // What is offered stands for the part after the last colon.
        let begun = line
            .rsplit(' ')
            .next()
            .and_then(|word| word.rsplit_once(':'))
            .map_or(0, |(begun, _)| begun.len() + 1);
        let wanted: Vec<&str> = wanted.iter().map(|word| &word[begun..]).collect();
        check("bash", line, &complete(&words), &wanted, unwanted);
    }
    check(
        "bash",
        "db:",
        &complete("network-cli auth keys create --scopes db :"),
        &["read", "write"],
        &["db:read"],
    );
    check(
        "bash",
        "=db:r",
        &complete("network-cli auth keys create --scopes = db : r"),
        &["read"],
        &["write"],
    );
    // Bash parts words at an equals sign, and replaces the last part alone.
    check(
        "bash",
        "--format=",
        &complete("network-cli storage --format = ''"),
        &["table", "json"],
        &["list"],
    );
    check(
        "bash",
        "--format=js",
        &complete("network-cli storage --format = js"),
        &["json"],
        &["table", "--format=json"],
    );
}

#[test]
fn fish_completes_values_of_options() {
    if !has("fish") {
        return;
    }
    let dir = folder();
    for (line, wanted, unwanted) in
        LINES.into_iter().chain([("network-cli --format=js", &["--format=json"][..], &[][..])])
    {
        let script =
            format!("network-cli completions fish | source; complete --do-complete '{line}'");
        check(
            "fish",
            line,
            &run(Command::new("fish").args(["--no-config", "-c", &script]), dir.path()),
            wanted,
            unwanted,
        );
    }
}

/// The function that the script binds, with zsh's own way of showing put in its place: what stands
/// before the first colon without a backslash.
#[test]
fn zsh_completes_below_the_first_word() {
    if !has("zsh") {
        return;
    }
    let dir = folder();
    for (line, wanted, unwanted) in LINES {
        let words = if line.ends_with(' ') { format!("{line}''") } else { line.to_owned() };
        let script = format!(
            "compdef() {{ bound=$1 }}\n\
             _describe() {{\n\
               local offer\n\
               for offer in \"${{(@P)3}}\"; do\n\
                 offer=${{offer//\\\\:/$'\\1'}}; offer=${{offer%%:*}}; print -r -- \"${{offer//$'\\1'/:}}\"\n\
               done\n\
             }}\n\
             source <(network-cli completions zsh)\n\
             words=({words}) CURRENT=${{#words}}\n\
             $bound\n\
             true\n"
        );
        let offered = run(Command::new("zsh").args(["-f", "-c", &script]), dir.path());
        check("zsh", line, &offered, wanted, unwanted);
    }
}
