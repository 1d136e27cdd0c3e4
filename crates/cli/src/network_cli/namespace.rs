//! `namespace …`: which namespaces there are, what they hold, and the end of one.

use super::args::{Global, NamespaceCommand};
use super::auth_args::Right;
use super::credential::{is_interactive, store, unusable};
use super::output::{Output, Shown, note, printable, size, time};
use super::session::Session;
use crate::fail::Failure;
use debros_client::rpc::NamespaceInfo;
use debros_client::{Code, Error, Namespace};
use debros_gateway::answers::{DeleteNamespaceAnswer, NamespaceAnswer, NamespacesAnswer};
use debros_proto::words::counted;
use std::io::{self, Write as _};
use std::time::{Duration, Instant};

/// How long a deletion waits for a backup or a restore to end.
const WAIT_AT_MOST: Duration = Duration::from_secs(60);
/// How often it says so.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// Puts the name after the command into the place of `--namespace`, and refuses before anything is asked of a node what can
/// not be done: a deletion that nobody confirmed and nobody can be asked about.
pub(super) fn check(global: &mut Global, command: &NamespaceCommand) -> Result<(), Failure> {
    let named = match command {
        NamespaceCommand::List { .. } => None,
        NamespaceCommand::Info { name, .. } => name.as_ref(),
        NamespaceCommand::Delete { name, confirm, .. } => match confirm {
            Some(confirm) if confirm != name => {
                return Err(Failure::usage(format!(
                    "--confirm {} is not the name of the namespace, {}: nothing was deleted",
                    printable(confirm),
                    printable(name)
                )));
            }
            None if !is_interactive() => {
                return Err(Failure::usage(
                    "deleting a namespace deletes everything in it, and nobody can be asked here: give --confirm with \
                         the namespace's name",
                ));
            }
            _ => Some(name),
        },
    };
    let Some(named) = named else { return Ok(()) };
    let named = Namespace::new(named)?;
    if global.namespace.as_ref().is_some_and(|other| other != named.as_str()) {
        return Err(Failure::usage("the command and --namespace name different namespaces"));
    }
    global.namespace = Some(named.to_string());
    Ok(())
}

pub(super) async fn run(session: &Session, out: Output, command: NamespaceCommand) -> Result<(), Failure> {
    match command {
        NamespaceCommand::List { prefix, right } => list(session, out, &prefix, right).await,
        NamespaceCommand::Info { right, .. } => {
            let client = session.reader(right.operator).await?;
            let info = client.namespaces().get().await.map_err(|error| told(session, error))?;
            show(out, info)
        }
        NamespaceCommand::Delete { name, confirm, right } => delete(session, out, name, confirm, right).await,
    }
}

async fn list(session: &Session, out: Output, prefix: &str, right: Right) -> Result<(), Failure> {
    let client = session.lister(right.operator).await?;
    let mut all: Vec<NamespaceInfo> = Vec::new();
    let mut after = String::new();
    loop {
        let page = client.namespaces().list(prefix, &after, 0).await.map_err(|error| told(session, error))?;
        all.extend(page.namespaces);
        // A node that does not go on is not asked for ever.
        if !page.more || page.next <= after {
            break;
        }
        after = page.next;
    }
    if out.is_json() {
        return out.json(&NamespacesAnswer::from(all));
    }
    if all.is_empty() {
        note("there are no namespaces");
        return Ok(());
    }
    let rows = all.iter().map(|info| {
        vec![
            Shown::from(info.name.as_str()),
            info.role.as_str().into(),
            owner(info).into(),
            Shown::Number(size(info.sql_bytes)),
            Shown::Number(info.tables.to_string()),
            Shown::Number(rows_of(info)),
            Shown::Number(info.keys.to_string()),
            time(info.created_at).into(),
            problem(info).unwrap_or("-").into(),
        ]
    });
    out.table(&["NAME", "ROLE", "OWNER", "SIZE", "TABLES", "ROWS", "KEYS", "CREATED", "PROBLEM"], rows)
}

async fn delete(
    session: &Session,
    out: Output,
    name: String,
    confirm: Option<String>,
    right: Right,
) -> Result<(), Failure> {
    let client = session.manager(right.operator).await?;
    let info = client.namespaces().get().await.map_err(|error| told(session, error))?;
    note(&format!(
        "The namespace {} and everything in it will be deleted: {}; its topics, applications, API keys, members and sessions.",
        printable(&name),
        holds(&info)
    ));
    let confirm = match confirm {
        Some(confirm) => confirm,
        None => typed(&name).await?,
    };
    let deleted = patiently(WAIT_AT_MOST, async || client.namespaces().delete(confirm.clone()).await).await;
    let deleted = deleted.map_err(|error| told(session, error))?;
    forget(session, &name).await?;
    let text = format!("deleted {}: {}", printable(&name), holds(&deleted));
    out.result(|| DeleteNamespaceAnswer::from(deleted), || text)
}

/// Tries again while the node says that something else has to end first and when to come back: a backup, a restore.
async fn patiently<T>(at_most: Duration, mut attempt: impl AsyncFnMut() -> Result<T, Error>) -> Result<T, Error> {
    let began = Instant::now();
    let mut said = None::<Instant>;
    loop {
        let mut error = match attempt().await {
            Err(error) if error.code == Code::Conflict && error.retry_after.is_some() => error,
            outcome => return outcome,
        };
        let pause = error.retry_after.unwrap_or_default();
        if began.elapsed() + pause > at_most {
            let waited = at_most.as_secs();
            error.message = format!("nothing was deleted, after waiting for {waited} s: {}", error.message);
            return Err(error);
        }
        if said.is_none_or(|said| said.elapsed() > SAY_EVERY) {
            note(&format!("waiting: {}", printable(&error.message)));
            said = Some(Instant::now());
        }
        tokio::time::sleep(pause).await;
    }
}

/// Asks for the name, on a thread of its own: the connection to the node stays alive meanwhile.
async fn typed(name: &str) -> Result<String, Failure> {
    let asked = tokio::task::spawn_blocking(|| -> io::Result<String> {
        let mut stderr = io::stderr();
        stderr.write_all(b"Type the namespace's name to go on: ")?;
        stderr.flush()?;
        let mut answer = String::new();
        io::stdin().read_line(&mut answer)?;
        Ok(answer)
    });
    let read = asked.await.map_err(|error| Failure::new(error.to_string()))?;
    let answer =
        read.map_err(|error| Failure::new(format!("the answer can not be read from the terminal: {error}")))?;
    if answer.trim() == name {
        Ok(name.to_owned())
    } else {
        Err(Failure::new("the answer is not the namespace's name: nothing was deleted"))
    }
}

/// Forgets what is stored for a namespace that is no more.
async fn forget(session: &Session, name: &str) -> Result<(), Failure> {
    let store = store()?;
    let entries = store.entries().map_err(unusable)?;
    let gone: Vec<_> =
        entries.iter().filter(|entry| entry.peer_id == session.peer_id && entry.namespace == name).collect();
    if gone.is_empty() {
        return Ok(());
    }
    let locked = store.lock(session.timeout).await.map_err(unusable)?;
    gone.into_iter().try_for_each(|entry| locked.remove(entry)).map_err(unusable)
}

/// On the node's machine there is another way.
fn told(session: &Session, error: Error) -> Failure {
    let forbidden = error.code == Code::Forbidden;
    let failure = Failure::from(error);
    if forbidden && session.may_operate() {
        return failure.hint("with --operator the command acts as the node's operator");
    }
    failure
}

fn show(out: Output, info: NamespaceInfo) -> Result<(), Failure> {
    if out.is_json() {
        return out.json(&NamespaceAnswer::from(info));
    }
    let info = &info;
    let quota = info.max_bytes.map_or_else(|| "none".to_owned(), size);
    let lines = [
        ("name", info.name.clone()),
        ("role", info.role.clone()),
        ("owner", owner(info)),
        ("created", time(info.created_at)),
        ("size", held(info)),
        ("quota", quota),
        ("tables", info.tables.to_string()),
        ("rows", rows_of(info)),
        ("keys", format!("{} ({})", keys_of(info), size(info.key_bytes))),
    ];
    let problem = problem(info).map(|problem| ("problem", problem.to_owned()));
    let lines: Vec<String> =
        lines.iter().chain(&problem).map(|(name, value)| format!("{name:<8} {}", printable(value))).collect();
    out.line(&lines.join("\n"))
}

fn holds(info: &NamespaceInfo) -> String {
    if let Some(problem) = problem(info) {
        return format!(
            "tables that can not be looked into ({}; {}), {} ({})",
            printable(problem),
            size(info.sql_bytes),
            at_least_counted(info.keys, info.keys_are_exact, "key"),
            size(info.key_bytes)
        );
    }
    format!(
        "{} with {} ({}), {} ({})",
        at_least_counted(info.tables, true, "table"),
        at_least_counted(info.rows, info.rows_are_exact, "row"),
        size(info.sql_bytes),
        at_least_counted(info.keys, info.keys_are_exact, "key"),
        size(info.key_bytes)
    )
}

fn at_least_counted(number: u64, is_exact: bool, what: &str) -> String {
    let counted = counted(number, what);
    if is_exact { counted } else { format!("at least {counted}") }
}

/// What a file has is never given back to the disk; later writes use it.
fn held(info: &NamespaceInfo) -> String {
    let all = size(info.sql_bytes);
    if info.free_bytes == 0 { all } else { format!("{all}, {} of it free for later writes", size(info.free_bytes)) }
}

fn owner(info: &NamespaceInfo) -> String {
    if info.owner.is_empty() { "-".to_owned() } else { info.owner.clone() }
}

fn rows_of(info: &NamespaceInfo) -> String {
    at_least(info.rows, info.rows_are_exact)
}

fn keys_of(info: &NamespaceInfo) -> String {
    at_least(info.keys, info.keys_are_exact)
}

fn at_least(number: u64, is_exact: bool) -> String {
    if is_exact { number.to_string() } else { format!("at least {number}") }
}

/// Why its SQL database can not be looked into, if it can not.
fn problem(info: &NamespaceInfo) -> Option<&str> {
    Some(info.problem.as_str()).filter(|problem| !problem.is_empty())
}

#[cfg(test)]
mod tests {
    use super::{WAIT_AT_MOST, at_least_counted, patiently};
    use debros_client::{Code, Error};
    use std::time::Duration;

    fn busy() -> Error {
        Error::new(Code::Conflict, "a backup is running")
    }

    #[tokio::test]
    async fn a_running_backup_is_waited_for_and_nothing_else_is() {
        let mut left = 3;
        let outcome = patiently(WAIT_AT_MOST, async || {
            left -= 1;
            if left > 0 { Err(busy().retry_after(Duration::from_millis(1))) } else { Ok("deleted") }
        });
        assert_eq!(outcome.await, Ok("deleted"));
        let mut asked = 0;
        for other in [busy(), Error::new(Code::Unavailable, "x").retry_after(Duration::from_millis(1))] {
            let outcome: Result<(), Error> = patiently(WAIT_AT_MOST, async || {
                asked += 1;
                Err(other.clone())
            })
            .await;
            assert_eq!(outcome, Err(other));
        }
        assert_eq!(asked, 2);
    }

    #[tokio::test]
    async fn the_wait_has_an_end_that_says_what_it_waited_for() {
        let pause = Duration::from_millis(5);
        let outcome: Result<(), Error> = patiently(pause * 2, async || Err(busy().retry_after(pause))).await;
        let message = outcome.unwrap_err().message;
        assert!(message.starts_with("nothing was deleted") && message.contains("a backup is running"), "{message}");
    }

    #[test]
    fn one_is_no_plural() {
        let rows =
            [(0, true), (1, true), (2, false)].map(|(number, is_exact)| at_least_counted(number, is_exact, "row"));
        assert_eq!(rows, ["0 rows", "1 row", "at least 2 rows"]);
    }
}
