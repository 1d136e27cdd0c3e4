//! Which names stand for what, at one place of a statement.

use crate::names::same;

/// Something that a FROM clause, or the target of a change, makes visible.
#[derive(Debug)]
pub(super) struct Item {
    /// What qualifies its columns: the alias, else the table's name.
    pub(super) visible: String,
    /// The user's table behind it, by the name it was declared with.
    pub(super) table: Option<String>,
    /// The table is a full-text table: it has a hidden column of its own name.
    pub(super) full_text: bool,
    /// No alias can stand here, so that the qualifier itself must be moved.
    pub(super) bare: bool,
    /// The names of its columns, where there is no table to ask.
    pub(super) columns: Vec<String>,
}

impl Item {
    /// A subquery, CTE or table function.
    pub(super) fn other(visible: String, columns: Vec<String>) -> Self {
        Self { visible, table: None, full_text: false, bare: false, columns }
    }
}

/// The CTEs and FROM clauses around a place.
#[derive(Debug, Default)]
pub(super) struct Scopes {
    ctes: Vec<Vec<String>>,
    frames: Vec<Vec<Item>>,
}

impl Scopes {
    pub(super) fn push_ctes(&mut self, names: Vec<String>) {
        self.ctes.push(names);
    }

    pub(super) fn pop_ctes(&mut self) {
        self.ctes.pop();
    }

    /// Whether an unqualified name in a FROM clause is a CTE's.
    pub(super) fn is_cte(&self, name: &str) -> bool {
        self.ctes.iter().flatten().any(|cte| same(cte, name))
    }

    pub(super) fn push(&mut self, items: Vec<Item>) {
        self.frames.push(items);
    }

    pub(super) fn pop(&mut self) -> Vec<Item> {
        self.frames.pop().unwrap_or_default()
    }

    /// Adds to the innermost frame.
    pub(super) fn add(&mut self, item: Item) {
        if let Some(frame) = self.frames.last_mut() {
            frame.push(item);
        }
    }

    /// Makes the last item of the innermost frame visible under another name.
    pub(super) fn rename_last(&mut self, visible: String) {
        if let Some(item) = self.frames.last_mut().and_then(|frame| frame.last_mut()) {
            item.visible = visible;
        }
    }

    /// What a qualifier means: the items of that name in the nearest frame that has any. There are two where an UPDATE's
    /// FROM uses the target's name again.
    pub(super) fn qualified(&self, qualifier: &str) -> Vec<&Item> {
        let of_name = |frame: &'_ Vec<Item>| frame.iter().any(|item| same(&item.visible, qualifier));
        let nearest = self.frames.iter().rev().find(|frame| of_name(frame));
        nearest.into_iter().flatten().filter(|item| same(&item.visible, qualifier)).collect()
    }

    /// The frames, from the nearest outwards.
    pub(super) fn outwards(&self) -> impl Iterator<Item = &Vec<Item>> {
        self.frames.iter().rev()
    }
}
