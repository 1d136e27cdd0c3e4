//! Names: as the user writes them, as the database holds them, and both in SQL text.

use debros_proto::Namespace;
use std::borrow::Cow;

/// Tables of the engine's own start with this, in every database.
pub const INTERNAL_PREFIX: &str = "_debros_";

/// The names of a namespace's objects in the database: `ns::<namespace>::` before the user's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamespacePrefix(String);

impl NamespacePrefix {
    pub(crate) fn new(namespace: &Namespace) -> Self {
        Self(namespace.prefix())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as the database holds it.
    pub(crate) fn qualify(&self, name: &str) -> String {
        format!("{}{name}", self.0)
    }

    /// The full name where SQL wants a table, index, view or trigger.
    pub(crate) fn qualify_quoted(&self, name: &str) -> String {
        quote('"', &self.qualify(name))
    }

    /// The full name inside an expression. Backticks, because SQLite reads an unknown name in
    /// double quotes as a string.
    pub(crate) fn qualify_backticked(&self, name: &str) -> String {
        quote('`', &self.qualify(name))
    }

    /// The full name as a string literal.
    pub(crate) fn qualify_literal(&self, name: &str) -> String {
        quote('\'', &self.qualify(name))
    }

    /// Whether a name of the database is one of this namespace. SQLite compares names without
    /// regard to ASCII case.
    pub(crate) fn owns(&self, name: &str) -> bool {
        starts_with_ignore_case(name, &self.0)
    }
}

/// Text between quotes, with those inside doubled.
pub(crate) fn quote(mark: char, text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push(mark);
    for character in text.chars() {
        if character == mark {
            quoted.push(mark);
        }
        quoted.push(character);
    }
    quoted.push(mark);
    quoted
}

/// The name that a token stands for: without its quotes, with doubled ones made single.
pub(crate) fn dequote(token: &str) -> Cow<'_, str> {
    let mut characters = token.chars();
    let (Some(first), Some(last)) = (characters.next(), characters.next_back()) else {
        return Cow::Borrowed(token);
    };
    let inner = &token[first.len_utf8()..token.len() - last.len_utf8()];
    match (first, last) {
        ('[', ']') => Cow::Borrowed(inner),
        ('"', '"') | ('`', '`') | ('\'', '\'') => {
            let doubled: String = [first, first].iter().collect();
            if inner.contains(&doubled) {
                Cow::Owned(inner.replace(&doubled, first.encode_utf8(&mut [0; 4])))
            } else {
                Cow::Borrowed(inner)
            }
        }
        _ => Cow::Borrowed(token),
    }
}

/// Whether two names are the same to SQLite.
pub(crate) fn is_same_name(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other)
}

/// Whether the list holds the name.
pub(crate) fn is_one_of(list: &[&str], name: &str) -> bool {
    list.iter().any(|other| is_same_name(other, name))
}

/// [`str::starts_with`] without regard to ASCII case.
pub(crate) fn starts_with_ignore_case(name: &str, start: &str) -> bool {
    name.as_bytes()
        .get(..start.len())
        .is_some_and(|bytes| bytes.eq_ignore_ascii_case(start.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::{NamespacePrefix, dequote, is_same_name, quote, starts_with_ignore_case};
    use debros_proto::Namespace;

    #[test]
    fn quotes_are_taken_off_and_put_on() {
        for (token, name) in [
            ("users", "users"),
            ("\"a\"\"b\"", "a\"b"),
            ("`a``b`", "a`b"),
            ("[a\"b]", "a\"b"),
            ("'it''s'", "it's"),
            ("\"\"", ""),
            ("é", "é"),
            ("\"", "\""),
        ] {
            assert_eq!(dequote(token), name, "{token}");
        }
        assert_eq!(quote('"', "a\"b"), "\"a\"\"b\"");
    }

    #[test]
    fn a_prefix_is_compared_as_sqlite_compares() {
        let prefix = NamespacePrefix::new(&Namespace::new("acme").unwrap());
        assert!(
            prefix.owns("NS::Acme::users")
                && !prefix.owns("ns::acmee::users")
                && !prefix.owns("ns::acme")
        );
        assert!(
            is_same_name("Users", "uSERS")
                && !is_same_name("é", "É")
                && starts_with_ignore_case("_DEBROS_x", "_debros_")
        );
    }
}
