//! Names in the place of a table.

use super::StatementRewriter;
use super::scope::ScopeItem;
use crate::allowed::{SCHEMA_TABLES, TABLE_FUNCTIONS};
use crate::catalogue::schema_cache::ObjectKind;
use crate::names::{is_one_of, is_same_name, starts_with_ignore_case};
use debros_proto::Result;
use std::ops::Range;
use syntaqlite_syntax::nodes::{IndexHint, TableRef};

/// Where a table is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TablePosition {
    /// In a FROM clause, where it may have an alias.
    From,
    /// After IN, where it may not.
    In,
}

impl<'w> StatementRewriter<'w> {
    pub(super) fn visit_table_ref(
        &mut self,
        table: TableRef<'w>,
        position: TablePosition,
    ) -> Result<()> {
        self.mark_visited(table.node_id());
        let token = self.source.token_range(table.table_name())?;
        let name = self.source.name_of(table.table_name())?;
        // The catalogue's temporary schema is empty, and may be read.
        let temporary = self.in_catalogue
            && is_one_of(SCHEMA_TABLES, &name)
            && self
                .source
                .name_of(table.schema())
                .is_ok_and(|schema| is_same_name(&schema, "temp"));
        if !temporary {
            self.check_schema(table.schema())?;
        }
        let alias = self.visit_alias(table.alias())?;
        let item = self.qualify_table(table, &token, &name, position, alias)?;
        self.visible.push(item.visible_name.clone());
        // After IN a table brings no columns into view.
        if position == TablePosition::From {
            self.scopes.add_item(item);
        }
        self.visit_expressions(table.args())
    }

    fn qualify_table(
        &mut self,
        table: TableRef<'w>,
        token: &Range<usize>,
        name: &str,
        position: TablePosition,
        alias: Option<String>,
    ) -> Result<ScopeItem> {
        let visible = alias.clone().unwrap_or_else(|| name.to_owned());
        if table.schema().is_empty() && self.scopes.is_cte(name) {
            return Ok(ScopeItem::without_table(visible, Vec::new()));
        }
        if is_one_of(TABLE_FUNCTIONS, name) {
            let columns = ["key", "value", "type", "atom", "id", "parent", "fullkey", "path"];
            return Ok(ScopeItem::without_table(visible, columns.map(str::to_owned).to_vec()));
        }
        if starts_with_ignore_case(name, "sqlite_") || starts_with_ignore_case(name, "pragma_") {
            let columns = self.rewrite_system_table(table, name, position, alias.is_some())?;
            return Ok(ScopeItem::without_table(visible, columns));
        }
        // An unknown name is qualified too: then the database says that there is no such table.
        let found = self.inner.schema.find_object(&self.inner.db, name);
        if self.in_catalogue {
            return match found {
                // In a WITH that nothing uses: SQLite has not read it.
                Some(_) => Ok(table_item(visible, name, found.as_ref())),
                None => Err(self.fail_at(token, &format!("no such table: {name}"))),
            };
        }
        let raw = self.source.text[token.clone()].to_owned();
        self.splices.replace(token.clone(), self.prefix.qualify_quoted(name));
        if position == TablePosition::From && alias.is_none() {
            let end = if table.has_parens() {
                self.source.closing_parenthesis(token.end)?
            } else {
                token.end
            };
            self.splices.insert(end, format!(" AS {raw}"));
        }
        if table.index_hint() == IndexHint::Indexed {
            self.qualify_index(table.index_name())?;
        }
        self.objects.push(name.to_owned());
        Ok(table_item(visible, name, found.as_ref()))
    }
}

/// An item for one of the namespace's own tables.
pub(super) fn table_item(
    visible: String,
    name: &str,
    found: Option<&(ObjectKind, String)>,
) -> ScopeItem {
    ScopeItem {
        visible_name: visible,
        table: Some(found.map_or_else(|| name.to_owned(), |(_, declared)| declared.clone())),
        full_text: matches!(found, Some((ObjectKind::FullText, _))),
        no_alias: false,
        columns: Vec::new(),
    }
}
