//! Applications registered in a namespace.

use super::ServiceReply;
use crate::caller::{Caller, CredentialSource};
use crate::hex;
use debros_engine::{CallOptions, Engine, TargetDatabase};
use debros_proto::rpc::{self, App, Row, Statement, response};
use debros_proto::{Code, Error, Result, now_ms};

/// Applications of a namespace.
const MAX_APPS: usize = 1000;
const MAX_NAME_BYTES: usize = 256;
const MAX_PUBLIC_KEY_BYTES: usize = 8192;
const COLUMNS: &str = "app_id, name, public_key, namespace, created_at, updated_at, wallet";

pub(super) async fn list(
    engine: &dyn Engine,
    caller: &Caller,
    options: CallOptions,
) -> Result<response::Result> {
    let sql =
        format!("SELECT {COLUMNS} FROM apps WHERE namespace = ?1 ORDER BY created_at, app_id");
    let statement = Statement::new(sql, [caller.namespace()?.as_str().into()]);
    let result = engine.query(&TargetDatabase::System, statement, options).await?.value;
    Ok(response::Result::ListApps(rpc::ListAppsResponse {
        items: result.rows.iter().map(app_from_row).collect(),
    }))
}

pub(super) async fn get(
    engine: &dyn Engine,
    caller: &Caller,
    app_id: &str,
    options: CallOptions,
) -> Result<response::Result> {
    let sql = format!("SELECT {COLUMNS} FROM apps WHERE app_id = ?1 AND namespace = ?2");
    let statement = Statement::new(sql, [app_id.into(), caller.namespace()?.as_str().into()]);
    let result = engine.query(&TargetDatabase::System, statement, options).await?.value;
    Ok(response::Result::App(rpc::AppResponse {
        app: Some(app_from_row(result.rows.first().ok_or_else(|| app_not_found(app_id))?)),
    }))
}

pub(super) async fn create(
    engine: &dyn Engine,
    caller: &Caller,
    request: rpc::CreateAppRequest,
    options: CallOptions,
) -> Result<ServiceReply> {
    check_text("name", &request.name, MAX_NAME_BYTES)?;
    check_text("public_key", &request.public_key, MAX_PUBLIC_KEY_BYTES)?;
    let namespace = caller.namespace()?;
    let mut random = [0_u8; 12];
    getrandom::fill(&mut random).map_err(|_| Error::internal("the system gives no randomness"))?;
    let app_id = format!("app_{}", hex::encode(&random));
    // They are not in the namespace's quota, so there are not any number.
    let sql = format!(
        "INSERT INTO apps ({COLUMNS}) SELECT ?1, ?2, ?3, ?4, ?5, ?5, ?6 \
         WHERE (SELECT count(*) FROM apps WHERE namespace = ?4) < {MAX_APPS} RETURNING {COLUMNS}"
    );
    let args = [
        app_id.into(),
        request.name.into(),
        request.public_key.into(),
        namespace.as_str().into(),
        now_ms().into(),
        registered_by(caller).into(),
    ];
    run_returning_app(engine, Statement::new(sql, args), options, too_many_apps).await
}

pub(super) async fn update(
    engine: &dyn Engine,
    caller: &Caller,
    request: rpc::UpdateAppRequest,
    options: CallOptions,
) -> Result<ServiceReply> {
    if let Some(name) = &request.name {
        check_text("name", name, MAX_NAME_BYTES)?;
    }
    if let Some(public_key) = &request.public_key {
        check_text("public_key", public_key, MAX_PUBLIC_KEY_BYTES)?;
    }
    let namespace = caller.namespace()?;
    let sql = format!(
        "UPDATE apps SET name = coalesce(?3, name), public_key = coalesce(?4, public_key), updated_at = ?5 \
         WHERE app_id = ?1 AND namespace = ?2 RETURNING {COLUMNS}"
    );
    let args = [
        request.app_id.as_str().into(),
        namespace.as_str().into(),
        request.name.into(),
        request.public_key.into(),
        now_ms().into(),
    ];
    run_returning_app(engine, Statement::new(sql, args), options, || app_not_found(&request.app_id))
        .await
}

pub(super) async fn delete(
    engine: &dyn Engine,
    caller: &Caller,
    request: rpc::DeleteAppRequest,
    options: CallOptions,
) -> Result<ServiceReply> {
    let namespace = caller.namespace()?;
    let statement = Statement::new(
        "DELETE FROM apps WHERE app_id = ?1 AND namespace = ?2",
        [request.app_id.as_str().into(), namespace.as_str().into()],
    );
    let written = engine.query(&TargetDatabase::System, statement, options).await?;
    if written.value.rows_affected == Some(0) {
        return Err(app_not_found(&request.app_id));
    }
    Ok(ServiceReply::from_write(written, |_| {
        response::Result::DeleteApp(rpc::DeleteAppResponse {})
    }))
}

async fn run_returning_app(
    engine: &dyn Engine,
    statement: Statement,
    options: CallOptions,
    none: impl FnOnce() -> Error,
) -> Result<ServiceReply> {
    let written = engine.query(&TargetDatabase::System, statement, options).await?;
    let app = app_from_row(written.value.rows.first().ok_or_else(none)?);
    Ok(ServiceReply::from_write(written, |_| {
        response::Result::App(rpc::AppResponse { app: Some(app) })
    }))
}

/// The wallet in whose name an application is registered: that of a session. A key is not the
/// wallet itself.
fn registered_by(caller: &Caller) -> Option<String> {
    let identity = caller.identity();
    match identity.source {
        CredentialSource::Session { .. } => identity.wallet.map(|wallet| wallet.to_string()),
        CredentialSource::Operator | CredentialSource::Key { .. } | CredentialSource::Lent => None,
    }
}

fn app_not_found(app_id: &str) -> Error {
    let shown = debros_proto::ids::excerpt(app_id);
    Error::new(Code::NotFound, format!("the namespace has no application \"{shown}\""))
}

fn too_many_apps() -> Error {
    Error::new(
        Code::QuotaExceeded,
        format!(
            "the namespace has {MAX_APPS} applications, which is as many as it may have: delete one"
        ),
    )
}

fn check_text(what: &str, text: &str, max: usize) -> Result<()> {
    if text.is_empty() || text.len() > max || text.contains('\0') {
        return Err(Error::invalid(format!("{what} takes 1 to {max} bytes of text without NUL")));
    }
    Ok(())
}

fn app_from_row(row: &Row) -> App {
    let text = |index: usize| {
        row.values.get(index).and_then(|value| value.as_text()).unwrap_or_default().to_owned()
    };
    let integer = |index: usize| {
        row.values.get(index).and_then(|value| value.as_integer()).unwrap_or_default()
    };
    App {
        app_id: text(0),
        name: text(1),
        public_key: text(2),
        namespace: text(3),
        created_at: integer(4),
        updated_at: integer(5),
        wallet: text(6),
    }
}
