//! The servers that are compared, and how each one is asked for the same thing.

pub(crate) mod node;
pub(crate) mod process;
pub(crate) mod rqlite;

use crate::template::{Check, FIRST, FRESH, KEY, Template, value};
use anyhow::{Context as _, Result, ensure};
use process::Process;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// What is measured.
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
    pub(crate) const ALL: [Operation; 4] = [Operation::Put, Operation::Get, Operation::Insert, Operation::Read];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Operation::Put => "KV put",
            Operation::Get => "KV get",
            Operation::Insert => "SQL insert",
            Operation::Read => "SQL point read",
        }
    }
}

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// The bare handler on SQLite.
    Ceiling,
    /// The node with its gateway inside.
    Inside,
    /// A separate gateway, over P2P to the same node.
    Separate,
    /// rqlite, called directly.
    Rqlite,
}

impl Kind {
    pub(crate) const ALL: [Kind; 4] = [Kind::Ceiling, Kind::Inside, Kind::Separate, Kind::Rqlite];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Kind::Ceiling => "ceiling",
            Kind::Inside => "gateway inside",
            Kind::Separate => "separate gateway",
            Kind::Rqlite => "rqlite",
        }
    }
}

/// A server that is ready to be measured.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) kind: Kind,
    pub(crate) address: SocketAddr,
    /// The `Authorization` line, where one is needed.
    authorization: String,
    /// The processes that do the work: a separate gateway has its node beside it.
    pids: Vec<u32>,
    _process: Option<Process>,
}

impl Server {
    /// Starts the ceiling.
    pub(crate) fn ceiling(folder: &Path) -> Result<Self> {
        let address = process::free_address()?;
        let data = folder.join("ceiling");
        std::fs::create_dir_all(&data)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["ceiling", "--addr", &address.to_string(), "--data-dir"]).arg(&data);
        let mut process = Process::start(&mut command, folder, "ceiling")?;
        process.wait_ready(address, "/ready")?;
        Ok(Self::of(Kind::Ceiling, address, "", vec![process.pid()], Some(process)))
    }

    /// The gateway inside a node.
    pub(crate) fn inside(node: &node::Node, key: &str) -> Self {
        Self::of(Kind::Inside, node.gateway, key, vec![node.process.pid()], None)
    }

    /// Starts a separate gateway in front of a node.
    pub(crate) fn separate(programs: &node::Programs, node: &node::Node, key: &str, folder: &Path) -> Result<Self> {
        let (process, address) = programs.start_gateway(node, folder)?;
        Ok(Self::of(Kind::Separate, address, key, vec![process.pid(), node.process.pid()], Some(process)))
    }

    /// Starts rqlite.
    pub(crate) fn rqlite(rqlited: &Path, folder: &Path) -> Result<Self> {
        let (process, address) = rqlite::start(rqlited, folder)?;
        Ok(Self::of(Kind::Rqlite, address, "", vec![process.pid()], Some(process)))
    }

    fn of(kind: Kind, address: SocketAddr, key: &str, pids: Vec<u32>, process: Option<Process>) -> Self {
        let authorization = if key.is_empty() { String::new() } else { format!("Authorization: Bearer {key}\r\n") };
        Self { kind, address, authorization, pids, _process: process }
    }

    /// Processor time used so far by all processes that serve the requests.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        self.pids.iter().map(|&pid| crate::proc_stat::process_cpu(pid)).sum()
    }

    /// The request of an operation.
    pub(crate) fn template(&self, operation: Operation) -> Template {
        match operation {
            Operation::Put => self.put(&format!("put-{KEY}"), &value(FRESH)),
            Operation::Get => self.get(&format!("get-{KEY}"), Check::ValueOfKey),
            Operation::Insert => {
                self.sql("INSERT INTO items (name, value) VALUES (?, ?)", &[FRESH, &value(FRESH)], true, Check::NoError)
            }
            Operation::Read => {
                let sql = "SELECT id, name, value FROM points WHERE id = ?";
                self.sql_with(sql, &format!("[{KEY}]"), KEY, false, Check::ContainsKey)
            }
        }
    }

    /// Stores a value under a key.
    fn put(&self, key: &str, value: &str) -> Template {
        match self.kind {
            Kind::Ceiling => self.raw("PUT", &format!("/kv?key={key}"), value, Check::Status),
            Kind::Inside | Kind::Separate => self.raw("PUT", &format!("/v1/storage?key={key}"), value, Check::Status),
            Kind::Rqlite => {
                let sql = "INSERT INTO kv (k, v) VALUES (?, ?) ON CONFLICT(k) DO UPDATE SET v = excluded.v";
                self.sql(sql, &[key, value], true, Check::NoError)
            }
        }
    }

    /// Reads the value of a key. `check` is about the value's bytes; rqlite's answer is JSON around them.
    fn get(&self, key: &str, check: Check) -> Template {
        match self.kind {
            Kind::Ceiling => self.raw("GET", &format!("/kv?key={key}"), "", check),
            Kind::Inside | Kind::Separate => self.raw("GET", &format!("/v1/storage?key={key}"), "", check),
            Kind::Rqlite => {
                let check = if check == Check::ValueOfKey { Check::ContainsKey } else { Check::NoError };
                self.sql("SELECT v FROM kv WHERE k = ?", &[key], false, check)
            }
        }
    }

    /// A statement with text arguments.
    fn sql(&self, sql: &str, args: &[&str], write: bool, check: Check) -> Template {
        let args: Vec<String> = args.iter().map(|arg| format!("\"{arg}\"")).collect();
        let args = args.join(",");
        self.sql_with(sql, &format!("[{args}]"), &args, write, check)
    }

    /// A statement with arguments as each side's JSON: an array for us, what follows the SQL for rqlite.
    fn sql_with(&self, sql: &str, array: &str, listed: &str, write: bool, check: Check) -> Template {
        let body = format!(r#"{{"sql":"{sql}","args":{array}}}"#);
        match self.kind {
            Kind::Ceiling => self.json("/sql", &body, check),
            Kind::Inside | Kind::Separate => self.json("/v1/db/query", &body, check),
            Kind::Rqlite => {
                let path = if write { "/db/execute" } else { "/db/query?level=weak" };
                let separator = if listed.is_empty() { "" } else { "," };
                self.json(path, &format!(r#"[["{sql}"{separator}{listed}]]"#), check)
            }
        }
    }

    fn raw(&self, method: &str, target: &str, body: &str, check: Check) -> Template {
        let headers = format!("{}Content-Type: application/octet-stream\r\n", self.authorization);
        Template::http(method, target, if body.is_empty() { &self.authorization } else { &headers }, body, check)
    }

    fn json(&self, target: &str, body: &str, check: Check) -> Template {
        let headers = format!("{}Content-Type: application/json\r\n", self.authorization);
        Template::http("POST", target, &headers, body, check)
    }

    /// Makes the tables and what the reads read: `keys` keys and as many rows.
    pub(crate) fn prepare(&self, keys: u64) -> Result<()> {
        for table in [
            "CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT NOT NULL, value TEXT NOT NULL)",
            "CREATE TABLE points (id INTEGER PRIMARY KEY, name TEXT NOT NULL, value TEXT NOT NULL)",
        ] {
            self.ask(&self.sql(table, &[], true, Check::NoError))?;
        }
        if self.kind == Kind::Rqlite {
            self.ask(&self.sql("CREATE TABLE kv (k TEXT PRIMARY KEY, v TEXT NOT NULL)", &[], true, Check::NoError))?;
        }
        let filler = value("");
        let last = FIRST + keys - 1;
        let numbers = format!("WITH RECURSIVE n(i) AS (SELECT {FIRST} UNION ALL SELECT i + 1 FROM n WHERE i < {last})");
        let rows = format!("{numbers} INSERT INTO points SELECT i, 'name ' || i, '{filler}' FROM n");
        self.ask(&self.sql(&rows, &[], true, Check::NoError))?;
        let values = format!("i || substr('{}', 11)", value("##########"));
        match self.kind {
            Kind::Rqlite => {
                let pairs = format!("{numbers} INSERT INTO kv SELECT 'get-' || i, {values} FROM n");
                self.ask(&self.sql(&pairs, &[], true, Check::NoError))
            }
            Kind::Ceiling => {
                let pairs = format!("{numbers} INSERT INTO kv SELECT 'get-' || i, CAST({values} AS BLOB) FROM n");
                self.ask(&self.sql(&pairs, &[], true, Check::NoError))
            }
            // Namespaces keep key-value pairs out of reach of SQL: they are put one by one.
            Kind::Inside | Kind::Separate => {
                crate::load::put_all(self.address, &self.put(&format!("get-{KEY}"), &value(KEY)), keys)
            }
        }
    }

    /// Sends a request once.
    fn ask(&self, template: &Template) -> Result<()> {
        crate::load::once(self.address, template, FIRST).map(drop).with_context(|| self.kind.title())
    }

    /// Rows in the table of the inserts.
    pub(crate) fn count_items(&self) -> Result<u64> {
        let template = self.sql("SELECT count(*) FROM items", &[], false, Check::NoError);
        let answer = crate::load::once(self.address, &template, FIRST)?;
        // {"columns":["count(*)"],"rows":[[7]],…} or {"results":[{"columns":["count(*)"],…,"values":[[7]]}]}
        let number: String = answer
            .rsplit_once("[[")
            .map(|(_, rest)| rest.chars().take_while(char::is_ascii_digit).collect())
            .unwrap_or_default();
        number.parse().with_context(|| format!("no count in {answer}"))
    }

    /// Verifies that a key of the puts holds the value with this fresh number.
    pub(crate) fn verify_put(&self, key: u64, fresh: u64) -> Result<()> {
        let answer = crate::load::once(self.address, &self.get(&format!("put-{KEY}"), Check::Status), key)?;
        ensure!(answer.contains(&fresh.to_string()), "key {key} was put with {fresh}, and holds {answer}");
        Ok(())
    }
}
