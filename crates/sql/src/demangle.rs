//! Taking the prefix out of what the database says.

use crate::names::Prefix;
use debros_proto::{Error, Namespace};
use std::borrow::Cow;

/// Makes texts of the database into texts for the namespace's user.
#[derive(Clone, Debug)]
pub struct Demangler(Prefix);

impl Demangler {
    /// For a namespace.
    pub fn new(namespace: &Namespace) -> Self {
        Self(Prefix::new(namespace))
    }

    /// A text without the prefix of this namespace: an error's message, a line of a query plan.
    pub fn text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        if text.contains(self.0.as_str()) { Cow::Owned(text.replace(self.0.as_str(), "")) } else { Cow::Borrowed(text) }
    }

    /// An error whose message speaks the user's names.
    #[must_use]
    pub fn error(&self, mut error: Error) -> Error {
        if let Cow::Owned(message) = self.text(&error.message) {
            error.message = message;
        }
        error
    }
}

#[cfg(test)]
mod tests {
    use super::Demangler;
    use debros_proto::{Code, Error, Namespace};

    #[test]
    fn messages_speak_the_users_names() {
        let demangler = Demangler::new(&Namespace::new("acme").unwrap());
        let error =
            Error::new(Code::Constraint, "UNIQUE constraint failed: ns::acme::users.email, ns::acme::users.name");
        assert_eq!(demangler.error(error).message, "UNIQUE constraint failed: users.email, users.name");
        assert_eq!(
            demangler.text("SEARCH u USING INDEX sqlite_autoindex_ns::acme::users_1"),
            "SEARCH u USING INDEX sqlite_autoindex_users_1"
        );
        assert_eq!(demangler.text("nothing here"), "nothing here");
    }
}
