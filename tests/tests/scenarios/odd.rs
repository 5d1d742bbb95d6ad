//! Clusters that are not like the one in the manual.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use lifeboat_scenarios::ledger;
use lifeboat_scenarios::restored::{attempt, judge, promote, restore, verify};
use lifeboat_scenarios::world::{DATABASE, Setup, World, refused};
use lifeboat_testkit::oracle;
use lifeboat_testkit::postgres::{Builder, Cluster, Stop};
use lifeboat_testkit::process::{PATIENCE, run};
use lifeboat_testkit::scratch;
use nix::sys::signal::Signal;

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
    judge(&mut copy)?;

    // With the source gone the old places serve again, the one with blanks too.
    world.source.stop(Stop::Fast)?;
    for folder in [&plain, &blank] {
        fs::remove_dir_all(folder.join(version_folder(folder)?))?;
    }
    let mut copy = restore(&world, "east", "in-place", &["--latest"])?;
    verify(&mut copy)?;
    ensure!(copy.psql("SELECT count(*) FROM two")? == "8000");
    let location =
        copy.psql("SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'blank'")?;
    ensure!(location == blank.display().to_string(), "{location}");
    Ok(())
}

/// The one folder that PostgreSQL makes in a tablespace.
fn version_folder(tablespace: &Path) -> Result<OsString> {
    let entry = fs::read_dir(tablespace)?.next().context("an empty tablespace")?;
    Ok(entry?.file_name())
}

#[test]
fn pg15_databases_roles_and_tablespaces_with_odd_names() -> Result<()> {
    let mut world = World::start(15)?;
    // One of them as long as PostgreSQL allows.
    let long = "ü".repeat(31) + "x";
    let names = ["it's \"quoted\"\nand broken", "表 $HOME; -- %p", long.as_str()];
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    for (number, name) in names.iter().enumerate() {
        let place = world.scratch.folder(&format!("odd-{number}"))?;
        let name = quoted(name);
        world.source.psql(&format!("CREATE TABLESPACE {name} LOCATION '{}'", place.display()))?;
        world.source.psql(&format!("CREATE ROLE {name}"))?;
        world.source.psql(&format!("CREATE DATABASE {name} OWNER {name} TABLESPACE {name}"))?;
        // Unlogged relations come back empty, and can be used.
        world.source.psql_in(
            &connected(&name)?,
            &format!(
                "CREATE SCHEMA {name}; CREATE TABLE {name}.{name} AS SELECT {number} AS n;
                 CREATE UNLOGGED TABLE lost (n int PRIMARY KEY); INSERT INTO lost VALUES (1)"
            ),
        )?;
    }
    world.backup()?;
    world.archive()?;
    let maps: Vec<String> = (0..names.len())
        .map(|number| {
            let place = |name: &str| world.scratch.join(&format!("{name}-{number}"));
            format!("{}={}", place("odd").display(), place("moved").display())
        })
        .collect();
    let mut flags = vec!["--latest"];
    flags.extend(maps.iter().flat_map(|map| ["--tablespace", map]));
    let mut copy = restore(&world, "west", "odd-names", &flags)?;
    verify(&mut copy)?;
    let list = "SELECT md5(string_agg(datname || pg_get_userbyid(datdba) || spcname, '|' ORDER BY
                datname)) FROM pg_database d JOIN pg_tablespace t ON t.oid = dattablespace";
    ensure!(copy.psql(list)? == world.source.psql(list)?, "the names differ");
    for (number, name) in names.iter().enumerate() {
        let (database, name) = (connected(&quoted(name))?, quoted(name));
        let found = copy.psql_in(&database, &format!("SELECT n FROM {name}.{name}"))?;
        ensure!(found == number.to_string(), "{name}: {found}");
        ensure!(copy.psql_in(&database, "SELECT count(*) FROM lost")? == "0", "{name}");
        copy.psql_in(&database, "INSERT INTO lost VALUES (1), (2)")?;
        ensure!(copy.psql_in(&database, "SELECT n FROM lost WHERE n = 2")? == "2", "{name}");
    }
    Ok(())
}

/// A quoted SQL name as the value of a connection string.
fn connected(quoted: &str) -> Result<String> {
    let name = quoted.strip_prefix('"').and_then(|name| name.strip_suffix('"'));
    let name = name.context("no quotes")?.replace("\"\"", "\"");
    Ok(format!("'{}'", name.replace('\\', "\\\\").replace('\'', "\\'")))
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
fn pg15_a_relation_above_one_gibibyte() -> Result<()> {
    let mut world = World::start(15)?;
    world.source.psql("CREATE TABLE large AS SELECT generate_series(1, 1000) AS n")?;
    let file = world.source.psql("SELECT pg_relation_filepath('large')")?;
    world.source.stop(Stop::Fast)?;
    // Sparse: empty pages up to the end of the first file, which PostgreSQL takes as they are.
    let path = world.source.data().join(&file);
    fs::File::options().write(true).open(&path)?.set_len(1 << 30)?;
    world.source.start()?;
    world.source.psql("INSERT INTO large SELECT generate_series(1001, 5000)")?;
    ensure!(world.source.data().join(format!("{file}.1")).exists(), "one file was enough");
    world.backup()?;
    world.source.psql("INSERT INTO large VALUES (5001)")?;
    world.archive()?;
    let mut copy = restore(&world, "west", "large", &["--latest"])?;
    verify(&mut copy)?;
    ensure!(copy.psql("SELECT count(*), sum(n) FROM large")? == "5001|12507501");
    ensure!(copy.psql("SELECT pg_relation_size('large') > 1 << 30")? == "t");
    Ok(())
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
    let beside = |name: &str| world.source.configuration().with_file_name(name);
    scratch::write(&beside("conf.d").join("memory.conf"), "work_mem = 9MB\n")?;
    scratch::write(&beside("extra.conf"), "temp_buffers = 7MB\n")?;
    let main = fs::read_to_string(world.source.configuration())? + "include = 'extra.conf'\n";
    scratch::write(world.source.configuration(), main)?;
    // Rules that read in lists of names, one beside them and one elsewhere.
    let elsewhere = world.scratch.file("more names", "nobody\n")?;
    scratch::write(&beside("admins"), format!("postgres\n@\"{}\"\n", elsewhere.display()))?;
    scratch::write(&beside("pg_hba.conf"), "local all @admins trust\n")?;
    world.source.restart()?;
    world.source.psql("CREATE ROLE stranger LOGIN")?;
    ledger::create(&world.source)?;
    world.backup()?;
    let point = ledger::append(&world.source)?;
    world.archive()?;
    world.source.stop(Stop::Fast)?;
    fs::remove_dir_all(world.source.configuration().parent().context("no folder")?)?;
    fs::remove_file(&elsewhere)?;

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
        ensure!(copy.psql("SHOW temp_buffers")? == "7MB", "the include is lost");
        let errors = "SELECT count(*) FROM pg_hba_file_rules WHERE error IS NOT NULL";
        ensure!(copy.psql(errors)? == "0", "the rules have errors");
        let names = copy.psql("SELECT user_name FROM pg_hba_file_rules")?;
        ensure!(names == "{postgres,nobody}", "{names}");
        let file = copy.psql("SHOW config_file")?;
        ensure!(file.starts_with(&copy.data().display().to_string()), "{file}");
        Ok(())
    })();
    pg_ctl(&["-m", "fast", "stop"])?;
    judged
}

#[test]
fn pg15_a_data_directory_that_is_a_symbolic_link() -> Result<()> {
    let mut world = Setup::new(15)?.prepare()?;
    // To another place, as people do when a disk gets too small.
    let (data, real) = (world.source.data().to_owned(), world.scratch.join("bigger disk"));
    fs::rename(&data, &real)?;
    std::os::unix::fs::symlink(&real, &data)?;
    world.ok(&["repo", "create"])?;
    world.source.start()?;
    ledger::create(&world.source)?;
    world.backup()?;
    let point = ledger::append(&world.source)?;
    world.archive()?;
    world.ok(&["check"])?;
    // Back through a link too, which stays one.
    world.source.stop(Stop::Fast)?;
    let to = data.to_string_lossy().into_owned();
    world.ok(&["restore", DATABASE, "--to", &to, "--latest", "--delta"])?;
    ensure!(fs::symlink_metadata(&data)?.is_symlink(), "the link was replaced");
    let mut copy = Cluster::over(15, &data)?;
    verify(&mut copy)?;
    ledger::is_at(&copy, &point)
}

#[test]
fn pg15_archiving_that_began_late_leaves_no_gap() -> Result<()> {
    let mut world = Setup::new(15)?.archive_command("true").start()?;
    world.source.stop(Stop::Fast)?;
    scratch::write(&world.source.data().join("standby.signal"), "")?;
    world.source.start()?;
    world.source.psql("SELECT pg_promote()")?;
    world.source.wait_for("SELECT pg_is_in_recovery()", "f")?;
    world.push("pg_wal/00000002.history")?.success()?;
    for _ in 0..3 {
        world.source.psql("SELECT pg_create_restore_point('x'), pg_switch_wal()")?;
    }
    world.wait_for_archiver()?;
    world.archive_by_push()?;
    world.archive()?;
    // Before the first backup, and with it.
    world.ok(&["wal", "status"])?;
    world.ok(&["repo", "check"])?;
    world.backup()?;
    world.archive()?;
    world.ok(&["repo", "check"])?;
    let status = world.json(&["wal", "status", DATABASE])?;
    let region = &status["incarnations"][0]["regions"][0];
    ensure!(region["gaps"] == serde_json::json!([]), "{status}");
    ensure!(region["archived"][0]["first"].as_str().is_some(), "{status}");
    Ok(())
}

#[test]
fn pg15_a_backup_says_at_once_that_the_archiver_fails() -> Result<()> {
    let mut world = Setup::new(15)?.archive_command("false").start()?;
    world.source.psql("SELECT pg_create_restore_point('x'), pg_switch_wal()")?;
    world.source.wait_for("SELECT failed_count > 0 FROM pg_stat_archiver", "t")?;
    let backup = world.spawn(&["backup", DATABASE])?;
    // It waits for WAL that does not come, and has asked the archiver why.
    world.source.wait_for(
        "SELECT count(*) > 0 FROM pg_stat_activity
         WHERE application_name LIKE 'lifeboat%' AND query LIKE '%last_failed_wal%'
           AND state = 'idle' AND clock_timestamp() > state_change + interval '0.1 s'",
        "t",
    )?;
    backup.signal(Signal::SIGINT)?;
    let finished = backup.wait(PATIENCE)?.expect_code(130)?;
    let warned = finished.stderr.contains("PostgreSQL cannot archive 0000");
    ensure!(warned && finished.stderr.contains("see the server's log"), "{finished}");
    ensure!(world.backups()?.is_empty());
    Ok(())
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
