use super::*;
use crate::postgres::Stop;

/// A cluster with every index method, and the same cluster copied by pg_basebackup.
fn filled(major: u32) -> Cluster {
    let cluster = Cluster::builder(major).start().unwrap();
    cluster
        .psql(
            "CREATE TABLE t (n int PRIMARY KEY, s text, p point, a int[]);
             CREATE INDEX ON t USING hash (s); CREATE INDEX ON t USING gist (p);
             CREATE INDEX ON t USING gin (a); CREATE INDEX ON t USING brin (n);
             CREATE INDEX ON t USING spgist (s); CREATE SEQUENCE q;
             CREATE UNLOGGED TABLE u AS SELECT generate_series(1, 1000) AS n;
             INSERT INTO t SELECT n, md5(n::text), point(n, n), ARRAY[n, n % 7]
             FROM generate_series(1, 5000) AS n",
        )
        .unwrap();
    cluster
}

/// Takes a base backup and puts it into `name`.
fn base_backup(cluster: &Cluster, name: &str) -> std::path::PathBuf {
    let target = cluster.scratch().join(name);
    let mut command = cluster.installation().client_command("pg_basebackup").unwrap();
    command.arg("-d").arg(cluster.connection()).arg("-D").arg(&target).arg("-cfast");
    run(&mut command).unwrap().success().unwrap();
    target
}

/// Every tool accepts a sound cluster, and refuses one that was damaged.
fn judges(major: u32) {
    let mut cluster = filled(major);
    let file = cluster.psql("SELECT pg_relation_filepath('t')").unwrap();
    let copy = base_backup(&cluster, "copy");
    verify_backup(cluster.installation(), &copy).unwrap();
    flip_bit(&copy.join(&file), 8000).unwrap();
    let error = verify_backup(cluster.installation(), &copy).unwrap_err().to_string();
    assert!(error.contains(&file), "{error}");

    amcheck(&cluster).unwrap();
    let before = dump(&cluster).unwrap();
    assert!(before.contains("CREATE TABLE public.t") && before.contains("COPY public.t"));
    assert_eq!(before, dump(&cluster).unwrap());
    cluster.stop(Stop::Fast).unwrap();
    checksums(cluster.installation(), cluster.data()).unwrap();
    flip_bit(&cluster.data().join(&file), 8000).unwrap();
    assert!(checksums(cluster.installation(), cluster.data()).is_err());
}

#[test]
fn pg15_judges_find_damage() {
    judges(15);
}

#[test]
fn pg16_judges_find_damage() {
    judges(16);
}

#[test]
fn pg18_judges_find_damage() {
    judges(18);
}

#[test]
fn pg13_amcheck_finds_a_missing_index_entry() {
    amcheck_finds_a_missing_entry(13);
}

#[test]
fn pg15_amcheck_finds_a_missing_index_entry() {
    amcheck_finds_a_missing_entry(15);
}

#[test]
fn pg17_amcheck_finds_a_missing_index_entry() {
    amcheck_finds_a_missing_entry(17);
}

/// An index that was made to say it is complete although it covers only half of its table.
fn amcheck_finds_a_missing_entry(major: u32) {
    let cluster = filled(major);
    amcheck(&cluster).unwrap();
    cluster
        .psql(
            "CREATE INDEX half ON t (n) WHERE n < 2500;
             UPDATE pg_index SET indpred = NULL WHERE indexrelid = 'half'::regclass",
        )
        .unwrap();
    let error = amcheck(&cluster).unwrap_err().to_string();
    assert!(error.contains("half"), "{error}");
}

#[test]
fn a_manifest_of_version_2_is_checked_before_it_is_rewritten() {
    let manifest = |identifier: &str| {
        let content = format!(
            "{{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": {identifier},\n\
             \"Files\": [\n],\n"
        );
        format!("{content}\"Manifest-Checksum\": \"{}\"}}\n", sum(&content))
    };
    let older = first_version(&manifest("7"), "7").unwrap();
    assert!(older.starts_with("{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\""));
    assert!(first_version(&manifest("7"), "8").is_err());
    assert!(first_version(&manifest("7").replace("Files", "Piles"), "7").is_err());
}

/// A standby that follows its primary ends with the same pages, hint bits and unused space aside.
fn replica_equals_primary(major: u32) {
    let mut primary = filled(major);
    let mut standby = primary.standby().unwrap();
    primary
        .psql(
            "DELETE FROM t WHERE n % 3 = 0; SELECT count(*) FROM t; VACUUM t;
             UPDATE t SET s = s || 'x' WHERE n % 5 = 0; SELECT nextval('q');
             INSERT INTO t VALUES (1, 'x') ON CONFLICT DO NOTHING;
             INSERT INTO t SELECT n, 'new' FROM generate_series(6000, 7000) AS n;
             SELECT count(*) FROM t WHERE s = 'new'",
        )
        .unwrap();
    // The shutdown checkpoint is the last record, which the standby receives before both end.
    primary.stop(Stop::Fast).unwrap();
    let end = control(&primary, "Latest checkpoint location");
    standby.wait_for(&format!("SELECT pg_last_wal_replay_lsn() > '{end}'"), "t").unwrap();
    standby.stop(Stop::Fast).unwrap();

    let found = compare(primary.data(), standby.data()).unwrap().equal().unwrap();
    assert!(found.identical < found.pages, "the masks had nothing to do: {found:?}");
    // The first tuple ends at the end of the page: its last byte is data.
    let file = table_file(&primary, &standby);
    flip_bit(&standby.data().join(&file), 8191 - 32).unwrap();
    let found = compare(primary.data(), standby.data()).unwrap();
    assert_eq!(found.differences, [format!("{file} block 0")]);
    flip_bit(&standby.data().join(&file), 8191 - 32).unwrap();
    // A line of the table that only one side has.
    let path = standby.data().join(&file);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, whole.get(..whole.len() - 8192).unwrap()).unwrap();
    assert!(compare(primary.data(), standby.data()).unwrap().equal().is_err());
}

/// The largest file that is a heap on both sides: table `t`.
fn table_file(primary: &Cluster, standby: &Cluster) -> String {
    let base = primary.data().join("base");
    let mut largest = (0, String::new());
    for database in fs::read_dir(&base).unwrap().flatten() {
        for file in fs::read_dir(database.path()).unwrap().flatten() {
            let path = file.path();
            let name = path.strip_prefix(primary.data()).unwrap().display().to_string();
            let size = file.metadata().unwrap().len();
            let id: u32 = file.file_name().to_str().and_then(|n| n.parse().ok()).unwrap_or(0);
            let bytes = fs::read(&path).unwrap();
            let heap = bytes.get(16..18) == Some(&[0, 0x20]);
            if id >= 16384 && heap && size > largest.0 && standby.data().join(&name).exists() {
                largest = (size, name);
            }
        }
    }
    largest.1
}

fn control(cluster: &Cluster, name: &str) -> String {
    let mut command = cluster.installation().client_command("pg_controldata").unwrap();
    let text = run(command.arg(cluster.data())).unwrap().success().unwrap().stdout;
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.rsplit(' ').next().unwrap().to_owned()
}

#[test]
fn pg15_replica_equals_primary() {
    replica_equals_primary(15);
}

#[test]
fn pg13_replica_equals_primary() {
    replica_equals_primary(13);
}

#[test]
fn pg18_replica_equals_primary() {
    replica_equals_primary(18);
}

#[test]
fn empty_directories_are_not_equal_but_an_error() {
    let scratch = Scratch::new().unwrap();
    for folder in ["base", "global", "pg_xact", "pg_tblspc"] {
        scratch.folder(folder).unwrap();
    }
    assert!(compare(scratch.path(), scratch.path()).unwrap().equal().is_err());
}
