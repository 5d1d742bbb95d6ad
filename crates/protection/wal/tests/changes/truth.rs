//! Two states of a stopped server, compared page by page: what differs must be in the map.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use lifeboat_cluster::files::{self, Fork, Relation};
use lifeboat_testkit::oracle;
use lifeboat_testkit::postgres::{Cluster, Stop};

use super::*;

const PAGE: usize = 8192;

/// A name, and what is done.
type Workload = (&'static str, fn(&mut Cluster));

const WORKLOADS: [Workload; 9] = [
    ("pgbench", |cluster| {
        cluster.pgbench(["-t", "200", "-c", "4", "-n"]).unwrap();
    }),
    ("vacuum", |cluster| {
        sql(
            cluster,
            "DELETE FROM t WHERE n % 3 = 0; VACUUM t; UPDATE t SET s = s || 'x' WHERE n % 5 = 0;
             VACUUM (FREEZE) t; VACUUM FULL r; CLUSTER t USING t_pkey; VACUUM FULL pg_class;
             VACUUM (FREEZE)",
        );
    }),
    ("indexes", |cluster| {
        sql(
            cluster,
            "CREATE INDEX ON t USING btree (s); CREATE INDEX ON t USING hash (s);
             CREATE INDEX ON t USING gist (p); CREATE INDEX ON t USING gin (a);
             CREATE INDEX ON t USING brin (n); CREATE INDEX ON t USING spgist (s);
             INSERT INTO t SELECT n, md5(n::text), point(n, n), ARRAY[n, n % 7]
             FROM generate_series(20001, 24000) AS n;
             DELETE FROM t WHERE n % 4 = 0; VACUUM t; REINDEX TABLE t",
        );
    }),
    ("truncate", |cluster| {
        sql(
            cluster,
            // Its last pages are empty; nothing but the truncation tells that they go.
            "VACUUM (TRUNCATE, DISABLE_PAGE_SKIPPING) tail;
             COPY tail (n) FROM PROGRAM 'seq 5000 9000';
             TRUNCATE gone; INSERT INTO gone SELECT n FROM generate_series(1, 10) AS n;
             BEGIN; CREATE TABLE young (n int); INSERT INTO young SELECT generate_series(1, 5000);
             TRUNCATE young; INSERT INTO young VALUES (1); COMMIT;
             BEGIN; TRUNCATE gone; ROLLBACK;",
        );
        grow_by_empty_pages(cluster, "tail");
    }),
    ("ddl", |cluster| {
        sql(
            cluster,
            "ALTER TABLE r ALTER n TYPE bigint; DROP TABLE young; ALTER TABLE gone ADD m int;
             ALTER TABLE tail SET TABLESPACE other; CREATE TABLE there (n int) TABLESPACE other;
             INSERT INTO there VALUES (1); ALTER TABLE tail SET TABLESPACE pg_default;
             CREATE UNLOGGED TABLE unlogged (n int PRIMARY KEY);
             INSERT INTO unlogged SELECT generate_series(1, 1000);
             BEGIN; CREATE TABLE never (n int); INSERT INTO never VALUES (1); ROLLBACK",
        );
    }),
    ("databases", |cluster| {
        sql(cluster, "CREATE DATABASE plain");
        if cluster.installation().major() >= 15 {
            sql(
                cluster,
                "CREATE DATABASE logged STRATEGY wal_log; CREATE DATABASE copied STRATEGY file_copy",
            );
        }
        cluster.psql_in("plain", "CREATE TABLE x AS SELECT generate_series(1, 999) AS n").unwrap();
        sql(
            cluster,
            "ALTER DATABASE plain SET TABLESPACE other; CREATE DATABASE brief; DROP DATABASE brief",
        );
        cluster.psql_in("plain", "UPDATE x SET n = n + 1").unwrap();
    }),
    ("hints", |cluster| {
        sql(
            cluster,
            "INSERT INTO r SELECT n FROM generate_series(1, 5000) AS n; CHECKPOINT;
             SELECT count(*) FROM r; BEGIN; DELETE FROM r WHERE n % 2 = 0; ROLLBACK;
             SELECT count(*) FROM r; UPDATE pgbench_accounts SET abalance = 1 WHERE aid < 500;
             CHECKPOINT; SELECT count(*) FROM pgbench_accounts;
             SELECT abalance FROM pgbench_accounts WHERE aid = 7; SELECT count(*) FROM t",
        );
    }),
    ("copy", |cluster| {
        sql(
            cluster,
            "BEGIN; CREATE TABLE frozen (n int); COPY frozen FROM PROGRAM 'seq 1 20000' (FREEZE);
             COMMIT; CREATE SEQUENCE q; SELECT nextval('q') FROM generate_series(1, 100);
             SELECT lo_from_bytea(0, decode(repeat('ab', 30000), 'hex'));
             INSERT INTO big SELECT n, repeat(md5(n::text), 900) FROM generate_series(1, 30) AS n;
             UPDATE big SET s = s || 'y' WHERE n < 5;
             SELECT * FROM t WHERE n = 1 FOR UPDATE; SELECT lo_unlink(oid)
             FROM pg_largeobject_metadata",
        );
    }),
    ("crash", |cluster| {
        sql(
            cluster,
            "BEGIN; INSERT INTO r VALUES (77); CREATE TABLE twice (n int); PREPARE TRANSACTION 'p';
             INSERT INTO r SELECT generate_series(1, 3000); CHECKPOINT;
             UPDATE r SET n = n + 1 WHERE n % 10 = 0; BEGIN; DELETE FROM r; ",
        );
        cluster.stop(Stop::Immediate).unwrap();
        cluster.start().unwrap();
        sql(cluster, "COMMIT PREPARED 'p'; SELECT count(*) FROM r; DELETE FROM r WHERE n % 9 = 0");
        cluster.stop(Stop::Immediate).unwrap();
        cluster.start().unwrap();
    }),
];

fn sql(cluster: &Cluster, text: &str) {
    cluster.psql(text).unwrap();
}

/// What sessions leave that wait for each other to make a file longer: empty pages, without WAL,
/// also where a truncation has removed pages with data.
fn grow_by_empty_pages(cluster: &mut Cluster, table: &str) {
    let path = cluster.psql(&format!("SELECT pg_relation_filepath('{table}')")).unwrap();
    cluster.stop(Stop::Fast).unwrap();
    let mut file = fs::File::options().append(true).open(cluster.data().join(path)).unwrap();
    file.write_all(&[0; 40 * PAGE]).unwrap();
    cluster.start().unwrap();
}

fn prepare(cluster: &mut Cluster) {
    cluster.tablespace("other").unwrap();
    cluster.pgbench(["-i", "-s", "2", "-q"]).unwrap();
    sql(
        cluster,
        "CREATE TABLE t (n int PRIMARY KEY, s text, p point, a int[]);
         INSERT INTO t SELECT n, md5(n::text), point(n, n), ARRAY[n, n % 7]
         FROM generate_series(1, 20000) AS n;
         CREATE TABLE r (n int); INSERT INTO r SELECT generate_series(1, 20000);
         CREATE TABLE tail AS SELECT n, md5(n::text) AS s FROM generate_series(1, 90000) AS n;
         ALTER TABLE tail SET (vacuum_truncate = false); DELETE FROM tail WHERE n > 1000;
         VACUUM tail;
         CREATE TABLE gone AS SELECT n FROM generate_series(1, 20000) AS n;
         CREATE TABLE big (n int, s text); ALTER TABLE big ALTER s SET STORAGE external;",
    );
}

/// How large the map is beside the truth, in pages.
#[derive(Debug, Default, Clone, Copy)]
struct Size {
    pages: u64,
    changed: u64,
    named: u64,
}

/// Pages of relations by what they belong to, main and init forks only.
fn relations(data: &Path, control: &ControlFile) -> BTreeMap<Relation, PathBuf> {
    let listing = files::list(data, control.release).unwrap();
    let relations = listing.entries.into_iter().filter_map(|entry| {
        let relation = entry.relation()?;
        let tracked = matches!(relation.fork, Fork::Main | Fork::Init);
        tracked.then_some((relation, entry.path))
    });
    relations.collect()
}

/// Compares the states at the beginning and the end of a map's span.
fn check(name: &str, map: &ChangeMap, before: &Path, after: &Path) -> Size {
    let control = control(after);
    let (old, new) = (relations(before, &control), relations(after, &control));
    let mut size = Size::default();
    let mut unnamed = BTreeSet::new();
    for (relation, path) in &new {
        let Relation { tablespace, database, filenode, fork, .. } = *relation;
        let changed = map.changed(RelationFile { tablespace, database, filenode }, fork);
        let first = relation.first_block(control.segment_blocks).unwrap();
        let ours = fs::read(after.join(path)).unwrap();
        let theirs =
            old.get(relation).map_or_else(Vec::new, |it| fs::read(before.join(it)).unwrap());
        for (number, page) in (0..).zip(ours.chunks(PAGE)) {
            let former = theirs.chunks(PAGE).nth(number as usize);
            let named = changed.contains(first + number);
            // What is new and empty is behind the end of the parent's file.
            let differs = former.map_or_else(|| page.iter().any(|it| *it != 0), |it| it != page);
            size.pages += 1;
            size.named += u64::from(named);
            size.changed += u64::from(differs);
            if differs && !named {
                unnamed.insert(format!("{} block {number}", path.display()));
            }
        }
    }
    if !control.data_checksums && !control.wal_log_hints {
        // Hint bits change without a trace.
        let real = oracle::compare(before, after).unwrap().differences;
        let real: BTreeSet<String> =
            real.into_iter().map(|it| it.replace(" is on one side only", "")).collect();
        unnamed.retain(|it| real.contains(it));
    }
    assert!(unnamed.is_empty(), "{name}: {} pages changed unnoticed: {unnamed:?}", unnamed.len());
    assert!(map.breaks().is_empty());
    for relation in old.keys().filter(|it| !new.contains_key(it) && it.segment == 0) {
        let Relation { tablespace, database, filenode, .. } = *relation;
        let gone = map.relations().any(|(file, _, changes)| {
            file == RelationFile { tablespace, database, filenode } && changes.dropped
        });
        let directory = map.directories().any(|(it, changes)| {
            (it.tablespace, it.database) == (tablespace, database) && changes.dropped
        });
        assert!(gone || directory, "{name}: {relation:?} is gone unnoticed");
    }
    size
}

/// A copy of a stopped data directory, tablespaces in place.
fn copy(cluster: &Cluster, name: &str) -> PathBuf {
    let target = cluster.scratch().join(name);
    let status = Command::new("cp").arg("-rL").arg(cluster.data()).arg(&target).status().unwrap();
    assert!(status.success());
    target
}

fn every_change_is_named(major: u32, workloads: &[Workload], settings: &[&str], checksums: bool) {
    let mut builder = Cluster::builder(major)
        .checksums(checksums)
        .wal_segment_size_mb(4)
        .setting("wal_keep_size = 8GB")
        .setting("max_prepared_transactions = 2")
        .setting("autovacuum_naptime = 1s");
    for setting in settings {
        builder = builder.setting(*setting);
    }
    let mut cluster = builder.start().unwrap();
    prepare(&mut cluster);
    cluster.stop(Stop::Fast).unwrap();
    let origin = copy(&cluster, "origin");
    let start = control(&origin).redo;
    let (mut before, mut from) = (origin.clone(), start);
    let mut all: Option<ChangeMap> = None;
    for (number, (name, work)) in workloads.iter().enumerate() {
        cluster.start().unwrap();
        work(&mut cluster);
        cluster.stop(Stop::Fast).unwrap();
        let to = control(cluster.data()).redo;
        let map = map(cluster.data(), from, to);
        let bytes = map.encode();
        let size = check(name, &map, &before, cluster.data());
        let Size { pages, changed, named } = size;
        println!(
            "{major} {name}: {changed} of {pages} pages changed, the map names {named}, {} bytes \
             for {} of WAL",
            bytes.len(),
            to.distance_from(from)
        );
        assert!(changed > 0, "{name} changed nothing");
        let decoded = ChangeMap::decode(&bytes).unwrap();
        assert_eq!(decoded.encode(), bytes);
        all = Some(match all {
            Some(earlier) => earlier.merge(decoded).unwrap(),
            None => decoded,
        });
        if before != origin {
            fs::remove_dir_all(&before).unwrap();
        }
        before = copy(&cluster, &format!("state{number}"));
        from = to;
    }
    let all = all.unwrap();
    assert_eq!(all.encode(), map(cluster.data(), start, from).encode());
    let size = check("all", &all, &origin, cluster.data());
    println!("{major} all: {size:?}, {} bytes", all.encode().len());
}

#[test]
fn pg15_every_change_is_named() {
    every_change_is_named(15, &WORKLOADS, &[], true);
}

#[test]
fn pg15_every_change_is_named_without_checksums() {
    every_change_is_named(15, &WORKLOADS, &["wal_level = logical"], false);
}

#[test]
fn pg13_every_change_is_named() {
    every_change_is_named(13, &WORKLOADS, &[], true);
}

#[test]
fn pg16_every_change_is_named() {
    every_change_is_named(16, &WORKLOADS[1..6], &["wal_compression = on"], true);
}

#[test]
fn pg18_every_change_is_named() {
    every_change_is_named(18, &WORKLOADS, &[], true);
}
