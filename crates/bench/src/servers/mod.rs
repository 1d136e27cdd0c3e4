//! The compared servers, and their requests for the same operations.

pub(crate) mod node;
pub(crate) mod process;
pub(crate) mod rqlite;

use crate::request_template::{
    AnswerCheck, FIRST, FRESH, KEY, RequestTemplate, value_starting_with,
};
use anyhow::{Context as _, Result, ensure};
use process::ServerProcess;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The measured operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Operation {
    /// Stores a value of 100 bytes under one of the keys.
    Put,
    /// Reads a value of 100 bytes.
    Get,
    /// Inserts a row with a parameterised statement.
    Insert,
    /// Reads a row by its primary key with a parameterised statement.
    Read,
}

impl Operation {
    pub(crate) const ALL: [Operation; 4] =
        [Operation::Put, Operation::Get, Operation::Insert, Operation::Read];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Operation::Put => "KV put",
            Operation::Get => "KV get",
            Operation::Insert => "SQL insert",
            Operation::Read => "SQL point read",
        }
    }
}

/// The compared servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ServerKind {
    /// The bare handler on SQLite.
    Ceiling,
    /// The node with its gateway inside.
    Inside,
    /// A separate gateway, over P2P to the same node.
    Separate,
    /// rqlite, called directly.
    Rqlite,
}

impl ServerKind {
    pub(crate) const ALL: [ServerKind; 4] =
        [ServerKind::Ceiling, ServerKind::Inside, ServerKind::Separate, ServerKind::Rqlite];

    pub(crate) fn title(self) -> &'static str {
        match self {
            ServerKind::Ceiling => "ceiling",
            ServerKind::Inside => "gateway inside",
            ServerKind::Separate => "separate gateway",
            ServerKind::Rqlite => "rqlite",
        }
    }
}

/// A server that is ready to be measured.
#[derive(Debug)]
pub(crate) struct BenchServer {
    pub(crate) kind: ServerKind,
    pub(crate) address: SocketAddr,
    /// The `Authorization` line, where one is needed.
    authorization: String,
    /// The processes that serve it: a separate gateway has its node beside it.
    pids: Vec<u32>,
    _process: Option<ServerProcess>,
}

impl BenchServer {
    /// Starts the ceiling.
    pub(crate) fn ceiling(folder: &Path) -> Result<Self> {
        let address = process::free_address()?;
        let data = folder.join("ceiling");
        std::fs::create_dir_all(&data)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["ceiling", "--addr", &address.to_string(), "--data-dir"]).arg(&data);
        let mut process = ServerProcess::start(&mut command, folder, "ceiling")?;
        process.wait_ready(address, "/ready")?;
        Ok(Self::new(ServerKind::Ceiling, address, "", vec![process.pid()], Some(process)))
    }

    /// The gateway inside a node.
    pub(crate) fn inside(node: &node::NodeProcess, key: &str) -> Self {
        Self::new(ServerKind::Inside, node.gateway, key, vec![node.process.pid()], None)
    }

    /// Starts a separate gateway in front of a node.
    pub(crate) fn separate(
        programs: &node::ProgramPaths,
        node: &node::NodeProcess,
        key: &str,
        folder: &Path,
    ) -> Result<Self> {
        let (process, address) = programs.start_gateway(node, folder)?;
        Ok(Self::new(
            ServerKind::Separate,
            address,
            key,
            vec![process.pid(), node.process.pid()],
            Some(process),
        ))
    }

    /// Starts rqlite.
    pub(crate) fn rqlite(rqlited: &Path, folder: &Path) -> Result<Self> {
        let (process, address) = rqlite::start(rqlited, folder)?;
        Ok(Self::new(ServerKind::Rqlite, address, "", vec![process.pid()], Some(process)))
    }

    fn new(
        kind: ServerKind,
        address: SocketAddr,
        key: &str,
        pids: Vec<u32>,
        process: Option<ServerProcess>,
    ) -> Self {
        let authorization =
            if key.is_empty() { String::new() } else { format!("Authorization: Bearer {key}\r\n") };
        Self { kind, address, authorization, pids, _process: process }
    }

    /// Processor time used so far by all processes that serve the requests.
    pub(crate) fn cpu_time(&self) -> Result<Duration> {
        self.pids.iter().map(|&pid| crate::proc_stat::process_cpu(pid)).sum()
    }

    /// The request of an operation.
    pub(crate) fn template(&self, operation: Operation) -> RequestTemplate {
        match operation {
            Operation::Put => self.put_request(&format!("put-{KEY}"), &value_starting_with(FRESH)),
            Operation::Get => self.get_request(&format!("get-{KEY}"), AnswerCheck::ValueOfKey),
            Operation::Insert => self.sql_request(
                "INSERT INTO items (name, value) VALUES (?, ?)",
                &[FRESH, &value_starting_with(FRESH)],
                true,
                AnswerCheck::NoError,
            ),
            Operation::Read => {
                let sql = "SELECT id, name, value FROM points WHERE id = ?";
                self.sql_request_with(
                    sql,
                    &format!("[{KEY}]"),
                    KEY,
                    false,
                    AnswerCheck::ContainsKey,
                )
            }
        }
    }

    /// Stores a value under a key.
    fn put_request(&self, key: &str, value: &str) -> RequestTemplate {
        match self.kind {
            ServerKind::Ceiling => {
                self.http_request("PUT", &format!("/kv?key={key}"), value, AnswerCheck::Status)
            }
            ServerKind::Inside | ServerKind::Separate => self.http_request(
                "PUT",
                &format!("/v1/storage?key={key}"),
                value,
                AnswerCheck::Status,
            ),
            ServerKind::Rqlite => {
                let sql = "INSERT INTO kv (k, v) VALUES (?, ?) ON CONFLICT(k) DO UPDATE SET v = excluded.v";
                self.sql_request(sql, &[key, value], true, AnswerCheck::NoError)
            }
        }
    }

    /// Reads the value of a key. `check` is about the value's bytes; rqlite's answer is JSON around
    /// them.
    fn get_request(&self, key: &str, check: AnswerCheck) -> RequestTemplate {
        match self.kind {
            ServerKind::Ceiling => self.http_request("GET", &format!("/kv?key={key}"), "", check),
            ServerKind::Inside | ServerKind::Separate => {
                self.http_request("GET", &format!("/v1/storage?key={key}"), "", check)
            }
            ServerKind::Rqlite => {
                let check = if check == AnswerCheck::ValueOfKey {
                    AnswerCheck::ContainsKey
                } else {
                    AnswerCheck::NoError
                };
                self.sql_request("SELECT v FROM kv WHERE k = ?", &[key], false, check)
            }
        }
    }

    /// A statement with text arguments.
    fn sql_request(
        &self,
        sql: &str,
        args: &[&str],
        write: bool,
        check: AnswerCheck,
    ) -> RequestTemplate {
        let args: Vec<String> = args.iter().map(|arg| format!("\"{arg}\"")).collect();
        let args = args.join(",");
        self.sql_request_with(sql, &format!("[{args}]"), &args, write, check)
    }

    /// A statement with arguments as each side's JSON: an array for us, what follows the SQL for
    /// rqlite.
    fn sql_request_with(
        &self,
        sql: &str,
        array: &str,
        listed: &str,
        write: bool,
        check: AnswerCheck,
    ) -> RequestTemplate {
        let body = format!(r#"{{"sql":"{sql}","args":{array}}}"#);
        match self.kind {
            ServerKind::Ceiling => self.json_request("/sql", &body, check),
            ServerKind::Inside | ServerKind::Separate => {
                self.json_request("/v1/db/query", &body, check)
            }
            ServerKind::Rqlite => {
                let path = if write { "/db/execute" } else { "/db/query?level=weak" };
                let separator = if listed.is_empty() { "" } else { "," };
                self.json_request(path, &format!(r#"[["{sql}"{separator}{listed}]]"#), check)
            }
        }
    }

    fn http_request(
        &self,
        method: &str,
        target: &str,
        body: &str,
        check: AnswerCheck,
    ) -> RequestTemplate {
        let headers = format!("{}Content-Type: application/octet-stream\r\n", self.authorization);
        RequestTemplate::http(
            method,
            target,
            if body.is_empty() { &self.authorization } else { &headers },
            body,
            check,
        )
    }

    fn json_request(&self, target: &str, body: &str, check: AnswerCheck) -> RequestTemplate {
        let headers = format!("{}Content-Type: application/json\r\n", self.authorization);
        RequestTemplate::http("POST", target, &headers, body, check)
    }

    /// Creates the tables and the data for the reads: `keys` keys and as many rows.
    pub(crate) fn prepare(&self, keys: u64) -> Result<()> {
        for table in [
            "CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT NOT NULL, value TEXT NOT NULL)",
            "CREATE TABLE points (id INTEGER PRIMARY KEY, name TEXT NOT NULL, value TEXT NOT NULL)",
        ] {
            self.send_once(&self.sql_request(table, &[], true, AnswerCheck::NoError))?;
        }
        if self.kind == ServerKind::Rqlite {
            self.send_once(&self.sql_request(
                "CREATE TABLE kv (k TEXT PRIMARY KEY, v TEXT NOT NULL)",
                &[],
                true,
                AnswerCheck::NoError,
            ))?;
        }
        let filler = value_starting_with("");
        let last = FIRST + keys - 1;
        let numbers = format!(
            "WITH RECURSIVE n(i) AS (SELECT {FIRST} UNION ALL SELECT i + 1 FROM n WHERE i < {last})"
        );
        let rows =
            format!("{numbers} INSERT INTO points SELECT i, 'name ' || i, '{filler}' FROM n");
        self.send_once(&self.sql_request(&rows, &[], true, AnswerCheck::NoError))?;
        let values = format!("i || substr('{}', 11)", value_starting_with("##########"));
        match self.kind {
            ServerKind::Rqlite => {
                let pairs = format!("{numbers} INSERT INTO kv SELECT 'get-' || i, {values} FROM n");
                self.send_once(&self.sql_request(&pairs, &[], true, AnswerCheck::NoError))
            }
            ServerKind::Ceiling => {
                let pairs = format!(
                    "{numbers} INSERT INTO kv SELECT 'get-' || i, CAST({values} AS BLOB) FROM n"
                );
                self.send_once(&self.sql_request(&pairs, &[], true, AnswerCheck::NoError))
            }
            // SQL cannot reach namespaces' key-value pairs: they are put one by one.
            ServerKind::Inside | ServerKind::Separate => crate::load::put_all(
                self.address,
                &self.put_request(&format!("get-{KEY}"), &value_starting_with(KEY)),
                keys,
            ),
        }
    }

    /// Sends a request once.
    fn send_once(&self, template: &RequestTemplate) -> Result<()> {
        crate::load::request_once(self.address, template, FIRST)
            .map(drop)
            .with_context(|| self.kind.title())
    }

    /// The number of rows in the table of the inserts.
    pub(crate) fn count_items(&self) -> Result<u64> {
        let template =
            self.sql_request("SELECT count(*) FROM items", &[], false, AnswerCheck::NoError);
        let answer = crate::load::request_once(self.address, &template, FIRST)?;
        // {"columns":["count(*)"],"rows":[[7]],…} or
        // {"results":[{"columns":["count(*)"],…,"values":[[7]]}]}
        let number: String = answer
            .rsplit_once("[[")
            .map(|(_, rest)| rest.chars().take_while(char::is_ascii_digit).collect())
            .unwrap_or_default();
        number.parse().with_context(|| format!("no count in {answer}"))
    }

    /// Verifies that a key of the puts holds the value with this fresh number.
    pub(crate) fn verify_put(&self, key: u64, fresh: u64) -> Result<()> {
        let answer = crate::load::request_once(
            self.address,
            &self.get_request(&format!("put-{KEY}"), AnswerCheck::Status),
            key,
        )?;
        ensure!(
            answer.contains(&fresh.to_string()),
            "key {key} was put with {fresh}, and holds {answer}"
        );
        Ok(())
    }
}
