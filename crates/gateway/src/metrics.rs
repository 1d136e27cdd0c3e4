//! The gateway's metrics. Every handle is looked up once and stored: a request only adds to
//! numbers.

use http::{Method, StatusCode};
use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};
use std::collections::HashMap;
use std::sync::OnceLock;
use std::time::Duration;

const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "other"];
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
/// Stands for every path that is no route: a scan must not create a metric for each of its guesses.
const UNMATCHED: &str = "unmatched";

/// The gateway's metrics.
pub(crate) struct GatewayMetrics {
    routes: HashMap<&'static str, RouteMetrics>,
    unmatched: RouteMetrics,
    pub(crate) in_flight: Gauge,
    pub(crate) connections: Gauge,
    pub(crate) request_bytes: Counter,
    pub(crate) response_bytes: Counter,
    pub(crate) held_bytes: Gauge,
    pub(crate) websockets: Gauge,
    pub(crate) messages_received: Counter,
    pub(crate) messages_sent: Counter,
    pub(crate) messages_missed: Counter,
}

/// The metrics of one route; those of a method and class are created by their first request.
pub(crate) struct RouteMetrics {
    route: &'static str,
    requests: [[OnceLock<Counter>; CLASSES.len()]; METHODS.len()],
    latency: [OnceLock<Histogram>; METHODS.len()],
}

impl GatewayMetrics {
    /// `patterns` are the routes as the router knows them.
    pub(crate) fn new(patterns: &[&'static str]) -> Self {
        describe_counter!("debros_gateway_requests_total", "HTTP requests answered");
        describe_histogram!(
            "debros_gateway_request_duration_seconds",
            metrics::Unit::Seconds,
            "Time to an HTTP answer"
        );
        describe_gauge!("debros_gateway_requests_in_flight", "HTTP requests being answered now");
        describe_gauge!("debros_gateway_connections", "Open connections, WebSockets left out");
        describe_counter!(
            "debros_gateway_request_bytes_total",
            metrics::Unit::Bytes,
            "Announced bytes of request bodies"
        );
        describe_counter!(
            "debros_gateway_response_bytes_total",
            metrics::Unit::Bytes,
            "Bytes of answers' bodies"
        );
        describe_gauge!(
            "debros_gateway_held_bytes",
            metrics::Unit::Bytes,
            "Memory that callers hold: requests that arrive, requests and answers under way"
        );
        describe_gauge!("debros_gateway_websockets", "Open WebSockets");
        describe_counter!(
            "debros_gateway_websocket_messages_received_total",
            "Messages published through WebSockets"
        );
        describe_counter!(
            "debros_gateway_websocket_messages_sent_total",
            "Messages delivered through WebSockets"
        );
        describe_counter!(
            "debros_gateway_websocket_messages_missed_total",
            "Messages that slow WebSockets missed"
        );
        Self {
            routes: patterns.iter().map(|pattern| (*pattern, RouteMetrics::new(pattern))).collect(),
            unmatched: RouteMetrics::new(UNMATCHED),
            in_flight: gauge!("debros_gateway_requests_in_flight"),
            connections: gauge!("debros_gateway_connections"),
            request_bytes: counter!("debros_gateway_request_bytes_total"),
            response_bytes: counter!("debros_gateway_response_bytes_total"),
            held_bytes: gauge!("debros_gateway_held_bytes"),
            websockets: gauge!("debros_gateway_websockets"),
            messages_received: counter!("debros_gateway_websocket_messages_received_total"),
            messages_sent: counter!("debros_gateway_websocket_messages_sent_total"),
            messages_missed: counter!("debros_gateway_websocket_messages_missed_total"),
        }
    }

    /// The metrics of the route that a path belongs to.
    pub(crate) fn route_for_path(&self, path: &str) -> &RouteMetrics {
        if let Some(route) = self.routes.get(path) {
            return route;
        }
        self.routes.get(route_pattern(path)).unwrap_or(&self.unmatched)
    }
}

/// The pattern of a path that is not a literal route.
fn route_pattern(path: &str) -> &'static str {
    let segments: Vec<&str> = path.split('/').skip(1).take(7).collect();
    match segments[..] {
        ["v1", "apps", id] if !id.is_empty() => "/v1/apps/{app_id}",
        ["v1", "auth", "api-keys", id] if !id.is_empty() => "/v1/auth/api-keys/{id}",
        ["v1", "auth", "login", file] if !file.is_empty() => "/v1/auth/login/{file}",
        ["v1", "namespaces", namespace] if !namespace.is_empty() => "/v1/namespaces/{namespace}",
        ["v1", "namespaces", namespace, "members"] if !namespace.is_empty() => {
            "/v1/namespaces/{namespace}/members"
        }
        ["v1", "namespaces", namespace, "members", wallet]
            if !namespace.is_empty() && !wallet.is_empty() =>
        {
            "/v1/namespaces/{namespace}/members/{wallet}"
        }
        ["docs", ..] => "/docs/{*file}",
        _ => UNMATCHED,
    }
}

impl RouteMetrics {
    fn new(route: &'static str) -> Self {
        Self { route, requests: Default::default(), latency: Default::default() }
    }

    /// The route's pattern.
    pub(crate) fn name(&self) -> &'static str {
        self.route
    }

    /// Counts an answered request.
    pub(crate) fn record_response(&self, method: &Method, status: StatusCode, took: Duration) {
        let method =
            METHODS.iter().position(|name| *name == method.as_str()).unwrap_or(METHODS.len() - 1);
        let class = usize::from(status.as_u16() / 100).clamp(1, CLASSES.len()) - 1;
        self.requests[method][class]
            .get_or_init(|| {
                counter!(
                    "debros_gateway_requests_total",
                    "route" => self.route, "method" => METHODS[method], "status" => CLASSES[class]
                )
            })
            .increment(1);
        self.latency[method]
            .get_or_init(|| {
                histogram!(
                    "debros_gateway_request_duration_seconds", "route" => self.route, "method" => METHODS[method]
                )
            })
            .record(took);
    }
}

/// Adds one to a gauge for as long as it lives.
pub(crate) struct GaugeGuard(Gauge);

impl GaugeGuard {
    pub(crate) fn new(gauge: &Gauge) -> Self {
        gauge.increment(1.0);
        Self(gauge.clone())
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}
