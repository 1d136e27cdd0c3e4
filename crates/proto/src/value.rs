//! Making and reading SQL values.

use crate::rpc::{Statement, StatementResult, Value, value::Kind};
use bytes::Bytes;

impl Value {
    /// SQL NULL.
    pub const NULL: Value = Value { kind: None };

    /// Whether this is NULL.
    pub fn is_null(&self) -> bool {
        self.kind.is_none()
    }

    /// The integer, if it is one.
    pub fn as_integer(&self) -> Option<i64> {
        match self.kind {
            Some(Kind::Integer(integer)) => Some(integer),
            _ => None,
        }
    }

    /// The floating-point number, if it is one.
    pub fn as_real(&self) -> Option<f64> {
        match self.kind {
            Some(Kind::Real(real)) => Some(real),
            _ => None,
        }
    }

    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match &self.kind {
            Some(Kind::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// The bytes, if it is a BLOB.
    pub fn as_blob(&self) -> Option<&Bytes> {
        match &self.kind {
            Some(Kind::Blob(blob)) => Some(blob),
            _ => None,
        }
    }

    /// Bytes that the value itself takes: what the result limit counts.
    pub fn size(&self) -> usize {
        match &self.kind {
            None => 1,
            Some(Kind::Integer(_) | Kind::Real(_)) => 8,
            Some(Kind::Text(text)) => text.len(),
            Some(Kind::Blob(blob)) => blob.len(),
        }
    }
}

macro_rules! value_from {
    ($($from:ty => |$name:ident| $kind:expr;)+) => {
        $(impl From<$from> for Value {
            fn from($name: $from) -> Self {
                Value { kind: Some($kind) }
            }
        })+
    };
}

value_from! {
    i64 => |integer| Kind::Integer(integer);
    i32 => |integer| Kind::Integer(integer.into());
    u32 => |integer| Kind::Integer(integer.into());
    bool => |flag| Kind::Integer(flag.into());
    f64 => |real| Kind::Real(real);
    &str => |text| Kind::Text(text.to_owned());
    String => |text| Kind::Text(text);
    Bytes => |blob| Kind::Blob(blob);
    Vec<u8> => |blob| Kind::Blob(blob.into());
    &[u8] => |blob| Kind::Blob(Bytes::copy_from_slice(blob));
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::NULL, Into::into)
    }
}

impl Statement {
    /// A statement with arguments.
    pub fn new(sql: impl Into<String>, args: impl IntoIterator<Item = Value>) -> Self {
        Self { sql: sql.into(), args: args.into_iter().collect() }
    }
}

impl From<&str> for Statement {
    fn from(sql: &str) -> Self {
        Self { sql: sql.to_owned(), args: Vec::new() }
    }
}

impl From<String> for Statement {
    fn from(sql: String) -> Self {
        Self { sql, args: Vec::new() }
    }
}

impl StatementResult {
    /// Whether the statement was one that writes.
    pub fn is_write(&self) -> bool {
        self.rows_affected.is_some()
    }
}
