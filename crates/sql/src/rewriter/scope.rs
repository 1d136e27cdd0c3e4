//! The meaning of names at one position of a statement.

use crate::names::is_same_name;

/// Something that a FROM clause, or the target of a change, makes visible.
#[derive(Debug)]
pub(super) struct ScopeItem {
    /// The qualifier of its columns: the alias, else the table's name.
    pub(super) visible_name: String,
    /// The user's table behind it, by its declared name.
    pub(super) table: Option<String>,
    /// The table is a full-text table: it has a hidden column of its own name.
    pub(super) full_text: bool,
    /// No alias is possible here, so that the qualifier itself must be replaced.
    pub(super) no_alias: bool,
    /// The names of its columns, if it is not a table of the schema.
    pub(super) columns: Vec<String>,
}

impl ScopeItem {
    /// A subquery, CTE or table function.
    pub(super) fn without_table(visible: String, columns: Vec<String>) -> Self {
        Self { visible_name: visible, table: None, full_text: false, no_alias: false, columns }
    }
}

/// The CTEs and FROM clauses around a position. A statement inside another one sees the names of
/// both, its own first.
#[derive(Debug, Default)]
pub(super) struct NameScopes {
    /// The names of each WITH, from the outermost to the innermost.
    ctes: Vec<Vec<String>>,
    /// The items of each FROM clause, from the outermost to the innermost.
    frames: Vec<Vec<ScopeItem>>,
}

impl NameScopes {
    pub(super) fn push_ctes(&mut self, names: Vec<String>) {
        self.ctes.push(names);
    }

    pub(super) fn pop_ctes(&mut self) {
        self.ctes.pop();
    }

    /// Whether an unqualified name in a FROM clause is a CTE's.
    pub(super) fn is_cte(&self, name: &str) -> bool {
        self.ctes.iter().flatten().any(|cte| is_same_name(cte, name))
    }

    pub(super) fn push_frame(&mut self, items: Vec<ScopeItem>) {
        self.frames.push(items);
    }

    pub(super) fn pop_frame(&mut self) -> Vec<ScopeItem> {
        self.frames.pop().unwrap_or_default()
    }

    /// Adds to the innermost frame.
    pub(super) fn add_item(&mut self, item: ScopeItem) {
        if let Some(frame) = self.frames.last_mut() {
            frame.push(item);
        }
    }

    /// Makes the last item of the innermost frame visible under another name.
    pub(super) fn rename_last(&mut self, visible: String) {
        if let Some(item) = self.frames.last_mut().and_then(|frame| frame.last_mut()) {
            item.visible_name = visible;
        }
    }

    /// The meaning of a qualifier: the items of that name in the nearest frame that has any. There
    /// are two if an UPDATE's FROM uses the target's name again.
    pub(super) fn items_named(&self, qualifier: &str) -> Vec<&ScopeItem> {
        let of_name = |frame: &'_ Vec<ScopeItem>| {
            frame.iter().any(|item| is_same_name(&item.visible_name, qualifier))
        };
        let nearest = self.frames.iter().rev().find(|frame| of_name(frame));
        nearest
            .into_iter()
            .flatten()
            .filter(|item| is_same_name(&item.visible_name, qualifier))
            .collect()
    }

    /// The frames, from the nearest outwards.
    pub(super) fn frames_outwards(&self) -> impl Iterator<Item = &Vec<ScopeItem>> {
        self.frames.iter().rev()
    }
}
