//! Commits that wait for a receiver survive whatever dies: the receiver, the server, both.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lifeboat_environment::{Clock, Random, SeededRandom, SystemClock};
use lifeboat_scenarios::acknowledged::Client;
use lifeboat_scenarios::ledger;
use lifeboat_scenarios::restored::{promote, restore};
use lifeboat_scenarios::volume::Volume;
use lifeboat_scenarios::world::{DATABASE, Setup, World};
use lifeboat_testkit::oracle;
use lifeboat_testkit::postgres::{Builder, Cluster, Stop};
use lifeboat_testkit::process::{PATIENCE, Running, run, wait_until};
use nix::sys::signal::Signal;

const RECEIVER: &str = "lifeboat_shop_main_east";

/// A world whose WAL goes nowhere but through receivers.
fn streaming(major: u32, durable: &str) -> Result<World> {
    streaming_with(major, durable, &[])
}

fn streaming_with(major: u32, durable: &str, settings: &[&str]) -> Result<World> {
    let wal = format!(
        "mode: stream, receivers: [east, west], acknowledge: {{ remote: 1, durable: {durable} }}, \
         flush_every: 100ms"
    );
    let configure =
        |cluster: Builder| settings.iter().fold(cluster, |cluster, line| cluster.setting(*line));
    Setup::new(major)?.cluster(configure).archive_command("/bin/true").wal(&wal).start()
}

/// Starts a receiver in region east, where the server is.
fn receiver(world: &World) -> Result<Running> {
    world.spawn(&["wal", "receive", DATABASE])
}

/// Makes every commit wait for the receiver.
fn be_synchronous(world: &mut World) -> Result<()> {
    world.source.psql(&format!(
        "ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 ({RECEIVER})';
         SELECT pg_reload_conf()"
    ))?;
    is_synchronous(&mut world.source)
}

fn is_synchronous(server: &mut Cluster) -> Result<()> {
    server.wait_for(
        &format!(
            "SELECT count(*) FROM pg_stat_replication
             WHERE application_name = '{RECEIVER}' AND sync_state = 'quorum'"
        ),
        "1",
    )
}

/// Nobody gets to say goodbye.
fn kill(running: Running) -> Result<()> {
    running.signal(Signal::SIGKILL)?;
    running.wait(PATIENCE).map(drop)
}

fn acknowledged_commits_come_back(major: u32) -> Result<()> {
    let mut world = streaming(major, "spool")?;
    let running = receiver(&world)?;
    be_synchronous(&mut world)?;
    ledger::create(&world.source)?;
    world.backup()?;
    let point = ledger::append(&world.source)?;
    kill(running)?;
    world.source.kill9()?;
    world.ok(&["wal", "receive", DATABASE, "--drain"])?;
    let mut copy = restore(&world, "east", "latest", &["--latest"])?;
    promote(&mut copy)?;
    // No receiver streams from it: its commits must not wait for one.
    let waits = copy.psql("SHOW synchronous_standby_names")?;
    ensure!(waits.is_empty(), "commits of the copy wait for {waits}");
    // A receiver on another host would ask it this, and refuse it until it is adopted.
    let mut ask = copy.installation().client_command("psql")?;
    ask.args(["-XAtq", "-c", "SHOW lifeboat.incarnation", "-d"]);
    ask.arg(format!("{} replication=true", copy.connection()));
    let said = run(&mut ask)?.success()?.stdout;
    ensure!(said.trim().parse::<u64>()? > 1, "the copy says that it is incarnation {said}");
    ledger::is_at(&copy, &point)
}

#[test]
fn pg15_what_was_acknowledged_is_restored_from_the_repository_alone() -> Result<()> {
    acknowledged_commits_come_back(15)
}

#[test]
fn pg13_what_was_acknowledged_is_restored_from_the_repository_alone() -> Result<()> {
    acknowledged_commits_come_back(13)
}

#[test]
fn pg16_what_was_acknowledged_is_restored_from_the_repository_alone() -> Result<()> {
    acknowledged_commits_come_back(16)
}

#[test]
fn pg18_what_was_acknowledged_is_restored_from_the_repository_alone() -> Result<()> {
    acknowledged_commits_come_back(18)
}

/// Processes that were killed may hold the server's shared memory for another moment.
fn start_again(world: &mut World) -> Result<()> {
    let mut last = Ok(());
    let started = wait_until(PATIENCE, || {
        last = world.source.start();
        Ok(last.is_ok())
    })?;
    if started { Ok(()) } else { last }
}

/// Kills the receiver, the server or both in every round, under load, and never stops asking.
fn nothing_acknowledged_is_lost(durable: &str, rounds: u32, seed: u64) -> Result<()> {
    let mut world = streaming(15, durable)?;
    let mut running = receiver(&world)?;
    be_synchronous(&mut world)?;
    world.source.psql("CREATE TABLE acknowledged (id bigint PRIMARY KEY, filler text)")?;
    world.backup()?;
    let client = Client::start(&world.source);
    let chance = SeededRandom::new(seed);
    let mut killed = 0;
    for round in 0..rounds {
        client.wait_for_more(5).with_context(|| format!("round {round}"))?;
        SystemClock.sleep(Duration::from_millis(chance.next_u64() % 400));
        let what = chance.next_u64() % 4;
        if what != 1 {
            kill(running)?;
            running = receiver(&world)?;
            killed += 1;
        }
        if what != 0 {
            world.source.kill9()?;
            if what == 3 {
                // The receiver starts while there is no server.
                SystemClock.sleep(Duration::from_millis(chance.next_u64() % 800));
            }
            start_again(&mut world)?;
            killed += 1;
        }
    }
    client.wait_for_more(5)?;
    ensure!(killed >= rounds, "nothing was killed");
    // The end of it all: first the receiver, then the server, in the middle of commits.
    kill(running)?;
    world.source.kill9()?;
    let acknowledged = client.stop()?;
    ensure!(acknowledged.len() as u32 > rounds * 5, "only {} commits", acknowledged.len());
    if durable == "repository" {
        // The host of the receiver is gone, too.
        std::fs::remove_dir_all(world.scratch.join("state/receive"))?;
    } else {
        world.ok(&["wal", "receive", DATABASE, "--drain"])?;
    }
    let mut copy = restore(&world, "east", "latest", &["--latest"])?;
    promote(&mut copy)?;
    let rows = copy.psql("SELECT id FROM acknowledged ORDER BY id")?;
    let rows: Vec<u64> = rows.lines().filter_map(|row| row.parse().ok()).collect();
    let lost: Vec<&u64> =
        acknowledged.iter().filter(|id| rows.binary_search(id).is_err()).collect();
    ensure!(
        lost.is_empty(),
        "seed {seed}: {} of {} lost: {lost:?}",
        lost.len(),
        acknowledged.len()
    );
    // It came with the copy, and nobody is there to wait for.
    copy.psql("ALTER SYSTEM RESET synchronous_standby_names; SELECT pg_reload_conf()")?;
    oracle::amcheck(&copy)?;
    world.ok(&["repo", "check", "--read-data"])?;
    Ok(())
}

#[test]
fn pg15_kills_lose_nothing_that_the_spool_had() -> Result<()> {
    nothing_acknowledged_is_lost("spool", 5, 11)
}

#[test]
fn pg15_kills_lose_nothing_that_the_repository_had() -> Result<()> {
    nothing_acknowledged_is_lost("repository", 5, 12)
}

#[test]
fn pg15_a_receiver_that_dies_anywhere_goes_on() -> Result<()> {
    let mut world = streaming(15, "spool")?;
    let running = receiver(&world)?;
    be_synchronous(&mut world)?;
    ledger::create(&world.source)?;
    world.backup()?;
    kill(running)?;
    world.source.psql("ALTER SYSTEM RESET synchronous_standby_names; SELECT pg_reload_conf()")?;
    let points = ["receive.written", "receive.flushed", "receive.shipped", "receive.consolidated"];
    for failpoint in points {
        // Something for each of them: records, and the end of a segment.
        ledger::append(&world.source)?;
        world.source.psql("SELECT pg_switch_wal()")?;
        let words = world.arguments("east", &["wal", "receive", DATABASE]);
        world.lifeboat.killed_at(failpoint, words)?;
    }
    let running = receiver(&world)?;
    be_synchronous(&mut world)?;
    let point = ledger::append(&world.source)?;
    kill(running)?;
    world.source.kill9()?;
    world.ok(&["wal", "receive", DATABASE, "--drain"])?;
    world.ok(&["repo", "check", "--read-data"])?;
    let mut copy = restore(&world, "east", "latest", &["--latest"])?;
    promote(&mut copy)?;
    ledger::is_at(&copy, &point)
}

#[test]
fn pg15_a_clean_shutdown_is_received_to_its_last_record() -> Result<()> {
    let mut world = streaming(15, "spool")?;
    let running = receiver(&world)?;
    be_synchronous(&mut world)?;
    ledger::create(&world.source)?;
    ledger::append(&world.source)?;
    world.source.stop(Stop::Fast)?;
    running.signal(Signal::SIGTERM)?;
    let finished = running.wait(PATIENCE)?.success()?;
    ensure!(finished.stderr.contains("was shut down"), "{finished}");
    // The shutdown checkpoint is the last record, and begins before what was received ends.
    let mut command = world.source.installation().server_command("pg_controldata")?;
    let control = run(command.arg(world.source.data()))?.success()?;
    let line = control.stdout.lines().find(|line| line.starts_with("Latest checkpoint location"));
    let checkpoint = position(line.and_then(|line| line.split_whitespace().last()))?;
    let durable = finished
        .stdout
        .split_whitespace()
        .find(|word| word.contains('/') && !word.contains("shop"));
    ensure!(position(durable)? > checkpoint, "{finished}\n{}", control.stdout);
    Ok(())
}

fn position(text: Option<&str>) -> Result<u64> {
    let (high, low) = text.context("no position")?.split_once('/').context("no position")?;
    Ok((u64::from_str_radix(high, 16)? << 32) | u64::from_str_radix(low, 16)?)
}

#[test]
fn pg15_a_slot_that_was_lost_is_a_gap_that_is_told() -> Result<()> {
    let settings = ["max_slot_wal_keep_size = 1MB", "min_wal_size = 32MB", "wal_keep_size = 0"];
    let mut world = streaming_with(15, "spool", &settings)?;
    let running = receiver(&world)?;
    be_synchronous(&mut world)?;
    ledger::create(&world.source)?;
    kill(running)?;
    world.source.psql("ALTER SYSTEM RESET synchronous_standby_names; SELECT pg_reload_conf()")?;
    for _ in 0..6 {
        world.source.psql("SELECT pg_create_restore_point('fill'), pg_switch_wal()")?;
        world.source.psql("CHECKPOINT")?;
    }
    world.source.wait_for("SELECT wal_status FROM pg_replication_slots", "lost")?;
    let running = receiver(&world)?;
    be_synchronous(&mut world)?;
    world.backup()?;
    let point = ledger::append(&world.source)?;
    running.signal(Signal::SIGTERM)?;
    let finished = running.wait(PATIENCE)?.expect_code(3)?;
    ensure!(
        finished.stderr.contains("LB5008") && finished.stderr.contains("kept no WAL"),
        "{finished}"
    );
    let audit = world.repository("east").join("audit");
    ensure!(audit.exists(), "the gap is not in the audit log");
    let mut copy = restore(&world, "east", "latest", &["--latest"])?;
    promote(&mut copy)?;
    ledger::is_at(&copy, &point)
}

#[test]
fn pg15_a_promoted_standby_is_followed() -> Result<()> {
    let mut world = streaming(15, "spool")?;
    let running = receiver(&world)?;
    be_synchronous(&mut world)?;
    ledger::create(&world.source)?;
    world.backup()?;
    let mut standby = world.source.standby()?;
    let line = world.node("east-2", "east", &standby);
    world.edit_spec(|text| {
        text.replacen("        wal:", &format!("          {line}\n        wal:"), 1)
    })?;
    // It learns of the second node when it starts.
    kill(running)?;
    let running = receiver(&world)?;
    is_synchronous(&mut world.source)?;
    ledger::append(&world.source)?;
    world.source.wait_for_replay(&mut standby)?;
    world.source.kill9()?;
    standby.psql("SELECT pg_promote()")?;
    // Its commits wait from the start: the setting came with the copy or with the stream.
    standby.psql(&format!(
        "ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 ({RECEIVER})';
         SELECT pg_reload_conf()"
    ))?;
    is_synchronous(&mut standby)?;
    let point = ledger::append(&standby)?;
    kill(running)?;
    standby.kill9()?;
    world.ok(&["wal", "receive", DATABASE, "--drain"])?;
    let mut copy = restore(&world, "east", "latest", &["--latest"])?;
    promote(&mut copy)?;
    ledger::is_at(&copy, &point)
}

#[test]
fn pg15_a_sealed_receiver_lets_no_commit_through() -> Result<()> {
    let mut world = streaming(15, "spool")?;
    let running = receiver(&world)?;
    be_synchronous(&mut world)?;
    world.source.psql("CREATE TABLE acknowledged (id bigint PRIMARY KEY, filler text)")?;
    let client = Client::start(&world.source);
    client.wait_for_more(5)?;
    let sealed = world.json(&["wal", "seal", DATABASE, "--epoch", "0"])?;
    let flushed = position(sealed["durable_lsn"].as_str())?;
    running.wait(PATIENCE)?.expect_code(4)?;
    // Nothing that was acknowledged lies behind the seal, and nothing more is acknowledged.
    world.refused(4, "LB5012", &["wal", "receive", DATABASE])?;
    world.source.kill9()?;
    let acknowledged = client.stop()?;
    world.source.psql("SELECT 1").err().context("the server is down")?;
    world.source.start()?;
    world.source.psql("ALTER SYSTEM RESET synchronous_standby_names; SELECT pg_reload_conf()")?;
    let rows = world.source.psql("SELECT count(*) FROM acknowledged")?;
    ensure!(rows.parse::<usize>()? >= acknowledged.len());
    let end = position(Some(&world.source.psql("SELECT pg_current_wal_lsn()")?))?;
    ensure!(end >= flushed, "{end:X} {flushed:X}");
    let running = world.spawn(&["wal", "receive", DATABASE, "--epoch", "1"])?;
    be_synchronous(&mut world)?;
    running.signal(Signal::SIGTERM)?;
    running.wait(PATIENCE)?.success()?;
    Ok(())
}

#[test]
fn pg15_a_full_disk_under_the_spool_stops_acknowledging_and_loses_nothing() -> Result<()> {
    let mut world = streaming(15, "spool")?;
    let state = world.scratch.join("state");
    let volume = Volume::mount(&state, 80)?;
    let running = receiver(&world)?;
    be_synchronous(&mut world)?;
    ledger::create(&world.source)?;
    world.backup()?;
    // The repository is away and the disk is full: the spool cannot get another file.
    let (here, away) = (world.repository("east"), world.scratch.join("away"));
    std::fs::rename(&here, &away)?;
    volume.fill(1 << 20)?;
    world
        .source
        .psql("ALTER SYSTEM SET synchronous_standby_names = ''; SELECT pg_reload_conf()")?;
    let point = ledger::append(&world.source)?;
    for _ in 0..4 {
        world.source.psql("SELECT pg_create_restore_point('fill'), pg_switch_wal()")?;
    }
    let behind = format!(
        "SELECT flush_lsn < pg_current_wal_lsn() FROM pg_stat_replication
         WHERE application_name = '{RECEIVER}'"
    );
    SystemClock.sleep(Duration::from_secs(2));
    world.source.wait_for(&behind, "t")?;
    volume.empty()?;
    std::fs::rename(&away, &here)?;
    world.source.wait_for(&behind, "f")?;
    running.signal(Signal::SIGTERM)?;
    let finished = running.wait(PATIENCE)?.success()?;
    ensure!(finished.stderr.contains("the spool is full"), "{finished}");
    ensure!(finished.stderr.contains("the spool has room again"), "{finished}");
    let mut copy = restore(&world, "east", "latest", &["--latest"])?;
    promote(&mut copy)?;
    ledger::is_at(&copy, &point)
}
