//! Dying at every place where it hurts: nothing half is ever listed, and the next run succeeds.

use anyhow::{Context, Result, ensure};
use lifeboat_scenarios::restored::{not_startable, restore, verify};
use lifeboat_scenarios::world::{DATABASE, Setup, World};
use lifeboat_scenarios::{ledger, objects};
use lifeboat_testkit::process::{Finished, PATIENCE};
use nix::sys::signal::Signal;

/// Every failpoint that a backup passes, and whether the backup is complete when it is hit.
const BACKUP: [(&str, bool); 9] = [
    ("backup.claimed", false),
    ("backup.started", false),
    ("backup.piece", false),
    ("backup.pack", false),
    ("backup.pack_stored", false),
    ("backup.copied", false),
    ("backup.stopped", false),
    ("backup.before_manifest", false),
    ("backup.after_manifest", true),
];

/// No session of the server holds a backup open, which the `backup_label` of a next one would
/// show; sessions of a dead client end by themselves.
fn no_backup_mode(world: &mut World) -> Result<()> {
    world.source.wait_for(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'lifeboat%'",
        "0",
    )
}

fn backup_killed(world: &World, failpoint: &str) -> Result<Finished> {
    world.lifeboat.killed_at(failpoint, world.arguments("east", &["backup", DATABASE]))
}

#[test]
fn pg15_a_killed_backup_is_absent_or_complete_and_the_next_one_succeeds() -> Result<()> {
    let mut world = World::start(15)?;
    world.source.pgbench(["-i", "-s", "1", "-q"])?;
    let mut complete = 0;
    for (failpoint, committed) in BACKUP {
        backup_killed(&world, failpoint)?;
        no_backup_mode(&mut world)?;
        complete += usize::from(committed);
        let listed = world.backups()?;
        ensure!(listed.len() == complete, "{failpoint}: {listed:?}");
        let name = world.backup()?;
        complete += 1;
        let listed = world.backups()?;
        ensure!(listed.len() == complete && listed.contains(&name), "{failpoint}: {listed:?}");
        world.ok(&["repo", "check"])?;
    }
    world.ok(&["repo", "check", "--read-data"])?;
    Ok(())
}

#[test]
fn pg15_an_interrupted_backup_exits_130_and_the_next_one_succeeds() -> Result<()> {
    let mut world = World::start(15)?;
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let words = world.arguments("east", &["backup", DATABASE]);
        let slow = world.archiver()?.variable("LIFEBOAT_FAILPOINTS", "backup.piece=sleep:50");
        let backup = slow.spawn(words)?;
        world.source.wait_for(
            "SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name LIKE 'lifeboat%'",
            "t",
        )?;
        backup.signal(signal)?;
        let finished = backup.wait(PATIENCE)?.expect_code(130)?;
        ensure!(finished.stderr.contains("LB9001"), "{finished}");
        no_backup_mode(&mut world)?;
        ensure!(world.backups()?.is_empty());
    }
    world.backup()?;
    world.ok(&["repo", "check", "--read-data"])?;
    Ok(())
}

#[test]
fn pg15_of_two_backups_on_one_host_the_second_is_refused() -> Result<()> {
    let mut world = World::start(15)?;
    let slow = world.archiver()?.variable("LIFEBOAT_FAILPOINTS", "backup.piece=sleep:5");
    let first = slow.spawn(world.arguments("east", &["backup", DATABASE]))?;
    world.source.wait_for(
        "SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name LIKE 'lifeboat%'",
        "t",
    )?;
    world.refused(4, "LB5001", &["backup", DATABASE])?;
    first.wait(PATIENCE)?.success()?;
    ensure!(world.backups()?.len() == 1);
    Ok(())
}

#[test]
fn pg15_two_backups_from_two_hosts_both_succeed() -> Result<()> {
    let mut world = World::start(15)?;
    // Another host shares nothing but the repositories: it has a state directory of its own.
    let other = world.scratch.folder("other-state")?;
    let text = std::fs::read_to_string(world.spec())?;
    let state = world.scratch.join("state");
    let text = text.replace(&state.display().to_string(), &other.display().to_string());
    let spec = world.scratch.file("other.yaml", text)?;
    let slow = world.archiver()?.variable("LIFEBOAT_FAILPOINTS", "backup.piece=sleep:5");
    let first = slow.spawn(world.arguments("east", &["backup", DATABASE]))?;
    world.source.wait_for(
        "SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name LIKE 'lifeboat%'",
        "t",
    )?;
    let spec = spec.to_string_lossy();
    world.lifeboat.ok(["--spec", &spec, "--here", "east", "backup", DATABASE])?;
    first.wait(PATIENCE)?.success()?;
    ensure!(world.backups()?.len() == 2);
    world.ok(&["repo", "check", "--read-data"])?;
    Ok(())
}

/// A world whose archiver never succeeds, so that a test can push by hand.
fn by_hand() -> Result<World> {
    Setup::new(15)?.archive_command("false").start()
}

/// Writes WAL and closes its segment; the segment's name.
fn close_segment(world: &World) -> Result<String> {
    let name = world.source.psql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")?;
    world.source.psql("SELECT pg_create_restore_point('here'), pg_switch_wal()")?;
    Ok(name)
}

#[test]
fn pg15_a_killed_push_leaves_one_object_and_the_retry_exits_0() -> Result<()> {
    let world = by_hand()?;
    for failpoint in ["push.start", "push.encoded", "push.stored", "push.acked"] {
        let name = close_segment(&world)?;
        let path = format!("pg_wal/{name}");
        let words = world.arguments("east", &["wal", "push", &path, "--db", DATABASE]);
        world.archiver()?.killed_at(failpoint, words)?;
        let before: Vec<_> = ["east", "west"]
            .iter()
            .map(|region| objects::contents(&world.repository(region)))
            .collect::<Result<_>>()?;
        world.push(&path)?.success()?;
        world.push(&path)?.success()?;
        for (region, before) in ["east", "west"].iter().zip(before) {
            let after = objects::contents(&world.repository(region))?;
            let key = format!("wal/00000001/{name}");
            let count = after.keys().filter(|other| other.ends_with(&key)).count();
            ensure!(count == 1, "{failpoint}: {count} objects for {name} in {region}");
            // What is there is never changed.
            let staging = |key: &String| key.contains(".tmp") || key.contains('#');
            for (key, bytes) in before.iter().filter(|(key, _)| !staging(key)) {
                ensure!(after.get(key) == Some(bytes), "{failpoint}: {key} changed in {region}");
            }
        }
    }
    world.ok(&["repo", "check", "--read-data"])?;
    Ok(())
}

#[test]
fn pg15_a_killed_repo_create_is_continued_by_running_it_again() -> Result<()> {
    for failpoint in ["create.slot", "create.before_format"] {
        let mut world = Setup::new(15)?.prepare()?;
        world.lifeboat.killed_at(failpoint, world.arguments("east", &["repo", "create"]))?;
        world.refused(1, "LB3001", &["backups", "list", DATABASE])?;
        world.ok(&["repo", "create"])?;
        world.ok(&["repo", "check", "--read-data"])?;
        world.source.start()?;
        world.backup()?;
    }
    Ok(())
}

/// Every failpoint of a restore, and whether a server can start when it is hit.
const RESTORE: [(&str, bool); 6] = [
    ("restore.planned", false),
    ("restore.directory_made", false),
    ("restore.half", false),
    ("restore.files_done", false),
    ("restore.before_control", false),
    ("restore.after_control", true),
];

#[test]
fn pg15_a_killed_restore_cannot_start_and_is_continued_by_running_it_again() -> Result<()> {
    let mut world = World::start(15)?;
    ledger::create(&world.source)?;
    ledger::append(&world.source)?;
    world.backup()?;
    let point = ledger::append(&world.source)?;
    world.archive()?;
    for (failpoint, startable) in RESTORE {
        let to = world.target(failpoint).to_string_lossy().into_owned();
        let words = ["restore", DATABASE, "--to", &to, "--latest"];
        world.lifeboat.killed_at(failpoint, world.arguments("east", &words))?;
        if !startable {
            not_startable(&world, failpoint)?;
        }
        let mut copy = restore(&world, "east", failpoint, &["--latest"])?;
        verify(&mut copy).context(failpoint)?;
        ledger::is_at(&copy, &point).context(failpoint)?;
    }
    Ok(())
}

#[test]
fn pg15_an_interrupted_restore_exits_130_and_is_continued() -> Result<()> {
    let mut world = World::start(15)?;
    ledger::create(&world.source)?;
    let point = ledger::append(&world.source)?;
    world.backup()?;
    world.archive()?;
    let to = world.target("interrupted");
    let slow = world.archiver()?.variable("LIFEBOAT_FAILPOINTS", "restore.half=sleep:2000");
    let shown = to.to_string_lossy();
    let words = ["restore", DATABASE, "--to", &shown, "--latest"];
    let running = slow.spawn(world.arguments("east", &words))?;
    world.wait_until("the first file", || Ok(to.join("base").is_dir()))?;
    running.signal(Signal::SIGINT)?;
    let finished = running.wait(PATIENCE)?.expect_code(130)?;
    ensure!(finished.stderr.contains("LB9001"), "{finished}");
    not_startable(&world, "interrupted")?;
    let mut copy = restore(&world, "east", "interrupted", &["--latest"])?;
    verify(&mut copy)?;
    ledger::is_at(&copy, &point)
}

#[test]
fn pg15_a_killed_fetch_leaves_no_file_that_recovery_would_take() -> Result<()> {
    let mut world = World::start(15)?;
    let name = close_segment(&world)?;
    world.wait_for_archiver()?;
    let original = std::fs::read(world.source.data().join("pg_wal").join(&name));
    let destination = world.scratch.folder("fetched")?.join("segment");
    let shown = destination.to_string_lossy().into_owned();
    let words = world.arguments("west", &["wal", "fetch", &name, &shown, "--db", DATABASE]);
    let fetcher = world.archiver()?;
    for failpoint in ["fetch.read", "fetch.written"] {
        fetcher.killed_at(failpoint, words.clone())?;
        ensure!(!destination.exists(), "{failpoint}: half a file");
    }
    fetcher.ok(words)?;
    let fetched = std::fs::read(&destination)?;
    ensure!(fetched.len() == 16 * 1024 * 1024, "{} bytes", fetched.len());
    if let Ok(original) = original {
        ensure!(fetched == original, "the segment differs");
    }
    Ok(())
}
