//! The routes: `PUT /kv?key=`, `GET /kv?key=`, `POST /sql`.

use super::json;
use super::reader::{self, Tried};
use super::writer::{Changed, Write};
use anyhow::{Context as _, Result};
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::serve::ListenerExt as _;
use axum::{Json, Router};
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use tokio::sync::oneshot;

struct App {
    path: PathBuf,
    writer: mpsc::Sender<Write>,
}

#[derive(Deserialize)]
struct KeyParameter {
    key: String,
}

#[derive(Deserialize)]
struct Statement {
    sql: String,
    #[serde(default)]
    args: Vec<serde_json::Value>,
}

pub(super) async fn serve(address: SocketAddr, path: PathBuf, writer: mpsc::Sender<Write>) -> Result<()> {
    let router = Router::new()
        .route("/ready", get(async || StatusCode::OK))
        .route("/kv", get(get_value).put(put_value))
        .route("/sql", post(sql))
        .with_state(Arc::new(App { path, writer }));
    let listener = tokio::net::TcpListener::bind(address).await.with_context(|| format!("listen on {address}"))?;
    // Without it the second answer on a connection waits for the client's delayed acknowledgement.
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    axum::serve(listener, router).await?;
    Ok(())
}

async fn put_value(State(app): State<Arc<App>>, Query(parameter): Query<KeyParameter>, value: Bytes) -> Response {
    let (done, written) = oneshot::channel();
    if app.writer.send(Write::Put { key: parameter.key, value, done }).is_err() {
        return failed(StatusCode::INTERNAL_SERVER_ERROR, "the writer has ended");
    }
    match written.await {
        Ok(Ok(())) => ok(b"{\"status\":\"ok\"}".to_vec()),
        Ok(Err(error)) => failed(StatusCode::INTERNAL_SERVER_ERROR, &error),
        Err(_) => failed(StatusCode::INTERNAL_SERVER_ERROR, "the writer has ended"),
    }
}

async fn get_value(State(app): State<Arc<App>>, Query(parameter): Query<KeyParameter>) -> Response {
    match reader::get(&app.path, &parameter.key) {
        Ok(Some(value)) => ([(header::CONTENT_TYPE, "application/octet-stream")], value).into_response(),
        Ok(None) => failed(StatusCode::NOT_FOUND, "no such key"),
        Err(error) => failed(StatusCode::INTERNAL_SERVER_ERROR, &error),
    }
}

async fn sql(State(app): State<Arc<App>>, Json(statement): Json<Statement>) -> Response {
    let Some(args) = statement.args.into_iter().map(json::argument).collect() else {
        return failed(StatusCode::BAD_REQUEST, "an argument is no SQL value");
    };
    let args = match reader::query(&app.path, &statement.sql, args) {
        Ok(Tried::Rows(body)) => return ok(body),
        Ok(Tried::Writes(args)) => args,
        Err(error) => return failed(StatusCode::BAD_REQUEST, &error),
    };
    let (done, written) = oneshot::channel();
    if app.writer.send(Write::Sql { sql: statement.sql, args, done }).is_err() {
        return failed(StatusCode::INTERNAL_SERVER_ERROR, "the writer has ended");
    }
    match written.await {
        Ok(Ok(Changed { rows_affected, last_insert_id })) => {
            ok(format!("{{\"rows_affected\":{rows_affected},\"last_insert_id\":{last_insert_id}}}").into_bytes())
        }
        Ok(Err(error)) => failed(StatusCode::BAD_REQUEST, &error),
        Err(_) => failed(StatusCode::INTERNAL_SERVER_ERROR, "the writer has ended"),
    }
}

fn ok(body: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

fn failed(status: StatusCode, error: &str) -> Response {
    (status, Json(serde_json::json!({ "error": error }))).into_response()
}
