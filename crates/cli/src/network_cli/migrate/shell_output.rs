//! What a sqlite3 shell writes of tables that SQLite makes itself, for `.schema` and `.dump`.

use super::revert_check::unquote_name;
use super::virtual_tables::{VirtualTable, created_table, virtual_tables};
use debros_proto::sql::{ScriptStatement, tokens};

/// Makes statements of what a shell has written of a database. A `.dump`, which says that it writes
/// into the schema, is taken as a whole by the node; of a `.schema` the tables that SQLite makes
/// are left out.
pub(super) fn adapt_shell_output(pieces: &mut Vec<ScriptStatement<'_>>) {
    let announced = pieces.iter().position(|piece| writable_schema(piece.text) == Some(true));
    match announced {
        Some(announced) => put_virtual_tables_first(pieces, announced),
        None => omit_internal_tables(pieces),
    }
}

/// The setting that `PRAGMA writable_schema = …` gives, if a statement is that.
pub(super) fn writable_schema(statement: &str) -> Option<bool> {
    let mut words = tokens(statement);
    if !words.next()?.eq_ignore_ascii_case("PRAGMA") {
        return None;
    }
    let words: Vec<String> = words.take(5).map(unquote_name).collect();
    // Also with `main.` before it. Without a value it is a question.
    let at = words.iter().position(|word| word == "writable_schema")?;
    let value = words.get(at + 2)?;
    let is_number = value.bytes().all(|byte| byte.is_ascii_digit());
    let is_zero = value.bytes().all(|byte| byte == b'0');
    Some(["on", "true", "yes"].contains(&value.as_str()) || is_number && !is_zero)
}

fn omit_internal_tables(pieces: &mut Vec<ScriptStatement<'_>>) {
    const OWN: [&str; 3] = [
        "sqlite_sequence(name,seq)",
        "sqlite_stat1(tbl,idx,stat)",
        "sqlite_stat4(tbl,idx,neq,nlt,ndlt,sample)",
    ];
    // All of them first: where VACUUM has been, a virtual table comes after what is behind it.
    let behind: Vec<String> =
        virtual_tables(pieces).iter().flat_map(VirtualTable::shadow_tables).collect();
    pieces.retain(|piece| {
        let Some(table) = created_table(piece.text) else { return true };
        if !table.starts_with("sqlite_") {
            return !behind.contains(&table);
        }
        let definition = tokens(piece.text).skip_while(|word| unquote_name(word) != table);
        let definition: String = definition.take(20).map(unquote_name).collect();
        !OWN.contains(&definition.as_str())
    });
}

/// In a dump of a file where VACUUM has been, the tables behind a virtual table come before it, and
/// before the PRAGMA that announces it. The node has to know it to see what they are.
fn put_virtual_tables_first(pieces: &mut [ScriptStatement<'_>], mut announced: usize) {
    for at in announced + 1..pieces.len() {
        let Some(table) = VirtualTable::of(pieces[at].text).filter(|table| table.is_dumped) else {
            continue;
        };
        let behind = table.shadow_tables();
        let first = pieces[..at].iter().position(|piece| {
            created_table(piece.text).is_some_and(|table| behind.contains(&table))
        });
        let Some(first) = first else { continue };
        pieces[first..=at].rotate_right(1);
        if first < announced {
            pieces[first..=announced + 1].rotate_right(1);
            announced = first;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{adapt_shell_output, writable_schema};
    use debros_proto::sql::split;

    fn adapted(script: &str) -> Vec<String> {
        let mut pieces = split(script).unwrap();
        adapt_shell_output(&mut pieces);
        let starts = pieces.iter().map(|piece| piece.text.split(['(', '\n']).next().unwrap());
        starts.map(|start| start.trim_end().to_owned()).collect()
    }

    #[test]
    fn what_a_shell_says_of_tables_that_sqlite_makes_is_left_out() {
        let schema = "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT);\nCREATE TABLE sqlite_sequence(name,seq);\nCREATE \
                      TABLE IF NOT EXISTS \"sqlite_sequence\"(name,seq);\nCREATE VIRTUAL TABLE ft USING fts5(a)\n/* ft(a) */;\n\
                      CREATE TABLE IF NOT EXISTS 'ft_data'(id INTEGER PRIMARY KEY, block BLOB);\nCREATE TABLE \
                      'ft_idx'(segid, term, pgno, PRIMARY KEY(segid, term)) WITHOUT ROWID;\nCREATE VIRTUAL TABLE box USING \
                      rtree(id, a, b);\nCREATE TABLE IF NOT EXISTS \"box_node\"(nodeno INTEGER PRIMARY KEY,data);\nCREATE TABLE \
                      \"box_rowid\"(rowid INTEGER PRIMARY KEY,nodeno);\nCREATE TABLE sqlite_stat1(tbl,idx,stat);\nCREATE TABLE \
                      IF NOT EXISTS 'ft_other'(x);\nCREATE TABLE sqlite_sequence(name,seq,more);";
        assert_eq!(
            adapted(schema),
            [
                "CREATE TABLE t",
                "CREATE VIRTUAL TABLE ft USING fts5",
                "CREATE VIRTUAL TABLE box USING rtree",
                "CREATE TABLE IF NOT EXISTS 'ft_other'",
                "CREATE TABLE sqlite_sequence",
            ]
        );
        // Of a dump the node takes it.
        let dump = format!("PRAGMA writable_schema=ON;\n{schema}\nPRAGMA writable_schema=OFF;");
        assert_eq!(adapted(&dump).len(), 14);
    }

    #[test]
    fn a_users_own_table_of_such_a_name_is_kept() {
        // The texts of this index are in a table that is named as its own would be.
        let schema = "CREATE TABLE ft_content(id INTEGER PRIMARY KEY, a);\nCREATE VIRTUAL TABLE ft USING fts5(a, \
                      content='ft_content');\nCREATE TABLE 'ft_data'(id INTEGER PRIMARY KEY, block BLOB);\nCREATE TABLE \
                      other_data(x);\nCREATE TABLE ft_data_more(x);";
        assert_eq!(
            adapted(schema),
            [
                "CREATE TABLE ft_content",
                "CREATE VIRTUAL TABLE ft USING fts5",
                "CREATE TABLE other_data",
                "CREATE TABLE ft_data_more",
            ]
        );
    }

    #[test]
    fn after_a_vacuum_the_virtual_table_comes_last() {
        let schema = "CREATE TABLE 'ft_data'(id INTEGER PRIMARY KEY, block BLOB);\nCREATE VIRTUAL TABLE ft USING fts5(s);";
        assert_eq!(adapted(schema), ["CREATE VIRTUAL TABLE ft USING fts5"]);
        let row = |name: &str| {
            format!(
                "INSERT INTO sqlite_schema(type,name,tbl_name,rootpage,sql)VALUES('table','{name}','{name}',0,'CREATE VIRTUAL \
                 TABLE {name} USING fts5(s)');\n"
            )
        };
        let dump = format!(
            "CREATE TABLE o(a);\nCREATE TABLE IF NOT EXISTS 'd_data'(id INTEGER PRIMARY KEY, block BLOB);\nINSERT INTO d_data \
             VALUES(1,x'00');\nCREATE TABLE IF NOT EXISTS 'e_data'(id INTEGER PRIMARY KEY, block BLOB);\nPRAGMA \
             writable_schema=ON;\n{}{}PRAGMA writable_schema=OFF;",
            row("d"),
            row("e")
        );
        assert_eq!(
            adapted(&dump),
            [
                "CREATE TABLE o",
                "PRAGMA writable_schema=ON",
                "INSERT INTO sqlite_schema",
                "CREATE TABLE IF NOT EXISTS 'd_data'",
                "INSERT INTO d_data VALUES",
                "INSERT INTO sqlite_schema",
                "CREATE TABLE IF NOT EXISTS 'e_data'",
                "PRAGMA writable_schema=OFF",
            ]
        );
    }

    #[test]
    fn the_announcement_of_a_dump_is_known() {
        for (sql, setting) in [
            ("PRAGMA writable_schema=ON", Some(true)),
            ("pragma main.writable_schema = 1", Some(true)),
            ("PRAGMA writable_schema(yes)", Some(true)),
            ("PRAGMA writable_schema=OFF", Some(false)),
            ("PRAGMA writable_schema=0", Some(false)),
            ("PRAGMA writable_schema=RESET", Some(false)),
            ("PRAGMA writable_schema", None),
            ("PRAGMA foreign_keys=ON", None),
            ("SELECT writable_schema = 1", None),
        ] {
            assert_eq!(writable_schema(sql), setting, "{sql}");
        }
    }
}
