//! The command line of `network-cli`.

use super::auth_args::{AuthCommand, OperatorArgs};
use super::completion_values;
use super::output::OutputFormat;
use crate::arg_parsers::parse_timeout;
use crate::version;
use clap::{Args, Parser, Subcommand};
use clap_complete::{ArgValueCandidates, Shell};
use std::path::PathBuf;
use std::time::Duration;

/// DeBros Network from the command line: SQL, key-value storage, pub/sub, and the network itself.
#[derive(Debug, Parser)]
#[command(name = "network-cli", version = version::LONG, disable_help_subcommand = false)]
#[command(after_help = "\
Which node: --bootstrap, else DEBROS_BOOTSTRAP_PEERS, else a node on this machine (DEBROS_NODE_DATA_DIR, ./data/*, /opt/debros/data/*).
Which credential: DEBROS_API_KEY, else the one stored for the node in ~/.debros/credentials.json; `auth login` stores one.
Exit codes: 0 done, 1 failed, 2 usage, 3 not authenticated, 4 not found, 5 unreachable or timed out.")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalOptions,
    #[command(subcommand)]
    pub(crate) command: CliCommand,
}

/// Options of every command; they may stand anywhere on the command line.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct GlobalOptions {
    /// Node to reach: a multiaddr with /p2p/<peer id>; several with commas or by repeating
    #[arg(short, long, value_name = "ADDR", global = true, value_delimiter = ',',
        add = ArgValueCandidates::new(completion_values::nodes))]
    pub(crate) bootstrap: Vec<String>,
    /// How results are written
    #[arg(short, long, value_name = "FORMAT", global = true, default_value = "table")]
    pub(crate) format: OutputFormat,
    /// How long a call may take
    #[arg(short, long, value_name = "TIME", global = true, default_value = "30s", value_parser = parse_timeout)]
    pub(crate) timeout: Duration,
    /// Namespace to act in, where the credential allows several
    #[arg(short, long, value_name = "NAME", global = true,
        add = ArgValueCandidates::new(completion_values::namespaces))]
    pub(crate) namespace: Option<String>,
    /// Reach the production network instead of a node on this machine
    #[arg(long, global = true)]
    pub(crate) production: bool,
    /// No routing through Anyone (SOCKS5); no effect yet: this version routes nothing through it
    #[arg(long, global = true)]
    pub(crate) disable_anonrc: bool,
}

fn parse_at_least_one(text: &str) -> Result<u64, String> {
    text.parse()
        .ok()
        .filter(|number| *number > 0)
        .ok_or_else(|| "it is not a whole number of at least 1".to_owned())
}

/// Which steps of a folder another tool has applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Baseline {
    /// None of them.
    Empty,
    /// Those up to this number.
    Version(i64),
}

fn parse_baseline(text: &str) -> Result<Baseline, String> {
    match text.parse() {
        Ok(version @ 0..) => Ok(Baseline::Version(version)),
        _ if text == "none" => Ok(Baseline::Empty),
        _ => Err("write the number of a step, or none".to_owned()),
    }
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum CliCommand {
    /// Shows the version of this program
    Version,
    /// Asks the node for its health: a real write, read and publish
    Health,
    /// Lists the peers that the node knows
    Peers,
    /// Shows the node's state
    Status,
    /// Says what is wrong with the node or its cluster, and what to do (operators only)
    ///
    /// Of a node of this machine that does not answer it looks at the data folder. Exit code 1 when
    /// it finds errors, 0 when it finds nothing or warnings alone.
    Doctor,
    /// Shows the node's peer id
    PeerId,
    /// Makes the node dial a peer (operators only)
    Connect {
        /// Multiaddr of the peer, with /p2p/<peer id>
        #[arg(value_name = "ADDR")]
        address: String,
    },
    /// Runs one SQL statement
    #[command(after_help = "\
An ARG that is a JSON number, null, true, false or {\"$blob\":\"<base64>\"} is passed as that; every other ARG is text. --text \
passes all as text.")]
    Query {
        /// The statement; ? stands for an argument
        sql: String,
        /// Values of the ?s, in order
        #[arg(value_name = "ARG", allow_negative_numbers = true)]
        args: Vec<String>,
        /// Passes every ARG as text, as it stands
        #[arg(long)]
        text: bool,
    },
    /// Key-value storage
    #[command(subcommand)]
    Storage(StorageCommand),
    /// Messages by topic
    #[command(subcommand)]
    Pubsub(PubsubCommand),
    /// Sign-in, wallets, API keys, and members of a namespace
    #[command(subcommand)]
    Auth(AuthCommand),
    /// Namespaces: lists, shows and deletes them
    #[command(subcommand)]
    Namespace(NamespaceCommand),
    /// The cluster: begins it, shows its nodes, lets nodes in and takes them out (operators only)
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// The database: backups, export, migrations, schema
    #[command(subcommand)]
    Db(DbCommand),
    /// Writes a completion script for a shell
    ///
    /// It is loaded at the shell's start, so that it is always the program's own: `source
    /// <(network-cli completions bash)` in ~/.bashrc, the same with zsh in ~/.zshrc, `network-cli
    /// completions fish | source` in config.fish.
    Completions {
        /// Which shell
        shell: Shell,
    },
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum StorageCommand {
    /// Stores a value
    Put {
        /// 1 to 1,024 bytes of UTF-8
        key: String,
        /// The value; - reads stdin, @FILE reads a file
        #[arg(allow_hyphen_values = true)]
        value: String,
        /// Takes VALUE as it stands, also when it is - or starts with @
        #[arg(long)]
        text: bool,
        /// The value expires after this time
        #[arg(long, value_name = "TIME", value_parser = parse_timeout)]
        ttl: Option<Duration>,
    },
    /// Writes a value's exact bytes to stdout
    Get {
        /// The key
        key: String,
    },
    /// Lists keys in byte order
    List {
        /// Only keys that start with this
        #[arg(default_value = "")]
        prefix: String,
        /// At most this many; all when left out
        #[arg(value_parser = parse_at_least_one)]
        limit: Option<u64>,
        /// Goes on where a list ended: the next_cursor that it has in JSON
        #[arg(long, value_name = "CURSOR", default_value = "", hide_default_value = true)]
        cursor: String,
    },
    /// Deletes a key
    Delete {
        /// The key
        key: String,
    },
    /// Prints whether a key exists; exit code 4 when it does not
    Exists {
        /// The key
        key: String,
    },
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum PubsubCommand {
    /// Sends a message to a topic
    Publish {
        /// The topic
        topic: String,
        /// The message; - reads stdin, @FILE reads a file
        #[arg(allow_hyphen_values = true)]
        message: String,
        /// Takes MESSAGE as it stands, also when it is - or starts with @
        #[arg(long)]
        text: bool,
    },
    /// Prints the messages of a topic as they come
    Subscribe {
        /// The topic
        topic: String,
        /// Ends after this time, such as 10s; else at Ctrl-C
        #[arg(value_parser = parse_timeout)]
        duration: Option<Duration>,
    },
    /// Lists the topics that have subscribers
    Topics,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum NamespaceCommand {
    /// Lists those that the wallet owns or has a role in; for a key its own; for operators all
    List {
        /// Only names that start with this
        #[arg(default_value = "")]
        prefix: String,
        #[command(flatten)]
        operator_args: OperatorArgs,
    },
    /// Shows what a namespace holds
    Info {
        /// The namespace; else the one that commands act in
        #[arg(add = ArgValueCandidates::new(completion_values::namespaces))]
        name: Option<String>,
        #[command(flatten)]
        operator_args: OperatorArgs,
    },
    /// Deletes a namespace with everything in it; for its owner
    Delete {
        /// The namespace
        #[arg(add = ArgValueCandidates::new(completion_values::namespaces))]
        name: String,
        /// The name once more, in place of typing it when asked
        #[arg(long, value_name = "NAME")]
        confirm: Option<String>,
        #[command(flatten)]
        operator_args: OperatorArgs,
    },
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Makes the node the first of a new cluster
    Init,
    /// Shows the nodes
    Status,
    /// Prints a join token, which lets one new node in within an hour: network-node --join TOKEN
    Token,
    /// Takes a node out for good, and changes the cluster's key
    Remove {
        /// The node's name or peer id
        #[arg(value_name = "PEER")]
        node: String,
    },
    /// Lets another node lead
    StepDown,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum DbCommand {
    /// Makes a verified copy of everything the node keeps (operators only)
    Backup {
        /// Lists the copies instead
        #[arg(long)]
        list: bool,
    },
    /// Puts a copy back in place of what the node holds (operators only)
    Restore {
        /// The copy's name, as `db backup --list` shows it
        #[arg(add = ArgValueCandidates::new(completion_values::backups))]
        name: String,
        /// Does not ask
        #[arg(long)]
        yes: bool,
    },
    /// Writes the namespace's SQL database to a SQLite file
    Export {
        /// The file to make
        file: PathBuf,
        /// Replaces the file if it exists
        #[arg(long)]
        force: bool,
    },
    /// Applies the numbered migrations of a folder that were not applied yet
    ///
    /// They are NUMBER_name.sql files, or folders NUMBER_name with a migration.sql or up.sql, as
    /// goose, dbmate, golang-migrate, sqlx, Flyway, Diesel, drizzle-kit, Prisma and others write
    /// them. Numbers run from 0 or 1 without a gap, or are timestamps like 20261124193000. Each is
    /// applied in a transaction of its own. What takes a change back (down, undo) never runs; a
    /// file that seems to hold it unmarked is refused, as are migrations in other languages than
    /// SQL, for other databases than SQLite, and steps whose file is missing or cut off. In folders
    /// below only Flyway's files are looked for; other SQL there is refused.
    ///
    /// A step has at most 999 statements of 1 MiB each, and 15.75 MiB in all. What `sqlite3 FILE
    /// .dump` or `.schema` writes can be a step: more rows than that are merged where they
    /// are written out, also those behind a virtual table.
    Migrate {
        /// The folder
        dir: PathBuf,
        /// Only shows what would be applied
        #[arg(long)]
        dry_run: bool,
        /// Records the steps up to this number as applied, without running them; none: records that
        /// nothing is
        #[arg(long, value_name = "NUMBER", value_parser = parse_baseline, conflicts_with = "dry_run")]
        baseline: Option<Baseline>,
    },
    /// Shows the tables with their columns and indexes
    Schema,
}
