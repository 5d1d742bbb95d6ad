//! Commits that wait for a receiver survive whatever dies: receiver, server, both regions' clocks.

use anyhow::Result;
use lifeboat_scenarios::ledger;
use lifeboat_scenarios::restored::{promote, restore};
use lifeboat_scenarios::world::{DATABASE, Setup, World};
use lifeboat_testkit::process::{PATIENCE, Running};
use nix::sys::signal::Signal;

/// A world whose WAL goes nowhere but through receivers.
fn streaming(major: u32) -> Result<World> {
    Setup::new(major)?
        .archive_command("/bin/true")
        .wal("mode: stream, receivers: [east, west], acknowledge: { remote: 1 }")
        .start()
}

/// Starts a receiver in region east, where the server is.
fn receiver(world: &World) -> Result<Running> {
    world.spawn(&["wal", "receive", DATABASE])
}

/// Waits until the server counts the receiver as its synchronous standby.
fn be_synchronous(world: &mut World) -> Result<()> {
    world.source.psql(
        "ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (lifeboat_shop_main_east)';
         SELECT pg_reload_conf()",
    )?;
    is_synchronous(world)
}

fn is_synchronous(world: &mut World) -> Result<()> {
    world.source.wait_for(
        "SELECT count(*) FROM pg_stat_replication
         WHERE application_name = 'lifeboat_shop_main_east' AND sync_state = 'quorum'",
        "1",
    )
}

#[test]
fn pg15_what_was_acknowledged_is_restored_from_the_repository_alone() -> Result<()> {
    let mut world = streaming(15)?;
    let running = receiver(&world)?;
    be_synchronous(&mut world)?;
    ledger::create(&world.source)?;
    world.backup()?;
    let point = ledger::append(&world.source)?;
    // The receiver dies first, then the server: nobody gets to say goodbye.
    running.signal(Signal::SIGKILL)?;
    running.wait(PATIENCE)?;
    world.source.kill9()?;
    world.ok(&["wal", "receive", DATABASE, "--drain"])?;
    let mut copy = restore(&world, "east", "latest", &["--latest"])?;
    promote(&mut copy)?;
    ledger::is_at(&copy, &point)
}
