//! WAL that lies in the repositories as fragments only is as good as whole segments.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lifeboat_environment::{Clock, SystemClock};
use lifeboat_model::{Lsn, SegmentName, SegmentSize, Timeline};
use lifeboat_scenarios::fragments::{Cutter, stand_by, written};
use lifeboat_scenarios::ledger::{self, Point};
use lifeboat_scenarios::restored::{promote, restore, untouched, verify};
use lifeboat_scenarios::world::{DATABASE, Setup, World, refused};
use lifeboat_testkit::oracle;
use lifeboat_testkit::postgres::Stop;
use lifeboat_testkit::process::{Account, run};
use lifeboat_testkit::scratch;

const REGIONS: [&str; 2] = ["east", "west"];

/// A world with a backup, whose server archives nothing from then on.
fn unarchived(major: u32, segments_mb: u32) -> Result<World> {
    let setup = Setup::new(major)?.cluster(|builder| builder.wal_segment_size_mb(segments_mb));
    let mut world = setup.start()?;
    ledger::create(&world.source)?;
    ledger::append(&world.source)?;
    world.source.pgbench(["-i", "-s", "1"])?;
    world.backup()?;
    world.archive()?;
    world.source.psql("ALTER SYSTEM SET archive_command = '/bin/true'")?;
    world.source.psql("SELECT pg_reload_conf()")?;
    Ok(world)
}

/// Three points among other traffic.
fn three_points(world: &World) -> Result<Vec<Point>> {
    let mut points = Vec::new();
    for _ in 0..3 {
        world.source.pgbench(["-t", "300", "-c", "2"])?;
        points.push(ledger::append(&world.source)?);
    }
    Ok(points)
}

/// Restores to each kind of target in the tail, from fragments that were cut with this seed.
fn the_tail_is_restored(major: u32, segments_mb: u32, seed: u64) -> Result<()> {
    let mut world = unarchived(major, segments_mb)?;
    let mut cutter = Cutter::new(&world, &REGIONS, seed)?;
    let points = three_points(&world)?;
    let end = written(&world)?;
    world.source.kill9()?;
    let count = cutter.ship(&world, &REGIONS, end)?;
    ensure!(count > 20, "only {count} fragments");
    let cases: [(&str, Vec<&str>, &Point); 5] = [
        ("latest", vec!["--latest"], &points[2]),
        ("lsn", vec!["--lsn", &points[1].lsn], &points[1]),
        ("time", vec!["--time", &points[0].time], &points[0]),
        ("xid", vec!["--xid", &points[1].xid], &points[1]),
        ("name", vec!["--name", &points[0].name], &points[0]),
    ];
    for (name, flags, point) in cases {
        let mut copy = restore(&world, "west", name, &flags).with_context(|| name.to_owned())?;
        verify(&mut copy).with_context(|| name.to_owned())?;
        ledger::is_at(&copy, point).with_context(|| name.to_owned())?;
    }
    // Nothing is promised behind the end.
    let after = Lsn(end.0 + 1).to_string();
    let to = world.target("after").to_string_lossy().into_owned();
    let words = ["restore", DATABASE, "--to", &to, "--lsn", &after];
    refused(world.run(&words)?, 4, "LB")?;
    untouched(&world, "after")?;
    the_tools_accept(&world, end)?;
    world.ok(&["repo", "check", "--read-data"])?;
    let status = world.json(&["wal", "status", DATABASE])?;
    let region = &status["incarnations"][0]["regions"][0];
    ensure!(region["gaps"].as_array().is_some_and(Vec::is_empty), "{status}");
    ensure!(region["shipped"]["lsn"] == end.to_string(), "{status}");
    ensure!(region["receivers"].as_array().is_some_and(|all| all.len() == 3), "{status}");
    Ok(())
}

/// Fetches every segment as a recovery would, and shows them to PostgreSQL's tools.
fn the_tools_accept(world: &World, end: Lsn) -> Result<()> {
    let copy = restore(world, "west", "tools", &["--latest"])?;
    let settings = fs::read_to_string(copy.data().join("postgresql.auto.conf"))?;
    let command = settings
        .lines()
        .filter_map(|line| line.strip_prefix("restore_command = '")?.strip_suffix('\''))
        .next_back()
        .context("no restore_command")?
        .replace("''", "'");
    let (written, fetched) = (world.source.data().join("pg_wal"), world.scratch.folder("fetched")?);
    let names = segments_upto(&written, end)?;
    for name in &names {
        let place = fetched.join(name);
        let command = command.replace("%f", name).replace("%p", &place.to_string_lossy());
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(command).current_dir(copy.data());
        Account::of_server()?.apply(&mut shell);
        run(&mut shell)?.success().with_context(|| name.clone())?;
    }
    // Every record that was written, and nothing behind it.
    let records = |folder: &Path| -> Result<String> {
        let mut command = world.source.installation().client_command("pg_waldump")?;
        command.arg("--path").arg(folder).arg("--end").arg(end.to_string());
        command.args([names.first().context("no segment")?, names.last().context("none")?]);
        Ok(run(&mut command)?.success()?.stdout)
    };
    let found = records(&fetched)?;
    ensure!(found == records(&written)?, "other records");
    ensure!(found.lines().count() > 1000, "{} records", found.lines().count());
    if copy.installation().major() < 17 {
        // The packaged one of 18 crashes.
        let mut command = copy.installation().client_command("pg_verifybackup")?;
        run(command.arg("--wal-directory").arg(&fetched).arg(copy.data()))?.success()?;
    }
    Ok(())
}

/// Names of the segments in `pg_wal`, without those that wait to be used again.
fn segments_upto(pg_wal: &Path, end: Lsn) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(pg_wal)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().to_string_lossy().parse::<SegmentName>() else {
            continue;
        };
        let size = SegmentSize::new(entry.metadata()?.len()).context("no segment size")?;
        if name.start(size).is_some_and(|start| start < end) {
            names.push(name.to_string());
        }
    }
    names.sort();
    Ok(names)
}

#[test]
fn pg15_a_tail_of_fragments_is_restored_to_any_target() -> Result<()> {
    the_tail_is_restored(15, 1, 7)
}

#[test]
fn pg16_a_tail_of_fragments_is_restored_to_any_target() -> Result<()> {
    the_tail_is_restored(16, 16, 8)
}

#[test]
fn pg18_a_tail_of_fragments_is_restored_to_any_target() -> Result<()> {
    the_tail_is_restored(18, 16, 9)
}

#[test]
fn pg15_a_tail_of_fragments_of_large_segments_is_restored() -> Result<()> {
    the_tail_is_restored(15, 64, 10)
}

/// A standby that knows nothing but `wal fetch` gets each fragment soon after it came.
fn a_standby_follows(major: u32) -> Result<()> {
    let world = unarchived(major, 1)?;
    let mut cutter = Cutter::new(&world, &REGIONS, 11)?;
    let mut standby = restore(&world, "east", "standby", &["--latest"])?;
    stand_by(standby.data())?;
    standby.start()?;
    for round in 0..8 {
        let point = ledger::append(&world.source)?;
        if round % 3 == 2 {
            world.source.pgbench(["-t", "400", "-c", "2"])?;
        }
        let end = written(&world)?;
        cutter.ship(&world, &REGIONS, end)?;
        let digest = "SELECT md5(coalesce(string_agg(l::text, ',' ORDER BY id), '')) FROM ledger l";
        standby.wait_for(digest, &point.digest)?;
        ensure!(standby.psql("SELECT pg_is_in_recovery()")? == "t", "it was promoted");
    }
    standby.psql("SELECT pg_promote()")?;
    standby.wait_for("SELECT pg_is_in_recovery()", "f")?;
    oracle::amcheck(&standby)
}

#[test]
fn pg15_a_standby_follows_fragments() -> Result<()> {
    a_standby_follows(15)
}

#[test]
fn pg18_a_standby_follows_fragments() -> Result<()> {
    a_standby_follows(18)
}

/// A standby that streamed more than the repository has keeps it: with the shorter file of the archive
/// in its place, PostgreSQL would find its last record missing and end its promotion in a PANIC.
fn what_was_streamed_outlives_a_shorter_tail(major: u32) -> Result<()> {
    let mut world = unarchived(major, 16)?;
    let mut cutter = Cutter::new(&world, &REGIONS, 13)?;
    let mut standby = restore(&world, "east", "standby", &["--latest"])?;
    stand_by(standby.data())?;
    let settings = standby.data().join("postgresql.auto.conf");
    let conninfo = format!("primary_conninfo = '{}'\n", world.source.connection());
    scratch::write(&settings, fs::read_to_string(&settings)? + &conninfo)?;
    standby.start()?;
    ledger::append(&world.source)?;
    cutter.ship(&world, &REGIONS, written(&world)?)?;
    let point = ledger::append(&world.source)?;
    let end = written(&world)?;
    let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{end}'");
    standby.wait_for(&replayed, "t")?;
    world.source.kill9()?;
    // Without anybody to stream from, it asks the archive, again and again.
    let lost = "SELECT count(*) FROM pg_stat_wal_receiver";
    standby.wait_for(lost, "0")?;
    SystemClock.sleep(Duration::from_secs(2));
    standby.psql("SELECT pg_promote(true, 300)")?;
    standby.wait_for("SELECT pg_is_in_recovery()", "f")?;
    ledger::is_at(&standby, &point)?;
    let log = standby.log();
    ensure!(!log.contains("PANIC"), "{log}");
    oracle::amcheck(&standby)
}

#[test]
fn pg15_what_was_streamed_outlives_a_shorter_tail() -> Result<()> {
    what_was_streamed_outlives_a_shorter_tail(15)
}

#[test]
fn pg18_what_was_streamed_outlives_a_shorter_tail() -> Result<()> {
    what_was_streamed_outlives_a_shorter_tail(18)
}

#[test]
fn pg15_a_promotion_is_followed_through_fragments() -> Result<()> {
    let mut world = unarchived(15, 1)?;
    let mut cutter = Cutter::new(&world, &REGIONS, 12)?;
    let before = ledger::append(&world.source)?;
    ledger::append(&world.source)?;
    cutter.ship(&world, &REGIONS, written(&world)?)?;
    world.source.stop(Stop::Fast)?;
    // A server that archives closes its segment before it ends; its last record lies behind.
    let closed = cutter.segment_end();
    cutter.ship(&world, &REGIONS, closed)?;
    scratch::write(&world.source.data().join("recovery.signal"), "")?;
    let settings = fs::read_to_string(world.source.configuration())?;
    scratch::write(world.source.configuration(), settings + "restore_command = 'false'\n")?;
    world.source.start()?;
    world.source.wait_for("SELECT pg_is_in_recovery()", "f")?;

    let history = fs::read_to_string(world.source.data().join("pg_wal/00000002.history"))?;
    let branch: Lsn = history.split_whitespace().nth(1).context("no branch")?.parse()?;
    world.push("pg_wal/00000002.history")?.success()?;
    cutter.follow(Timeline(2), branch);
    // As long as there is only the copy of what the parent wrote, the parent is read.
    cutter.ship(&world, &REGIONS, Lsn(branch.0 - 1))?;
    let mut copy = restore(&world, "west", "parent", &["--lsn", &before.lsn])?;
    promote(&mut copy)?;
    ledger::is_at(&copy, &before)?;

    let after = ledger::append(&world.source)?;
    let end = written(&world)?;
    world.source.kill9()?;
    cutter.ship(&world, &REGIONS, end)?;
    for (name, flags, point) in
        [("before", vec!["--lsn", &before.lsn], &before), ("after", vec!["--latest"], &after)]
    {
        let mut copy = restore(&world, "east", name, &flags)?;
        verify(&mut copy).with_context(|| name.to_owned())?;
        ledger::is_at(&copy, point).with_context(|| name.to_owned())?;
    }
    world.ok(&["wal", "status", DATABASE])?;
    Ok(())
}
