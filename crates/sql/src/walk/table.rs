//! Names in the place of a table.

use super::Walk;
use super::scope::Item;
use crate::allowed::{SCHEMA_TABLES, TABLE_FUNCTIONS};
use crate::catalogue::schema::Kind;
use crate::names::{is_one_of, same, starts_with};
use debros_proto::Result;
use std::ops::Range;
use syntaqlite_syntax::nodes::{IndexHint, TableRef};

/// Where a table is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Position {
    /// In a FROM clause, where it may have an alias.
    From,
    /// After IN, where it may not.
    In,
}

impl<'w> Walk<'w> {
    pub(super) fn table_ref(&mut self, table: TableRef<'w>, position: Position) -> Result<()> {
        self.understand(table.node_id());
        let token = self.source.token(table.table_name())?;
        let name = self.source.name(table.table_name())?;
        // The catalogue's temporary schema is empty, and may be looked at.
        let temporary = self.in_catalogue
            && is_one_of(SCHEMA_TABLES, &name)
            && self.source.name(table.schema()).is_ok_and(|schema| same(&schema, "temp"));
        if !temporary {
            self.check_schema(table.schema())?;
        }
        let alias = self.alias(table.alias())?;
        let item = self.moved_table(table, &token, &name, position, alias)?;
        self.visible.push(item.visible.clone());
        // After IN a table brings no columns into view.
        if position == Position::From {
            self.scopes.add(item);
        }
        self.expressions(table.args())
    }

    fn moved_table(
        &mut self,
        table: TableRef<'w>,
        token: &Range<usize>,
        name: &str,
        position: Position,
        alias: Option<String>,
    ) -> Result<Item> {
        let visible = alias.clone().unwrap_or_else(|| name.to_owned());
        if table.schema().is_empty() && self.scopes.is_cte(name) {
            return Ok(Item::other(visible, Vec::new()));
        }
        if is_one_of(TABLE_FUNCTIONS, name) {
            let columns = ["key", "value", "type", "atom", "id", "parent", "fullkey", "path"];
            return Ok(Item::other(visible, columns.map(str::to_owned).to_vec()));
        }
        if starts_with(name, "sqlite_") || starts_with(name, "pragma_") {
            let columns = self.special_table(table, name, position, alias.is_some())?;
            return Ok(Item::other(visible, columns));
        }
        // A name that is nobody's is moved too: then the database says that there is no such table.
        let found = self.inner.schema.find(&self.inner.db, name);
        if self.in_catalogue {
            return match found {
                // In a WITH that nothing uses: SQLite has not read it.
                Some(_) => Ok(own_item(visible, name, found.as_ref())),
                None => Err(self.fail_at(token, &format!("no such table: {name}"))),
            };
        }
        let raw = self.source.text[token.clone()].to_owned();
        self.edits.replace(token.clone(), self.prefix.quoted(name));
        if position == Position::From && alias.is_none() {
            let end = if table.has_parens() { self.source.closing(token.end)? } else { token.end };
            self.edits.insert(end, format!(" AS {raw}"));
        }
        if table.index_hint() == IndexHint::Indexed {
            self.move_index(table.index_name())?;
        }
        self.objects.push(name.to_owned());
        Ok(own_item(visible, name, found.as_ref()))
    }
}

/// An item for one of the namespace's own tables.
pub(super) fn own_item(visible: String, name: &str, found: Option<&(Kind, String)>) -> Item {
    Item {
        visible,
        table: Some(found.map_or_else(|| name.to_owned(), |(_, declared)| declared.clone())),
        full_text: matches!(found, Some((Kind::FullText, _))),
        bare: false,
        columns: Vec::new(),
    }
}
