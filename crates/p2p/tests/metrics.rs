//! What an operator sees of the network. One test, because the recorder is the process's own.

mod support;

use debros_p2p::Keypair;
use debros_proto::rpc;
use debros_proto::rpc::frame::Body;
use futures::StreamExt as _;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use std::time::{Duration, Instant};
use support::raw::{RawPeer, Security};
use support::{LONG, connect, get, node_with, subscribe};

fn value(handle: &PrometheusHandle, name: &str) -> f64 {
    let page = handle.render();
    let line =
        page.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok())
        .unwrap_or_else(|| panic!("no {name} in\n{page}"))
}

async fn becomes(handle: &PrometheusHandle, name: &str, expected: f64) {
    let deadline = Instant::now() + LONG;
    while value(handle, name) != expected {
        assert!(Instant::now() < deadline, "{name} is {}, not {expected}", value(handle, name));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_calls_bytes_and_resets_are_counted() {
    let page = PrometheusBuilder::new().install_recorder().unwrap();
    // Both ends are in this process, so what is symmetric counts twice.
    let (host, node) = node_with(|config| {
        config.max_connections = 2;
        config.limits.calls_per_stream = 1;
    })
    .await;
    let (client, channel) = connect(&host).await;
    let mut bad = RawPeer::connect(&host).await;
    becomes(&page, "debros_p2p_connections", 3.0).await;
    RawPeer::connect_as(&host, &Keypair::generate_ed25519(), Security::Noise).await.err().unwrap();
    becomes(&page, "debros_p2p_refused_connections_total", 1.0).await;

    let call = tokio::spawn({
        let channel = channel.clone();
        async move { channel.call(get("wait"), LONG).await }
    });
    node.until_waiting(1).await;
    let (_, mut events) = channel.open(subscribe("endless"), LONG).await.unwrap();
    events.next().await.unwrap().unwrap();
    becomes(&page, "debros_p2p_serving_calls", 1.0).await;
    becomes(&page, "debros_p2p_event_streams", 1.0).await;
    becomes(&page, "debros_p2p_open_channels", 1.0).await;
    becomes(&page, "debros_p2p_served_streams", 1.0).await;
    channel.call(get("over the limit"), LONG).await.unwrap_err();
    becomes(&page, "debros_p2p_refused_calls_total", 1.0).await;
    becomes(&page, "debros_p2p_served_calls_total", 2.0).await;
    drop(events);
    node.release.cancel();
    call.await.unwrap().unwrap();
    becomes(&page, "debros_p2p_serving_calls", 0.0).await;
    becomes(&page, "debros_p2p_event_streams", 0.0).await;
    assert!(value(&page, "debros_p2p_rpc_received_bytes_total") > 0.0);
    assert!(value(&page, "debros_p2p_rpc_sent_bytes_total") > 0.0);

    let mut stream = bad.open().await;
    stream.send(1, Body::End(rpc::End {})).await;
    stream.ended().await;
    becomes(&page, "debros_p2p_stream_resets_total{reason=\"violation\"}", 1.0).await;

    client.connect("/ip4/127.0.0.1/tcp/1".parse().unwrap(), LONG).await.unwrap_err();
    assert_eq!(value(&page, "debros_p2p_failed_dials_total"), 1.0);
    client.shutdown(Instant::now() + LONG).await;
    becomes(&page, "debros_p2p_connections", 1.0).await;
    becomes(&page, "debros_p2p_open_channels", 0.0).await;
    becomes(&page, "debros_p2p_served_streams", 0.0).await;
}
