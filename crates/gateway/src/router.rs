//! The handlers of the paths.

use crate::auth::{jwks, keys, login, proof, sessions, who_am_i};
use crate::error::ApiError;
use crate::gateway_state::GatewayState;
use crate::{
    apps, database, docs, health, members, namespaces, network, pubsub, storage, websocket,
};
use axum::Router;
use axum::routing::{MethodRouter, delete, get, post};
use debros_proto::Code;
use std::sync::Arc;

/// The routes, and their patterns for the metrics and the tests.
pub(crate) struct RouteTable {
    pub(crate) router: Router<Arc<GatewayState>>,
    pub(crate) patterns: Vec<&'static str>,
}

impl RouteTable {
    fn add_route(
        mut self,
        pattern: &'static str,
        methods: MethodRouter<Arc<GatewayState>>,
    ) -> Self {
        self.router = self.router.route(pattern, methods);
        self.patterns.push(pattern);
        self
    }
}

/// All routes of the gateway.
pub(crate) fn build_routes() -> RouteTable {
    let none = RouteTable { router: Router::new(), patterns: Vec::new() };
    let mut routes = none
        .add_route("/health", get(health::health))
        .add_route("/v1/health", get(health::health))
        .add_route("/ready", get(health::ready))
        .add_route("/status", get(health::status))
        .add_route("/v1/status", get(health::status))
        .add_route("/v1/version", get(health::version))
        .add_route("/metrics", get(health::metrics))
        .add_route("/v1/openapi.json", get(docs::document))
        .add_route("/docs", get(docs::redirect))
        .add_route("/docs/", get(docs::file))
        .add_route("/docs/{*file}", get(docs::file))
        .add_route("/v1/auth/challenge", post(proof::challenge))
        .add_route("/v1/auth/verify", post(proof::verify))
        .add_route("/v1/auth/register", post(proof::register))
        .add_route("/v1/auth/refresh", post(sessions::refresh))
        .add_route("/v1/auth/logout", post(sessions::logout))
        .add_route("/v1/auth/token", post(sessions::token))
        .add_route("/v1/auth/whoami", get(who_am_i::who_am_i))
        .add_route("/v1/auth/api-key", post(keys::create))
        .add_route("/v1/auth/api-keys", get(keys::list))
        .add_route("/v1/auth/api-keys/{id}", delete(keys::revoke))
        .add_route("/v1/auth/login", get(login::page))
        .add_route("/v1/auth/login/{file}", get(login::file))
        .add_route("/v1/auth/jwks", get(jwks::jwks))
        .add_route("/.well-known/jwks.json", get(jwks::jwks))
        .add_route("/v1/namespaces", get(namespaces::list))
        .add_route("/v1/namespaces/{namespace}", get(namespaces::get).delete(namespaces::delete))
        .add_route("/v1/namespaces/{namespace}/members", get(members::list).post(members::set))
        .add_route("/v1/namespaces/{namespace}/members/{wallet}", delete(members::remove))
        .add_route(
            "/v1/storage",
            get(storage::get_value).put(storage::put_value).delete(storage::delete_value),
        )
        .add_route("/v1/storage/put", post(storage::put))
        .add_route("/v1/storage/get", get(storage::get).post(storage::get_json))
        .add_route("/v1/storage/delete", post(storage::delete))
        .add_route("/v1/storage/list", get(storage::list))
        .add_route("/v1/storage/exists", get(storage::exists))
        .add_route("/v1/db/query", post(database::query))
        .add_route("/v1/db/transaction", post(database::transaction))
        .add_route("/v1/db/create-table", post(database::create_table))
        .add_route("/v1/db/drop-table", post(database::drop_table))
        .add_route("/v1/db/schema", get(database::schema))
        .add_route("/v1/pubsub/ws", get(websocket::open))
        .add_route("/v1/pubsub/publish", post(pubsub::publish))
        .add_route("/v1/pubsub/topics", get(pubsub::topics))
        .add_route("/v1/network/status", get(network::status))
        .add_route("/v1/network/peers", get(network::peers))
        .add_route("/v1/network/connect", post(network::connect))
        .add_route("/v1/network/disconnect", post(network::disconnect))
        .add_route("/v1/apps", get(apps::list).post(apps::create))
        .add_route("/v1/apps/{app_id}", get(apps::get).put(apps::update).delete(apps::delete));
    routes.router =
        routes.router.fallback(path_not_found).method_not_allowed_fallback(method_not_allowed);
    routes
}

async fn path_not_found() -> ApiError {
    ApiError::new(Code::NotFound, "there is no such path: /docs lists what there is")
}

async fn method_not_allowed() -> ApiError {
    ApiError::new(
        Code::MethodNotAllowed,
        "this path does not take this method: the header Allow lists those it takes",
    )
}
