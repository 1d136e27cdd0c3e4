//! Names, checked when they are made: a value of one of these types is known to be well-formed.

use crate::error::{Error, Result};
use crate::limits::{MAX_KEY_BYTES, MAX_TOPIC_BYTES};
use std::fmt;
use std::sync::Arc;

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self> {
                Self::new(text)
            }
        }
    };
}

name_type! {
    /// An application's namespace: `[a-z0-9][a-z0-9_-]{0,62}`. The colon is not in it, so that
    /// `ns::<namespace>::` cannot be read in two ways.
    Namespace
}

impl Namespace {
    /// Checks a namespace.
    ///
    /// # Errors
    /// `invalid_argument` when the text is not of the form above.
    pub fn new(text: &str) -> Result<Self> {
        let mut bytes = text.bytes();
        let first_fits =
            bytes.next().is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        let rest_fits = bytes.all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-'
        });
        if first_fits && rest_fits && text.len() <= 63 {
            Ok(Self(text.into()))
        } else {
            Err(Error::invalid(format!(
                "\"{}\" is not a namespace: use 1 to 63 of a-z, 0-9, _ and -, starting with a letter or digit",
                excerpt(text)
            )))
        }
    }

    /// The namespace of the system's own keys and topics. Its name is not of the form above, so no
    /// caller is ever in it.
    pub fn internal() -> Self {
        Self("_system".into())
    }

    /// What the system puts before everything that the namespace owns. Users never see it.
    pub fn prefix(&self) -> String {
        format!("ns::{}::", self.0)
    }
}

name_type! {
    /// A key-value key: 1 to 1,024 bytes of UTF-8.
    Key
}

impl Key {
    /// Checks a key.
    ///
    /// # Errors
    /// `invalid_argument` when it is empty, too long, or holds a NUL character.
    pub fn new(text: &str) -> Result<Self> {
        check_text("key", text, MAX_KEY_BYTES)?;
        Ok(Self(text.into()))
    }
}

name_type! {
    /// A pub/sub topic: 1 to 256 bytes of UTF-8.
    Topic
}

impl Topic {
    /// Checks a topic.
    ///
    /// # Errors
    /// `invalid_argument` when it is empty, too long, or holds a NUL character.
    pub fn new(text: &str) -> Result<Self> {
        check_text("topic", text, MAX_TOPIC_BYTES)?;
        Ok(Self(text.into()))
    }
}

/// NUL is refused because SQLite's text functions stop at it: `prefix` and `length` would disagree
/// with the bytes.
fn check_text(what: &str, text: &str, max: usize) -> Result<()> {
    if text.is_empty() {
        return Err(Error::invalid(format!("the {what} is empty: it takes 1 to {max} bytes")));
    }
    if text.len() > max {
        return Err(Error::invalid(format!(
            "the {what} has {} bytes: at most {max} are allowed",
            text.len()
        )));
    }
    if text.contains('\0') {
        return Err(Error::invalid(format!(
            "the {what} holds a NUL character, which is not allowed"
        )));
    }
    Ok(())
}

/// The start of a text that came from outside, short and printable, for an error message.
pub fn excerpt(text: &str) -> String {
    let mut short: String = text.chars().take(60).flat_map(char::escape_debug).collect();
    if text.chars().nth(60).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::{Key, Namespace, Topic};
    use crate::error::Code;

    #[test]
    fn namespaces_take_only_the_allowed_characters() {
        for good in ["default", "a", "0", "my-app_2", &"a".repeat(63)] {
            assert_eq!(Namespace::new(good).unwrap().as_str(), good);
        }
        for bad in
            ["", "-a", "_a", "A", "a.b", "a:b", "a::b", "ä", "a b", "a\0", "a\n", &"a".repeat(64)]
        {
            assert_eq!(Namespace::new(bad).unwrap_err().code, Code::InvalidArgument, "{bad:?}");
        }
    }

    /// Lesson 5: ("a", "b.c") and ("a.b", "c") met in one topic, because the separator could stand
    /// in a name.
    #[test]
    fn lesson_05_no_two_namespaces_share_a_prefix() {
        assert!(
            Namespace::new("a::b").is_err()
                && Namespace::new("a:").is_err()
                && Namespace::new("a.b").is_err()
        );
        let (one, two) = (Namespace::new("a").unwrap(), Namespace::new("a-b").unwrap());
        assert!(!two.prefix().starts_with(&one.prefix()));
    }

    #[test]
    fn keys_and_topics_have_lengths_in_bytes() {
        assert!(Key::new(&"k".repeat(1024)).is_ok() && Key::new("ключ 🔑 / ? # %").is_ok());
        assert!(
            Key::new("").is_err()
                && Key::new(&"k".repeat(1025)).is_err()
                && Key::new(&"é".repeat(513)).is_err()
        );
        assert!(Topic::new(&"t".repeat(256)).is_ok() && Topic::new(&"t".repeat(257)).is_err());
        assert!(Key::new("a\0b").is_err() && Topic::new("\0").is_err());
    }

    #[test]
    fn an_error_does_not_repeat_a_huge_or_unprintable_name() {
        let error = Namespace::new(&"\u{1b}[31m".repeat(10_000)).unwrap_err();
        assert!(
            error.message.len() < 600 && !error.message.contains('\u{1b}'),
            "{}",
            error.message
        );
    }
}
