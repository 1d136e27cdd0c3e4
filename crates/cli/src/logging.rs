//! The log: to stderr, and to a file when one is set.

use crate::config::LogSettings;
use std::io::{self, IsTerminal as _};
use std::path::Path;
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
pub struct Log {
    _file: Option<WorkerGuard>,
}

/// Starts the log.
///
/// # Errors
/// When the file can not be opened, or a log was started before.
pub fn start(settings: &LogSettings) -> anyhow::Result<Log> {
    let (file, guard) = match &settings.output_file {
        Some(path) => {
            let (writer, guard) = tracing_appender::non_blocking(open(path)?);
            (Some(writer), Some(guard))
        }
        None => (None, None),
    };
    let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    tracing_subscriber::registry()
        .with(filter(&settings.level))
        .with(layer(settings.json, colours, io::stderr))
        .with(file.map(|file: NonBlocking| layer(settings.json, false, file)))
        .try_init()?;
    Ok(Log { _file: guard })
}

fn open(path: &Path) -> anyhow::Result<std::fs::File> {
    std::fs::OpenOptions::new().create(true).append(true).open(path).map_err(|error| {
        anyhow::anyhow!(
            "the log file {} can not be opened: {error}; choose another with logging.output_file",
            path.display()
        )
    })
}

fn layer<S, W>(json: bool, colours: bool, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'span> LookupSpan<'span>,
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(colours);
    if json { layer.json().flatten_event(true).boxed() } else { layer.boxed() }
}

/// Our own components at the level that was asked for. The libraries below them are one level quieter, because what they
/// call information is detail to an operator.
fn filter(level: &str) -> Targets {
    let (own, libraries) = match level {
        "debug" => (LevelFilter::DEBUG, LevelFilter::INFO),
        "warn" => (LevelFilter::WARN, LevelFilter::WARN),
        "error" => (LevelFilter::ERROR, LevelFilter::ERROR),
        _ => (LevelFilter::INFO, LevelFilter::WARN),
    };
    let crates = ["debros_cli", "debros_client", "debros_engine", "debros_gateway", "debros_node", "debros_p2p"];
    Targets::new().with_default(libraries).with_targets(crates.map(|name| (name, own)))
}
