//! Which handler answers which path.

use crate::auth::{jwks, keys, login, proof, sessions, who_am_i};
use crate::error::ApiError;
use crate::shared::Shared;
use crate::{apps, database, docs, health, members, namespaces, network, pubsub, storage, websocket};
use axum::Router;
use axum::routing::{MethodRouter, delete, get, post};
use debros_proto::Code;
use std::sync::Arc;

/// The routes, and their patterns for the metrics and the tests.
pub(crate) struct Routes {
    pub(crate) router: Router<Arc<Shared>>,
    pub(crate) patterns: Vec<&'static str>,
}

impl Routes {
    fn add(mut self, pattern: &'static str, methods: MethodRouter<Arc<Shared>>) -> Self {
        self.router = self.router.route(pattern, methods);
        self.patterns.push(pattern);
        self
    }
}

/// All routes of the gateway.
pub(crate) fn routes() -> Routes {
    let none = Routes { router: Router::new(), patterns: Vec::new() };
    let mut routes = none
        .add("/health", get(health::health))
        .add("/v1/health", get(health::health))
        .add("/ready", get(health::ready))
        .add("/status", get(health::status))
        .add("/v1/status", get(health::status))
        .add("/v1/version", get(health::version))
        .add("/metrics", get(health::metrics))
        .add("/v1/openapi.json", get(docs::document))
        .add("/docs", get(docs::redirect))
        .add("/docs/", get(docs::file))
        .add("/docs/{*file}", get(docs::file))
        .add("/v1/auth/challenge", post(proof::challenge))
        .add("/v1/auth/verify", post(proof::verify))
        .add("/v1/auth/register", post(proof::register))
        .add("/v1/auth/refresh", post(sessions::refresh))
        .add("/v1/auth/logout", post(sessions::logout))
        .add("/v1/auth/token", post(sessions::token))
        .add("/v1/auth/whoami", get(who_am_i::who_am_i))
        .add("/v1/auth/api-key", post(keys::create))
        .add("/v1/auth/api-keys", get(keys::list))
        .add("/v1/auth/api-keys/{id}", delete(keys::revoke))
        .add("/v1/auth/login", get(login::page))
        .add("/v1/auth/login/{file}", get(login::file))
        .add("/v1/auth/jwks", get(jwks::jwks))
        .add("/.well-known/jwks.json", get(jwks::jwks))
        .add("/v1/namespaces", get(namespaces::list))
        .add("/v1/namespaces/{namespace}", get(namespaces::get).delete(namespaces::delete))
        .add("/v1/namespaces/{namespace}/members", get(members::list).post(members::set))
        .add("/v1/namespaces/{namespace}/members/{wallet}", delete(members::remove))
        .add("/v1/storage", get(storage::get_value).put(storage::put_value).delete(storage::delete_value))
        .add("/v1/storage/put", post(storage::put))
        .add("/v1/storage/get", get(storage::get).post(storage::get_json))
        .add("/v1/storage/delete", post(storage::delete))
        .add("/v1/storage/list", get(storage::list))
        .add("/v1/storage/exists", get(storage::exists))
        .add("/v1/db/query", post(database::query))
        .add("/v1/db/transaction", post(database::transaction))
        .add("/v1/db/create-table", post(database::create_table))
        .add("/v1/db/drop-table", post(database::drop_table))
        .add("/v1/db/schema", get(database::schema))
        .add("/v1/pubsub/ws", get(websocket::open))
        .add("/v1/pubsub/publish", post(pubsub::publish))
        .add("/v1/pubsub/topics", get(pubsub::topics))
        .add("/v1/network/status", get(network::status))
        .add("/v1/network/peers", get(network::peers))
        .add("/v1/network/connect", post(network::connect))
        .add("/v1/network/disconnect", post(network::disconnect))
        .add("/v1/apps", get(apps::list).post(apps::create))
        .add("/v1/apps/{app_id}", get(apps::get).put(apps::update).delete(apps::delete));
    routes.router = routes.router.fallback(no_such_path).method_not_allowed_fallback(no_such_method);
    routes
}

async fn no_such_path() -> ApiError {
    ApiError::new(Code::NotFound, "there is no such path: /docs lists what there is")
}

async fn no_such_method() -> ApiError {
    ApiError::new(Code::MethodNotAllowed, "this path does not take this method: the header Allow lists those it takes")
}
