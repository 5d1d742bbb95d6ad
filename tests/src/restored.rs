//! A restored copy, and what PostgreSQL's own tools say of it.

use std::fs;

use anyhow::{Result, ensure};
use lifeboat_testkit::oracle;
use lifeboat_testkit::postgres::{Cluster, Stop};
use lifeboat_testkit::process::{Finished, run};

use crate::world::{DATABASE, World};

/// Restores in a region with these flags, which must succeed; the copy is not started.
pub fn restore(world: &World, region: &str, name: &str, flags: &[&str]) -> Result<Cluster> {
    attempt(world, region, name, flags)?.success()?;
    Cluster::over(world.major(), world.target(name))
}

/// Restores in a region with these flags, whatever comes of it.
pub fn attempt(world: &World, region: &str, name: &str, flags: &[&str]) -> Result<Finished> {
    let to = world.target(name).to_string_lossy().into_owned();
    let words = [&["restore", DATABASE, "--to", to.as_str()], flags].concat();
    world.lifeboat.run(world.arguments(region, &words))
}

/// Starts a copy and waits until its recovery has ended in a promotion.
pub fn promote(copy: &mut Cluster) -> Result<()> {
    copy.start()?;
    copy.wait_for("SELECT pg_is_in_recovery()", "f")
}

/// The manifest of a copy holds, and its recovery ends in a promotion. Nothing is written to it.
pub fn verify(copy: &mut Cluster) -> Result<()> {
    oracle::verify_backup(copy.installation(), copy.data())?;
    promote(copy)
}

/// Every table, index and page of a running copy is sound.
pub fn judge(copy: &mut Cluster) -> Result<()> {
    oracle::amcheck(copy)?;
    if copy.installation().major() == 17 {
        return checksums_by_backup(copy);
    }
    copy.stop(Stop::Fast)?;
    oracle::checksums(copy.installation(), copy.data())?;
    copy.start()
}

/// `pg_checksums` reads only its own version's control file, and none is packaged for 17. The
/// server itself checks every page that it sends for a base backup.
fn checksums_by_backup(copy: &Cluster) -> Result<()> {
    let mut command = copy.installation().client_command("pg_basebackup")?;
    command.arg("-d").arg(copy.connection()).arg("-D").arg(copy.scratch().join("checked"));
    run(command.args(["--checkpoint=fast", "--wal-method=none"]))?.success()?;
    Ok(())
}

/// A restore that failed must not leave anything that a server would start.
pub fn not_startable(world: &World, name: &str) -> Result<()> {
    let target = world.target(name);
    ensure!(!target.join("global/pg_control").exists(), "{} can be started", target.display());
    Ok(())
}

/// A restore that was refused must not have written anything.
pub fn untouched(world: &World, name: &str) -> Result<()> {
    let target = world.target(name);
    let empty = match fs::read_dir(&target) {
        Ok(mut entries) => entries.next().is_none(),
        Err(_) => !target.exists(),
    };
    ensure!(empty, "{} was written to", target.display());
    Ok(())
}
