//! Changes of `sqlite_sequence`, the table of the last numbers that AUTOINCREMENT gave.

use super::StatementRewriter;
use crate::names::{dequote, is_same_name, quote, starts_with_ignore_case};
use crate::reserved_names::check_new_name;
use debros_proto::Result;
use syntaqlite_syntax::nodes::{
    BinaryOp, Expr, ExprList, InExprSource, InsertStmt, LiteralType, Select, TableRef,
    ValuesRowList,
};

impl<'w> StatementRewriter<'w> {
    /// A change of `sqlite_sequence`, by which tools restart a table's numbers: allowed for one
    /// table by its name, or for all of the namespace's. Returns the error for other forms; `None`
    /// for other tables.
    pub(super) fn rewrite_sequence_change(
        &mut self,
        table: TableRef<'w>,
        condition: Option<Expr<'w>>,
    ) -> Result<Option<debros_proto::Error>> {
        if !self.is_sequence(table)? {
            return Ok(None);
        }
        let refused = self.refuse_at(
            &self.source.token_range(table.table_name())?,
            "sqlite_sequence can be changed for tables by name, WHERE name = 't' or WHERE name IN ('t', 'u'), or without a WHERE",
        );
        self.mark_visited(table.node_id());
        self.check_schema(table.schema())?;
        if table.alias().is_some() || table.has_parens() {
            return Err(refused);
        }
        self.grants.sequence = true;
        let (own, length) = (quote('\'', self.prefix.as_str()), self.prefix.as_str().len());
        match condition {
            None => {
                let end = self
                    .source
                    .tokens_after(0)
                    .iter()
                    .rev()
                    .find(|token| &self.source.text[(*token).clone()] != ";");
                let end = end.map_or(self.source.text.len(), |token| token.end);
                self.splices.insert(end, format!(" WHERE substr(name, 1, {length}) = {own}"));
            }
            Some(Expr::BinaryExpr(binary))
                if matches!(binary.op(), BinaryOp::Eq | BinaryOp::EqDouble) =>
            {
                self.mark_visited(binary.node_id());
                if !self.is_sequence_name(binary.left())?
                    || !self.qualify_sequence_literal(binary.right())?
                {
                    return Err(refused);
                }
            }
            Some(Expr::InExpr(within)) if !within.negated() => {
                self.mark_visited(within.node_id());
                let Some(InExprSource::ExprList(list)) = within.source() else {
                    return Err(refused);
                };
                if !self.is_sequence_name(within.operand())? {
                    return Err(refused);
                }
                for name in list.iter() {
                    if !self.qualify_sequence_literal(Some(name))? {
                        return Err(refused);
                    }
                }
            }
            Some(_) => return Err(refused),
        }
        Ok(Some(refused))
    }

    /// `INSERT INTO sqlite_sequence VALUES ('t', 7)`, as a dump has it: literal names of the
    /// namespace's own tables.
    pub(super) fn rewrite_sequence_insert(
        &mut self,
        insert: InsertStmt<'w>,
        table: TableRef<'w>,
    ) -> Result<bool> {
        if !self.is_sequence(table)? {
            return Ok(false);
        }
        let refused = self.refuse_at(
            &self.source.token_range(table.table_name())?,
            "rows of sqlite_sequence are given as INSERT INTO sqlite_sequence VALUES ('name of a table', number)",
        );
        self.mark_visited(table.node_id());
        self.check_schema(table.schema())?;
        let plain = insert.with_ctes().is_none()
            && insert.upsert().is_none()
            && insert.returning().is_none();
        let Some(Select::ValuesClause(values)) =
            insert.source().filter(|_| plain && table.alias().is_none())
        else {
            return Err(refused);
        };
        self.mark_visited(values.node_id());
        let mut columns = Vec::new();
        for column in insert.columns().iter().flat_map(ExprList::iter) {
            let Expr::ColumnRef(column) = column else { return Err(refused) };
            self.mark_visited(column.node_id());
            columns.push((
                self.source.name_of(column.column())?,
                self.source.token_range(column.column())?,
            ));
        }
        // `.dump --preserve-rowids` gives the rows' rowids: here they are among those of others.
        let has_place = columns.first().is_some_and(|(column, _)| is_same_name(column, "rowid"));
        if let (true, [(_, place), (_, next), ..]) = (has_place, columns.as_slice()) {
            self.splices.replace(place.start..next.start, "");
        }
        let skipped = usize::from(has_place);
        let is_named = |wanted: &[&str]| {
            let given = columns.iter().skip(skipped).map(|(column, _)| column);
            given.zip(wanted).all(|(column, wanted)| is_same_name(column, wanted))
        };
        if !is_named(&["name", "seq"]) || has_place && columns.len() != 3 {
            return Err(refused);
        }
        for row in values.rows().iter().flat_map(ValuesRowList::iter) {
            // A name that no table has would be reported unchanged.
            let is_free = |name: &str| {
                check_new_name(name).is_ok() && !starts_with_ignore_case(name, "sqlite_")
            };
            let name = row.get(skipped);
            let is_own =
                matches!(name, Some(Expr::Literal(name)) if is_free(&dequote(name.source())));
            if row.len() != 2 + skipped || !is_own {
                return Err(refused);
            }
            if has_place {
                let (Some(Expr::Literal(place)), Some(name)) = (row.get(0), name) else {
                    return Err(refused);
                };
                self.mark_visited(place.node_id());
                let start = self.source.range_of(place.source())?.start;
                self.splices.replace(start..self.source.extent(name.node_id())?.start, "");
            }
            if !self.qualify_sequence_literal(name)? {
                return Err(refused);
            }
            self.visit_optional_expr(row.get(1 + skipped))?;
        }
        self.grants.sequence = true;
        Ok(true)
    }

    /// Whether a table is `sqlite_sequence`, and may be changed as such.
    fn is_sequence(&self, table: TableRef<'w>) -> Result<bool> {
        Ok(!self.stored
            && is_same_name(&self.source.name_of(table.table_name())?, "sqlite_sequence"))
    }

    fn is_sequence_name(&mut self, column: Option<Expr<'w>>) -> Result<bool> {
        let Some(Expr::ColumnRef(column)) = column else { return Ok(false) };
        self.mark_visited(column.node_id());
        Ok(column.table().is_empty()
            && is_same_name(&self.source.name_of(column.column())?, "name"))
    }

    /// Qualifies a literal table name.
    fn qualify_sequence_literal(&mut self, name: Option<Expr<'w>>) -> Result<bool> {
        let Some(Expr::Literal(name)) = name else { return Ok(false) };
        if name.literal_type() != LiteralType::String {
            return Ok(false);
        }
        self.mark_visited(name.node_id());
        let range = self.source.range_of(name.source())?;
        let full = self.prefix.qualify_literal(&dequote(name.source()));
        self.splices.replace(range, full);
        Ok(true)
    }
}
