//! The program `network-node`: configuration, log, node, gateway inside; then waiting for
//! the signal to stop.

mod args;
mod dev;
mod dev_wallet;
mod operator_commands;
mod recover;
mod start_error;

use crate::cli_error::CliError;
use crate::config::NodeSettings;
use crate::file_descriptors::{ConnectionLimit, FileDescriptorLimit};
use crate::logging::LogHandle;
use crate::network_gateway::reload_files;
use crate::signals::{STOP_WITHIN, StopSignals};
use crate::{gateway_url, metrics, runtime, version};
use args::{NodeArgs, NodeCommand};
use clap::Parser as _;
use debros_client::{Client, Config};
use debros_gateway::{Gateway, GatewayConfig, TlsFiles};
use debros_node::{JoinToken, Node, NodeConfig};
use metrics_exporter_prometheus::PrometheusHandle;
use std::process::ExitCode;
use std::time::Instant;

/// Runs the program.
pub fn main() -> ExitCode {
    runtime::exit_code(run(&NodeArgs::parse()))
}

fn run(args: &NodeArgs) -> Result<(), CliError> {
    let settings = NodeSettings::load(&args.config_sources()?, args.p2p_port.as_deref())?;
    if let Some(command) = &args.command {
        return runtime::command_runtime()?.block_on(run_node_command(command, &settings));
    }
    runtime::run_service(
        args.print_config.then(|| settings.to_annotated_yaml()),
        &settings.log_settings(),
        async |log| {
            serve(args, &settings, log).await.inspect_err(|cli_error| {
                debros_node::note_failure(&settings.data_dir(), &failure_text(cli_error));
            })
        },
    )
}

/// What ended the node, for those who look for it later.
fn failure_text(cli_error: &CliError) -> String {
    match &cli_error.hint {
        Some(hint) => format!("{}; {hint}", cli_error.message),
        None => cli_error.message.clone(),
    }
}

/// A command for the node of the data folder.
async fn run_node_command(command: &NodeCommand, settings: &NodeSettings) -> Result<(), CliError> {
    let data_dir = &settings.data_dir();
    match command {
        NodeCommand::ApiKey(wanted) => operator_commands::create_api_key(wanted, data_dir).await,
        NodeCommand::Token => operator_commands::create_join_token(data_dir).await,
        NodeCommand::Recover { yes } => recover::run(settings, *yes).await,
        NodeCommand::RotateKey => operator_commands::rotate_key(data_dir).await,
        NodeCommand::RemoveSigningKey { kid } => {
            operator_commands::remove_signing_key(kid, data_dir).await
        }
    }
}

async fn serve(args: &NodeArgs, settings: &NodeSettings, log: &LogHandle) -> Result<(), CliError> {
    let began = Instant::now();
    for notice in settings.notices() {
        tracing::warn!("{notice}");
    }
    if args.dev {
        require_loopback(args, settings)?;
    }
    let mut signals = StopSignals::of_service()?;
    let recorder = settings
        .embedded_gateway()
        .map(|_| metrics::install())
        .transpose()
        .map_err(|error| CliError::new(format!("the metrics do not start: {error}")))?;
    let build = debros_node::NodeBuildInfo {
        version: version::VERSION.into(),
        commit: version::COMMIT.into(),
    };
    let mut config = settings.node_config(build);
    config.cluster.join = args.join.as_deref().map(parse_join_token).transpose()?;
    if config.cluster.join.is_some() && !config.cluster.is_wanted {
        let (_, origin) = settings.value_and_origin("database.engine");
        return Err(CliError::usage(format!(
            "--join lets the node take part in a cluster's database, and database.engine is embedded ({origin}): leave one of \
             both out"
        )));
    }
    let descriptors = FileDescriptorLimit::raise_limit();
    let shares =
        descriptors.shares_of_node(config.max_connections, settings.embedded_gateway().is_some());
    config.database.open_databases = shares.databases;
    loop {
        let started = StartedProgram {
            args,
            settings,
            log,
            began,
            recorder: recorder.clone(),
            connections: shares.connections,
            open_files: descriptors.limit,
        };
        signals = match started.run(config.clone(), signals).await? {
            None => return Ok(()),
            Some((signals, why)) => {
                tracing::info!("the node starts again: {why}");
                signals
            }
        };
    }
}

/// What a node of this program is started with.
struct StartedProgram<'p> {
    args: &'p NodeArgs,
    settings: &'p NodeSettings,
    log: &'p LogHandle,
    began: Instant,
    recorder: Option<PrometheusHandle>,
    connections: ConnectionLimit,
    open_files: u64,
}

impl StartedProgram<'_> {
    /// Runs a node with its gateway until a signal comes. `Some`: or until it has to be started
    /// again, and why.
    async fn run(
        self,
        config: NodeConfig,
        mut signals: StopSignals,
    ) -> Result<Option<(StopSignals, &'static str)>, CliError> {
        let Self { args, settings, log, began, recorder, connections, open_files } = self;
        let starting = Node::start(config);
        let node = signals
            .during_start(starting)
            .await
            .map_err(|error| start_error::explain_node(&error, args, settings))?;
        let gateway = match start_gateway(settings, &node, connections, recorder).await {
            Ok(gateway) => gateway,
            Err(error) => {
                node.shutdown(Instant::now() + STOP_WITHIN).await;
                return Err(start_error::explain_gateway(&error, args));
            }
        };
        let url = gateway.as_ref().map(|gateway| gateway_url_of(gateway, settings));
        let url_file = gateway.as_ref().and_then(|_| write_gateway_url(settings, url.as_deref()));
        let addresses: Vec<String> =
            node.listen_addresses().iter().map(ToString::to_string).collect();
        tracing::info!(
            peer_id = %node.peer_id(),
            addresses = addresses.join(" "),
            gateway = url.as_deref().unwrap_or("off"),
            data_dir = %settings.data_dir().display(),
            open_files,
            took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            "ready"
        );
        if args.dev
            && let Some(url) = &url
        {
            dev::print_welcome(&node, url, &settings.data_dir()).await;
        }
        let why = tokio::select! {
            (signal, _) = signals.next_stop(|| reload_files(gateway.as_ref(), log)) => {
                tracing::info!(signal, "stopping; a second signal ends the process at once");
                signals.exit_at_next();
                drop(url_file);
                stop(node, gateway).await;
                return Ok(None);
            }
            why = node.restart_requested() => why,
        };
        drop(url_file);
        stop(node, gateway).await;
        Ok(Some((signals, why)))
    }
}

/// Not left to the command line's parser, whose error would show the secret.
fn parse_join_token(text: &str) -> Result<JoinToken, CliError> {
    text.parse().map_err(|error| CliError::usage(format!("--join: {error}")))
}

/// A development node writes its key to the screen and nobody watches over it: it is for this
/// machine, unless an option says otherwise.
fn require_loopback(args: &NodeArgs, settings: &NodeSettings) -> Result<(), CliError> {
    let Some((listen, inside)) = settings.embedded_gateway() else { return Ok(()) };
    let is_wanted = args.insecure_public || inside.access_settings().allows_insecure_public();
    if is_wanted || gateway_url::is_loopback(&format!("http://{listen}")) {
        return Ok(());
    }
    let (_, origin) = settings.value_and_origin("gateway.listen_addr");
    let message = format!(
        "--dev is for this machine alone, and its gateway would listen on {listen} ({origin})"
    );
    Err(CliError::usage(message).with_hint(
        "name a loopback address such as 127.0.0.1:8080; or give --insecure-public; or start a node without --dev",
    ))
}

/// Writes where programs on this machine find the gateway, by the name that browsers know it under.
fn write_gateway_url(
    settings: &NodeSettings,
    url: Option<&str>,
) -> Option<gateway_url::GatewayUrlFile> {
    let url = settings.public_url().or(url)?;
    let written = gateway_url::write(&settings.data_dir(), url);
    written
        .inspect_err(|error| {
            tracing::warn!("programs on this machine will not find the gateway: {error}")
        })
        .ok()
}

/// The gateway first: it finishes what it accepted while the node still answers. Then the node, in
/// what is left of the time.
async fn stop(node: Node, gateway: Option<Gateway>) {
    let deadline = Instant::now() + STOP_WITHIN;
    if let Some(gateway) = gateway {
        // A part of the time is the node's.
        gateway.shutdown(Instant::now() + STOP_WITHIN.mul_f64(0.6)).await;
    }
    node.shutdown(deadline).await;
}

async fn start_gateway(
    settings: &NodeSettings,
    node: &Node,
    connections: ConnectionLimit,
    recorder: Option<PrometheusHandle>,
) -> Result<Option<Gateway>, debros_gateway::GatewayStartError> {
    let Some((listen, inside)) = settings.embedded_gateway() else {
        return Ok(None);
    };
    let mut config = GatewayConfig::new(listen);
    crate::network_gateway::apply_access(&mut config, inside.access_settings());
    connections.apply_to(&mut config.limits);
    config.public_url = settings.public_url().map(str::to_owned);
    config.trusted_proxies = settings.trusted_proxies();
    config.operator_credential = Some(node.operator_credential().to_owned());
    config.tls = settings
        .tls_files()
        .map(|(certificate, private_key)| TlsFiles { certificate, private_key });
    let client = Client::local(node.handler(), &Config::new(""));
    Gateway::start(config, client, recorder).await.map(Some)
}

/// How a browser on this machine reaches the gateway.
fn gateway_url_of(gateway: &Gateway, settings: &NodeSettings) -> String {
    let scheme = if settings.tls_files().is_some() { "https" } else { "http" };
    let mut address = gateway.address();
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    format!("{scheme}://{address}")
}
