//! The log: to stderr, and to a file when one is set, which can be opened again after somebody
//! moved it away.

use crate::cli_error::without_os_error_number;
use crate::config::LogSettings;
use debros_proto::lock;
use std::fs::File;
use std::io::{self, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{NonBlocking, WorkerGuard};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Keeps the log going; what is still on its way to the file is written when this is dropped.
#[must_use]
#[derive(Debug)]
pub struct LogHandle {
    file: Option<LogFile>,
}

#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    /// Taken by the writer before it writes next.
    next: Arc<Mutex<Option<File>>>,
    _guard: WorkerGuard,
}

impl LogHandle {
    /// Opens the log file by its name again, and goes on there: the one before may have been moved
    /// away. Without a log file nothing happens; when it cannot be opened, the one before stays.
    pub(crate) fn reopen(&self) {
        let Some(LogFile { path, next, .. }) = &self.file else { return };
        match open_log_file(path) {
            Ok(file) => {
                *lock(next) = Some(file);
                // Its line moves the writer on to the new file, whatever is logged next.
                tracing::info!(path = %path.display(), "the log file is open again");
            }
            Err(error) => tracing::error!("{error:#}; the log goes on in the file that was open"),
        }
    }
}

/// Writes to the file that was opened last.
struct ReopenableWriter {
    file: File,
    next: Arc<Mutex<Option<File>>>,
}

impl Write for ReopenableWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(next) = lock(&self.next).take() {
            self.file = next;
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Starts the log.
///
/// # Errors
/// When the file cannot be opened, or a log was started before.
pub fn start(settings: &LogSettings) -> anyhow::Result<LogHandle> {
    let (writer, file) = match &settings.output_file {
        Some(path) => {
            let next = Arc::default();
            let file = ReopenableWriter { file: open_log_file(path)?, next: Arc::clone(&next) };
            let (writer, guard) = tracing_appender::non_blocking(file);
            (Some(writer), Some(LogFile { path: path.clone(), next, _guard: guard }))
        }
        None => (None, None),
    };
    let colours = io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    tracing_subscriber::registry()
        .with(level_filter(&settings.level))
        .with(format_layer(settings.json, colours, io::stderr))
        .with(writer.map(|writer: NonBlocking| format_layer(settings.json, false, writer)))
        .try_init()?;
    Ok(LogHandle { file })
}

fn open_log_file(path: &Path) -> anyhow::Result<File> {
    debros_proto::regular_file::open_to_append(path).map_err(|error| {
        // The log reports it as well, not only the program's error.
        anyhow::anyhow!(without_os_error_number(&format!(
            "the log file {} cannot be opened: {error}; choose another with logging.output_file",
            path.display()
        )))
    })
}

fn format_layer<S, W>(json: bool, colours: bool, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'span> LookupSpan<'span>,
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    // An error of the writer would be written to stderr, which panics when that is a terminal that
    // is gone.
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_ansi(colours)
        .log_internal_errors(false);
    if json { layer.json().flatten_event(true).boxed() } else { layer.boxed() }
}

/// This project's components at the level that was asked for. The libraries below them are one
/// level quieter, because what they call information is detail to an operator.
fn level_filter(level: &str) -> Targets {
    let (own, libraries) = match level {
        "debug" => (LevelFilter::DEBUG, LevelFilter::INFO),
        "warn" => (LevelFilter::WARN, LevelFilter::WARN),
        "error" => (LevelFilter::ERROR, LevelFilter::ERROR),
        _ => (LevelFilter::INFO, LevelFilter::WARN),
    };
    let crates = [
        "debros_cli",
        "debros_client",
        "debros_cluster",
        "debros_engine",
        "debros_gateway",
        "debros_node",
        "debros_p2p",
        "debros_rqlite",
    ];
    Targets::new().with_default(libraries).with_targets(crates.map(|name| (name, own)))
}
