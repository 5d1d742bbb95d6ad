//! A full disk at every stage: success is true, failure is clear, nothing is lost or pretended, and
//! the next run succeeds once there is room.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use lifeboat_scenarios::restored::{attempt, judge, restore, verify};
use lifeboat_scenarios::volume::Volume;
use lifeboat_scenarios::world::{DATABASE, Setup, World, refused};
use lifeboat_scenarios::{ledger, objects};
use lifeboat_testkit::postgres::{Builder, Cluster};
use lifeboat_testkit::process::{Finished, PATIENCE, run};
use lifeboat_testkit::scratch;

/// Bytes that are left free, and the folder of the stream's that is short of them.
const STAGES: [(&str, u64); 5] =
    [("sessions", 0), ("packs", 0), ("packs", 1 << 20), ("maps", 0), ("manifests", 0)];

/// A push or a fetch failed, said why, and PostgreSQL counts it as it should.
fn failed(finished: &Finished, codes: std::ops::RangeInclusive<i32>) -> Result<()> {
    ensure!(finished.code.is_some_and(|code| codes.contains(&code)), "{finished}");
    ensure!(finished.stderr.contains("error[LB2006]"), "{finished}");
    ensure!(finished.stderr.contains("hint:"), "no hint in {finished}");
    Ok(())
}

/// Closes a segment with something in it; its path as PostgreSQL says it.
fn close(world: &World) -> Result<String> {
    let name = world.source.psql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")?;
    world.source.psql("SELECT pg_create_restore_point('x'), pg_switch_wal()")?;
    Ok(format!("pg_wal/{name}"))
}

fn each(volumes: &[Volume], act: impl Fn(&Volume) -> Result<()>) -> Result<()> {
    volumes.iter().try_for_each(act)
}

/// A small disk under one folder of the stream.
fn disk_of(world: &World, region: &str, folder: &str) -> Result<Volume> {
    let streams = world.repository("east").join("streams");
    let stream = fs::read_dir(streams)?.next().context("no stream")??.file_name();
    let place = format!("{region}/streams/{}/{folder}", stream.to_string_lossy());
    Volume::mount(&world.scratch.folder(&place)?, 100)
}

#[test]
fn pg15_a_repository_that_is_full_at_any_stage_of_a_backup() -> Result<()> {
    let mut world = World::start(15)?;
    world.archive()?;
    // A small disk for each kind of object, so that each stage can be the one that fails.
    let disks = |folder: &str| -> Result<[Volume; 2]> {
        Ok([disk_of(&world, "east", folder)?, disk_of(&world, "west", folder)?])
    };
    let folders = ["sessions", "packs", "maps", "manifests"];
    let disks: Vec<[Volume; 2]> = folders.iter().map(|name| disks(name)).collect::<Result<_>>()?;
    let disks_of = |folder: &str| folders.iter().zip(&disks).find(|(name, _)| **name == folder);
    for (folder, leave) in STAGES {
        let (_, disks) = disks_of(folder).context("no such folder")?;
        each(disks, |disk| disk.fill(leave))?;
        let taken = world.refused(1, "LB2006", &["backup", DATABASE])?;
        ensure!(taken.stderr.contains(&format!("/{folder}/")), "not at {folder}: {taken}");
        each(disks, Volume::empty)?;
        ensure!(world.backups()?.is_empty(), "{folder}: something is listed");
        world.ok(&["repo", "check"])?;
    }
    world.backup()?;
    ledger::create(&world.source)?;
    let point = ledger::append(&world.source)?;
    world.archive()?;
    world.ok(&["repo", "check", "--read-data"])?;
    let mut copy = restore(&world, "west", "healed", &["--latest"])?;
    verify(&mut copy)?;
    ledger::is_at(&copy, &point)?;
    // One region alone: it is named, and the backup is valid in the other.
    let (_, [_, west]) = disks_of("packs").context("no packs")?;
    west.fill(1 << 20)?;
    let taken = world.refused(5, "west", &["backup", DATABASE])?;
    ensure!(taken.stderr.contains("No space left"), "{taken}");
    west.empty()?;
    ensure!(world.backups()?.len() == 2);
    let newest = world.backups()?.pop().context("no backup")?;
    let planned = attempt(&world, "west", "newest", &["--backup", &newest, "--dry-run"])?;
    ensure!(planned.success()?.stdout.contains("read from  east"), "the plan reads from west");
    Ok(())
}

#[test]
fn pg15_a_backup_whose_wal_finds_no_room_waits_and_ends_well() -> Result<()> {
    let mut world = World::start(15)?;
    world.archive()?;
    // Small disks under the WAL of this timeline alone.
    let disks =
        [disk_of(&world, "east", "wal/00000001")?, disk_of(&world, "west", "wal/00000001")?];
    each(&disks, |disk| disk.fill(0))?;
    let backup = world.spawn(&["backup", DATABASE])?;
    world.wait_until("the packs", || {
        Ok(!objects::of_kind(&world.repository("west"), 7)?.is_empty())
    })?;
    world.source.wait_for("SELECT failed_count > 0 FROM pg_stat_archiver", "t")?;
    ensure!(world.backups()?.is_empty(), "a backup without its WAL is listed");
    each(&disks, Volume::empty)?;
    // The archiver tries again when there is something new.
    close(&world)?;
    backup.wait(PATIENCE)?.success()?;
    world.archive()?;
    world.ok(&["repo", "check", "--read-data"])?;
    ensure!(world.backups()?.len() == 1);
    Ok(())
}

#[test]
fn pg15_a_segment_of_which_only_a_part_finds_room_does_not_exist() -> Result<()> {
    let change = |builder: Builder| builder.wal_segment_size_mb(64);
    let mut world = Setup::new(15)?.archive_command("false").cluster(change).prepare()?;
    let mount =
        |region: &str| -> Result<Volume> { Volume::mount(&world.scratch.folder(region)?, 24) };
    let disks = [mount("east")?, mount("west")?];
    world.ok(&["repo", "create"])?;
    world.source.start()?;
    let noise = "SELECT pg_logical_emit_message(false, 'x', string_agg(md5(n::text), ''))
                 FROM generate_series(1, 900000) AS n";
    let path = {
        let name = world.source.psql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")?;
        world.source.psql(noise)?;
        world.source.psql(noise)?;
        world.source.psql("SELECT pg_switch_wal()")?;
        format!("pg_wal/{name}")
    };
    failed(&world.push(&path)?, 1..=125)?;
    for region in ["east", "west"] {
        let stored = objects::all(&world.repository(region))?;
        ensure!(stored.keys().any(|key| key.contains(".part-")), "no part was stored in {region}");
        let name = path.trim_start_matches("pg_wal");
        ensure!(!stored.keys().any(|key| key.ends_with(name)), "{region} pretends to have it");
    }
    each(&disks, |disk| disk.resize(100))?;
    world.push(&path)?.success()?;
    world.ok(&["repo", "check", "--read-data"])?;
    is_fetched(&world, &path, &world.scratch.folder("fetched")?)
}

/// Fetches a segment into a folder; it must be the one that the server still has.
fn is_fetched(world: &World, path: &str, folder: &Path) -> Result<()> {
    fetch(world, path, folder)?.success()?;
    let name = path.trim_start_matches("pg_wal/");
    let same = fs::read(folder.join(name))? == fs::read(world.source.data().join(path))?;
    ensure!(same, "{name} differs");
    Ok(fs::remove_file(folder.join(name))?)
}

fn fetch(world: &World, path: &str, folder: &Path) -> Result<Finished> {
    let name = path.trim_start_matches("pg_wal/");
    let destination = folder.join(name).to_string_lossy().into_owned();
    let words = ["wal", "fetch", name, &destination, "--db", DATABASE, "--deadline", "1s"];
    world.archiver()?.run(world.arguments("east", &words))
}

#[test]
fn pg15_a_full_pg_wal_or_queue_is_told_from_an_absent_segment() -> Result<()> {
    let mut world = Setup::new(15)?.archive_command("false").prepare()?;
    // Notes, keys and the segments that are fetched ahead: room for one of them.
    let state = Volume::mount(&world.scratch.join("state"), 20)?;
    world.ok(&["repo", "create"])?;
    world.source.start()?;
    let paths = (0..4).map(|_| close(&world)).collect::<Result<Vec<_>>>()?;
    for path in &paths {
        world.push(path)?.success()?;
    }
    // The destination is full: neither a file, nor a half one, nor the answer "absent".
    let folder = world.scratch.folder("fetched")?;
    let disk = Volume::mount(&folder, 8)?;
    failed(&fetch(&world, &paths[0], &folder)?, 200..=200)?;
    ensure!(fs::read_dir(&folder)?.count() == 0, "something was left");
    disk.resize(64)?;
    // The queue has too little room for what is fetched ahead; each segment comes all the same.
    for path in &paths {
        is_fetched(&world, path, &folder)?;
    }
    // And with no room at all.
    state.fill(0)?;
    for path in &paths {
        is_fetched(&world, path, &folder)?;
    }
    Ok(())
}

#[test]
fn pg15_a_full_state_directory_stops_neither_archiving_nor_a_backup() -> Result<()> {
    let mut world = Setup::new(15)?.prepare()?;
    let state = Volume::mount(&world.scratch.join("state"), 2)?;
    world.ok(&["repo", "create"])?;
    world.source.start()?;
    ledger::create(&world.source)?;
    state.fill(0)?;
    let point = ledger::append(&world.source)?;
    // What lies there only saves time.
    world.archive()?;
    world.backup()?;
    ensure!(world.source.psql("SELECT failed_count FROM pg_stat_archiver")? == "0");
    let mut copy = restore(&world, "west", "copy", &["--latest"])?;
    verify(&mut copy)?;
    ledger::is_at(&copy, &point)
}

/// Where a failpoint holds a restore whose disk fills up, and the percentage of files that are
/// there then.
const RESTORE: [(&str, u64); 3] =
    [("restore.directory_made", 0), ("restore.files_done", 95), ("restore.half", 50)];

/// Files below a folder, if there is one; it may be changing.
fn count(folder: &Path) -> Result<u64> {
    let mut command = Command::new("find");
    let found = run(command.arg(folder).args(["-type", "f"]))?;
    Ok(found.stdout.lines().count() as u64)
}

#[test]
fn pg15_a_target_that_fills_up_again_and_again_is_continued() -> Result<()> {
    let mut world = World::start(15)?;
    let place = world.scratch.folder("space")?;
    world.source.psql(&format!("CREATE TABLESPACE space LOCATION '{}'", place.display()))?;
    world
        .source
        .psql("CREATE TABLE t TABLESPACE space AS SELECT generate_series(1, 90000) AS n")?;
    ledger::create(&world.source)?;
    world.backup()?;
    let point = ledger::append(&world.source)?;
    world.archive()?;
    // Each on a disk that somebody else fills, too.
    let (small, smaller) = (world.scratch.folder("small")?, world.scratch.folder("smaller")?);
    let disks = [Volume::mount(&small, 20)?, Volume::mount(&smaller, 2)?];
    let (target, moved) = (small.join("restored"), smaller.join("moved space"));
    let to = target.to_string_lossy().into_owned();
    let map = format!("{}={}", place.display(), moved.display());
    let words = ["restore", DATABASE, "--to", &to, "--latest", "--tablespace", &map];
    // Too small from the start: refused before anything is written.
    world.refused(1, "LB2006", &words)?;
    disks[0].resize(200)?;
    world.refused(1, "LB2006", &words)?;
    ensure!(!target.exists() && !moved.exists(), "something was written");
    disks[1].resize(100)?;

    let planned = world.json(&[words.as_slice(), &["--dry-run"]].concat())?;
    let files = planned["plan"]["files"].as_u64().context("no count")?;
    for (failpoint, percent) in RESTORE {
        let hold = format!("{failpoint}=sleep:2000");
        let slow = world.archiver()?.variable("LIFEBOAT_FAILPOINTS", &hold);
        // Tells when a restore that goes on has looked at what is there.
        let stray = target.join("stray");
        if target.exists() {
            scratch::write(&stray, "not of the backup")?;
        }
        let running = slow.spawn(world.arguments("east", &words))?;
        world.wait_until(failpoint, || {
            let there = count(&target)? + count(&moved)?;
            Ok(there > 0 && there >= files * percent / 100 && !stray.exists())
        })?;
        each(&disks, |disk| disk.fill(0))?;
        refused(running.wait(PATIENCE)?, 1, "LB2006").context(failpoint)?;
        ensure!(!target.join("global/pg_control").exists(), "{failpoint}: it can be started");
        each(&disks, Volume::empty)?;
    }
    let planned = world.json(&[words.as_slice(), &["--dry-run"]].concat())?;
    ensure!(planned["plan"]["found"] == "interrupted", "{planned}");
    world.ok(&words)?;
    let mut copy = Cluster::over(15, &target)?;
    verify(&mut copy)?;
    ledger::is_at(&copy, &point)?;
    ensure!(copy.psql("SELECT count(*) FROM t")? == "90000");
    judge(&mut copy)
}
