//! Reading a column's default: whether it is volatile, and the expression that gives its value.

use super::StatementRewriter;
use super::evaluation::Evaluation;
use crate::catalogue::CatalogueDb;
use crate::catalogue::schema_cache::TableColumn;
use crate::catalogue::volatile_default::VolatileDefault;
use crate::execution_context::Placeholder;
use crate::names::NamespacePrefix;
use crate::parsed_source::{not_understood_error, with_statement};
use crate::splice::{SqlTemplate, TextPiece};
use debros_proto::{Namespace, Result};
use std::sync::{LazyLock, Mutex, PoisonError};
use syntaqlite_syntax::nodes::Stmt;

impl TableColumn {
    /// Its default, if it depends on the time of the insert or on randomness.
    pub(super) fn volatile_default(&self) -> Option<&VolatileDefault> {
        self.volatile_default
            .get_or_init(|| parse_volatile_default(self.default.as_deref()?))
            .as_ref()
    }
}

/// Reads a default as the schema has it; `None` if it is always the same.
pub(crate) fn parse_volatile_default(text: &str) -> Option<VolatileDefault> {
    // Most defaults are literals, which need no parser.
    let literal = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.' || byte == b'-')
        || (text.len() > 1
            && text.starts_with('\'')
            && text.ends_with('\'')
            && !text[1..text.len() - 1].contains('\''));
    if literal {
        return None;
    }
    // A default that does not parse was refused when the table was created.
    let (expression, random) = rewrite_default(text).ok()?;
    expression.has_placeholders().then_some(VolatileDefault { expression, random })
}

/// Rewrites a column's default for the rows that omit the column; returns too whether it is random.
fn rewrite_default(text: &str) -> Result<(SqlTemplate, bool)> {
    // The prefix and the catalogue do not matter: a default names no table.
    let sql = format!("SELECT {text}");
    static EMPTY: LazyLock<Option<Mutex<CatalogueDb>>> =
        LazyLock::new(|| CatalogueDb::open().ok().map(Mutex::new));
    let prefix = NamespacePrefix::new(&Namespace::internal());
    let inner = EMPTY
        .as_ref()
        .ok_or_else(not_understood_error)?
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    with_statement(&sql, |source, root| {
        let Stmt::SelectStmt(select) = root else {
            return Err(not_understood_error());
        };
        let mut rewriter = StatementRewriter::new(source, &prefix, &inner);
        rewriter.evaluation = Evaluation::Literal;
        rewriter.visit_bare_expressions(select)?;
        rewriter.check_all_visited(source.tree().root_id())?;
        let random = rewriter.splices.contains_piece(|piece| {
            matches!(
                piece,
                TextPiece::Placeholder(Placeholder::Random | Placeholder::RandomBlob(_))
            )
        });
        // The word SELECT is removed again.
        rewriter.splices.replace(0.."SELECT ".len(), "");
        Ok((rewriter.splices.apply(source.text)?, random))
    })
}
