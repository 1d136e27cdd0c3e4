//! Volatile column defaults: `CURRENT_TIMESTAMP`, `(datetime('now'))`, `(hex(randomblob(8)))`.

use crate::splice::{SqlTemplate, TextPiece};

/// A default whose value differs from one time to the next, as an expression with placeholders.
#[derive(Clone, Debug)]
pub(crate) struct VolatileDefault {
    pub(crate) expression: SqlTemplate,
    /// It is random: each row needs a value of its own.
    pub(crate) random: bool,
}

impl VolatileDefault {
    /// The expression, to be put into a statement.
    pub(crate) fn to_pieces(&self) -> Vec<TextPiece> {
        let mut pieces = vec![TextPiece::from("(")];
        pieces.extend(self.expression.clone().into_pieces());
        pieces.push(TextPiece::from(")"));
        pieces
    }
}
