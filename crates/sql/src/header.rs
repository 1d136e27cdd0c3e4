//! The two numbers in a database's header that are its user's: `PRAGMA user_version` and `PRAGMA
//! application_id`.
//!
//! They are the namespace's own. Asked for, the catalogue tells them; set, the catalogue takes the
//! user's text and the engine keeps the number with the namespace's data. The text never reaches
//! the data database, which namespaces may share.

use crate::catalogue::Catalogue;
use crate::names::is_same_name;
use debros_proto::{Error, Result};
use std::sync::PoisonError;

/// A number in the database's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HeaderField {
    /// `user_version`: a version of the schema, as migration tools count it.
    UserVersion,
    /// `application_id`: whose kind of file it is.
    ApplicationId,
}

impl HeaderField {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::UserVersion, Self::ApplicationId];

    /// The PRAGMA's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::UserVersion => "user_version",
            Self::ApplicationId => "application_id",
        }
    }

    /// The field of that name.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| is_same_name(field.name(), name))
    }
}

impl Catalogue {
    /// What a field of the namespace's header is; 0 unless it was set.
    ///
    /// # Errors
    /// `internal` when the catalogue cannot be read.
    pub fn header(&self, field: HeaderField) -> Result<i32> {
        self.lock()
            .db
            .pragma_query_value(None, field.name(), |row| row.get(0))
            .map_err(|_| header_error())
    }

    /// Sets a field of the namespace's header, as it is kept with the data.
    ///
    /// # Errors
    /// `internal` when the catalogue cannot be written.
    pub fn set_header(&mut self, field: HeaderField, value: i32) -> Result<()> {
        let inner = self.inner.get_mut().unwrap_or_else(PoisonError::into_inner);
        inner.db.pragma_update(None, field.name(), value).map_err(|_| header_error())
    }
}

fn header_error() -> Error {
    Error::internal("the namespace's catalogue failed")
}
