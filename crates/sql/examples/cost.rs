//! The cost of rewriting: `cargo run --release -p debros-sql --example cost`.
#![allow(clippy::print_stdout, reason = "a program for the terminal")]

use debros_proto::Namespace;
use debros_sql::catalogue::CatalogueEntry;
use debros_sql::{Catalogue, ExecutionContext, ForeignKeys, RewriteCache, rewrite};
use std::hint::black_box;
use std::time::{Duration, Instant};

const SCHEMA: &[&str] = &[
    "CREATE TABLE users(id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT UNIQUE, age INT, created TEXT DEFAULT CURRENT_TIMESTAMP)",
    "CREATE TABLE orders(id INTEGER PRIMARY KEY, user_id INT REFERENCES users(id), total REAL, status TEXT)",
    "CREATE TABLE items(id INTEGER PRIMARY KEY, order_id INT REFERENCES orders(id), sku TEXT, n INT)",
    "CREATE INDEX orders_user ON orders(user_id)",
    "CREATE VIRTUAL TABLE docs USING fts5(title, body)",
];

fn main() {
    let namespace = Namespace::new("acme").expect("a namespace");
    let mut catalogue = Catalogue::new(&namespace).expect("a catalogue");
    for sql in SCHEMA {
        rewrite(sql, &catalogue, ForeignKeys::Enforced).expect("a statement of the schema");
        catalogue.apply(sql).expect("a statement of the schema");
    }
    let rows = vec!["(1, 10.5, 'paid')"; 1000].join(", ");
    let statements = [
        ("point read", "SELECT * FROM users WHERE id = ?1".to_owned()),
        ("point read by name", "SELECT name, email FROM users WHERE email = ?1".to_owned()),
        ("insert", "INSERT INTO orders(user_id, total, status) VALUES (?1, ?2, ?3)".to_owned()),
        ("insert, volatile default", "INSERT INTO users(name, email) VALUES (?1, ?2) RETURNING id".to_owned()),
        ("upsert", "INSERT INTO users(id, name, created) VALUES (?1, ?2, ?3) ON CONFLICT(id) DO UPDATE SET name = excluded.name".to_owned()),
        ("update", "UPDATE orders SET status = ?1 WHERE id = ?2".to_owned()),
        ("delete", "DELETE FROM items WHERE order_id = ?1".to_owned()),
        ("search", "SELECT title, highlight(docs, 1, '<b>', '</b>') FROM docs WHERE docs MATCH ?1 ORDER BY rank LIMIT 10".to_owned()),
        (
            "join of 300 bytes",
            "SELECT u.id, u.name, count(*) AS n, (SELECT max(o.total) FROM orders o WHERE o.user_id = u.id) FROM users u \
             JOIN orders AS o ON o.user_id = u.id LEFT JOIN items i ON i.order_id = o.id WHERE u.age > 18 AND \
             o.status IN ('paid', 'sent') GROUP BY u.id HAVING count(*) > 2 ORDER BY n DESC LIMIT 10 OFFSET 5"
                .to_owned(),
        ),
        ("schema question", "SELECT name FROM sqlite_master WHERE type = 'table'".to_owned()),
        ("insert of 1,000 rows", format!("INSERT INTO orders(user_id, total, status) VALUES {rows}")),
    ];
    println!("{:32} {:>8} {:>10} {:>10}", "", "bytes", "miss, µs", "hit, µs");
    for (name, sql) in &statements {
        let rewriter = RewriteCache::new(1 << 20);
        let miss = measure(|| {
            drop(black_box(
                rewrite(sql, &catalogue, ForeignKeys::Enforced).expect("it is rewritten"),
            ))
        });
        rewriter.rewrite(sql, &catalogue).expect("it is rewritten");
        let hit = measure(|| {
            drop(black_box(rewriter.rewrite(sql, &catalogue).expect("it is rewritten")))
        });
        println!("{name:32} {:>8} {:>10.2} {:>10.3}", sql.len(), micros(miss), micros(hit));
    }
    let rewritten =
        rewrite("INSERT INTO users(name) VALUES (?1)", &catalogue, ForeignKeys::Enforced)
            .expect("it is rewritten");
    let mut random = |bytes: &mut [u8]| bytes.fill(1);
    let mut context = ExecutionContext { now_ms: 0, random: &mut random };
    let fill = measure(|| drop(black_box(rewritten.fill_sql(&mut context))));
    println!("{:32} {:>8} {:>10} {:>10.3}", "filling one placeholder", "", "", micros(fill));
    let entries: Vec<CatalogueEntry> = catalogue.entries().expect("entries");
    println!(
        "{:32} {:>19.2}",
        "catalogue loaded, 5 objects, µs",
        micros(measure(|| drop(black_box(Catalogue::load(&namespace, &entries, |_, _| {})))))
    );
    println!(
        "{:32} {:>19.2}",
        "catalogue forked, µs",
        micros(measure(|| drop(black_box(catalogue.fork()))))
    );
    let before = resident();
    let many: Vec<Catalogue> = (0..500)
        .map(|_| Catalogue::load(&namespace, &entries, |_, _| {}).expect("a catalogue"))
        .collect();
    println!(
        "{:32} {:>19}",
        "memory of one catalogue, KiB",
        (resident().saturating_sub(before)) / many.len() as u64
    );
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// The best of several runs, for one call.
fn measure(mut call: impl FnMut()) -> Duration {
    let started = Instant::now();
    call();
    let calls = (50_000_000 / started.elapsed().as_nanos().max(50)).clamp(5, 200_000);
    let calls = u32::try_from(calls).unwrap_or(5);
    (0..5)
        .map(|_| {
            let started = Instant::now();
            (0..calls).for_each(|_| call());
            started.elapsed() / calls
        })
        .min()
        .unwrap_or_default()
}

/// KiB that the process holds, where the system reports it.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS"));
    line.and_then(|line| line.split_whitespace().nth(1))
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}
