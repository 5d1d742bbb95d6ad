//! The same records as `pg_waldump` prints, for WAL of real workloads.
//!
//! There is a `pg_waldump` of 15, 16 and 18. Of 17 the server's own `pg_walinspect` is asked. Of
//! 13 and 14 there is no reader: the WAL of a workload without page images, whose records 15 lays
//! out alike, is shown to that of 15 under 15's magic number.

use std::fs;
use std::path::Path;

use lifeboat_testkit::postgres::{Cluster, Installation, Stop};
use lifeboat_testkit::process::run;

use super::*;
use crate::control::read;
use crate::files::Fork;

/// What both sides say of a record.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    lsn: Lsn,
    resource: String,
    length: u32,
    xid: u32,
    /// `relation fork block image` of each reference.
    blocks: Vec<String>,
}

/// By number, as `pg_waldump` calls them.
const RESOURCES: [&str; 22] = [
    "XLOG",
    "Transaction",
    "Storage",
    "CLOG",
    "Database",
    "Tablespace",
    "MultiXact",
    "RelMap",
    "Standby",
    "Heap2",
    "Heap",
    "Btree",
    "Hash",
    "Gin",
    "Gist",
    "Sequence",
    "SPGist",
    "BRIN",
    "CommitTs",
    "ReplicationOrigin",
    "Generic",
    "LogicalMessage",
];

/// Every kind of record that SQL makes.
const WORKLOAD: &str = "
    CREATE TABLE t (n int PRIMARY KEY, s text, p point, a int[]);
    CREATE INDEX ON t USING hash (s); CREATE INDEX ON t USING gist (p);
    CREATE INDEX ON t USING gin (a); CREATE INDEX ON t USING brin (n);
    CREATE INDEX ON t USING spgist (s); CREATE SEQUENCE q; SELECT nextval('q');
    INSERT INTO t SELECT n, md5(n::text), point(n, n), ARRAY[n, n % 7]
    FROM generate_series(1, 5000) AS n;
    CHECKPOINT;
    UPDATE t SET s = s || 'x' WHERE n % 5 = 0; DELETE FROM t WHERE n % 3 = 0;
    VACUUM (FREEZE) t; DELETE FROM t WHERE n % 7 = 0;
    BEGIN; INSERT INTO t VALUES (100001); SAVEPOINT a; INSERT INTO t VALUES (100002);
    ROLLBACK TO a; SELECT * FROM t WHERE n = 100001 FOR UPDATE; COMMIT;
    BEGIN; INSERT INTO t VALUES (100003); PREPARE TRANSACTION 'p'; COMMIT PREPARED 'p';
    BEGIN; INSERT INTO t VALUES (100004); PREPARE TRANSACTION 'p'; ROLLBACK PREPARED 'p';
    SELECT lo_from_bytea(0, decode(repeat('00', 9000), 'hex'));
    SELECT pg_logical_emit_message(false, 'large', repeat('x', 300000));
    SELECT pg_create_restore_point('here');
    TRUNCATE t; DROP TABLE t; VACUUM FULL pg_class; CREATE DATABASE other; DROP DATABASE other;
    SELECT pg_switch_wal(); CREATE TABLE later (n int); INSERT INTO later VALUES (1);";

const SETTINGS: [&str; 2] = ["wal_level = logical", "max_prepared_transactions = 4"];

/// All WAL of a stopped cluster from `start` on, decoded.
fn decoded(cluster: &Cluster, start: Lsn) -> (Vec<Line>, Lsn) {
    let control = read(cluster.data(), &lifeboat_environment::Environment::system()).unwrap();
    let source = Source {
        release: control.release,
        system: control.system,
        segment_size: control.wal_segment_size,
        block_size: control.wal_block_size,
        timeline: Timeline::FIRST,
    };
    let mut decoder = Decoder::new(source, start);
    let mut lines = Vec::new();
    for (name, content) in segments(&cluster.data().join("pg_wal")) {
        let begins = name.start(source.segment_size).unwrap();
        let skipped = usize::try_from(start.distance_from(begins)).unwrap().min(content.len());
        for piece in content[skipped..].chunks(31_337) {
            if let Err(error) = decoder.push(piece, |record| lines.push(line(record))) {
                // The WAL ends where nothing was written, or in an older segment's remains.
                assert!(error.at >= control.checkpoint, "{error}");
                assert_eq!(error.at, decoder.decoded(), "{error}");
                return (lines, error.at);
            }
        }
    }
    panic!("the WAL has no end");
}

fn segments(folder: &Path) -> Vec<(SegmentName, Vec<u8>)> {
    let mut found: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .filter_map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().to_str()?.parse::<SegmentName>().ok()?;
            Some((name, fs::read(entry.path()).unwrap()))
        })
        .collect();
    found.sort_by_key(|(name, _)| *name);
    found
}

fn line(record: &Record<'_>) -> Line {
    let fork = |fork| match fork {
        Fork::Main => "main",
        Fork::FreeSpace => "fsm",
        Fork::Visibility => "vm",
        Fork::Init => "init",
    };
    let blocks = record.blocks.iter().map(|it| {
        let RelationFile { tablespace, database, filenode } = it.relation;
        let image = if it.has_image { " FPW" } else { "" };
        format!("{tablespace}/{database}/{filenode} {} {}{image}", fork(it.fork), it.block)
    });
    Line {
        lsn: record.lsn,
        resource: RESOURCES[usize::from(record.resource)].to_owned(),
        length: record.length,
        xid: record.xid,
        blocks: blocks.collect(),
    }
}

/// The records that `pg_waldump` of `reader` prints.
fn dumped(reader: u32, folder: &Path, start: Lsn, end: Lsn) -> Vec<Line> {
    let mut command = Installation::find(reader).unwrap().client_command("pg_waldump").unwrap();
    command.arg("--path").arg(folder).arg(format!("--start={start}")).arg(format!("--end={end}"));
    let text = run(&mut command).unwrap().success().unwrap().stdout;
    text.lines().filter(|line| line.starts_with("rmgr: ")).map(dumped_line).collect()
}

/// `rmgr: Heap len (rec/tot): 54/ 150, tx: 735, lsn: 0/0150, prev 0/0140, desc: INSERT off 3, blkref
/// #0: rel 1663/5/16384 fork vm blk 0 FPW`
fn dumped_line(text: &str) -> Line {
    let field = |from: &str| {
        let rest = text.split_once(from).unwrap_or_else(|| panic!("{from} in {text}")).1;
        rest.split([',', ' ']).find(|it| !it.is_empty()).unwrap()
    };
    let length = text.split_once("(rec/tot):").unwrap().1.split_once('/').unwrap().1;
    let references = text.split("blkref #").skip(1).map(|reference| {
        let words: Vec<_> = reference.split([' ', ',', ';', ':', '\t']).collect();
        let behind = |word: &str| words.iter().position(|it| *it == word).map(|at| words[at + 1]);
        let image = if words.contains(&"FPW") { " FPW" } else { "" };
        let (relation, block) = (behind("rel").unwrap(), behind("blk").unwrap());
        format!("{relation} {} {block}{image}", behind("fork").unwrap_or("main"))
    });
    Line {
        lsn: field("lsn: ").parse().unwrap(),
        resource: field("rmgr: ").to_owned(),
        length: length.trim().split(',').next().unwrap().parse().unwrap(),
        xid: field("tx: ").parse().unwrap(),
        blocks: references.collect(),
    }
}

fn assert_same(ours: &[Line], theirs: &[Line]) {
    assert!(theirs.len() > 1000, "the workload made only {} records", theirs.len());
    for (ours, theirs) in ours.iter().zip(theirs) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(ours.len(), theirs.len());
}

fn current(cluster: &Cluster) -> Lsn {
    cluster.psql("SELECT pg_current_wal_insert_lsn()").unwrap().parse().unwrap()
}

fn agrees_with_waldump(major: u32, checksums: bool, extra: &[&str]) {
    let mut builder = Cluster::builder(major).checksums(checksums).wal_segment_size_mb(4);
    // The segments of the whole life are kept.
    for setting in SETTINGS.iter().chain(&["wal_keep_size = 2GB"]).chain(extra) {
        builder = builder.setting(*setting);
    }
    let mut cluster = builder.start().unwrap();
    let start = current(&cluster);
    cluster.psql(WORKLOAD).unwrap();
    cluster.pgbench(["-i", "-s", "1", "-q"]).unwrap();
    cluster.pgbench(["-t", "200", "-c", "4", "-n"]).unwrap();
    cluster.stop(Stop::Fast).unwrap();
    let (ours, end) = decoded(&cluster, start);
    assert_same(&ours, &dumped(major, &cluster.data().join("pg_wal"), start, end));
}

#[test]
fn pg15_records_are_those_of_waldump() {
    agrees_with_waldump(15, true, &[]);
}

#[test]
fn pg15_compressed_records_are_those_of_waldump() {
    agrees_with_waldump(15, false, &["wal_compression = on", "wal_log_hints = on"]);
}

#[test]
fn pg16_records_are_those_of_waldump() {
    agrees_with_waldump(16, true, &["wal_compression = pglz"]);
}

#[test]
fn pg18_records_are_those_of_waldump() {
    agrees_with_waldump(18, false, &[]);
}

/// The server itself reads its WAL.
#[test]
fn pg17_records_are_those_of_walinspect() {
    let mut builder = Cluster::builder(17).wal_segment_size_mb(4);
    for setting in SETTINGS.iter().chain(&["wal_keep_size = 2GB"]) {
        builder = builder.setting(*setting);
    }
    let mut cluster = builder.start().unwrap();
    let start = current(&cluster);
    cluster.psql(WORKLOAD).unwrap();
    cluster.psql("CREATE EXTENSION pg_walinspect; CHECKPOINT").unwrap();
    let end: Lsn = cluster.psql("SELECT pg_current_wal_flush_lsn()").unwrap().parse().unwrap();
    let text = cluster
        .psql(&format!(
            "SELECT r.start_lsn, r.resource_manager, r.record_length, r.xid, coalesce(b.blocks, '')
             FROM pg_get_wal_records_info('{start}', '{end}') r
             LEFT JOIN (
                 SELECT start_lsn, string_agg(concat(reltablespace, '/', reldatabase, '/',
                 relfilenode, ' ', (ARRAY['main', 'fsm', 'vm', 'init'])[relforknumber + 1], ' ',
                 relblocknumber, CASE WHEN block_fpi_length > 0 THEN ' FPW' END), ','
                 ORDER BY block_id) AS blocks
                 FROM pg_get_wal_block_info('{start}', '{end}', false) GROUP BY start_lsn
             ) b ON b.start_lsn = r.start_lsn ORDER BY r.start_lsn"
        ))
        .unwrap();
    let theirs = text.lines().map(|line| {
        let fields: Vec<_> = line.split('|').collect();
        Line {
            lsn: fields[0].parse().unwrap(),
            resource: fields[1].to_owned(),
            length: fields[2].parse().unwrap(),
            xid: fields[3].parse().unwrap(),
            blocks: fields[4].split(',').filter(|it| !it.is_empty()).map(str::to_owned).collect(),
        }
    });
    let theirs: Vec<_> = theirs.collect();
    cluster.stop(Stop::Fast).unwrap();
    let (mut ours, _) = decoded(&cluster, start);
    ours.retain(|it| it.lsn < end);
    assert_same(&ours, &theirs);
}

/// Versions without any reader, with the reader of 15. It takes the records of a workload that
/// logs no images, for only their flags differ.
fn agrees_with_the_next_reader(major: u32) {
    let mut cluster = Cluster::builder(major)
        .checksums(false)
        .wal_segment_size_mb(4)
        .setting("full_page_writes = off")
        .setting("wal_keep_size = 2GB")
        .start()
        .unwrap();
    cluster.psql("CREATE TABLE t (n int PRIMARY KEY, s text)").unwrap();
    cluster.pgbench(["-i", "-s", "1", "-q"]).unwrap();
    // The reader begins with the page's first record, so that this is a new page.
    cluster.psql("SELECT pg_switch_wal()").unwrap();
    let start = current(&cluster);
    cluster
        .psql(
            "INSERT INTO t SELECT n, md5(n::text) FROM generate_series(1, 2000) AS n;
             CHECKPOINT; UPDATE t SET s = s || 'x' WHERE n % 5 = 0; DELETE FROM t WHERE n % 3 = 0;
             VACUUM t; DELETE FROM t WHERE n % 7 = 0; BEGIN; INSERT INTO t VALUES (100001);
             SAVEPOINT a; INSERT INTO t VALUES (100002); ROLLBACK TO a; COMMIT; DROP TABLE t;
             SELECT pg_create_restore_point('here'); CREATE DATABASE other; DROP DATABASE other",
        )
        .unwrap();
    cluster.pgbench(["-t", "200", "-c", "4", "-n"]).unwrap();
    cluster.stop(Stop::Fast).unwrap();
    let (ours, end) = decoded(&cluster, start);
    assert!(ours.iter().all(|line| line.blocks.iter().all(|it| !it.ends_with("FPW"))));

    let folder = cluster.scratch().folder("renamed").unwrap();
    let magic = crate::Release::of_major(15).unwrap().wal_magic.to_le_bytes();
    for (name, mut content) in segments(&cluster.data().join("pg_wal")) {
        for page in content.chunks_mut(8192) {
            // Headers have no checksum.
            page[..2].copy_from_slice(&magic);
        }
        lifeboat_testkit::scratch::write(&folder.join(name.to_string()), content).unwrap();
    }
    assert_same(&ours, &dumped(15, &folder, start, end));
}

#[test]
fn pg13_records_without_images_are_those_of_the_next_waldump() {
    agrees_with_the_next_reader(13);
}

#[test]
fn pg14_records_without_images_are_those_of_the_next_waldump() {
    agrees_with_the_next_reader(14);
}

/// A standby is promoted; its WAL is the primary's and then its own.
#[test]
fn pg15_a_promotion_is_followed() {
    let primary = Cluster::builder(15).setting("wal_keep_size = 1GB").start().unwrap();
    let mut standby = primary.standby().unwrap();
    let start = current(&primary);
    primary.psql("CREATE TABLE t AS SELECT generate_series(1, 5000) AS n").unwrap();
    primary.wait_for_replay(&mut standby).unwrap();
    standby.psql("SELECT pg_promote()").unwrap();
    standby.psql("INSERT INTO t VALUES (5001)").unwrap();
    standby.stop(Stop::Fast).unwrap();
    let control = read(standby.data(), &lifeboat_environment::Environment::system()).unwrap();
    assert_eq!(control.timeline, Timeline(2));

    // Of each segment the one of the latest timeline.
    let size = control.wal_segment_size;
    let mut newest = std::collections::BTreeMap::new();
    for (name, content) in segments(&standby.data().join("pg_wal")) {
        newest.insert(name.number(size), content);
    }
    let mut source = Source {
        release: control.release,
        system: control.system,
        segment_size: size,
        block_size: control.wal_block_size,
        timeline: Timeline(2),
    };
    let decode = |source: Source| {
        let mut decoder = Decoder::new(source, Lsn(start.0 - start.0 % size.bytes()));
        let (mut switch, mut last) = (None, Lsn::ZERO);
        for (_, content) in newest.range(size.number_of(start)..) {
            let pushed = decoder.push(content, |record| {
                last = record.lsn;
                if let Some(Fact::EndOfRecovery { timeline, previous }) = &record.fact {
                    switch = Some((*previous, *timeline));
                }
            });
            if let Err(error) = pushed {
                return (switch, last, error);
            }
        }
        panic!("the WAL has no end");
    };
    let (switch, last, _) = decode(source);
    assert_eq!(switch, Some((Timeline(1), Timeline(2))));
    assert_eq!(last, control.checkpoint);
    // Whoever follows the first timeline only is not led over.
    source.timeline = Timeline(1);
    let (switch, last, error) = decode(source);
    assert!(last < control.checkpoint && switch.is_none(), "{last} {switch:?}");
    assert_eq!(error.fault, Fault::Timeline(Timeline(2)));
}
