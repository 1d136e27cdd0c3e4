//! The program `network-gateway`: reaches nodes over P2P, serves HTTP, keeps nothing.

mod args;
mod reached_nodes;

use crate::cli_error::CliError;
use crate::config::{AccessSettings, GatewaySettings};
use crate::file_descriptors::FileDescriptorLimit;
use crate::logging::LogHandle;
use crate::signals::{STOP_WITHIN, StopSignals};
use crate::{metrics, runtime, version};
use args::GatewayArgs;
use clap::Parser as _;
use debros_client::Namespace;
use debros_gateway::{Gateway, GatewayBuildInfo, GatewayConfig, TlsFiles};
use std::process::ExitCode;
use std::time::Instant;

/// Runs the program.
pub fn main() -> ExitCode {
    runtime::exit_code(run(&GatewayArgs::parse()))
}

fn run(args: &GatewayArgs) -> Result<(), CliError> {
    let settings = GatewaySettings::load(&args.config_sources()?)?;
    runtime::run_service(
        args.print_config.then(|| settings.to_annotated_yaml()),
        &settings.log_settings(),
        async |log| serve(&settings, log).await,
    )
}

async fn serve(settings: &GatewaySettings, log: &LogHandle) -> Result<(), CliError> {
    let mut signals = StopSignals::of_service()?;
    let recorder = metrics::install()
        .map_err(|error| CliError::new(format!("the metrics do not start: {error}")))?;
    let mut config = GatewayConfig::new(settings.listen_address());
    apply_access(&mut config, settings.access_settings());
    let descriptors = FileDescriptorLimit::raise_limit();
    descriptors.connections_of_gateway().apply_to(&mut config.limits);
    config.public_url = settings.public_url().map(str::to_owned);
    config.trusted_proxies = settings.trusted_proxies();
    config.tls = settings
        .tls_files()
        .map(|(certificate, private_key)| TlsFiles { certificate, private_key });
    let reached = signals.during_start(reached_nodes::reach_nodes(settings)).await?;
    config.operator_credential = reached_nodes::operator_credential(settings, &reached)?;
    let client = reached.client;
    let gateway = Gateway::start(config, client.clone(), Some(recorder))
        .await
        .map_err(|error| CliError::new(error.to_string()))?;
    tracing::info!(address = %gateway.address(), open_files = descriptors.limit, "ready");
    let (signal, _) = signals.next_stop(|| reload_files(Some(&gateway), log)).await;
    tracing::info!(signal, "stopping; a second signal ends the process at once");
    signals.exit_at_next();
    // HTTP first: what it accepted still needs the node.
    gateway.shutdown(Instant::now() + STOP_WITHIN.mul_f64(0.8)).await;
    let _ = tokio::time::timeout(STOP_WITHIN.mul_f64(0.2), client.close()).await;
    Ok(())
}

/// Reads the certificates again and opens the log file again. What cannot be read is logged, and
/// what was in use stays.
pub(crate) fn reload_files(gateway: Option<&Gateway>, log: &LogHandle) {
    log.reopen();
    match gateway.map(Gateway::reload_certificate) {
        Some(Ok(true)) => {
            tracing::info!("the TLS certificate was read again; new connections get it")
        }
        Some(Err(error)) => tracing::error!("{error}; the certificate that was in use stays"),
        Some(Ok(false)) | None => {}
    }
}

/// Applies what holds for a separate gateway and for one inside a node alike.
pub(crate) fn apply_access(config: &mut GatewayConfig, access: AccessSettings<'_>) {
    let namespace = |text: &str| {
        Namespace::new(text).unwrap_or_else(|_| unreachable!("the table checks namespaces"))
    };
    config.require_auth = access.is_auth_required();
    config.namespace = namespace(access.namespace());
    config.static_keys = access
        .api_keys()
        .iter()
        .filter_map(|pair| pair.rsplit_once(':'))
        .map(|(key, name)| (key.to_owned(), namespace(name)))
        .collect();
    config.cors_origins = access.cors_origins().to_vec();
    config.insecure_public = access.allows_insecure_public();
    config.build = GatewayBuildInfo {
        version: version::VERSION.into(),
        commit: version::COMMIT.into(),
        build_time: version::BUILD_TIME.into(),
    };
}
