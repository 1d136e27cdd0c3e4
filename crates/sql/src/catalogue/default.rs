//! Column defaults that are of the moment: `CURRENT_TIMESTAMP`, `(datetime('now'))`, `(hex(randomblob(8)))`.

use crate::edit::{Piece, Template};
use crate::walk;

/// A default whose value differs from one moment to the next, as an expression with slots.
#[derive(Clone, Debug)]
pub(crate) struct LiveDefault {
    expression: Template,
    /// It is random: each row wants a value of its own.
    pub(crate) random: bool,
}

impl LiveDefault {
    /// The expression, to be put into a statement.
    pub(crate) fn pieces(&self) -> Vec<Piece> {
        let mut pieces = vec![Piece::from("(")];
        pieces.extend(self.expression.clone().into_pieces());
        pieces.push(Piece::from(")"));
        pieces
    }
}

/// Reads a default as the schema tells it; `None` when it is the same at every moment.
pub(crate) fn live_default(text: &str) -> Option<LiveDefault> {
    // Most defaults are literals, which need no parser.
    let literal = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.' || byte == b'-')
        || (text.len() > 1
            && text.starts_with('\'')
            && text.ends_with('\'')
            && !text[1..text.len() - 1].contains('\''));
    if literal {
        return None;
    }
    // What does not parse was refused when the table was made.
    let (expression, random) = walk::default_expression(text).ok()?;
    expression.has_slots().then_some(LiveDefault { expression, random })
}
