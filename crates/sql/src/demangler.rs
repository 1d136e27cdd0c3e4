//! Removing the prefix from the database's texts.

use crate::names::NamespacePrefix;
use debros_proto::{Error, Namespace};
use std::borrow::Cow;

/// Turns texts of the database into texts for the namespace's user.
#[derive(Clone, Debug)]
pub struct Demangler(NamespacePrefix);

impl Demangler {
    /// For a namespace.
    pub fn new(namespace: &Namespace) -> Self {
        Self(NamespacePrefix::new(namespace))
    }

    /// A text without the prefix of this namespace: an error's message, a line of a query plan. At
    /// the end of a longer word the prefix is the user's own text, and stays.
    pub fn demangle_text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let prefix = self.0.as_str();
        let mut told = String::new();
        let mut done = 0;
        for (start, _) in
            text.match_indices(prefix).filter(|(start, _)| is_word_start(text, *start))
        {
            told.push_str(&text[done..start]);
            done = start + prefix.len();
        }
        if done == 0 {
            return Cow::Borrowed(text);
        }
        told.push_str(&text[done..]);
        Cow::Owned(told)
    }

    /// An error's message in the user's names. After a change of the schema, a message that names
    /// another namespace's object is replaced: ALTER TABLE reads the views and triggers of the
    /// whole database, and stops at a broken one of any namespace. All other messages contain only
    /// the user's own names, or the user's own text.
    pub fn demangle_message(&self, message: &str) -> String {
        let told = self.demangle_text(message);
        if OF_THE_WHOLE_SCHEMA.iter().any(|start| told.starts_with(start))
            && names_other_namespace(&told)
        {
            "the change cannot be made now: something else in the database is in its way".to_owned()
        } else {
            told.into_owned()
        }
    }

    /// An error whose message has the user's names, as
    /// [`demangle_message`](Demangler::demangle_message).
    #[must_use]
    pub fn demangle_error(&self, mut error: Error) -> Error {
        error.message = self.demangle_message(&error.message);
        error
    }
}

/// The beginnings of SQLite's messages about any object of the database, whatever the statement
/// names.
const OF_THE_WHOLE_SCHEMA: &[&str] = &[
    "error in table ",
    "error in index ",
    "error in view ",
    "error in trigger ",
    "malformed database schema",
];

/// Whether a text holds a name like `ns::other::x`.
fn names_other_namespace(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    lower.match_indices("ns::").any(|(start, mark)| {
        let rest = &lower[start + mark.len()..];
        let end = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-'))
            .unwrap_or(rest.len());
        is_word_start(&lower, start) && end > 0 && rest[end..].starts_with("::")
    })
}

/// Whether no letter or digit precedes the offset. An underscore may: `sqlite_autoindex_ns::…`.
fn is_word_start(text: &str, start: usize) -> bool {
    !text[..start].chars().next_back().is_some_and(char::is_alphanumeric)
}

#[cfg(test)]
mod tests {
    use super::Demangler;
    use debros_proto::{Code, Error, Namespace};

    #[test]
    fn messages_speak_the_users_names() {
        let demangler = Demangler::new(&Namespace::new("acme").unwrap());
        let error = Error::new(
            Code::Constraint,
            "UNIQUE constraint failed: ns::acme::users.email, ns::acme::users.name",
        );
        assert_eq!(
            demangler.demangle_error(error).message,
            "UNIQUE constraint failed: users.email, users.name"
        );
        assert_eq!(
            demangler.demangle_text("SEARCH u USING INDEX sqlite_autoindex_ns::acme::users_1"),
            "SEARCH u USING INDEX sqlite_autoindex_users_1"
        );
        assert_eq!(demangler.demangle_text("nothing here"), "nothing here");
        assert!(
            !demangler
                .demangle_message("error in view NS::other::v: no such table: x")
                .to_lowercase()
                .contains("other")
        );
        assert_eq!(
            demangler.demangle_message("no such table: turns::x"),
            "no such table: turns::x"
        );
    }

    #[test]
    fn what_the_user_wrote_is_told_as_it_was_written() {
        let demangler = Demangler::new(&Namespace::new("acme").unwrap());
        for message in [
            "see patterns::regex::compile",
            "see patterns::acme::x",
            "CHECK constraint failed: ns::zz::q",
            "no such table: main.ns::victim::t",
            "error in view v: no such function: patterns::regex::f",
        ] {
            assert_eq!(demangler.demangle_message(message), message);
        }
        assert_eq!(
            demangler.demangle_message("no such table: main.ns::acme::ns::zz::t"),
            "no such table: main.ns::zz::t"
        );
        assert!(
            demangler
                .demangle_message("error in index sqlite_autoindex_ns::zz::t_1: x")
                .starts_with("the change")
        );
    }
}
