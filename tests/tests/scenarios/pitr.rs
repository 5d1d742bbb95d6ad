//! Point-in-time recovery: exactly the state that was asked for, or a refusal.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use lifeboat_environment::{Random, SeededRandom};
use lifeboat_scenarios::ledger::{self, Point};
use lifeboat_scenarios::restored::{attempt, promote, restore, untouched, verify};
use lifeboat_scenarios::world::{DATABASE, Setup, World, refused};
use lifeboat_testkit::oracle;
use lifeboat_testkit::postgres::{Cluster, Stop};
use lifeboat_testkit::process::{PATIENCE, run, wait_until};
use lifeboat_testkit::scratch;

/// A world with a backup after the first of five points; all is archived.
fn five_points(major: u32) -> Result<(World, String, Vec<Point>)> {
    let mut world = World::start(major)?;
    ledger::create(&world.source)?;
    let mut points = vec![ledger::append(&world.source)?];
    let backup = world.backup()?;
    for number in 1..5 {
        points.push(ledger::append(&world.source)?);
        if number % 2 == 0 {
            world.source.psql("SELECT pg_switch_wal()")?;
        }
    }
    world.archive()?;
    Ok((world, backup, points))
}

fn targets(major: u32) -> Result<()> {
    let (world, backup, points) = five_points(major)?;
    let cases: [(&str, Vec<&str>, &Point); 7] = [
        ("time", vec!["--time", &points[1].time], &points[1]),
        ("lsn", vec!["--lsn", &points[2].lsn], &points[2]),
        ("xid", vec!["--xid", &points[3].xid], &points[3]),
        ("name", vec!["--name", &points[2].name], &points[2]),
        ("immediate", vec!["--immediate"], &points[0]),
        ("backup", vec!["--backup", &backup], &points[0]),
        ("latest", vec!["--latest"], &points[4]),
    ];
    for (name, flags, point) in cases {
        let mut copy = restore(&world, "west", name, &flags)?;
        verify(&mut copy).with_context(|| name.to_owned())?;
        ledger::is_at(&copy, point).with_context(|| name.to_owned())?;
    }
    Ok(())
}

#[test]
fn pg13_each_kind_of_target_is_met_exactly() -> Result<()> {
    targets(13)
}

#[test]
fn pg15_each_kind_of_target_is_met_exactly() -> Result<()> {
    targets(15)
}

#[test]
fn pg18_each_kind_of_target_is_met_exactly() -> Result<()> {
    targets(18)
}

#[test]
fn pg15_a_target_that_cannot_be_met_is_refused_before_anything_is_written() -> Result<()> {
    let mut world = World::start(15)?;
    ledger::create(&world.source)?;
    let before = ledger::append(&world.source)?;
    refused(attempt(&world, "east", "none", &["--latest"])?, 1, "LB6003")?;
    untouched(&world, "none")?;
    world.backup()?;
    let inside = ledger::append(&world.source)?;
    world.archive()?;
    let zone_less = inside.time.trim_end_matches('Z');
    let cases: [(&[&str], i32, &str); 10] = [
        (&["--time", &before.time], 4, "LB6001"),
        (&["--time", "2099-01-01T00:00:00Z"], 4, "LB6001"),
        (&["--time", zone_less], 2, "LB6006"),
        (&["--time", "yesterday"], 2, "LB"),
        (&["--lsn", &before.lsn], 4, "LB6001"),
        (&["--lsn", "FF/0"], 4, "LB6001"),
        (&["--name", "never-made"], 4, "LB6001"),
        (&["--backup", "no-such-backup"], 1, "LB3012"),
        (&["--latest", "--immediate"], 2, "LB1001"),
        (&["--latest", "--timeline", "7"], 1, "LB6003"),
    ];
    for (flags, code, error) in cases {
        let finished = attempt(&world, "east", "refused", flags)?;
        refused(finished, code, error).with_context(|| flags.join(" "))?;
        untouched(&world, "refused").with_context(|| flags.join(" "))?;
    }
    Ok(())
}

#[test]
fn pg15_a_transaction_that_never_was_ends_in_an_error_and_not_in_another_state() -> Result<()> {
    let (world, _, points) = five_points(15)?;
    let xid: u64 = points[4].xid.parse()?;
    let finished = attempt(&world, "east", "xid", &["--xid", &(xid + 1000).to_string()])?;
    if finished.code == Some(4) {
        return untouched(&world, "xid");
    }
    finished.success()?;
    let mut copy = Cluster::over(15, world.target("xid"))?;
    let start = copy.start().and_then(|()| copy.wait_for("SELECT pg_is_in_recovery()", "f"));
    ensure!(start.is_err(), "it promoted without its target");
    ensure!(copy.log().contains("before configured recovery target was reached"), copy.log());
    Ok(())
}

#[test]
fn pg15_the_copy_pauses_or_shuts_down_at_the_target() -> Result<()> {
    let (world, _, points) = five_points(15)?;
    let flags = ["--name", points[2].name.as_str(), "--target-action"];
    let mut copy = restore(&world, "east", "pause", &[&flags[..], &["pause"]].concat())?;
    copy.start()?;
    copy.wait_for("SELECT pg_get_wal_replay_pause_state()", "paused")?;
    ledger::is_at(&copy, &points[2])?;
    copy.psql("SELECT pg_wal_replay_resume()")?;
    copy.wait_for("SELECT pg_is_in_recovery()", "f")?;
    ledger::is_at(&copy, &points[2])?;

    let mut copy = restore(&world, "east", "shutdown", &[&flags[..], &["shutdown"]].concat())?;
    copy.launch()?;
    copy.wait_for_end()?;
    ensure!(copy.log().contains("shutdown at recovery target"), copy.log());
    Ok(())
}

/// A restored copy that is adopted begins timeline 2; both timelines can be restored.
#[test]
fn pg15_the_right_timeline_is_followed() -> Result<()> {
    let (mut world, _, points) = five_points(15)?;
    world.source.stop(Stop::Fast)?;
    let to = world.source.data().to_string_lossy().into_owned();
    let words = ["restore", DATABASE, "--to", &to, "--delta", "--adopt", "--name", &points[2].name];
    world.ok(&words)?;
    world.source.start()?;
    world.source.wait_for("SELECT pg_is_in_recovery()", "f")?;
    ledger::is_at(&world.source, &points[2])?;
    world.backup()?;
    let other = ledger::append(&world.source)?;
    let newest = ledger::append(&world.source)?;
    world.archive()?;

    let mut copy = restore(&world, "west", "new", &["--latest"])?;
    promote(&mut copy)?;
    ledger::is_at(&copy, &newest).context("the newest state")?;
    let mut copy = restore(&world, "west", "branch", &["--name", &other.name])?;
    promote(&mut copy)?;
    ledger::is_at(&copy, &other).context("a point on the newest timeline")?;
    // What was abandoned is not lost.
    let mut copy = restore(&world, "west", "old", &["--xid", &points[4].xid, "--timeline", "1"])?;
    promote(&mut copy)?;
    ledger::is_at(&copy, &points[4]).context("the abandoned timeline")
}

/// Beside Lifeboat's archive a plain directory, for a reference that has nothing of Lifeboat.
struct Reference {
    base: PathBuf,
    wal: PathBuf,
}

impl Reference {
    fn take(world: &World, wal: PathBuf) -> Result<Self> {
        let base = world.scratch.join("reference");
        let mut command = world.source.installation().client_command("pg_basebackup")?;
        command.arg("-d").arg(world.source.connection()).arg("-D").arg(&base);
        run(command.args(["--checkpoint=fast", "--wal-method=none"]))?.success()?;
        Ok(Self { base, wal })
    }

    /// A copy that was replayed up to a position, and stopped.
    fn replay(&self, world: &World, lsn: &str, name: &str) -> Result<Cluster> {
        let data = world.scratch.join(name);
        run(Command::new("cp").arg("-a").arg(&self.base).arg(&data))?.success()?;
        let automatic = data.join("postgresql.auto.conf");
        let mut text = fs::read_to_string(&automatic)?;
        text.push_str(&format!(
            "archive_mode = off\nrestore_command = 'cp {}/%f %p'\nrecovery_target_lsn = '{lsn}'\n\
             recovery_target_action = promote\n",
            self.wal.display()
        ));
        scratch::write(&automatic, text)?;
        scratch::write(&data.join("recovery.signal"), "")?;
        let mut cluster = Cluster::over(world.major(), data)?;
        replayed(&mut cluster)?;
        Ok(cluster)
    }
}

/// Recovers and stops without a single session: even a query may prune a page.
fn replayed(cluster: &mut Cluster) -> Result<()> {
    cluster.start()?;
    // Without hot standby a server counts as started when its recovery has begun.
    let status = cluster.data().join("postmaster.pid");
    let promoted = wait_until(PATIENCE, || {
        let Ok(status) = fs::read_to_string(&status) else {
            anyhow::bail!("the server ended:\n{}", cluster.log());
        };
        Ok(status.lines().nth(7).is_some_and(|line| line.trim() == "ready"))
    })?;
    ensure!(promoted, "recovery did not end:\n{}", cluster.log());
    cluster.stop(Stop::Fast)
}

/// Changes of every kind, while something runs beside it. The other strategy of CREATE DATABASE
/// logs visibility maps without their bits: a replay legitimately lacks what the source has.
fn change(cluster: &Cluster, round: u32) -> Result<()> {
    cluster.psql(&format!(
        "CREATE TABLE t{round} AS SELECT n, md5(n::text) AS s FROM generate_series(1, 3000) AS n;
         CREATE INDEX ON t{round} (n); CREATE INDEX ON t{round} USING hash (s);
         DELETE FROM t{round} WHERE n % 3 = 0; VACUUM t{round};
         UPDATE t{round} SET s = s || s WHERE n % 5 = 0;
         CREATE TABLE gone{round} AS SELECT generate_series(1, 1000) AS n;
         DROP TABLE gone{round};
         INSERT INTO pages SELECT n, point(n, n), ARRAY[n, n % 7] FROM generate_series(1, 500) AS n;
         TRUNCATE emptied; INSERT INTO emptied SELECT generate_series(1, 2000);
         CREATE DATABASE d{round} STRATEGY file_copy; VACUUM FULL pgbench_tellers;
         SELECT pg_switch_wal()"
    ))?;
    Ok(())
}

/// Restores at random positions and compares block by block with the reference.
fn equals_the_reference(major: u32, seed: u64, points: u32) -> Result<()> {
    let setup = Setup::new(major)?;
    let wal = setup.scratch().folder("plain")?;
    let copy = format!("cp \"%p\" {}/\"%f\" && {{push}}", wal.display());
    let mut world = setup
        .archive_command(&copy)
        .cluster(|builder| builder.setting("autovacuum = off").setting("hot_standby = off"))
        .start()?;
    world.source.pgbench(["-i", "-s", "1", "-q"])?;
    world.source.psql(
        "CREATE TABLE pages (n int, p point, a int[]); CREATE INDEX ON pages USING gist (p);
         CREATE INDEX ON pages USING gin (a); CREATE INDEX ON pages USING brin (n);
         CREATE TABLE emptied (n int); CREATE SEQUENCE q",
    )?;
    let reference = Reference::take(&world, wal)?;
    let load = world.source.pgbench_in_background(["-T", "1000", "-n", "-R", "100"])?;
    world.backup()?;
    let first = world.json(&["backups", "list", DATABASE])?["backups"][0]["stop_lsn"].clone();
    let first = first.as_str().context("no stop LSN")?.to_owned();
    for round in 0..4 {
        change(&world.source, round)?;
        if round == 1 {
            world.backup()?;
        }
    }
    drop(load);
    // A position counts only up to the beginning of the last record that is archived; the padding
    // of a switched segment lies behind it.
    let last = world.source.psql("SELECT pg_logical_emit_message(true, '', 'the last record')")?;
    world.archive()?;
    let bytes: u64 = world.source.psql(&format!("SELECT '{last}'::pg_lsn - '{first}'"))?.parse()?;
    let random = SeededRandom::new(seed);
    for number in 0..points {
        let offset = random.next_u64() % bytes;
        let lsn = world.source.psql(&format!("SELECT '{first}'::pg_lsn + {offset}"))?;
        one_point(&world, &reference, &lsn, number)
            .with_context(|| format!("seed {seed}, LSN {lsn} ({first} + {offset})"))?;
    }
    Ok(())
}

fn one_point(world: &World, reference: &Reference, lsn: &str, number: u32) -> Result<()> {
    let name = format!("lsn-{number}");
    let mut copy = restore(world, "west", &name, &["--lsn", lsn])?;
    oracle::verify_backup(copy.installation(), copy.data())?;
    replayed(&mut copy)?;
    let expected = reference.replay(world, lsn, &format!("expected-{number}"))?;
    let found = oracle::compare(copy.data(), expected.data())?.equal()?;
    ensure!(found.pages > 1000, "only {} pages were compared", found.pages);
    remove(copy.data())?;
    remove(expected.data())
}

fn remove(directory: &Path) -> Result<()> {
    fs::remove_dir_all(directory).with_context(|| directory.display().to_string())
}

#[test]
fn pg15_random_positions_equal_the_reference_block_by_block() -> Result<()> {
    equals_the_reference(15, 1, 6)
}

#[test]
fn pg18_random_positions_equal_the_reference_block_by_block() -> Result<()> {
    equals_the_reference(18, 2, 3)
}
