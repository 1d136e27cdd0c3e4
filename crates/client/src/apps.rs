//! Applications registered in a namespace.

use crate::{Client, Error, Result, expect_answer};
use debros_proto::rpc::request::Call;
use debros_proto::rpc::{self, App, AppResponse};

/// Applications registered in the caller's namespace.
#[derive(Clone, Copy, Debug)]
pub struct Apps<'a> {
    pub(crate) client: &'a Client,
}

impl Apps<'_> {
    /// All applications of the namespace, oldest first.
    ///
    /// # Errors
    /// `forbidden`, `unavailable`, …
    pub async fn list(&self) -> Result<Vec<App>> {
        expect_answer!(self.client.call(Call::ListApps(rpc::ListAppsRequest {})).await?, ListApps)
            .map(|answer| answer.items)
    }

    /// Registers an application.
    ///
    /// # Errors
    /// `invalid_argument` for an empty or overlong name or key.
    pub async fn create(
        &self,
        name: impl Into<String>,
        public_key: impl Into<String>,
    ) -> Result<App> {
        let create = rpc::CreateAppRequest { name: name.into(), public_key: public_key.into() };
        app_from_answer(expect_answer!(self.client.call(Call::CreateApp(create)).await?, App)?)
    }

    /// One application.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn get(&self, app_id: impl Into<String>) -> Result<App> {
        let get = rpc::GetAppRequest { app_id: app_id.into() };
        app_from_answer(expect_answer!(self.client.call(Call::GetApp(get)).await?, App)?)
    }

    /// Changes an application; what is `None` stays.
    ///
    /// # Errors
    /// `not_found`, `invalid_argument`.
    pub async fn update(
        &self,
        app_id: impl Into<String>,
        name: Option<String>,
        public_key: Option<String>,
    ) -> Result<App> {
        let update = rpc::UpdateAppRequest { app_id: app_id.into(), name, public_key };
        app_from_answer(expect_answer!(self.client.call(Call::UpdateApp(update)).await?, App)?)
    }

    /// Removes an application.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn delete(&self, app_id: impl Into<String>) -> Result<()> {
        let delete = rpc::DeleteAppRequest { app_id: app_id.into() };
        expect_answer!(self.client.call(Call::DeleteApp(delete)).await?, DeleteApp).map(|_| ())
    }
}

fn app_from_answer(answer: AppResponse) -> Result<App> {
    answer.app.ok_or_else(|| Error::internal("the node answered without the application"))
}
