//! The program `network-gateway`: reaches nodes over P2P, serves HTTP, keeps nothing.

mod args;
mod nodes;

use crate::config::{Access, GatewaySettings};
use crate::descriptors::Descriptors;
use crate::fail::Failure;
use crate::logging::Log;
use crate::signals::{STOP_WITHIN, StopSignals};
use crate::{metrics, runtime, version};
use args::Args;
use clap::Parser as _;
use debros_client::Namespace;
use debros_gateway::{BuildInfo, Gateway, GatewayConfig, TlsFiles};
use std::process::ExitCode;
use std::time::Instant;

/// Runs the program.
pub fn main() -> ExitCode {
    runtime::exit_code(run(&Args::parse()))
}

fn run(args: &Args) -> Result<(), Failure> {
    let settings = GatewaySettings::load(&args.sources()?)?;
    runtime::service(args.print_config.then(|| settings.print()), &settings.log(), async |log| {
        serve(&settings, log).await
    })
}

async fn serve(settings: &GatewaySettings, log: &Log) -> Result<(), Failure> {
    let mut signals = StopSignals::of_service()?;
    let recorder = metrics::install().map_err(|error| Failure::new(format!("the metrics do not start: {error}")))?;
    let mut config = GatewayConfig::new(settings.addr());
    apply(&mut config, settings.access());
    let descriptors = Descriptors::raise();
    descriptors.of_gateway().apply(&mut config.limits);
    config.public_url = settings.public_url().map(str::to_owned);
    config.trusted_proxies = settings.trusted_proxies();
    config.tls = settings.tls_files().map(|(certificate, private_key)| TlsFiles { certificate, private_key });
    let reached = signals.during_start(nodes::reach(settings)).await?;
    config.operator_credential = nodes::operator_credential(settings, &reached)?;
    let client = reached.client;
    let gateway = Gateway::start(config, client.clone(), Some(recorder))
        .await
        .map_err(|error| Failure::new(error.to_string()))?;
    tracing::info!(address = %gateway.address(), connected = client.is_connected(), open_files = descriptors.limit, "ready");
    let (signal, _) = signals.next(|| reload(Some(&gateway), log)).await;
    tracing::info!(signal, "stopping; a second signal ends the process at once");
    signals.exit_at_next();
    // HTTP first: what it accepted still needs the node.
    gateway.shutdown(Instant::now() + STOP_WITHIN.mul_f64(0.8)).await;
    let _ = tokio::time::timeout(STOP_WITHIN.mul_f64(0.2), client.close()).await;
    Ok(())
}

/// Reads the certificates again and opens the log file again. What can not be read is said, and what was in use stays.
pub(crate) fn reload(gateway: Option<&Gateway>, log: &Log) {
    log.reopen();
    match gateway.map(Gateway::reload_certificate) {
        Some(Ok(true)) => tracing::info!("the TLS certificate was read again; new connections get it"),
        Some(Err(error)) => tracing::error!("{error}; the certificate that was in use stays"),
        Some(Ok(false)) | None => {}
    }
}

/// Applies what holds for a separate gateway and for one inside a node alike.
pub(crate) fn apply(config: &mut GatewayConfig, access: Access<'_>) {
    let namespace = |text: &str| Namespace::new(text).unwrap_or_else(|_| unreachable!("the table checks namespaces"));
    config.require_auth = access.require_auth();
    config.namespace = namespace(access.namespace());
    config.static_keys = access
        .api_keys()
        .iter()
        .filter_map(|pair| pair.rsplit_once(':'))
        .map(|(key, name)| (key.to_owned(), namespace(name)))
        .collect();
    config.cors_origins = access.cors_origins().to_vec();
    config.insecure_public = access.insecure_public();
    config.build = BuildInfo {
        version: version::VERSION.into(),
        commit: version::COMMIT.into(),
        build_time: version::BUILD_TIME.into(),
    };
}
