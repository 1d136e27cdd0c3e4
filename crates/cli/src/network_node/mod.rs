//! The program `network-node`: configuration, log, node, gateway inside; then waiting for the signal to stop.

mod api_key;
mod args;
mod dev;
mod explain;

use crate::config::NodeSettings;
use crate::fail::Failure;
use crate::signals::{STOP_WITHIN, StopSignals};
use crate::{metrics, runtime, version};
use args::{Args, Command};
use clap::Parser as _;
use debros_client::{Client, Config};
use debros_gateway::{Gateway, GatewayConfig, TlsFiles};
use debros_node::Node;
use metrics_exporter_prometheus::PrometheusHandle;
use std::process::ExitCode;
use std::time::Instant;

/// Runs the program.
pub fn main() -> ExitCode {
    runtime::exit_code(run(&Args::parse()))
}

fn run(args: &Args) -> Result<(), Failure> {
    let settings = NodeSettings::load(&args.sources()?, args.p2p_port.as_deref())?;
    if let Some(Command::ApiKey(wanted)) = &args.command {
        return runtime::command()?.block_on(api_key::make(wanted, &settings.data_dir()));
    }
    runtime::service(args.print_config.then(|| settings.print()), &settings.log(), serve(args, &settings))
}

async fn serve(args: &Args, settings: &NodeSettings) -> Result<(), Failure> {
    let began = Instant::now();
    for notice in settings.notices() {
        tracing::warn!("{notice}");
    }
    let mut signals = StopSignals::listen()?;
    let recorder = settings
        .gateway()
        .map(|_| metrics::install())
        .transpose()
        .map_err(|error| Failure::new(format!("the metrics do not start: {error}")))?;
    let build = debros_node::BuildInfo { version: version::VERSION.into(), commit: version::COMMIT.into() };
    let starting = Node::start(settings.node_config(build));
    let node = signals.during_start(starting).await.map_err(|error| explain::node(&error, args, settings))?;
    let gateway = match start_gateway(settings, &node, recorder).await {
        Ok(gateway) => gateway,
        Err(error) => {
            node.shutdown(Instant::now() + STOP_WITHIN).await;
            return Err(explain::gateway(&error, args));
        }
    };
    let url = gateway.as_ref().map(|gateway| url(gateway, settings));
    let addresses: Vec<String> = node.listen_addresses().iter().map(ToString::to_string).collect();
    tracing::info!(
        peer_id = %node.peer_id(),
        addresses = addresses.join(" "),
        gateway = url.as_deref().unwrap_or("off"),
        data_dir = %settings.data_dir().display(),
        took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        "ready"
    );
    if args.dev
        && let Some(url) = &url
    {
        dev::welcome(&node, url, &settings.data_dir()).await;
    }
    let (signal, _) = signals.next().await;
    tracing::info!(signal, "stopping; a second signal ends the process at once");
    signals.exit_at_next();
    stop(node, gateway).await;
    Ok(())
}

/// The gateway first: it finishes what it accepted while the node still answers. Then the node, in what is left of the
/// time.
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
    recorder: Option<PrometheusHandle>,
) -> Result<Option<Gateway>, debros_gateway::StartError> {
    let Some((listen, inside)) = settings.gateway() else {
        return Ok(None);
    };
    let mut config = GatewayConfig::new(listen);
    crate::network_gateway::apply(&mut config, inside.access());
    config.operator_credential = Some(node.operator_credential().to_owned());
    config.tls = settings.tls_files().map(|(certificate, private_key)| TlsFiles { certificate, private_key });
    let client = Client::local(node.handler(), &Config::new(""));
    Gateway::start(config, client, recorder).await.map(Some)
}

/// How a browser on this machine reaches the gateway.
fn url(gateway: &Gateway, settings: &NodeSettings) -> String {
    let scheme = if settings.tls_files().is_some() { "https" } else { "http" };
    let mut address = gateway.address();
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    format!("{scheme}://{address}")
}
