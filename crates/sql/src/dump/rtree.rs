//! The rows of an R-Tree, from the tables in which it stores them. A row of `…_node` is a node: its
//! number, and a BLOB with the boxes of many rows. A row of `…_rowid` is one row of the R-Tree: its
//! rowid, the number of its node, and its auxiliary columns. `…_parent` is not needed.
//!
//! A node has SQLite's file format ("The SQLite R*Tree Module", section 6): the depth of the tree
//! and the number of cells, two bytes each, and the cells, each a rowid of eight bytes and
//! coordinates of four, all with the highest byte first.

use super::form::{PlainRow, blob_literal};
use super::refused_error;
use crate::names::quote;
use debros_proto::Result;
use std::collections::HashMap;

/// The rows of an R-Tree in a dump.
#[derive(Debug, Default)]
pub(super) struct RTreeRows {
    /// The BLOBs of the nodes, by number.
    nodes: HashMap<i64, Vec<u8>>,
    rows: Vec<RTreeRow>,
}

/// A row of `…_rowid`.
#[derive(Debug)]
struct RTreeRow {
    id: i64,
    node: i64,
    /// The SQL of its auxiliary columns, each with a comma before, and their number.
    others: String,
    count: usize,
}

impl RTreeRows {
    /// Takes a row of one of the tables; `None` if it is of no such table.
    pub(super) fn add_row(&mut self, row: PlainRow<'_>, ending: &str) -> Option<()> {
        match ending {
            "_node" => {
                self.nodes.insert(row.number_at(0)?, blob_literal(row.value_at(1)?)?);
            }
            "_rowid" => {
                let (id, node, others) =
                    (row.number_at(0)?, row.number_at(1)?, row.values_text(2)?);
                self.rows.push(RTreeRow { id, node, others, count: row.len() - 2 });
            }
            // The positions of the nodes in the old tree are not needed.
            _ => (),
        }
        Some(())
    }

    /// The rows as INSERTs into the table with this number of columns.
    pub(super) fn into_inserts(
        self,
        table: &str,
        columns: usize,
        whole_numbers: bool,
    ) -> Result<Vec<String>> {
        let mut statements = Vec::with_capacity(self.rows.len());
        for row in &self.rows {
            let coordinates = columns.saturating_sub(row.count + 1);
            let found = self
                .nodes
                .get(&row.node)
                .and_then(|node| cell_coordinates(node, row.id, coordinates));
            let values = found.and_then(|cell| {
                cell.map(|value| coordinate_sql(value, whole_numbers)).collect::<Option<String>>()
            });
            let Some(values) = values else {
                return Err(refused_error(&format!(
                    "the dump of the R-Tree {table} is incomplete: its node {} has no row {}",
                    row.node, row.id
                )));
            };
            statements.push(format!(
                "INSERT INTO {} VALUES ({}{values}{})",
                quote('"', table),
                row.id,
                row.others
            ));
        }
        Ok(statements)
    }
}

/// The coordinates of a row in a node.
fn cell_coordinates(
    node: &[u8],
    id: i64,
    coordinates: usize,
) -> Option<impl Iterator<Item = [u8; 4]>> {
    /// Bytes of the depth and the number of cells.
    const HEAD: usize = 4;
    let size = 8 + 4 * coordinates;
    let count = usize::from(u16::from_be_bytes([*node.get(2)?, *node.get(3)?]));
    let cells = node.get(HEAD..HEAD + count * size)?;
    let found = cells.chunks_exact(size).find(|cell| cell.starts_with(&id.to_be_bytes()))?;
    Some(found[8..].chunks_exact(4).map(|bytes| [bytes[0], bytes[1], bytes[2], bytes[3]]))
}

/// A coordinate as SQL, with a comma before.
fn coordinate_sql(bytes: [u8; 4], whole_number: bool) -> Option<String> {
    if whole_number {
        return Some(format!(", {}", i32::from_be_bytes(bytes)));
    }
    match f64::from(f32::from_be_bytes(bytes)) {
        value if value.is_nan() => None,
        value if value.is_infinite() => {
            Some(format!(", {}9e999", if value < 0.0 { "-" } else { "" }))
        }
        value => Some(format!(", {value:?}")),
    }
}
