//! `namespace …`: lists, describes and deletes namespaces.

use super::args::{GlobalOptions, NamespaceCommand};
use super::auth_args::OperatorArgs;
use super::node_connection::NodeConnection;
use super::output::{Output, TableCell, format_size, format_time, print_note, printable};
use super::terminal::{ask_line, is_interactive};
use crate::cli_error::CliError;
use crate::credentials::CredentialFile;
use debros_client::rpc::NamespaceInfo;
use debros_client::{Code, Error, Namespace};
use debros_gateway::answers::{DeleteNamespaceAnswer, NamespaceAnswer, NamespacesAnswer};
use debros_proto::words::counted;
use std::time::{Duration, Instant};

/// How long a deletion waits for a backup or a restore to end.
const WAIT_AT_MOST: Duration = Duration::from_secs(60);
/// How often it says so.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// Puts the name after the command into the place of `--namespace`, and refuses, before any call, a
/// deletion that is not confirmed and cannot be confirmed on a terminal.
pub(super) fn check_arguments(
    global: &mut GlobalOptions,
    command: &NamespaceCommand,
) -> Result<(), CliError> {
    let named = match command {
        NamespaceCommand::List { .. } => None,
        NamespaceCommand::Info { name, .. } => name.as_ref(),
        NamespaceCommand::Delete { name, confirm, .. } => match confirm {
            Some(confirm) if confirm != name => {
                return Err(CliError::usage(format!(
                    "--confirm {} is not the name of the namespace, {}: nothing was deleted",
                    printable(confirm),
                    printable(name)
                )));
            }
            None if !is_interactive() => {
                return Err(CliError::usage(
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
        return Err(CliError::usage("the command and --namespace name different namespaces"));
    }
    global.namespace = Some(named.to_string());
    Ok(())
}

pub(super) async fn run(
    connection: &NodeConnection,
    out: Output,
    command: NamespaceCommand,
) -> Result<(), CliError> {
    match command {
        NamespaceCommand::List { prefix, operator_args } => {
            list(connection, out, &prefix, operator_args).await
        }
        NamespaceCommand::Info { operator_args, .. } => {
            let client = connection.reader_client(operator_args.operator).await?;
            let info = client
                .namespaces()
                .get()
                .await
                .map_err(|error| connection.permission_error(error))?;
            show_namespace(out, info)
        }
        NamespaceCommand::Delete { name, confirm, operator_args } => {
            delete(connection, out, name, confirm, operator_args).await
        }
    }
}

async fn list(
    connection: &NodeConnection,
    out: Output,
    prefix: &str,
    operator_args: OperatorArgs,
) -> Result<(), CliError> {
    let client = connection.namespace_list_client(operator_args.operator).await?;
    let mut all: Vec<NamespaceInfo> = Vec::new();
    let mut after = String::new();
    loop {
        let page = client
            .namespaces()
            .list(prefix, &after, 0)
            .await
            .map_err(|error| connection.permission_error(error))?;
        all.extend(page.namespaces);
        // A node whose list does not go on is not asked forever.
        if !page.more || page.next <= after {
            break;
        }
        after = page.next;
    }
    if out.is_json() {
        return out.write_json(&NamespacesAnswer::from(all));
    }
    if all.is_empty() {
        print_note("there are no namespaces");
        return Ok(());
    }
    let rows = all.iter().map(|info| {
        vec![
            TableCell::from(info.name.as_str()),
            info.role.as_str().into(),
            owner_text(info).into(),
            TableCell::Number(format_size(info.sql_bytes)),
            TableCell::Number(info.tables.to_string()),
            TableCell::Number(rows_text(info)),
            TableCell::Number(info.keys.to_string()),
            format_time(info.created_at).into(),
            problem(info).unwrap_or("-").into(),
        ]
    });
    out.write_table(
        &["NAME", "ROLE", "OWNER", "SIZE", "TABLES", "ROWS", "KEYS", "CREATED", "PROBLEM"],
        rows,
    )
}

async fn delete(
    connection: &NodeConnection,
    out: Output,
    name: String,
    confirm: Option<String>,
    operator_args: OperatorArgs,
) -> Result<(), CliError> {
    let client = connection.manager_client(operator_args.operator).await?;
    let info =
        client.namespaces().get().await.map_err(|error| connection.permission_error(error))?;
    print_note(&format!(
        "The namespace {} and everything in it will be deleted: {}; its topics, applications, API keys, members and sessions.",
        printable(&name),
        contents_text(&info)
    ));
    let confirm = match confirm {
        Some(confirm) => confirm,
        None => ask_for_name(&name).await?,
    };
    let deleted =
        retry_while_busy(WAIT_AT_MOST, async || client.namespaces().delete(confirm.clone()).await)
            .await;
    let deleted = deleted.map_err(|error| connection.permission_error(error))?;
    remove_stored_credentials(connection, &name).await?;
    let text = format!("deleted {}: {}", printable(&name), contents_text(&deleted));
    out.write_result(|| DeleteNamespaceAnswer::from(deleted), || text)
}

/// Tries again while the node says that something else has to end first and when to come back: a
/// backup, a restore.
async fn retry_while_busy<T>(
    at_most: Duration,
    mut attempt: impl AsyncFnMut() -> Result<T, Error>,
) -> Result<T, Error> {
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
            error.message =
                format!("nothing was deleted, after waiting for {waited} s: {}", error.message);
            return Err(error);
        }
        if said.is_none_or(|said| said.elapsed() > SAY_EVERY) {
            print_note(&format!("waiting: {}", printable(&error.message)));
            said = Some(Instant::now());
        }
        tokio::time::sleep(pause).await;
    }
}

/// Asks for the name, and refuses another answer.
async fn ask_for_name(name: &str) -> Result<String, CliError> {
    let answer = ask_line("Type the namespace's name to go on: ".to_owned()).await?;
    answer
        .filter(|answer| answer == name)
        .ok_or_else(|| CliError::new("the answer is not the namespace's name: nothing was deleted"))
}

/// Removes the credentials that are stored for a deleted namespace.
async fn remove_stored_credentials(
    connection: &NodeConnection,
    name: &str,
) -> Result<(), CliError> {
    let credential_file = CredentialFile::in_home()?;
    let entries = credential_file.entries()?;
    let gone: Vec<_> = entries
        .iter()
        .filter(|entry| entry.peer_id == connection.peer_id && entry.namespace == name)
        .collect();
    if gone.is_empty() {
        return Ok(());
    }
    let locked = credential_file.lock(connection.timeout).await?;
    Ok(gone.into_iter().try_for_each(|entry| locked.remove(entry))?)
}

fn show_namespace(out: Output, info: NamespaceInfo) -> Result<(), CliError> {
    if out.is_json() {
        return out.write_json(&NamespaceAnswer::from(info));
    }
    let info = &info;
    let quota = info.max_bytes.map_or_else(|| "none".to_owned(), format_size);
    let lines = [
        ("name", info.name.clone()),
        ("role", info.role.clone()),
        ("owner", owner_text(info)),
        ("created", format_time(info.created_at)),
        ("size", size_text(info)),
        ("quota", quota),
        ("tables", info.tables.to_string()),
        ("rows", rows_text(info)),
        ("keys", format!("{} ({})", keys_text(info), format_size(info.key_bytes))),
    ];
    let problem = problem(info).map(|problem| ("problem", problem.to_owned()));
    let lines: Vec<String> = lines
        .iter()
        .chain(&problem)
        .map(|(name, value)| format!("{name:<8} {}", printable(value)))
        .collect();
    out.write_line(&lines.join("\n"))
}

fn contents_text(info: &NamespaceInfo) -> String {
    if let Some(problem) = problem(info) {
        return format!(
            "tables that cannot be looked into ({}; {}), {} ({})",
            printable(problem),
            format_size(info.sql_bytes),
            at_least_counted(info.keys, info.keys_are_exact, "key"),
            format_size(info.key_bytes)
        );
    }
    format!(
        "{} with {} ({}), {} ({})",
        at_least_counted(info.tables, true, "table"),
        at_least_counted(info.rows, info.rows_are_exact, "row"),
        format_size(info.sql_bytes),
        at_least_counted(info.keys, info.keys_are_exact, "key"),
        format_size(info.key_bytes)
    )
}

fn at_least_counted(number: u64, is_exact: bool, what: &str) -> String {
    let counted = counted(number, what);
    if is_exact { counted } else { format!("at least {counted}") }
}

/// What a file has is never given back to the disk; later writes use it.
fn size_text(info: &NamespaceInfo) -> String {
    let all = format_size(info.sql_bytes);
    if info.free_bytes == 0 {
        all
    } else {
        format!("{all}, {} of it free for later writes", format_size(info.free_bytes))
    }
}

fn owner_text(info: &NamespaceInfo) -> String {
    if info.owner.is_empty() { "-".to_owned() } else { info.owner.clone() }
}

fn rows_text(info: &NamespaceInfo) -> String {
    exact_or_at_least(info.rows, info.rows_are_exact)
}

fn keys_text(info: &NamespaceInfo) -> String {
    exact_or_at_least(info.keys, info.keys_are_exact)
}

fn exact_or_at_least(number: u64, is_exact: bool) -> String {
    if is_exact { number.to_string() } else { format!("at least {number}") }
}

/// Why its SQL database cannot be looked into, if it cannot.
fn problem(info: &NamespaceInfo) -> Option<&str> {
    Some(info.problem.as_str()).filter(|problem| !problem.is_empty())
}

#[cfg(test)]
mod tests {
    use super::{WAIT_AT_MOST, at_least_counted, retry_while_busy};
    use debros_client::{Code, Error};
    use std::time::Duration;

    fn busy() -> Error {
        Error::new(Code::Conflict, "a backup is running")
    }

    #[tokio::test]
    async fn a_running_backup_is_waited_for_and_nothing_else_is() {
        let mut left = 3;
        let outcome = retry_while_busy(WAIT_AT_MOST, async || {
            left -= 1;
            if left > 0 { Err(busy().retry_after(Duration::from_millis(1))) } else { Ok("deleted") }
        });
        assert_eq!(outcome.await, Ok("deleted"));
        let mut asked = 0;
        for other in
            [busy(), Error::new(Code::Unavailable, "x").retry_after(Duration::from_millis(1))]
        {
            let outcome: Result<(), Error> = retry_while_busy(WAIT_AT_MOST, async || {
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
        let outcome: Result<(), Error> =
            retry_while_busy(pause * 2, async || Err(busy().retry_after(pause))).await;
        let message = outcome.unwrap_err().message;
        assert!(
            message.starts_with("nothing was deleted") && message.contains("a backup is running"),
            "{message}"
        );
    }

    #[test]
    fn one_is_no_plural() {
        let rows = [(0, true), (1, true), (2, false)]
            .map(|(number, is_exact)| at_least_counted(number, is_exact, "row"));
        assert_eq!(rows, ["0 rows", "1 row", "at least 2 rows"]);
    }
}
