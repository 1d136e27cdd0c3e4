//! Who may act, and whose the data is, when a backup is put back.

use super::{backup, copy_tree, damage, folder, get, open, put, restore};
use bytes::Bytes;
use debros_engine::conformance::{
    database, key, keyed_options_in, namespace, no_condition, options,
};
use debros_engine::{BackupInfo, Engine};
use debros_proto::Code;
use debros_proto::rpc::Statement;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

pub(super) async fn system(engine: &Arc<dyn Engine>, sql: &str) -> Vec<String> {
    let place = debros_engine::TargetDatabase::System;
    let rows = engine.query(&place, Statement::from(sql), options()).await.unwrap().value.rows;
    rows.iter().filter_map(|row| row.values.first()?.as_text().map(str::to_owned)).collect()
}

/// A network's secret, one row of each table that says who may act, and namespaces with data of
/// every kind.
async fn inhabit(engine: &Arc<dyn Engine>, secret: &str) {
    for sql in [
        &format!("INSERT INTO secrets VALUES ('challenge', CAST('{secret}' AS BLOB), 1)"),
        "INSERT INTO api_keys (id, hash, prefix, namespace, role, created_at) VALUES ('k', x'01', 'ak', 'app', 'admin', 1)",
        "INSERT INTO grants VALUES ('app', '0x02', 'admin', '0x01', 1)",
        "INSERT INTO namespaces VALUES ('app', 1, '0x01'), ('gone-sql', 1, '0x01'), ('gone-kv', 1, '0x01'), \
         ('gone-apps', 1, '0x01')",
        "INSERT INTO sessions VALUES ('s', '0x01', 'app', 1, NULL, 9, NULL)",
        "INSERT INTO refresh_tokens VALUES (x'01', 's', 1, 9, NULL)",
        "INSERT INTO signing_keys VALUES ('kid', x'01', 'node', 1, NULL)",
        "INSERT INTO apps (app_id, namespace, name, created_at, updated_at) VALUES ('a', 'gone-apps', 'a', 1, 1)",
        "INSERT INTO audit_events (at, kind) VALUES (1, 'before')",
    ] {
        system(engine, sql).await;
    }
    engine
        .query(&database("gone-sql"), Statement::from("CREATE TABLE t(a)"), options())
        .await
        .unwrap();
    let other = namespace("gone-kv");
    engine
        .kv_put(&other, &key("k"), Bytes::from("x"), no_condition(), None, options())
        .await
        .unwrap();
    put(engine, "k", "old").await.unwrap();
}

/// Everything is revoked, and the namespaces' names are free.
async fn revoke(engine: &Arc<dyn Engine>) {
    for sql in [
        "UPDATE api_keys SET revoked_at = 2",
        "DELETE FROM grants",
        "UPDATE namespaces SET owner = '0x03' WHERE name = 'app'",
        "DELETE FROM namespaces WHERE name <> 'app'",
        "UPDATE sessions SET revoked_at = 2",
        "UPDATE refresh_tokens SET used_at = 2",
        "UPDATE signing_keys SET removed_at = 2",
        "INSERT INTO used_nonces VALUES (x'01', 9)",
        "INSERT INTO audit_events (at, kind) VALUES (2, 'after')",
    ] {
        system(engine, sql).await;
    }
    put(engine, "k", "new").await.unwrap();
}

/// Everybody who may act, and what is written down of it.
async fn who_may_act(engine: &Arc<dyn Engine>) -> Vec<String> {
    let mut all = Vec::new();
    for sql in [
        "SELECT id FROM api_keys WHERE revoked_at IS NULL",
        "SELECT wallet FROM grants",
        "SELECT name || ' ' || owner FROM namespaces ORDER BY name",
        "SELECT id FROM sessions WHERE revoked_at IS NULL",
        "SELECT 'unused' FROM refresh_tokens WHERE used_at IS NULL",
        "SELECT kid FROM signing_keys WHERE removed_at IS NULL",
        "SELECT 'nonce' FROM used_nonces",
        "SELECT kind FROM audit_events ORDER BY id",
    ] {
        all.extend(system(engine, sql).await);
    }
    all
}

const KEPT: [&str; 7] = [
    "app 0x03",
    // What came back with data and belonged to nobody.
    "gone-apps operator",
    "gone-kv operator",
    "gone-sql operator",
    "nonce",
    "before",
    "after",
];

/// A restore made everything that was revoked since the backup good again.
#[tokio::test]
async fn a_restore_brings_data_back_and_leaves_who_may_act_as_it_is() {
    let folder = folder();
    let engine = open(folder.path());
    inhabit(&engine, "one").await;
    let made = backup(&engine).await;
    revoke(&engine).await;
    restore(&engine, &made.name).await.unwrap();
    assert_eq!(get(&engine, "k").await, Some(Bytes::from("old")));
    assert_eq!(who_may_act(&engine).await, KEPT);
    // Interrupted before anything was replaced, and after everything was: both times the next start
    // finishes it.
    let mut engine = engine;
    for value in ["new", "old"] {
        put(&engine, "k", value).await.unwrap();
        engine.close().await;
        let marker = folder.path().join("RESTORE");
        fs::write(&marker, &made.name).unwrap();
        engine = open(folder.path());
        assert!(!marker.exists());
        assert_eq!(get(&engine, "k").await, Some(Bytes::from("old")));
        assert_eq!(who_may_act(&engine).await, KEPT);
    }
    engine.close().await;
}

#[tokio::test]
async fn a_backup_of_another_network_brings_who_may_act_and_its_sessions_have_ended() {
    let (first, second) = (folder(), folder());
    let engine = open(first.path());
    inhabit(&engine, "one").await;
    let made = backup(&engine).await;
    engine.close().await;
    let engine = open(second.path());
    system(&engine, "INSERT INTO secrets VALUES ('challenge', x'02', 1)").await;
    system(&engine, "INSERT INTO signing_keys VALUES ('kid', x'01', 'node', 1, 5)").await;
    copy_tree(&first.path().join("backups"), &second.path().join("backups"));
    restore(&engine, &made.name).await.unwrap();
    assert_eq!(
        who_may_act(&engine).await,
        [
            "k",
            "0x02",
            "app 0x01",
            "gone-apps 0x01",
            "gone-kv 0x01",
            "gone-sql 0x01",
            "unused",
            "before"
        ],
        "the key that is known to be removed stays so"
    );
    assert_eq!(get(&engine, "k").await, Some(Bytes::from("old")));
    assert_eq!(system(&engine, "SELECT hex(value) FROM secrets").await, ["6F6E65"]);
    engine.close().await;
}

/// A network with a whole namespace and a damaged one, which its backup is missing.
async fn backup_without(folder: &Path, damaged: &str) -> (Arc<dyn Engine>, BackupInfo) {
    let engine = open(folder);
    system(&engine, "INSERT INTO secrets VALUES ('challenge', x'01', 1)").await;
    for name in [damaged, "whole"] {
        furnish(&engine, name, "0x01", 1).await;
    }
    engine.close().await;
    damage(&folder.join(format!("ns/{damaged}.db")));
    fs::remove_file(folder.join("CLEAN")).unwrap();
    let engine = open(folder);
    let made = backup(&engine).await;
    assert_eq!(made.missing, [namespace(damaged)]);
    (engine, made)
}

/// What is missing in a backup stays as it is, but where it is somebody else's by now, or always
/// was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_leaves_what_the_backup_is_missing_to_its_owner_alone() {
    let (first, second) = (folder(), folder());
    let (engine, made) = backup_without(first.path(), "lost").await;

    // On another network, where the name is another wallet's.
    let elsewhere = open(second.path());
    system(&elsewhere, "INSERT INTO secrets VALUES ('challenge', x'02', 1)").await;
    furnish(&elsewhere, "lost", "0x02", 1).await;
    copy_tree(&first.path().join("backups"), &second.path().join("backups"));
    restore(&elsewhere, &made.name).await.unwrap();
    let lost = "SELECT a FROM t";
    for round in 0..2 {
        let error =
            elsewhere.query(&database("lost"), Statement::from(lost), options()).await.unwrap_err();
        assert_eq!(
            (error.code, error.message.as_str()),
            (Code::Sql, "no such table: t"),
            "round {round}"
        );
        let pair =
            elsewhere.kv_get(&namespace("lost"), &key("k"), options()).await.unwrap().unwrap();
        assert_eq!(pair.value, "0x01", "round {round}");
        assert_eq!(
            furnished_by(&elsewhere, "whole").await.as_deref(),
            Some("0x01"),
            "round {round}"
        );
        restore(&elsewhere, &made.name).await.unwrap();
    }
    elsewhere.close().await;
    assert_eq!(set_aside(second.path()), ["lost.db", "system.db"]);

    // Here, where another wallet has made the name again: it gets nothing of what was, and loses
    // what is since.
    delete(&engine, "lost").await;
    furnish(&engine, "lost", "0x02", 2).await;
    restore(&engine, &made.name).await.unwrap();
    assert_eq!(furnished_by(&engine, "lost").await, None);
    assert_eq!(furnished_by(&engine, "whole").await.as_deref(), Some("0x01"));
    engine.close().await;
}

/// The names of the databases that a restore has set aside.
fn set_aside(folder: &Path) -> Vec<String> {
    let Ok(times) = fs::read_dir(folder.join("set-aside")) else { return Vec::new() };
    let files = times.flat_map(|time| fs::read_dir(time.unwrap().path()).unwrap());
    let names = files.map(|file| file.unwrap().file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".db")).collect();
    names.sort();
    names
}

/// Its owner's way back from a damaged `system.db` is a restore on what looks like a new node. What
/// the backup is missing lies there alone.
#[tokio::test]
async fn a_restore_after_the_loss_of_system_db_deletes_no_only_copy() {
    let folder = folder();
    let (engine, made) = backup_without(folder.path(), "only").await;
    engine.close().await;
    let damaged = fs::read(folder.path().join("ns/only.db")).unwrap();
    // The other way back than the one that the node advises: it starts empty.
    fs::remove_file(folder.path().join("FILES")).unwrap();
    fs::rename(folder.path().join("system.db"), folder.path().join("system.damaged")).unwrap();
    let engine = open(folder.path());
    system(&engine, "INSERT INTO secrets VALUES ('challenge', x'02', 1)").await;
    for _ in 0..2 {
        restore(&engine, &made.name).await.unwrap();
        assert_eq!(furnished_by(&engine, "whole").await.as_deref(), Some("0x01"));
    }
    engine.close().await;
    assert_eq!(set_aside(folder.path()), ["only.db", "system.db", "whole.db"]);
    let aside =
        fs::read_dir(folder.path().join("set-aside")).unwrap().next().unwrap().unwrap().path();
    assert!(fs::read(aside.join("only.db")).unwrap() == damaged);
}

/// Between one network's owners and the other's nobody is served: names that both have are of
/// different people.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn while_a_node_changes_hands_nobody_reads_what_was_anothers() {
    let (first, second) = (folder(), folder());
    let engine = open(first.path());
    system(&engine, "INSERT INTO secrets VALUES ('challenge', x'01', 1)").await;
    for name in ["a", "b", "no-sql"] {
        furnish(&engine, name, "0x01", 1).await;
    }
    let made = backup(&engine).await;
    engine.close().await;
    // A namespace that has pairs alone.
    let kept = first.path().join("backups").join(&made.name);
    let manifest = fs::read_to_string(kept.join("manifest.json")).unwrap();
    let mut manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    manifest["files"]
        .as_array_mut()
        .unwrap()
        .retain(|file| !file["path"].as_str().unwrap().contains("no-sql"));
    fs::write(kept.join("manifest.json"), manifest.to_string()).unwrap();

    let elsewhere = open(second.path());
    system(&elsewhere, "INSERT INTO secrets VALUES ('challenge', x'02', 1)").await;
    for name in ["a", "b", "no-sql"] {
        furnish(&elsewhere, name, "0x02", 1).await;
    }
    copy_tree(&first.path().join("backups"), &second.path().join("backups"));
    let (asked, runtime) = (Arc::clone(&elsewhere), tokio::runtime::Handle::current());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let reported = Arc::clone(&seen);
    let progress = Box::new(move |_: u64, _: u64| {
        let owner = runtime
            .block_on(system(&asked, "SELECT owner FROM namespaces WHERE name = 'a'"))
            .remove(0);
        for name in ["a", "b", "no-sql"] {
            let rows = runtime.block_on(asked.query(
                &database(name),
                Statement::from("SELECT a FROM t"),
                options(),
            ));
            let rows =
                rows.map(|found| found.value.rows[0].values[0].as_text().unwrap().to_owned());
            let pair = runtime.block_on(asked.kv_get(&namespace(name), &key("k"), options()));
            let pair = pair.map(|pair| String::from_utf8(pair.unwrap().value.to_vec()).unwrap());
            reported.lock().unwrap().extend([(owner.clone(), rows), (owner.clone(), pair)]);
        }
    });
    elsewhere.restore(&made.name, progress).await.unwrap();
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    assert!(
        seen.iter().any(|(owner, _)| owner == "0x01")
            && seen.iter().any(|(owner, _)| owner == "0x02")
    );
    for (owner, found) in &seen {
        match found {
            Ok(found) => assert_eq!(found, owner),
            // Or, at the very end, a namespace that has no tables now.
            Err(error) => assert!(matches!(error.code, Code::Unavailable | Code::Sql), "{error}"),
        }
    }
    assert!(
        seen.iter()
            .any(|(_, found)| found.as_ref().is_err_and(|error| error.code == Code::Unavailable))
    );
    for name in ["a", "b"] {
        assert_eq!(furnished_by(&elsewhere, name).await.as_deref(), Some("0x01"));
    }
    let error = elsewhere
        .query(&database("no-sql"), Statement::from("SELECT a FROM t"), options())
        .await
        .unwrap_err();
    assert_eq!(error.message, "no such table: t");
    elsewhere.close().await;
    assert_eq!(set_aside(second.path()), ["a.db", "b.db", "no-sql.db", "system.db"]);
}

/// Everything of a namespace that a restore could bring back: rows, a pair, an application, kept
/// answers.
async fn furnish(engine: &Arc<dyn Engine>, name: &str, owner: &str, created_at: i64) {
    for sql in [
        format!("INSERT INTO namespaces VALUES ('{name}', {created_at}, '{owner}')"),
        format!(
            "INSERT INTO apps (app_id, namespace, name, created_at, updated_at) VALUES ('{name}-{owner}', '{name}', 'a', 1, 1)"
        ),
        format!(
            "INSERT INTO _debros_idempotency VALUES ('{name}', 'of {owner}', x'', x'', 9999999999999)"
        ),
    ] {
        system(engine, &sql).await;
    }
    let rows = format!("CREATE TABLE t AS SELECT '{owner}' AS a");
    engine
        .query(&database(name), Statement::from(rows.as_str()), keyed_options_in(name, "sql", 1))
        .await
        .unwrap();
    let value = Bytes::from(owner.to_owned());
    engine
        .kv_put(
            &namespace(name),
            &key("k"),
            value,
            no_condition(),
            None,
            keyed_options_in(name, "kv", 1),
        )
        .await
        .unwrap();
}

/// Whose data a namespace has, by every way to it; `None` when it has none at all.
async fn furnished_by(engine: &Arc<dyn Engine>, name: &str) -> Option<String> {
    let apps =
        format!("SELECT substr(app_id, {}) FROM apps WHERE namespace = '{name}'", name.len() + 2);
    let answers = format!(
        "SELECT substr(key, 4) FROM _debros_idempotency WHERE ns = '{name}' AND key LIKE 'of %'"
    );
    let kept = format!("SELECT key FROM _debros_idempotency WHERE ns = '{name}' AND key = 'kv'");
    let pair = engine
        .kv_get(&namespace(name), &key("k"), options())
        .await
        .unwrap()
        .map(|entry| entry.value);
    let pair: Vec<String> =
        pair.iter().map(|value| String::from_utf8(value.to_vec()).unwrap()).collect();
    let rows = match engine
        .query(&database(name), Statement::from("SELECT a FROM t"), options())
        .await
    {
        Ok(found) => {
            found.value.rows.iter().map(|row| row.values[0].as_text().unwrap().to_owned()).collect()
        }
        Err(error) => {
            assert_eq!(error.code, Code::Sql, "{error}");
            Vec::new()
        }
    };
    let kept = system(engine, &kept).await.len();
    let found = [system(engine, &apps).await, system(engine, &answers).await, pair, rows];
    assert!(found.iter().all(|ways| *ways == found[0]), "{name}: {found:?}");
    assert_eq!(kept, found[0].len(), "{name}: kept answers of pairs");
    found[0].first().cloned()
}

async fn delete(engine: &Arc<dyn Engine>, name: &str) {
    let rows = [
        format!("DELETE FROM namespaces WHERE name = '{name}'"),
        format!("DELETE FROM apps WHERE namespace = '{name}'"),
    ];
    let also = rows.iter().map(|sql| Statement::from(sql.as_str())).collect();
    engine.delete_namespace(&namespace(name), also, options().deadline).await.unwrap();
}

/// The first owner's data came back to the owner of the name then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_gives_a_deleted_namespaces_data_to_nobody_who_made_the_name_again() {
    let folder = folder();
    let engine = open(folder.path());
    system(&engine, "INSERT INTO secrets VALUES ('challenge', x'01', 1)").await;
    for name in ["again", "given", "gone", "taken", "unlisted"] {
        furnish(&engine, name, "0x01", 1).await;
    }
    system(&engine, "DELETE FROM namespaces WHERE name = 'unlisted'").await;
    let made = backup(&engine).await;
    for name in ["again", "gone", "taken", "unlisted"] {
        delete(&engine, name).await;
    }
    system(&engine, "UPDATE namespaces SET owner = '0x02' WHERE name = 'given'").await;
    furnish(&engine, "again", "0x01", 2).await;
    for name in ["since", "taken", "unlisted"] {
        furnish(&engine, name, "0x02", 2).await;
    }
    restore(&engine, &made.name).await.unwrap();

    let mut engine = engine;
    for round in 0..3 {
        for (name, whose) in [
            ("again", Some("0x01")),
            ("given", Some("0x01")),
            ("gone", Some("0x01")),
            ("since", None),
            ("taken", None),
            ("unlisted", None),
        ] {
            assert_eq!(
                furnished_by(&engine, name).await.as_deref(),
                whose,
                "{name}, round {round}"
            );
        }
        assert_eq!(
            system(
                &engine,
                "SELECT name || ' ' || owner || ' ' || created_at FROM namespaces ORDER BY name"
            )
            .await,
            [
                "again 0x01 2",
                "given 0x02 1",
                "gone operator 1",
                "since 0x02 2",
                "taken 0x02 2",
                "unlisted 0x02 2"
            ],
            "round {round}"
        );
        // Interrupted when nothing but the marker was there, or after everything.
        engine.close().await;
        fs::write(folder.path().join("RESTORE"), &made.name).unwrap();
        engine = open(folder.path());
    }
    engine.close().await;
}
