//! Reading a column's default: whether it is of the moment, and the expression that gives its value.

use super::Walk;
use super::clock::Clock;
use crate::catalogue::Inner;
use crate::catalogue::default::LiveDefault;
use crate::catalogue::schema::Column;
use crate::edit::{Piece, Template};
use crate::moment::Slot;
use crate::names::Prefix;
use crate::source::{not_understood, with_statement};
use debros_proto::{Namespace, Result};
use std::sync::{LazyLock, Mutex, PoisonError};
use syntaqlite_syntax::nodes::Stmt;

impl Column {
    /// Its default, where that is of the moment at which a row is inserted.
    pub(super) fn live_default(&self) -> Option<&LiveDefault> {
        self.live.get_or_init(|| live_default(self.default.as_deref()?)).as_ref()
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
    let (expression, random) = default_expression(text).ok()?;
    expression.has_slots().then_some(LiveDefault { expression, random })
}

/// Rewrites a column's default for the rows that omit the column; says too whether it is random.
fn default_expression(text: &str) -> Result<(Template, bool)> {
    // The prefix and the catalogue are of no importance: a default names no table.
    let sql = format!("SELECT {text}");
    static EMPTY: LazyLock<Option<Mutex<Inner>>> = LazyLock::new(|| Inner::open().ok().map(Mutex::new));
    let prefix = Prefix::new(&Namespace::internal());
    let inner = EMPTY.as_ref().ok_or_else(not_understood)?.lock().unwrap_or_else(PoisonError::into_inner);
    with_statement(&sql, |source, root| {
        let Stmt::SelectStmt(select) = root else {
            return Err(not_understood());
        };
        let mut walk = Walk::new(source, &prefix, &inner);
        walk.clock = Clock::Slots;
        walk.bare_expressions(select)?;
        walk.check_understood(source.tree().root_id())?;
        let random = walk.edits.any(|piece| matches!(piece, Piece::Slot(Slot::Random | Slot::RandomBlob(_))));
        // The word SELECT goes again.
        walk.edits.replace(0.."SELECT ".len(), "");
        Ok((walk.edits.apply(source.text)?, random))
    })
}
