//! The ceiling: the server that a good engineer would write without namespaces, credentials and a
//! network of peers. A bare axum handler on SQLite, one writer thread with group commit, one read
//! connection for each worker thread. Writes are as durable as the node's: WAL with
//! `synchronous=FULL`, acknowledged after the commit.

mod http;
mod json;
mod reader;
mod writer;

use anyhow::{Context as _, Result};
use rusqlite::Connection;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The options of the ceiling.
#[derive(Debug, clap::Args)]
pub(crate) struct CeilingOptions {
    /// Address to listen on.
    #[arg(long)]
    addr: SocketAddr,
    /// Folder for the database.
    #[arg(long)]
    data_dir: PathBuf,
}

/// Serves until the process is killed.
pub(crate) fn serve(options: &CeilingOptions) -> Result<()> {
    let path = options.data_dir.join("ceiling.db");
    let writer = writer::start(&path)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(http::serve(options.addr, path, writer))
}

/// Opens the database with the settings that both kinds of connections share.
fn open_database(path: &Path) -> Result<Connection> {
    let connection = Connection::open(path).with_context(|| format!("open {}", path.display()))?;
    connection.execute_batch(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-32768; PRAGMA mmap_size=268435456;
         PRAGMA temp_store=MEMORY; PRAGMA busy_timeout=5000; PRAGMA wal_autocheckpoint=4000;",
    )?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}
