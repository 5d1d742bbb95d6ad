//! What a restore does to a directory, and what it refuses to do.

use std::fs;

use anyhow::{Context, Result, ensure};
use lifeboat_scenarios::ledger;
use lifeboat_scenarios::restored::{attempt, judge, promote, restore, untouched, verify};
use lifeboat_scenarios::world::{DATABASE, World, refused};
use lifeboat_testkit::postgres::{Cluster, Stop};
use lifeboat_testkit::scratch;

#[test]
fn pg15_a_delta_restore_replaces_only_what_differs() -> Result<()> {
    let mut world = World::start(15)?;
    world.source.pgbench(["-i", "-s", "10", "-q"])?;
    ledger::create(&world.source)?;
    world.backup()?;
    let point = ledger::append(&world.source)?;
    world.archive()?;
    let mut copy = restore(&world, "east", "delta", &["--latest"])?;
    promote(&mut copy)?;
    copy.psql("UPDATE pgbench_accounts SET abalance = 1 WHERE aid < 1000; TRUNCATE ledger")?;
    copy.psql("CREATE TABLE stray AS SELECT generate_series(1, 1000) AS n")?;
    copy.stop(Stop::Fast)?;
    scratch::write(&copy.data().join("stray-file"), "not of this backup")?;

    let to = copy.data().to_string_lossy().into_owned();
    let words = ["restore", DATABASE, "--to", &to, "--latest", "--delta"];
    let done = world.json(&words)?["done"].clone();
    let number = |name: &str| done[name].as_u64().with_context(|| format!("no {name} in {done}"));
    let (bytes, kept) = (number("bytes")?, number("kept_bytes")?);
    ensure!(kept * 10 > bytes * 9, "{kept} of {bytes} bytes were kept");
    ensure!(number("removed_files")? > 0, "{done}");
    ensure!(!copy.data().join("stray-file").exists());
    verify(&mut copy)?;
    ledger::is_at(&copy, &point)?;
    judge(&mut copy)
}

#[test]
fn pg15_a_directory_in_use_is_refused() -> Result<()> {
    let mut world = World::start(15)?;
    world.backup()?;
    world.archive()?;
    // Not empty.
    let place = world.scratch.folder("restored-full")?;
    scratch::write(&place.join("letter"), "dear")?;
    refused(attempt(&world, "east", "full", &["--latest"])?, 4, "LB6002")?;
    refused(attempt(&world, "east", "full", &["--latest", "--delta"])?, 4, "LB6002")?;
    ensure!(fs::read_dir(&place)?.count() == 1);
    // A running server, with and without --delta.
    let source = world.source.data().to_string_lossy().into_owned();
    for flags in [&["--latest"][..], &["--latest", "--delta"]] {
        let words = [&["restore", DATABASE, "--to", &source], flags].concat();
        world.refused(4, "LB6002", &words)?;
    }
    world.source.psql("CREATE TABLE still_alive (n int)")?;
    // A copy that runs.
    let mut copy = restore(&world, "east", "running", &["--latest"])?;
    promote(&mut copy)?;
    refused(attempt(&world, "east", "running", &["--latest", "--delta"])?, 4, "LB6002")?;
    // A copy that was started and stopped is no longer an unfinished restore.
    copy.stop(Stop::Fast)?;
    refused(attempt(&world, "east", "running", &["--latest"])?, 4, "LB6002")?;
    // A cluster of somebody else.
    let stranger = Cluster::builder(15).create()?;
    let to = stranger.data().to_string_lossy().into_owned();
    world.refused(4, "LB", &["restore", DATABASE, "--to", &to, "--latest", "--delta"])?;
    ensure!(stranger.data().join("global/pg_control").exists());
    Ok(())
}

#[test]
fn pg15_of_two_restores_into_one_directory_the_second_is_refused() -> Result<()> {
    let mut world = World::start(15)?;
    world.backup()?;
    world.archive()?;
    let to = world.target("twice");
    let shown = to.to_string_lossy();
    let words = ["restore", DATABASE, "--to", &shown, "--latest"];
    let slow = world.archiver()?.variable("LIFEBOAT_FAILPOINTS", "restore.files_done=sleep:3000");
    let first = slow.spawn(world.arguments("east", &words))?;
    world.wait_until("the first file", || Ok(to.join("base").is_dir()))?;
    refused(attempt(&world, "east", "twice", &["--latest"])?, 4, "LB6002")?;
    first.wait(lifeboat_testkit::process::PATIENCE)?.success()?;
    let mut copy = Cluster::over(15, &to)?;
    verify(&mut copy)
}

#[test]
fn pg15_settings_that_recovery_needs_are_raised_from_pg_control() -> Result<()> {
    let mut world = World::start(15)?;
    let main = world.source.configuration().to_owned();
    let before = fs::read_to_string(&main)?;
    scratch::write(
        &main,
        format!("{before}\nmax_connections = 150\nmax_prepared_transactions = 5\n"),
    )?;
    world.source.restart()?;
    // The file says less than the server runs with, which is what pg_control knows.
    scratch::write(&main, before)?;
    world.backup()?;
    world.source.psql(
        "CREATE TABLE t (n int); BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'open'",
    )?;
    world.archive()?;
    let mut copy = restore(&world, "east", "raised", &["--latest"])?;
    verify(&mut copy)?;
    ensure!(copy.psql("SHOW max_connections")? == "150");
    ensure!(copy.psql("SELECT gid FROM pg_prepared_xacts")? == "open");
    copy.psql("COMMIT PREPARED 'open'")?;
    ensure!(copy.psql("SELECT n FROM t")? == "1");
    Ok(())
}

#[test]
fn pg15_a_dry_run_writes_nothing_and_predicts() -> Result<()> {
    let mut world = World::start(15)?;
    world.backup()?;
    world.archive()?;
    let finished = attempt(&world, "east", "dry", &["--latest", "--dry-run"])?.success()?;
    ensure!(finished.stdout.contains("predicted"), "{finished}");
    untouched(&world, "dry")?;
    let finished = attempt(&world, "east", "dry", &["--latest"])?.success()?;
    ensure!(finished.stdout.contains("predicted"), "{finished}");
    Ok(())
}

#[test]
fn pg15_the_incarnation_that_is_read_is_named_where_it_is_not_the_plain_one() -> Result<()> {
    let mut world = World::start(15)?;
    ledger::create(&world.source)?;
    world.backup()?;
    let first = ledger::append(&world.source)?;
    world.archive()?;
    world.source.stop(Stop::Fast)?;
    let to = world.source.data().to_string_lossy().into_owned();
    world.ok(&["restore", DATABASE, "--to", &to, "--latest", "--delta", "--adopt"])?;
    world.source.start()?;
    world.source.wait_for("SELECT pg_is_in_recovery()", "f")?;
    world.backup()?;
    let point = ledger::append(&world.source)?;
    world.archive()?;

    // A restore point that only the older incarnation has.
    let flags = ["--name", &first.name, "--dry-run"];
    let planned = attempt(&world, "east", "older", &flags)?.success()?;
    ensure!(planned.stdout.contains("incarnation 1 is read, an older one"), "{planned}");
    let planned = attempt(&world, "east", "newest", &["--latest", "--dry-run"])?.success()?;
    ensure!(!planned.stdout.contains("incarnation"), "{planned}");

    // The newest binding lost in the only region that is left: its backups still say whose it is.
    let bindings = world.repository("east").join("bindings").join(DATABASE);
    fs::remove_file(bindings.join("00000002"))?;
    let away = world.scratch.join("west-away");
    fs::rename(world.repository("west"), &away)?;
    let finished = attempt(&world, "east", "unbound", &["--latest", "--adopt"])?.expect_code(5)?;
    ensure!(finished.stdout.contains("no binding names incarnation"), "{finished}");
    let mut copy = Cluster::over(15, world.target("unbound"))?;
    verify(&mut copy)?;
    ledger::is_at(&copy, &point)?;
    let checked = world.refused(3, "LB3013", &["repo", "check"])?;
    ensure!(checked.stdout.contains("no binding names this stream"), "{checked}");
    // The copy was adopted under a number that the other region does not have for another one.
    ensure!(bindings.join("00000003").exists() && !bindings.join("00000002").exists());
    fs::rename(&away, world.repository("west"))?;
    let checked = world.refused(3, "LB3013", &["repo", "check"])?;
    ensure!(checked.stdout.contains("00000002: missing here; west has it"), "{checked}");
    let status = world.run(&["wal", "status", "--json"])?.json()?;
    let known = status["result"]["incarnations"].as_array().context("no incarnations")?;
    ensure!(known.len() == 3, "{status}");
    Ok(())
}
