//! Dying at every place where it hurts: nothing half is ever listed, and the next run succeeds.

use anyhow::{Result, ensure};
use lifeboat_scenarios::world::{DATABASE, World};
use lifeboat_testkit::process::Finished;
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
        let finished = backup.wait(lifeboat_testkit::process::PATIENCE)?.expect_code(130)?;
        ensure!(finished.stderr.contains("LB9001"), "{finished}");
        no_backup_mode(&mut world)?;
        ensure!(world.backups()?.is_empty());
    }
    world.backup()?;
    world.ok(&["repo", "check", "--read-data"])?;
    Ok(())
}
