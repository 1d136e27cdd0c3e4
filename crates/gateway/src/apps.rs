//! `/v1/apps`: applications registered in the caller's namespace.

use crate::api_call::ApiCall;
use crate::error::{ApiError, ErrorBody, HandlerResult};
use crate::health::timestamp;
use crate::respond::{Done, done, json};
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use debros_client::rpc::App;
use http::StatusCode;
use serde::{Deserialize, Serialize};

/// An application.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct AppAnswer {
    /// `app_<random>`.
    app_id: String,
    name: String,
    public_key: String,
    namespace: String,
    created_at: String,
    updated_at: String,
}

/// Applications, oldest first.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct AppsAnswer {
    items: Vec<AppAnswer>,
    count: usize,
}

/// A new application.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateAppBody {
    name: String,
    public_key: String,
}

/// The changes; missing fields stay.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpdateAppBody {
    name: Option<String>,
    public_key: Option<String>,
}

type AppIdParam = Result<Path<String>, PathRejection>;

/// Lists the applications of the namespace.
#[utoipa::path(
    get, path = "/v1/apps", tag = "apps", operation_id = "apps_list", responses((status = 200, body = AppsAnswer)),
)]
pub(crate) async fn list(mut call: ApiCall) -> HandlerResult {
    let [] = call.query.take_only([])?;
    let items: Vec<AppAnswer> =
        call.client.apps().list().await?.into_iter().map(AppAnswer::from).collect();
    json(StatusCode::OK, &AppsAnswer { count: items.len(), items })
}

/// Registers an application in the namespace.
#[utoipa::path(
    post, path = "/v1/apps", tag = "apps", operation_id = "apps_create", request_body = CreateAppBody,
    responses((status = 201, body = AppAnswer)),
)]
pub(crate) async fn create(mut call: ApiCall) -> HandlerResult {
    let [] = call.query.take_only([])?;
    let CreateAppBody { name, public_key } = call.read_json().await?;
    let app = call.client.apps().create(name, public_key).await?;
    json(StatusCode::CREATED, &AppAnswer::from(app))
}

/// Shows an application.
#[utoipa::path(
    get, path = "/v1/apps/{app_id}", tag = "apps", operation_id = "apps_get",
    params(("app_id" = String, Path, description = "`app_<random>`")),
    responses((status = 200, body = AppAnswer), (status = 404, body = ErrorBody)),
)]
pub(crate) async fn get(id: AppIdParam, mut call: ApiCall) -> HandlerResult {
    let [] = call.query.take_only([])?;
    let app = call.client.apps().get(read_app_id(id)?).await?;
    json(StatusCode::OK, &AppAnswer::from(app))
}

/// Changes the given fields of an application.
#[utoipa::path(
    put, path = "/v1/apps/{app_id}", tag = "apps", operation_id = "apps_update", request_body = UpdateAppBody,
    params(("app_id" = String, Path, description = "`app_<random>`")),
    responses((status = 200, body = Done), (status = 404, body = ErrorBody)),
)]
pub(crate) async fn update(id: AppIdParam, mut call: ApiCall) -> HandlerResult {
    let [] = call.query.take_only([])?;
    let id = read_app_id(id)?;
    let UpdateAppBody { name, public_key } = call.read_json().await?;
    if name.is_none() && public_key.is_none() {
        return Err(ApiError::invalid(
            "there is nothing to change: give name, public_key, or both",
        ));
    }
    call.client.apps().update(id, name, public_key).await?;
    done(StatusCode::OK)
}

/// Deletes an application.
#[utoipa::path(
    delete, path = "/v1/apps/{app_id}", tag = "apps", operation_id = "apps_delete",
    params(("app_id" = String, Path, description = "`app_<random>`")),
    responses((status = 200, body = Done), (status = 404, body = ErrorBody)),
)]
pub(crate) async fn delete(id: AppIdParam, mut call: ApiCall) -> HandlerResult {
    let [] = call.query.take_only([])?;
    call.client.apps().delete(read_app_id(id)?).await?;
    done(StatusCode::OK)
}

fn read_app_id(id: AppIdParam) -> Result<String, ApiError> {
    id.map(|Path(id)| id)
        .map_err(|_| ApiError::invalid("the application's id in the path is not UTF-8"))
}

impl From<App> for AppAnswer {
    fn from(app: App) -> Self {
        Self {
            app_id: app.app_id,
            name: app.name,
            public_key: app.public_key,
            namespace: app.namespace,
            created_at: timestamp(app.created_at),
            updated_at: timestamp(app.updated_at),
        }
    }
}
