//! What to do with a file that is too much for one step.

use super::revert_check::unquote_name;
use super::virtual_tables::{VirtualTable, virtual_tables};
use crate::network_cli::output::printable;
use debros_proto::sql::{ScriptStatement, tokens};

/// How to part a file. A virtual table and the rows behind it are one whole, so they are not parted
/// but written anew.
pub(super) fn parting_advice(pieces: &[ScriptStatement<'_>]) -> String {
    let dumped = virtual_tables(pieces).into_iter().filter(|table| table.is_dumped);
    let sizes: Vec<(usize, VirtualTable)> =
        dumped.map(|table| (bytes_behind(&table, pieces), table)).collect();
    let behind: usize = sizes.iter().map(|(bytes, _)| bytes).sum();
    let all: usize = pieces.iter().map(|piece| piece.text.len()).sum();
    let part = "part it into several files, each with its own BEGIN and COMMIT or none; rows that are written out, INSERT \
                INTO t VALUES(…), are combined to fit";
    let largest = sizes.into_iter().max_by_key(|(bytes, _)| *bytes);
    let Some((_, table)) = largest.filter(|_| behind > 0) else { return part.to_owned() };
    if behind < all / 2 {
        return format!(
            "{part}; a virtual table and the rows behind it have to stay in one file, from PRAGMA writable_schema=ON to OFF"
        );
    }
    let name = printable(&table.name);
    let rows = match table.content() {
        Some("") => "its texts from where they are, because the dump has none".to_owned(),
        Some(content) => {
            format!(
                "behind the rows of {}: INSERT INTO {name}({name}) VALUES('rebuild');",
                printable(content)
            )
        }
        None => {
            let columns = if table.is_rtree() { "*" } else { "rowid, *" };
            format!(
                "what `sqlite3 FILE '.headers on' '.mode insert {name}' 'SELECT {columns} FROM {name}'` writes, in several files \
                 if need be"
            )
        }
    };
    format!(
        "the virtual table {name} and the rows behind it can not be parted: leave out of the dump what names them, put its own \
         CREATE VIRTUAL TABLE into a file, and into a later one {rows}"
    )
}

/// The bytes of the rows in the tables behind a virtual table.
fn bytes_behind(table: &VirtualTable, pieces: &[ScriptStatement<'_>]) -> usize {
    let behind = table.shadow_tables();
    let rows = pieces.iter().filter(|piece| {
        let mut words = tokens(piece.text);
        words.next().is_some_and(|word| word.eq_ignore_ascii_case("INSERT"))
            && words.nth(1).is_some_and(|name| behind.contains(&unquote_name(name)))
    });
    rows.map(|piece| piece.text.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::parting_advice;
    use debros_proto::sql::split;

    #[test]
    fn the_advice_is_one_that_works_for_what_is_large() {
        let table = |name: &str, behind: &str, using: &str| {
            let zeros = "00".repeat(400);
            format!(
                "INSERT INTO sqlite_schema(type,name,tbl_name,rootpage,sql)VALUES('table','{name}','{name}',0,'CREATE VIRTUAL \
                 TABLE {name} USING {using}');\nINSERT INTO {name}_{behind} VALUES(1,x'{zeros}');\n"
            )
        };
        let words_table = table("ft", "data", "fts5(a)");
        for (script, words) in [
            ("INSERT INTO t VALUES(1);".to_owned(), "part it into several files"),
            // Its rows are written into it.
            (
                "CREATE VIRTUAL TABLE ft USING fts5(a);\nINSERT INTO ft_data VALUES(1);".to_owned(),
                "part it into several files",
            ),
            (words_table.clone(), "'.mode insert ft' 'SELECT rowid, * FROM ft'"),
            (table("g", "node", "rtree(id, a, b)"), "'.mode insert g' 'SELECT * FROM g'"),
            (
                table("x", "data", "fts5(a, content=''o'')"),
                "behind the rows of o: INSERT INTO x(x) VALUES('rebuild')",
            ),
            (table("x", "data", "fts5(a, content='''')"), "from where they are"),
            (
                words_table.clone() + &"INSERT INTO t VALUES(1);\n".repeat(50),
                "have to stay in one file",
            ),
            (
                words_table.clone()
                    + &table("g", "node", "rtree(id, a, b)")
                    + "INSERT INTO g_rowid VALUES(1,1);",
                "the virtual table g",
            ),
        ] {
            let advice = parting_advice(&split(&script).unwrap());
            assert!(advice.contains(words), "{script}: {advice}");
        }
    }
}
