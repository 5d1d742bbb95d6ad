//! Commands that lose data, on real servers, and commands that only look like it.

use jiff::Timestamp;
use lifeboat_testkit::postgres::{Cluster, Stop};
use lifeboat_wal::changes::{Loss, LossKind, LossScan};

use super::*;

const PREPARE: &str = "
    CREATE TABLE orders (n int PRIMARY KEY, s text); CREATE INDEX ON orders (s);
    INSERT INTO orders SELECT n, md5(n::text) FROM generate_series(1, 500) AS n;
    CREATE TABLE moved AS SELECT * FROM orders; VACUUM FULL moved;
    CREATE TABLE emptied (n int PRIMARY KEY, s text); INSERT INTO emptied SELECT * FROM orders;
    CREATE TABLE reloaded AS SELECT * FROM orders; CREATE TABLE replaced AS SELECT * FROM orders;
    CREATE TABLE kept (n int PRIMARY KEY, s text); INSERT INTO kept SELECT * FROM orders;
    CREATE TABLE prepared AS SELECT * FROM orders; CREATE TABLE few AS SELECT * FROM orders;
    CREATE DATABASE brief;";

/// Nothing of these is a loss, or none that is wanted.
const HARMLESS: &str = "
    BEGIN; CREATE TABLE young (n int); INSERT INTO young SELECT generate_series(1, 500);
    DROP TABLE young; COMMIT;
    BEGIN; DROP TABLE kept; ROLLBACK; BEGIN; TRUNCATE kept; ROLLBACK;
    BEGIN; DELETE FROM kept; ROLLBACK; BEGIN; SAVEPOINT a; DELETE FROM kept; ROLLBACK TO a;
    INSERT INTO kept VALUES (1000); COMMIT;
    DELETE FROM few WHERE n < 10; UPDATE kept SET s = s || 'x'; VACUUM kept;
    CREATE TEMP TABLE passing AS SELECT generate_series(1, 900); DROP TABLE passing;
    INSERT INTO kept VALUES (1, 'x') ON CONFLICT DO NOTHING; ANALYZE;";

/// Kinds, rows and whether one of the tables has the name, of what the SQL loses.
fn lost(cluster: &Cluster, sql: &str, table: &str) -> Expected {
    let oid = cluster.psql(&format!("SELECT coalesce(to_regclass('{table}')::oid, 0)")).unwrap();
    let filenode = cluster
        .psql(&format!("SELECT coalesce(pg_relation_filenode(to_regclass('{table}')), 0)"))
        .unwrap();
    let from = current(cluster);
    cluster.psql(sql).unwrap();
    Expected { from, oid: oid.parse().unwrap(), filenode: filenode.parse().unwrap() }
}

/// Where a command began, and what it was about.
struct Expected {
    from: Lsn,
    oid: u32,
    filenode: u32,
}

fn current(cluster: &Cluster) -> Lsn {
    cluster.psql("SELECT pg_current_wal_insert_lsn()").unwrap().parse().unwrap()
}

/// Runs what loses something, and some things that look alike.
fn cases(cluster: &Cluster, major: u32) -> Vec<(LossKind, Expected)> {
    vec![
        (LossKind::Dropped, lost(cluster, "DROP TABLE orders", "orders")),
        (LossKind::Dropped, lost(cluster, "DROP TABLE moved", "moved")),
        (LossKind::Truncated, lost(cluster, "TRUNCATE emptied", "emptied")),
        (
            LossKind::Truncated,
            lost(
                cluster,
                "BEGIN; TRUNCATE reloaded; INSERT INTO reloaded VALUES (1); COMMIT",
                "reloaded",
            ),
        ),
        (LossKind::Deleted, lost(cluster, "DELETE FROM kept", "kept")),
        (
            LossKind::Deleted,
            lost(
                cluster,
                "BEGIN; DELETE FROM few WHERE n < 250; SAVEPOINT a; DELETE FROM few; COMMIT",
                "few",
            ),
        ),
        (LossKind::Rewritten, lost(cluster, "VACUUM FULL kept", "kept")),
        (LossKind::Rewritten, lost(cluster, "REINDEX INDEX kept_pkey", "kept_pkey")),
        (LossKind::Rewritten, lost(cluster, "ALTER TABLE kept ALTER n TYPE bigint", "kept")),
        (
            // Before 15 the two look alike.
            if major < 15 { LossKind::Rewritten } else { LossKind::Dropped },
            lost(
                cluster,
                "BEGIN; DROP TABLE replaced; CREATE TABLE replaced AS SELECT 1 AS n; COMMIT",
                "replaced",
            ),
        ),
        (
            LossKind::Dropped,
            lost(
                cluster,
                "BEGIN; DROP TABLE prepared; PREPARE TRANSACTION 'p'; COMMIT PREPARED 'p'",
                "prepared",
            ),
        ),
        (LossKind::DatabaseDropped, lost(cluster, "DROP DATABASE brief", "nothing")),
    ]
}

fn losses_are_found(major: u32, wal_level: &str) {
    let mut cluster = Cluster::builder(major)
        .setting(format!("wal_level = {wal_level}"))
        .setting("max_prepared_transactions = 2")
        .setting("wal_keep_size = 1GB")
        .setting("autovacuum = off")
        .start()
        .unwrap();
    cluster.psql(PREPARE).unwrap();
    let start = current(&cluster);
    cluster.psql(HARMLESS).unwrap();
    let cases = cases(&cluster, major);
    cluster.stop(Stop::Fast).unwrap();
    let mut found: Vec<Loss> = Vec::new();
    let mut scan = LossScan::new(100);
    records(cluster.data(), start, control(cluster.data()).redo, |record| {
        scan.note(record, |loss| found.push(loss));
    });
    let kinds: Vec<_> = found.iter().map(|loss| loss.kind).collect();
    assert_eq!(kinds, cases.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), "{found:#?}");
    for (loss, (kind, expected)) in found.iter().zip(&cases) {
        assert!(loss.lsn >= expected.from && loss.before < loss.lsn && loss.lsn < loss.end);
        assert!(loss.xid != 0 && loss.time > Timestamp::UNIX_EPOCH);
        if *kind == LossKind::DatabaseDropped {
            continue;
        }
        let named = loss.files.iter().any(|file| file.filenode == expected.filenode);
        assert!(named, "{} is not in {loss:?}", expected.filenode);
        let listed = loss.tables.iter().any(|(_, table)| *table == expected.oid);
        assert!(listed || *kind == LossKind::Deleted, "{} is not in {loss:?}", expected.oid);
    }
    let rows: Vec<u64> = found.iter().map(|loss| loss.rows).filter(|rows| *rows > 0).collect();
    assert_eq!(rows, [501, 491]);
}

#[test]
fn pg13_losses_are_found() {
    losses_are_found(13, "replica");
}

#[test]
fn pg15_losses_are_found() {
    losses_are_found(15, "replica");
}

#[test]
fn pg15_losses_are_found_with_logical_decoding() {
    losses_are_found(15, "logical");
}

#[test]
fn pg18_losses_are_found() {
    losses_are_found(18, "replica");
}
