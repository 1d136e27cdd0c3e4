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

    /// An error's message in the user's names. One that names another namespace's object is not told at all: ALTER TABLE
    /// looks through the views and triggers of the whole database, and stops at one that is broken, whosever it is.
    pub fn message(&self, message: &str) -> String {
        let told = self.text(message);
        if names_another(&told) {
            "the change can not be made now: something else in the database is in its way".to_owned()
        } else {
            told.into_owned()
        }
    }

    /// An error whose message speaks the user's names, as [`message`](Demangler::message).
    #[must_use]
    pub fn error(&self, mut error: Error) -> Error {
        error.message = self.message(&error.message);
        error
    }
}

/// Whether it is what ALTER TABLE says of an object whose name is like `ns::other::x`. What else looks like that was
/// written by the user: a CHECK's name, the text of a RAISE.
fn names_another(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    ["view", "trigger", "index", "table"].iter().any(|kind| {
        let Some((_, name)) = text.split_once(&format!("error in {kind} ")) else { return false };
        let Some(rest) = name.strip_prefix("ns::") else { return false };
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-')).unwrap_or(rest.len());
        end > 0 && rest[end..].starts_with("::")
    })
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
        assert!(!demangler.message("error in view NS::other::v: no such table: x").to_lowercase().contains("other"));
        for own in ["no such table: turns::x", "see patterns::regex::compile", "CHECK constraint failed: ns::zz::q"] {
            assert_eq!(demangler.message(own), own);
        }
    }
}
