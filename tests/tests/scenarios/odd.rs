//! Clusters that are not like the one in the manual.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use lifeboat_scenarios::ledger;
use lifeboat_scenarios::restored::{attempt, judge, promote, restore, verify};
use lifeboat_scenarios::world::{DATABASE, Setup, World, refused};
use lifeboat_testkit::oracle;
use lifeboat_testkit::postgres::{Builder, Cluster, Stop};
use lifeboat_testkit::process::run;
use lifeboat_testkit::scratch;

#[test]
fn pg15_tablespaces_move_to_new_places() -> Result<()> {
    let mut world = World::start(15)?;
    let plain = world.source.tablespace("plain")?;
    // A fixture of its own, for the blanks and the sign that separates old from new.
    let blank = world.scratch.folder("a table space/with = sign")?;
    world.source.psql(&format!("CREATE TABLESPACE blank LOCATION '{}'", blank.display()))?;
    world.source.psql(
        "CREATE TABLE one TABLESPACE plain AS SELECT generate_series(1, 5000) AS n;
         CREATE TABLE two TABLESPACE blank AS SELECT generate_series(1, 7000) AS n;
         CREATE UNLOGGED TABLE three (n int) TABLESPACE blank; INSERT INTO three VALUES (1);
         CREATE DATABASE inside TABLESPACE plain",
    )?;
    world.source.psql_in("inside", "CREATE TABLE four AS SELECT generate_series(1, 900) AS n")?;
    world.backup()?;
    world.source.psql("INSERT INTO two SELECT generate_series(7001, 8000)")?;
    world.archive()?;

    // On the host of the source the old places are taken.
    refused(attempt(&world, "east", "unmapped", &["--latest"])?, 4, "LB6002")?;
    let place = |name: &str| world.scratch.join(name);
    let oid = world.source.psql("SELECT oid FROM pg_tablespace WHERE spcname = 'blank'")?;
    let maps = [
        format!("{}={}", plain.display(), place("new plain").display()),
        format!("{oid}={}", place("new blank").display()),
    ];
    let flags = ["--latest", "--tablespace", &maps[0], "--tablespace", &maps[1]];
    let mut copy = restore(&world, "west", "mapped", &flags)?;
    verify(&mut copy)?;
    ensure!(copy.psql("SELECT count(*) FROM one")? == "5000");
    ensure!(copy.psql("SELECT count(*) FROM two")? == "8000");
    ensure!(copy.psql("SELECT count(*) FROM three")? == "0", "unlogged rows came back");
    ensure!(copy.psql_in("inside", "SELECT count(*) FROM four")? == "900");
    let location =
        copy.psql("SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'blank'")?;
    ensure!(location == place("new blank").display().to_string(), "{location}");
    judge(&mut copy)
}

#[test]
fn pg15_an_empty_cluster() -> Result<()> {
    let mut world = World::start(15)?;
    world.source.psql("CREATE DATABASE nothing")?;
    world.backup()?;
    world.archive()?;
    let expected = oracle::dump(&world.source)?;
    let mut copy = restore(&world, "west", "empty", &["--latest"])?;
    verify(&mut copy)?;
    ensure!(oracle::dump(&copy)? == expected, "the dumps differ");
    judge(&mut copy)
}

#[test]
fn pg15_files_with_odd_names_come_back_byte_by_byte() -> Result<()> {
    let world = World::start(15)?;
    let names: [&[u8]; 8] = [
        b"line\nbreak",
        b"quote'and\"quote",
        b"not-utf8-\xff\xfe",
        b"-leading-dash",
        b"$(touch injected)",
        b"per%cent %p",
        b".hidden",
        &[b'x'; 255],
    ];
    for name in names {
        scratch::write(&world.source.data().join(OsStr::from_bytes(name)), name)?;
    }
    // Neither a file nor a directory: must not hang, need not come back.
    let pipe = world.source.data().join("pipe");
    run(Command::new("mkfifo").arg(&pipe))?.success()?;
    let taken = world.ok(&["backup", DATABASE])?;
    ensure!(taken.stderr.contains("pipe"), "{taken}");
    let mut copy = restore(&world, "west", "odd", &["--immediate"])?;
    for name in names {
        let found = fs::read(copy.data().join(OsStr::from_bytes(name)));
        let found = found.with_context(|| String::from_utf8_lossy(name).into_owned())?;
        ensure!(found == name, "{} differs", String::from_utf8_lossy(name));
    }
    ensure!(!copy.data().join("injected").exists() && !copy.data().join("pipe").exists());
    verify(&mut copy)
}

#[test]
fn pg15_a_file_above_one_gibibyte() -> Result<()> {
    let world = World::start(15)?;
    let path = world.source.data().join("large");
    scratch::write(&path, "")?;
    // Sparse: a gibibyte of zeros between two words.
    let file = fs::File::options().write(true).open(&path)?;
    let end = (1 << 30) + 12345;
    std::os::unix::fs::FileExt::write_all_at(&file, b"begin", 0)?;
    std::os::unix::fs::FileExt::write_all_at(&file, b"end", end)?;
    drop(file);
    world.backup()?;
    let mut copy = restore(&world, "west", "large", &["--immediate"])?;
    run(Command::new("cmp").arg(&path).arg(copy.data().join("large")))?.success()?;
    fs::remove_file(&path)?;
    verify(&mut copy)
}

#[test]
fn pg15_files_that_come_go_grow_and_shrink_during_a_backup() -> Result<()> {
    let mut world = World::start(15)?;
    ledger::create(&world.source)?;
    world.source.pgbench(["-i", "-s", "2", "-q"])?;
    world.source.psql("CREATE TABLE grows (s text); CREATE TABLE shrinks AS SELECT generate_series(1, 50000) AS n")?;
    let slow = world.archiver()?.variable("LIFEBOAT_FAILPOINTS", "backup.piece=sleep:5");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<()> {
        let churn = scope.spawn(|| churn(&world.source, &stop));
        let backup = slow.run(world.arguments("east", &["backup", DATABASE]));
        stop.store(true, Ordering::Relaxed);
        let rounds = churn.join().map_err(|_| anyhow::anyhow!("the churn panicked"))??;
        backup?.success()?;
        ensure!(rounds > 2, "only {rounds} rounds of changes met the backup");
        Ok(())
    })?;
    let point = ledger::append(&world.source)?;
    world.archive()?;
    let expected = oracle::dump(&world.source)?;
    let mut copy = restore(&world, "west", "churned", &["--latest"])?;
    verify(&mut copy)?;
    ledger::is_at(&copy, &point)?;
    ensure!(oracle::dump(&copy)? == expected, "the dumps differ");
    judge(&mut copy)
}

fn churn(cluster: &Cluster, stop: &AtomicBool) -> Result<u32> {
    let mut rounds = 0;
    while !stop.load(Ordering::Relaxed) {
        rounds += 1;
        cluster.psql(&format!(
            "CREATE TABLE new{rounds} AS SELECT generate_series(1, 2000) AS n; DROP TABLE new{rounds};
             INSERT INTO grows SELECT repeat('x', 500) FROM generate_series(1, 2000);
             DELETE FROM shrinks WHERE n > 50000 - {rounds} * 2000; VACUUM shrinks;
             VACUUM FULL pgbench_branches; TRUNCATE pgbench_history;
             CREATE DATABASE brief{rounds}; DROP DATABASE brief{rounds}"
        ))?;
    }
    Ok(rounds)
}

fn any_segment_size(size: u32) -> Result<()> {
    let change =
        |builder: Builder| builder.wal_segment_size_mb(size).setting("max_wal_size = 256MB");
    let mut world = Setup::new(15)?.cluster(change).start()?;
    ledger::create(&world.source)?;
    world.backup()?;
    for _ in 0..3 {
        ledger::append(&world.source)?;
        world.source.psql("SELECT pg_switch_wal()")?;
    }
    let point = ledger::append(&world.source)?;
    world.archive()?;
    world.ok(&["repo", "check", "--read-data"])?;
    world.ok(&["wal", "status"])?;
    let mut copy = restore(&world, "west", "segments", &["--latest"])?;
    verify(&mut copy)?;
    ledger::is_at(&copy, &point)
}

#[test]
fn pg15_segments_of_one_mebibyte() -> Result<()> {
    any_segment_size(1)
}

#[test]
fn pg15_segments_of_sixty_four_mebibytes() -> Result<()> {
    any_segment_size(64)
}

#[test]
fn pg15_a_debian_cluster_starts_by_itself_where_it_was_restored() -> Result<()> {
    let mut world = Setup::new(15)?.cluster(Builder::debian).start()?;
    let drop_in = world.source.configuration().with_file_name("conf.d").join("memory.conf");
    scratch::write(&drop_in, "work_mem = 9MB\n")?;
    world.source.psql("SELECT pg_reload_conf()")?;
    ledger::create(&world.source)?;
    world.backup()?;
    let point = ledger::append(&world.source)?;
    world.archive()?;
    world.source.stop(Stop::Fast)?;
    fs::remove_dir_all(world.source.configuration().parent().context("no folder")?)?;

    let copy = restore(&world, "west", "debian", &["--latest"])?;
    // Nothing but pg_ctl and the directory, as a person would.
    let pg_ctl = |action: &[&str]| -> Result<()> {
        let mut command = copy.installation().client_command("pg_ctl")?;
        let options =
            format!("-c listen_addresses= -c unix_socket_directories={}", copy.sockets().display());
        command
            .arg("-D")
            .arg(copy.data())
            .arg("-l")
            .arg(copy.data().join("log"))
            .args(["-w", "-o", &options]);
        run(command.args(action))?.success().map(drop)
    };
    pg_ctl(&["start"])?;
    let judged = (|| {
        ledger::is_at(&copy, &point)?;
        ensure!(copy.psql("SHOW work_mem")? == "9MB", "the drop-in is lost");
        let file = copy.psql("SHOW config_file")?;
        ensure!(file.starts_with(&copy.data().display().to_string()), "{file}");
        Ok(())
    })();
    pg_ctl(&["-m", "fast", "stop"])?;
    judged
}

#[test]
fn pg15_a_backup_from_a_standby() -> Result<()> {
    let mut world = World::start(15)?;
    ledger::create(&world.source)?;
    ledger::append(&world.source)?;
    let mut standby = world.source.standby()?;
    world.source.wait_for_replay(&mut standby)?;
    // The standby is this host's node; the primary is another one, which archives.
    let lines =
        [world.node("east-1", "east", &standby), world.node("west-1", "west", &world.source)];
    let old = world.node("east-1", "east", &world.source);
    let both = lines.join("\n          ");
    let primary = fs::read_to_string(world.spec())?;
    let spec = world.scratch.file("standby.yaml", primary.replace(&old, &both))?;
    let spec = spec.to_string_lossy().into_owned();
    world.lifeboat.ok(["--spec", &spec, "--here", "east", "backup", DATABASE])?;
    let point = ledger::append(&world.source)?;
    world.archive()?;
    let mut copy = restore(&world, "west", "from-standby", &["--latest"])?;
    verify(&mut copy)?;
    ledger::is_at(&copy, &point)?;
    judge(&mut copy)
}

#[test]
fn pg15_a_page_that_the_disk_damaged_is_named_and_delivered() -> Result<()> {
    let mut world = World::start(15)?;
    world.source.psql("CREATE TABLE hit AS SELECT generate_series(1, 20000) AS n; CHECKPOINT")?;
    let file = world.source.psql("SELECT pg_relation_filepath('hit')")?;
    world.source.stop(Stop::Fast)?;
    let path = world.source.data().join(&file);
    oracle::flip_bit(&path, 3 * 8192 + 4000)?;
    let damaged = fs::read(&path)?;
    world.source.start()?;
    let finished = world.run(&["backup", DATABASE, "--json"])?.expect_code(3)?;
    let document = finished.json()?;
    ensure!(document["error"]["code"] == "LB5010", "{document}");
    let page = &document["result"]["damaged_pages"][0];
    ensure!(page["path"] == file.as_str() && page["block"] == 3, "{document}");
    ensure!(finished.stderr.contains(&format!("page 3 of {file}")), "{finished}");
    let listed = world.json(&["backups", "list", DATABASE])?;
    ensure!(listed["backups"][0]["damaged_pages"] == 1, "{listed}");
    // The repository is sound: it holds what the disk held.
    world.ok(&["repo", "check", "--read-data"])?;
    let copy = restore(&world, "west", "damaged", &["--immediate"])?;
    ensure!(fs::read(copy.data().join(&file))? == damaged, "another page was delivered");
    Ok(())
}

#[test]
fn pg15_a_cluster_without_checksums_and_encryption() -> Result<()> {
    let setup = Setup::new(15)?.cluster(|builder| builder.checksums(false).encoding("LATIN1"));
    let mut world = setup.prepare()?;
    world.edit_spec(|text| {
        let (start, rest) = text.split_once("encryption:").unwrap_or((&text, ""));
        let end = rest.split_once("tiers:").map_or("", |(_, end)| end);
        format!("{start}encryption: none\ntiers:{end}")
    })?;
    world.ok(&["repo", "create"])?;
    world.source.start()?;
    ledger::create(&world.source)?;
    world.backup()?;
    let point = ledger::append(&world.source)?;
    world.archive()?;
    world.ok(&["repo", "check", "--read-data"])?;
    let mut copy = restore(&world, "west", "plain", &["--latest"])?;
    verify(&mut copy)?;
    ledger::is_at(&copy, &point)
}

#[test]
fn pg15_prepared_transactions_large_objects_and_sequences() -> Result<()> {
    let change = |builder: Builder| builder.setting("max_prepared_transactions = 4");
    let mut world = Setup::new(15)?.cluster(change).start()?;
    world.source.psql(
        "CREATE TABLE t (n serial, s text); CREATE SEQUENCE q CACHE 5; SELECT lo_create(4711)",
    )?;
    world.backup()?;
    world.source.psql(
        "BEGIN; INSERT INTO t (s) VALUES ('prepared'); PREPARE TRANSACTION 'p';
         SELECT lo_put(4711, 0, 'content'); SELECT nextval('q')",
    )?;
    world.archive()?;
    let mut copy = restore(&world, "west", "kinds", &["--latest"])?;
    promote(&mut copy)?;
    ensure!(copy.psql("SELECT convert_from(lo_get(4711), 'UTF8')")? == "content");
    copy.psql("COMMIT PREPARED 'p'")?;
    ensure!(copy.psql("SELECT s FROM t")? == "prepared");
    let next: u32 = copy.psql("SELECT nextval('q')")?.parse()?;
    ensure!(next > 1, "a value of the sequence was given twice");
    judge(&mut copy)
}
