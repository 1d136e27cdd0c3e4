//! The routes: `PUT /kv?key=`, `GET /kv?key=`, `POST /sql`.

use super::json;
use super::reader::{self, QueryAttempt};
use super::writer::{ChangeCounts, QueuedWrite};
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

/// What the routes of the ceiling share. The ceiling is no limit, but the server without namespaces
/// and credentials that a node is compared with.
struct CeilingState {
    path: PathBuf,
    writer: mpsc::Sender<QueuedWrite>,
}

#[derive(Deserialize)]
struct KeyQuery {
    key: String,
}

#[derive(Deserialize)]
struct SqlRequest {
    sql: String,
    #[serde(default)]
    args: Vec<serde_json::Value>,
}

pub(super) async fn serve(
    address: SocketAddr,
    path: PathBuf,
    writer: mpsc::Sender<QueuedWrite>,
) -> Result<()> {
    let router = Router::new()
        .route("/ready", get(async || StatusCode::OK))
        .route("/kv", get(get_value).put(put_value))
        .route("/sql", post(run_sql))
        .with_state(Arc::new(CeilingState { path, writer }));
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .with_context(|| format!("listen on {address}"))?;
    // Without it the second answer on a connection waits for the client's delayed acknowledgement.
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    axum::serve(listener, router).await?;
    Ok(())
}

async fn put_value(
    State(app): State<Arc<CeilingState>>,
    Query(parameter): Query<KeyQuery>,
    value: Bytes,
) -> Response {
    let (reply, written) = oneshot::channel();
    if app.writer.send(QueuedWrite::Put { key: parameter.key, value, reply }).is_err() {
        return error_response(StatusCode::INTERNAL_SERVER_ERROR, "the writer has ended");
    }
    match written.await {
        Ok(Ok(())) => ok_response(b"{\"status\":\"ok\"}".to_vec()),
        Ok(Err(error)) => error_response(StatusCode::INTERNAL_SERVER_ERROR, &error),
        Err(_) => error_response(StatusCode::INTERNAL_SERVER_ERROR, "the writer has ended"),
    }
}

async fn get_value(
    State(app): State<Arc<CeilingState>>,
    Query(parameter): Query<KeyQuery>,
) -> Response {
    match reader::get(&app.path, &parameter.key) {
        Ok(Some(value)) => {
            ([(header::CONTENT_TYPE, "application/octet-stream")], value).into_response()
        }
        Ok(None) => error_response(StatusCode::NOT_FOUND, "no such key"),
        Err(error) => error_response(StatusCode::INTERNAL_SERVER_ERROR, &error),
    }
}

async fn run_sql(
    State(app): State<Arc<CeilingState>>,
    Json(statement): Json<SqlRequest>,
) -> Response {
    let Some(args) = statement.args.into_iter().map(json::argument).collect() else {
        return error_response(StatusCode::BAD_REQUEST, "an argument is no SQL value");
    };
    let args = match reader::query(&app.path, &statement.sql, args) {
        Ok(QueryAttempt::Rows(body)) => return ok_response(body),
        Ok(QueryAttempt::Writes(args)) => args,
        Err(error) => return error_response(StatusCode::BAD_REQUEST, &error),
    };
    let (reply, written) = oneshot::channel();
    if app.writer.send(QueuedWrite::Sql { sql: statement.sql, args, reply }).is_err() {
        return error_response(StatusCode::INTERNAL_SERVER_ERROR, "the writer has ended");
    }
    match written.await {
        Ok(Ok(ChangeCounts { rows_affected, last_insert_id })) => ok_response(
            format!("{{\"rows_affected\":{rows_affected},\"last_insert_id\":{last_insert_id}}}")
                .into_bytes(),
        ),
        Ok(Err(error)) => error_response(StatusCode::BAD_REQUEST, &error),
        Err(_) => error_response(StatusCode::INTERNAL_SERVER_ERROR, "the writer has ended"),
    }
}

fn ok_response(body: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

fn error_response(status: StatusCode, error: &str) -> Response {
    (status, Json(serde_json::json!({ "error": error }))).into_response()
}
