//! The two numbers in a database's header that belong to its user: `PRAGMA user_version` and
//! `PRAGMA application_id`.
//!
//! They are the namespace's own. The catalogue answers reads. For a write the catalogue takes the
//! user's text, and the engine stores the number with the namespace's data. The text never reaches
//! the data database, which namespaces may share.

use crate::catalogue::Catalogue;
use crate::names::is_same_name;
use debros_proto::{Error, Result};
use std::sync::PoisonError;

/// A number in the database's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HeaderField {
    /// `user_version`: a version of the schema, for migration tools.
    UserVersion,
    /// `application_id`: the kind of application file.
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

    /// The field with that name.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| is_same_name(field.name(), name))
    }
}

impl Catalogue {
    /// The value of a field of the namespace's header; 0 unless it was set.
    ///
    /// # Errors
    /// `internal` when the catalogue cannot be read.
    pub fn header(&self, field: HeaderField) -> Result<i32> {
        self.lock()
            .db
            .pragma_query_value(None, field.name(), |row| row.get(0))
            .map_err(|_| header_error())
    }

    /// Sets a field of the namespace's header to the value stored with the data.
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
