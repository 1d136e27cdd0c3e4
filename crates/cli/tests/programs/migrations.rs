//! `network-cli db migrate` and `db export` against a real node.

use crate::support::cli::Cli;
use crate::support::{Node, PATIENCE, text_of};
use std::path::{Path, PathBuf};

fn write(folder: &Path, name: &str, text: &str) {
    let file = folder.join(name);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, text).unwrap();
}

/// A node, the command line with a key for its namespace `shop`, and an empty folder for
/// migrations.
fn shop(folder: &Path) -> (Node, Cli, PathBuf) {
    let node = Node::start(&folder.join("node"));
    let cli = Cli::new(&node, &node.api_key("shop"), folder);
    let steps = folder.join("steps");
    std::fs::create_dir(&steps).unwrap();
    (node, cli, steps)
}

#[test]
fn an_application_migrates_its_namespace_step_by_step() {
    let folder = tempfile::tempdir().unwrap();
    let (_node, cli, steps) = shop(folder.path());
    write(
        &steps,
        "001_tables.sql",
        "BEGIN;\nCREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT);\nCREATE TABLE log (what TEXT);\nCOMMIT;\n",
    );
    write(
        &steps,
        "002_trigger.sql",
        "CREATE TRIGGER kept AFTER INSERT ON item BEGIN INSERT INTO log VALUES ('added; ' || new.name); END;\nINSERT INTO item (name) VALUES ('one');",
    );
    let dir = steps.to_str().unwrap();
    assert_eq!(
        cli.json(&["db", "migrate", dir, "--dry-run"])["pending"].as_array().unwrap().len(),
        2
    );
    assert_eq!(
        cli.json(&["db", "schema"])["tables"].as_array().unwrap().len(),
        0,
        "a dry run changes nothing"
    );
    assert_eq!(
        cli.json(&["db", "migrate", dir])["applied"],
        serde_json::json!(["001_tables.sql", "002_trigger.sql"])
    );
    assert_eq!(cli.json(&["db", "migrate", dir])["applied"], serde_json::json!([]));
    assert_eq!(
        cli.json(&["query", "SELECT what FROM log"])["rows"],
        serde_json::json!([["added; one"]])
    );
    let kept = cli.json(&[
        "query",
        "SELECT version, name, length(checksum), applied_at > 0 FROM schema_migrations",
    ]);
    assert_eq!(kept["rows"], serde_json::json!([[1, "tables", 64, 1], [2, "trigger", 64, 1]]));

    // A step that fails in its middle leaves nothing, and is reported with file and line.
    write(&steps, "003_broken.sql", "CREATE TABLE half (a);\n\nINSERT INTO nowhere VALUES (1);\n");
    let failed = cli.run(&["db", "migrate", dir], b"");
    assert_eq!(failed.status.code(), Some(1), "{}", text_of(&failed));
    assert!(text_of(&failed).contains("003_broken.sql, line 3: "), "{}", text_of(&failed));
    let half = cli.json(&["query", "SELECT count(*) FROM sqlite_master WHERE name = 'half'"]);
    assert_eq!(half["rows"], serde_json::json!([[0]]));
    std::fs::remove_file(steps.join("003_broken.sql")).unwrap();
    // One place, in the lines of the file, which begins as editors on Windows begin it.
    write(&steps, "003_half.sql", "\u{feff}CREATE TABLE half (a);\n  SELEC 1;\n");
    let failed = text_of(&cli.run(&["db", "migrate", dir], b""));
    assert!(
        failed.contains("003_half.sql, line 2, column 3: ") && !failed.contains("(line"),
        "{failed}"
    );
    write(&steps, "003_half.sql", "\u{feff}CREATE TABLE half (a);");
    assert_eq!(cli.json(&["db", "migrate", dir])["applied"], serde_json::json!(["003_half.sql"]));
    std::fs::remove_file(steps.join("003_half.sql")).unwrap();
    cli.json(&["query", "DELETE FROM schema_migrations WHERE version = 3"]);

    // What was applied may not change, and no number may be missing.
    write(&steps, "001_tables.sql", "CREATE TABLE other (a);");
    let changed = cli.run(&["db", "migrate", dir], b"");
    assert!(
        text_of(&changed).contains("001_tables.sql was changed after it was applied"),
        "{}",
        text_of(&changed)
    );
    write(&steps, "005_gap.sql", "SELECT 1;");
    let gap = cli.run(&["db", "migrate", dir], b"");
    assert_eq!(gap.status.code(), Some(2), "{}", text_of(&gap));
    assert!(text_of(&gap).contains("005_gap.sql"), "{}", text_of(&gap));
}

/// The tables of an ORM, one of which is recreated although others refer to it, in the folders and
/// the words of Prisma.
#[test]
fn a_table_that_others_refer_to_is_recreated() {
    let folder = tempfile::tempdir().unwrap();
    let (_node, cli, steps) = shop(folder.path());
    write(
        &steps,
        "20260101120000_init/migration.sql",
        "-- CreateTable\nCREATE TABLE \"User\" (\"id\" INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, \"email\" TEXT NOT NULL);\n\
         CREATE TABLE \"Post\" (\"id\" INTEGER NOT NULL PRIMARY KEY, \"authorId\" INTEGER NOT NULL, CONSTRAINT \"Post_authorId_fkey\" \
         FOREIGN KEY (\"authorId\") REFERENCES \"User\" (\"id\") ON DELETE CASCADE ON UPDATE CASCADE);\n\
         INSERT INTO \"User\" VALUES (1, 'a@x'), (2, 'b@x');\nINSERT INTO \"Post\" VALUES (1, 1), (2, 2);\n",
    );
    let redefine = |from: &str| {
        format!(
            "-- RedefineTables\nPRAGMA defer_foreign_keys=ON;\nPRAGMA foreign_keys=OFF;\n\
             CREATE TABLE \"new_User\" (\"id\" INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, \"email\" TEXT NOT NULL, \"name\" TEXT);\n\
             INSERT INTO \"new_User\" (\"email\", \"id\") SELECT \"email\", \"id\" FROM {from};\n\
             DROP TABLE \"User\";\nALTER TABLE \"new_User\" RENAME TO \"User\";\n\
             CREATE UNIQUE INDEX \"User_email_key\" ON \"User\"(\"email\");\n\
             PRAGMA foreign_keys=ON;\nPRAGMA defer_foreign_keys=OFF;\n"
        )
    };
    // A step that forgets rows is not applied.
    write(&steps, "20260102120000_name/migration.sql", &redefine("\"User\" WHERE \"id\" = 1"));
    let dir = steps.to_str().unwrap();
    let failed = cli.run(&["db", "migrate", dir], b"");
    let text = text_of(&failed);
    assert_eq!(failed.status.code(), Some(1), "{text}");
    for words in [
        "20260102120000_name/migration.sql",
        "the row with rowid 2 of Post refers to no row of User",
    ] {
        assert!(text.contains(words), "{text}");
    }
    write(&steps, "migration_lock.toml", "provider = \"sqlite\"\n");
    let columns = "SELECT count(*) FROM pragma_table_info('User')";
    assert_eq!(cli.json(&["query", columns])["rows"], serde_json::json!([[2]]));
    write(&steps, "20260102120000_name/migration.sql", &redefine("\"User\""));
    assert_eq!(
        cli.json(&["db", "migrate", dir])["applied"],
        serde_json::json!(["20260102120000_name/migration.sql"])
    );
    let posts = "SELECT count(*), sum(name IS NULL) FROM \"Post\" JOIN \"User\" ON \"User\".id = \"authorId\"";
    assert_eq!(cli.json(&["query", posts])["rows"], serde_json::json!([[2, 2]]));
    cli.json(&["query", "DELETE FROM \"User\" WHERE id = 2"]);
    assert_eq!(cli.json(&["query", posts])["rows"], serde_json::json!([[1, 1]]));
}

/// A file of goose was run whole, and took back with its second half what the first had done.
#[test]
fn the_half_of_a_file_that_takes_back_is_never_run() {
    let folder = tempfile::tempdir().unwrap();
    let (_node, cli, _) = shop(folder.path());
    let tools: [(&str, &[(&str, &str)]); 6] = [
        (
            "goose",
            &[(
                "00001_a.sql",
                "-- +goose Up\n-- +goose StatementBegin\nCREATE TABLE goose (x);\n-- +goose StatementEnd\nINSERT INTO goose \
                 VALUES (1);\n-- +goose Down\nDROP TABLE goose;\n",
            )],
        ),
        (
            "dbmate",
            &[(
                "20240101120000_a.sql",
                "-- migrate:up\nCREATE TABLE dbmate (x);\nINSERT INTO dbmate VALUES (1);\n\n-- migrate:down\nDROP TABLE dbmate;\n",
            )],
        ),
        (
            "golang_migrate",
            &[
                (
                    "000001_a.up.sql",
                    "CREATE TABLE golang_migrate (x); INSERT INTO golang_migrate VALUES (1);",
                ),
                ("000001_a.down.sql", "DROP TABLE golang_migrate;"),
            ],
        ),
        (
            "flyway",
            &[
                ("V1__a.sql", "CREATE TABLE flyway (x);"),
                ("V3__c.sql", "INSERT INTO flyway VALUES (1);"),
                ("U1__a.sql", "DROP TABLE flyway;"),
            ],
        ),
        (
            "diesel",
            &[
                (
                    "2024-01-01-120000_a/up.sql",
                    "CREATE TABLE diesel (x); INSERT INTO diesel VALUES (1);",
                ),
                ("2024-01-01-120000_a/down.sql", "DROP TABLE diesel;"),
            ],
        ),
        (
            "node_sqlite",
            &[(
                "001-a.sql",
                "-- Up\nCREATE TABLE node_sqlite (x);\nINSERT INTO node_sqlite VALUES (1);\n-- Down\nDROP TABLE node_sqlite;\n",
            )],
        ),
    ];
    for (tool, files) in tools {
        let dir = folder.path().join(tool);
        for (name, text) in files {
            write(&dir, name, text);
        }
        let dir = dir.to_str().unwrap();
        assert!(
            !cli.json(&["db", "migrate", dir])["applied"].as_array().unwrap().is_empty(),
            "{tool}"
        );
        let rows = cli.json(&["query", &format!("SELECT count(*) FROM {tool}")]);
        assert_eq!(rows["rows"], serde_json::json!([[1]]), "{tool}");
        assert_eq!(cli.json(&["db", "migrate", dir])["applied"], serde_json::json!([]), "{tool}");
        cli.json(&["query", "DROP TABLE schema_migrations"]);
    }
    // Marks that no list holds.
    for (number, down) in
        ["-- Down (drop)", "-- To undo:", "-- backward", "/* Down */"].into_iter().enumerate()
    {
        let dir = folder.path().join(format!("unknown{number}"));
        write(
            &dir,
            "001_a.sql",
            &format!("CREATE TABLE unknown (x);\n{down}\nDROP TABLE unknown;\n"),
        );
        let refused = cli.run(&["db", "migrate", dir.to_str().unwrap()], b"");
        assert_eq!(refused.status.code(), Some(2), "{down}: {}", text_of(&refused));
        assert!(text_of(&refused).contains("001_a.sql, line "), "{down}: {}", text_of(&refused));
    }
    // What is not understood is refused before anything of the folder runs.
    let dir = folder.path().join("mixed");
    write(&dir, "001_a.sql", "CREATE TABLE mixed (x);");
    write(&dir, "002_b.sql", "CREATE TABLE other (x);\n-- Rollback\nDROP TABLE other;\n");
    let refused = cli.run(&["db", "migrate", dir.to_str().unwrap()], b"");
    assert_eq!(refused.status.code(), Some(2), "{}", text_of(&refused));
    assert!(text_of(&refused).contains("002_b.sql, line 2: "), "{}", text_of(&refused));
    let made = cli.json(&[
        "query",
        "SELECT count(*) FROM sqlite_master WHERE name IN ('mixed', 'other', 'schema_migrations')",
    ]);
    assert_eq!(made["rows"], serde_json::json!([[0]]));
}

/// A namespace that another tool has migrated, which its table says.
#[test]
fn the_record_of_another_tool_is_named_and_can_be_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let (_node, cli, steps) = shop(folder.path());
    for name in ["001_a.sql", "002_b.sql", "003_c.sql"] {
        write(&steps, name, "INSERT INTO ran VALUES (1);");
    }
    let dir = steps.to_str().unwrap();
    cli.json(&["query", "CREATE TABLE ran (x)"]);
    let refused = |words: &[&str]| {
        let output = cli.run(&["db", "migrate", dir], b"");
        let text = text_of(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        for word in words {
            assert!(text.contains(word), "{word}: {text}");
        }
        assert_eq!(
            cli.json(&["query", "SELECT count(*) FROM ran"])["rows"],
            serde_json::json!([[0]])
        );
    };
    // Its own name, in the shape of other tools.
    for (columns, row, words) in [
        ("version varchar NOT NULL PRIMARY KEY", "('2')", ["dbmate or Rails", "--baseline 2"]),
        ("version uint64, dirty bool", "(2, 0)", ["golang-migrate", "--baseline 2"]),
        ("version uint64, dirty bool", "(2, 1)", ["not finished (dirty)", "--baseline VERSION"]),
        ("version INTEGER PRIMARY KEY, inserted_at TEXT", "(2, 'x')", ["Ecto", "--baseline 2"]),
        ("filename varchar(255)", "('002_b.rb')", ["Sequel", "--baseline VERSION"]),
        ("a, b, c", "(1, 2, 3)", ["another tool", "a, b, c"]),
    ] {
        cli.json(&["query", &format!("CREATE TABLE schema_migrations ({columns})")]);
        cli.json(&["query", &format!("INSERT INTO schema_migrations VALUES {row}")]);
        refused(&words);
        cli.json(&["query", "DROP TABLE schema_migrations"]);
    }
    cli.json(&["query", "CREATE TABLE schema_migrations (version varchar); "]);
    cli.json(&["query", "CREATE TABLE ar_internal_metadata (key, value)"]);
    refused(&["that of Rails"]);
    cli.json(&["query", "DROP TABLE schema_migrations"]);

    // Out of the way, under the name that we said: without --baseline nothing runs twice.
    for (table, columns, row, words) in [
        ("rails_schema_migrations", "version", "('2')", ["by Rails", "--baseline 2"]),
        ("dbmate_schema_migrations", "version", "('2')", ["dbmate", "--baseline 2"]),
        (
            "golang_migrate_schema_migrations",
            "version, dirty",
            "(2, 0)",
            ["golang-migrate", "--baseline 2"],
        ),
        (
            "golang_migrate_schema_migrations",
            "version, dirty",
            "(2, 1)",
            ["(dirty)", "--baseline VERSION"],
        ),
        ("ecto_schema_migrations", "version, inserted_at", "(2, 'x')", ["Ecto", "--baseline 2"]),
        (
            "sequel_schema_migrations",
            "filename",
            "('002_b.rb')",
            ["002_b.rb", "--baseline VERSION"],
        ),
        (
            "other_schema_migrations",
            "a, b, c",
            "(1, 2, 3)",
            ["is 1 migration;", "--baseline VERSION"],
        ),
        ("django_migrations", "id", "(1), (2)", ["is 2 migrations;", "--baseline VERSION"]),
        ("migrations", "id, migration, batch", "(1, '2024_a', 1)", ["Laravel", "2024_a"]),
        ("migrations", "id, timestamp, name", "(1, 2, 'A2')", ["TypeORM", "--baseline 2"]),
        ("migrations", "id, name, up, down", "(2, 'b', '', '')", ["node-sqlite", "--baseline 2"]),
        ("migrations", "migration", "('002_b.sql')", ["rambler", "--baseline 2"]),
        (
            "migrations",
            "id, name, hash, executed_at",
            "(0, 'x', '', 0), (2, 'b', '', 0)",
            ["postgres-migrations", "--baseline 2"],
        ),
        ("schema_version", "version", "(2)", ["tern", "--baseline 2"]),
        (
            "schemaversion",
            "version, name, md5, run_at",
            "(0, '', '', ''), (2, 'b', '', '')",
            ["postgrator", "--baseline 2"],
        ),
        ("schema_info", "version", "(2)", ["Sequel", "--baseline 2"]),
        ("CHANGELOG", "ID, APPLIED_AT, DESCRIPTION", "(2, '', '')", ["MyBatis", "--baseline 2"]),
    ] {
        cli.json(&["query", &format!("CREATE TABLE {table} ({columns})")]);
        cli.json(&["query", &format!("INSERT INTO {table} VALUES {row}")]);
        refused(&words);
        cli.json(&["query", &format!("DROP TABLE {table}")]);
    }
    // Somebody's own table of such a name.
    cli.json(&["query", "CREATE TABLE migrations (id, species, season)"]);
    cli.json(&["query", "INSERT INTO migrations VALUES (1, 'crane', 'autumn')"]);
    assert_eq!(
        cli.json(&["db", "migrate", dir, "--dry-run"])["pending"].as_array().unwrap().len(),
        3
    );

    cli.json(&[
        "query",
        "CREATE TABLE _sqlx_migrations (version BIGINT PRIMARY KEY, success BOOLEAN)",
    ]);
    cli.json(&["query", "INSERT INTO _sqlx_migrations VALUES (1, 1), (2, 0)"]);
    refused(&["sqlx", "newest applied is 1", "--baseline 1"]);
    cli.json(&["query", "DROP TABLE _sqlx_migrations"]);

    let goose = "CREATE TABLE goose_db_version (id INTEGER PRIMARY KEY AUTOINCREMENT, version_id INTEGER NOT NULL, is_applied \
                 INTEGER NOT NULL, tstamp TIMESTAMP DEFAULT (datetime('now')))";
    cli.json(&["query", goose]);
    // Number 3 was applied, and taken back.
    cli.json(&[
        "query",
        "INSERT INTO goose_db_version (version_id, is_applied) VALUES (0, 1), (1, 1), (2, 1), (3, 1), (3, 0)",
    ]);
    refused(&["goose", "goose_db_version", "newest applied is 2", "--baseline 2"]);
    let unknown = cli.run(&["db", "migrate", dir, "--baseline", "7"], b"");
    assert_eq!(unknown.status.code(), Some(2), "{}", text_of(&unknown));
    let recorded = cli.json(&["db", "migrate", dir, "--baseline", "2"]);
    assert_eq!(recorded["recorded"], serde_json::json!(["001_a.sql", "002_b.sql"]));
    assert_eq!(cli.json(&["db", "migrate", dir])["applied"], serde_json::json!(["003_c.sql"]));
    assert_eq!(cli.json(&["query", "SELECT count(*) FROM ran"])["rows"], serde_json::json!([[1]]));
    let again = cli.run(&["db", "migrate", dir, "--baseline", "2"], b"");
    assert!(text_of(&again).contains("has a record already"), "{}", text_of(&again));

    // Nothing of another tool is to be taken over.
    cli.json(&["query", "DROP TABLE schema_migrations"]);
    cli.json(&["db", "migrate", dir, "--baseline", "none"]);
    assert_eq!(cli.json(&["db", "migrate", dir])["applied"].as_array().unwrap().len(), 3);
}

/// What a sqlite3 shell writes of a database that another tool has made, as our refusals advise.
#[test]
fn what_a_shell_writes_of_a_database_is_a_step() {
    let folder = tempfile::tempdir().unwrap();
    let (_node, cli, _) = shop(folder.path());
    let schema = folder.path().join("schema");
    write(
        &schema,
        "001_schema.sql",
        "CREATE TABLE notes (id INTEGER PRIMARY KEY AUTOINCREMENT, body TEXT);\nCREATE TABLE sqlite_sequence(name,seq);\n\
         CREATE VIRTUAL TABLE ft USING fts5(body)\n/* ft(body) */;\nCREATE TABLE IF NOT EXISTS 'ft_data'(id INTEGER PRIMARY KEY, \
         block BLOB);\nCREATE TABLE IF NOT EXISTS 'ft_idx'(segid, term, pgno, PRIMARY KEY(segid, term)) WITHOUT ROWID;\nCREATE \
         TABLE IF NOT EXISTS 'ft_content'(id INTEGER PRIMARY KEY, c0);\nCREATE TABLE IF NOT EXISTS 'ft_docsize'(id INTEGER \
         PRIMARY KEY, sz BLOB);\nCREATE TABLE IF NOT EXISTS 'ft_config'(k PRIMARY KEY, v) WITHOUT ROWID;\nCREATE TABLE \
         sqlite_stat1(tbl,idx,stat);\n",
    );
    assert_eq!(cli.json(&["db", "migrate", schema.to_str().unwrap()])["version"], 1);
    cli.json(&["query", "INSERT INTO ft VALUES ('a word')"]);
    assert_eq!(
        cli.json(&["query", "SELECT count(*) FROM ft('word')"])["rows"],
        serde_json::json!([[1]])
    );

    // Rows with their rowids, and more of them than a transaction has statements.
    let mut dump = "PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\nCREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, v UNIQUE);\n"
        .to_owned();
    for number in 1..=2500 {
        dump.push_str(&format!("INSERT INTO t VALUES({number},'it''s; {number}');\n"));
    }
    let end = "INSERT INTO sqlite_sequence(rowid,name,seq) VALUES(1,'t',2500);\nCREATE INDEX t_v ON t(v);\nCOMMIT;\n";
    let dir = folder.path().join("dump");
    write(&dir, "001_schema.sql", &std::fs::read_to_string(schema.join("001_schema.sql")).unwrap());
    write(&dir, "002_dump.sql", &format!("{dump}INSERT INTO t VALUES(2501,'it''s; 2500');\n{end}"));
    let refused = cli.run(&["db", "migrate", dir.to_str().unwrap()], b"");
    // 2500 rows are five statements; the one that fails is the next.
    assert!(text_of(&refused).contains("002_dump.sql, line 2504: "), "{}", text_of(&refused));
    write(&dir, "002_dump.sql", &format!("{dump}{end}"));
    assert_eq!(cli.json(&["db", "migrate", dir.to_str().unwrap()])["version"], 2);
    let rows = cli.json(&[
        "query",
        "SELECT count(*), max(id), (SELECT seq FROM sqlite_sequence WHERE name = 't') FROM t",
    ]);
    assert_eq!(rows["rows"], serde_json::json!([[2500, 2500, 2500]]));
}

/// The dump of an index that has few texts has many rows; where VACUUM has been, and in the words of
/// older and newer shells, it is the same database.
#[test]
fn a_dump_with_the_rows_behind_virtual_tables_is_a_step() {
    let folder = tempfile::tempdir().unwrap();
    let (_node, cli, _) = shop(folder.path());
    let schema_row = |name: &str, using: &str| {
        format!(
            "INSERT INTO sqlite_schema(type,name,tbl_name,rootpage,sql)VALUES('table','{name}','{name}',0,'CREATE VIRTUAL TABLE \
             {name} USING {using}');\n"
        )
    };
    let rows = |table: &str, row: &dyn Fn(usize) -> String| -> String {
        (1..=700).map(|number| format!("INSERT INTO {table} VALUES({});\n", row(number))).collect()
    };
    let behind = |name: &str, texts: bool| -> String {
        let mut sql = format!(
            "CREATE TABLE IF NOT EXISTS '{name}_data'(id INTEGER PRIMARY KEY, block BLOB);\n"
        );
        if texts {
            sql += &format!(
                "CREATE TABLE IF NOT EXISTS '{name}_content'(id INTEGER PRIMARY KEY, c0);\n"
            );
            sql +=
                &rows(&format!("{name}_content"), &|number| format!("{number},'word w{number}'"));
        }
        sql += &format!(
            "CREATE TABLE IF NOT EXISTS '{name}_docsize'(id INTEGER PRIMARY KEY, sz BLOB);\n"
        );
        sql += &rows(&format!("{name}_docsize"), &|number| format!("{number},x'02'"));
        sql + &format!("INSERT INTO {name}_config VALUES('version',4);\n")
    };
    // A node with one box of each number: its depth, the number of cells, and the cells.
    let node = |number: usize| {
        let coordinate = f32::to_bits(u16::try_from(number).unwrap().into());
        format!("{number},x'00000001{number:016x}{coordinate:08x}{coordinate:08x}'")
    };
    let boxes = format!(
        "CREATE TABLE IF NOT EXISTS \"box_rowid\"(rowid INTEGER PRIMARY KEY,nodeno);\n{}CREATE TABLE IF NOT EXISTS \
         \"box_node\"(nodeno INTEGER PRIMARY KEY,data);\n{}",
        rows("box_rowid", &|number| format!("{number},{number}")),
        rows("box_node", &node)
    );
    let texts = format!(
        "CREATE TABLE o(id INTEGER PRIMARY KEY, s);\n{}",
        rows("o", &|number| format!("{number},'word w{number}'"))
    );
    let (ft, over, box_row) = (
        schema_row("ft", "fts5(s)"),
        schema_row("over", "fts5(s, content=''o'', content_rowid=''id'')"),
        schema_row("box", "rtree(id, a, b)"),
    );
    let (on, off) = ("PRAGMA writable_schema=ON;\n", "PRAGMA writable_schema=OFF;\nCOMMIT;\n");
    let begin = format!("PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\n{texts}");
    let made = format!(
        "{begin}{on}{ft}{}{over}{}{box_row}{boxes}{off}",
        behind("ft", true),
        behind("over", false)
    );
    let vacuumed = format!(
        "{begin}{}{}{boxes}{on}{ft}{over}{box_row}{off}",
        behind("ft", true),
        behind("over", false)
    );
    for (name, dump) in [("made", made), ("vacuumed", vacuumed)] {
        let dir = folder.path().join(name);
        write(&dir, "001_dump.sql", &dump);
        assert_eq!(cli.json(&["db", "migrate", dir.to_str().unwrap()])["version"], 1, "{name}");
        let found = cli.json(&[
            "query",
            "SELECT (SELECT count(*) FROM ft('word')), (SELECT rowid FROM over('w700')), (SELECT count(*) FROM box), (SELECT \
             CAST(b AS INTEGER) FROM box WHERE id = 650)",
        ]);
        assert_eq!(found["rows"], serde_json::json!([[700, 700, 700, 650]]), "{name}");
        for table in ["ft", "over", "box", "o", "schema_migrations"] {
            cli.json(&["query", &format!("DROP TABLE {table}")]);
        }
    }
    // A present shell writes the tables behind without IF NOT EXISTS.
    let dir = folder.path().join("schema");
    write(
        &dir,
        "001_schema.sql",
        "CREATE VIRTUAL TABLE d using fts5(s)\n/* d(s) */;\nCREATE TABLE 'd_data'(id INTEGER PRIMARY KEY, block BLOB);\nCREATE \
         TABLE 'd_config'(k PRIMARY KEY, v) WITHOUT ROWID;\nCREATE TABLE IF NOT EXISTS \"g_rowid\"(rowid INTEGER PRIMARY KEY,\
         nodeno);\nCREATE VIRTUAL TABLE g using rtree(id,a,b);\n",
    );
    assert_eq!(cli.json(&["db", "migrate", dir.to_str().unwrap()])["version"], 1);
}

/// A step that is missing, cut off or another database's: nothing of its folder runs.
#[test]
fn what_can_not_be_applied_whole_is_refused_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    let (_node, cli, _) = shop(folder.path());
    let made = "CREATE TABLE made (x);";
    let journal =
        "{\"dialect\":\"sqlite\",\"entries\":[{\"tag\":\"0000_a\"},{\"tag\":\"0001_b\"}]}";
    let cases: [(&[(&str, &str)], &str); 6] = [
        (
            &[("20260101120000_a/migration.sql", made), ("20260102120000_b/notes.md", "")],
            "20260102120000_b/ is named as a step is",
        ),
        (&[("0000_a.sql", made), ("meta/_journal.json", journal)], "0001_b.sql is missing"),
        (
            &[("001_a.sql", made), ("more/002_b.sql", made)],
            "more/002_b.sql stands in a folder below",
        ),
        (
            &[("001_a.sql", made), ("002_b.sql", "BEGIN TRANSACTION;\nCREATE TABLE b (x);\n")],
            "002_b.sql, line 1: BEGIN without COMMIT",
        ),
        (
            &[("001_a.sql", made), ("002_b.sql", "PRAGMA writable_schema=ON;\nSELECT 1;")],
            "002_b.sql, line 1: PRAGMA writable_schema=ON without",
        ),
        (
            &[
                ("20260101120000_a/migration.sql", made),
                ("migration_lock.toml", "provider = \"postgresql\"\n"),
            ],
            "migration_lock.toml says that the migrations are written for postgresql",
        ),
    ];
    for (number, (files, words)) in cases.into_iter().enumerate() {
        let dir = folder.path().join(format!("case{number}"));
        for (name, text) in files {
            write(&dir, name, text);
        }
        let refused = cli.run(&["db", "migrate", dir.to_str().unwrap()], b"");
        assert_eq!(refused.status.code(), Some(2), "{words}: {}", text_of(&refused));
        assert!(text_of(&refused).contains(words), "{words}: {}", text_of(&refused));
    }
    let found = cli.json(&["query", "SELECT count(*) FROM sqlite_schema"]);
    assert_eq!(found["rows"], serde_json::json!([[0]]));

    // Flyway's folders below are taken, and what drizzle's journal does not list is told.
    let dir = folder.path().join("flyway");
    for (name, text) in [
        ("V1__a.sql", made),
        ("later/V3__c.sql", "INSERT INTO more VALUES (1);"),
        ("V2__b.sql", "CREATE TABLE more (x);"),
    ] {
        write(&dir, name, text);
    }
    let applied = cli.json(&["db", "migrate", dir.to_str().unwrap()]);
    assert_eq!(
        applied["applied"],
        serde_json::json!(["V1__a.sql", "V2__b.sql", "later/V3__c.sql"])
    );
    cli.json(&["query", "DROP TABLE schema_migrations"]);
    let dir = folder.path().join("drizzle");
    for name in ["0000_a.sql", "0001_b.sql", "0002_c.sql"] {
        write(&dir, name, "SELECT 1;");
    }
    write(&dir, "meta/_journal.json", journal);
    let output = cli.run(&["db", "migrate", dir.to_str().unwrap(), "--dry-run"], b"");
    let text = text_of(&output);
    assert!(
        output.status.success()
            && text.contains("0002_c.sql is left out: meta/_journal.json does not list it"),
        "{text}"
    );
}

/// Two programs that apply the same steps at once apply each once.
#[test]
fn two_programs_apply_each_step_once() {
    let folder = tempfile::tempdir().unwrap();
    let (_node, cli, steps) = shop(folder.path());
    write(&steps, "001_count.sql", "CREATE TABLE IF NOT EXISTS count (n);");
    for number in 2..=9 {
        write(&steps, &format!("00{number}_more.sql"), "INSERT INTO count VALUES (1);");
    }
    let dir = steps.to_str().unwrap().to_owned();
    let applied = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let done = cli.json(&["db", "migrate", &dir]);
                let files = done["applied"].as_array().unwrap().iter();
                applied.lock().unwrap().extend(files.map(ToString::to_string));
            });
        }
    });
    // Each says what it has applied itself.
    let mut applied = applied.into_inner().unwrap();
    applied.sort();
    let files: Vec<String> = std::iter::once("001_count.sql".to_owned())
        .chain((2..=9).map(|number| format!("00{number}_more.sql")))
        .map(|file| format!("\"{file}\""))
        .collect();
    assert_eq!(applied, files);
    assert_eq!(
        cli.json(&["query", "SELECT count(*) FROM count"])["rows"],
        serde_json::json!([[8]])
    );
}

#[test]
fn an_export_is_a_database_that_sqlite_opens() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(&folder.path().join("node"));
    let cli = Cli::new(&node, &node.api_key("shop"), folder.path());
    cli.json(&["query", "CREATE TABLE t (a INTEGER, b BLOB)"]);
    // More than one chunk of a stream.
    cli.json(&["query", "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 400) INSERT INTO t SELECT x, zeroblob(4000) FROM c"]);
    let file = folder.path().join("shop.db");
    let path = file.to_str().unwrap();
    let made = cli.json(&["db", "export", path]);
    assert_eq!(made["size"].as_u64(), Some(std::fs::metadata(&file).unwrap().len()));
    let db = rusqlite::Connection::open(&file).unwrap();
    let sums: (i64, i64) = db
        .query_row("SELECT sum(a), sum(length(b)) FROM t", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    assert_eq!(sums, (80_200, 1_600_000));
    let again = cli.run(&["db", "export", path], b"");
    assert_eq!(again.status.code(), Some(2), "{}", text_of(&again));
    cli.json(&["db", "export", path, "--force"]);
}

/// The node is halted in the middle, so that there is a middle.
#[test]
fn an_export_that_is_broken_off_leaves_nothing_that_the_next_does_not_take_away() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(&folder.path().join("node"));
    let cli = Cli::new(&node, &node.api_key("shop"), folder.path());
    cli.json(&["query", "CREATE TABLE t (b BLOB)"]);
    cli.json(&["query", "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 40) INSERT INTO t SELECT zeroblob(1000000) FROM c"]);
    let (target, part) = (folder.path().join("shop.db"), folder.path().join("shop.db.part"));
    let args = ["db", "export", target.to_str().unwrap(), "--timeout", "10m"];
    let halted = || {
        loop {
            let mut export = cli.start(&args);
            while !part.exists() && export.is_running() {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            node.program.signal("STOP");
            if export.is_running() {
                return export;
            }
            // On a busy machine it may be done before the node is halted.
            node.program.signal("CONT");
            let status = export.wait(PATIENCE).expect("it has ended");
            assert!(status.success(), "{}", export.output());
            std::fs::remove_file(&target).unwrap();
        }
    };

    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let mut export = halted();
        export.signal(signal);
        let status = export.wait(PATIENCE).expect("a signal ends it");
        node.program.signal("CONT");
        assert_eq!(status.code(), Some(code), "{}", export.output());
        assert!(!part.exists() && !target.exists());
    }

    let mut export = halted();
    export.kill();
    node.program.signal("CONT");
    assert!(part.exists() && !target.exists());
    cli.json(&args);
    assert!(!part.exists() && target.exists());
}
