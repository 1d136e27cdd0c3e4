//! Column defaults that are of the moment: `CURRENT_TIMESTAMP`, `(datetime('now'))`, `(hex(randomblob(8)))`.

use crate::edit::{Piece, Template};

/// A default whose value differs from one moment to the next, as an expression with slots.
#[derive(Clone, Debug)]
pub(crate) struct LiveDefault {
    pub(crate) expression: Template,
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
