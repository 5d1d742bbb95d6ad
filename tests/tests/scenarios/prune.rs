//! WAL goes when no backup needs it, not earlier.

use std::fs::File;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lifeboat_environment::{Clock, SystemClock};
use lifeboat_scenarios::ledger;
use lifeboat_scenarios::objects;
use lifeboat_scenarios::restored::{restore, verify};
use lifeboat_scenarios::world::{DATABASE, World};
use serde_json::Value;

const DAY: Duration = Duration::from_secs(86_400);

/// Makes every WAL object of a region as old as that.
fn age(world: &World, region: &str, age: Duration) -> Result<()> {
    let then = std::time::SystemTime::from(SystemClock.now()) - age;
    for (key, path) in objects::all(&world.repository(region))? {
        if key.contains("/wal/") {
            File::options().write(true).open(path)?.set_modified(then)?;
        }
    }
    Ok(())
}

/// What `repo prune` did in a region.
fn pruned(report: &Value, region: &str) -> Result<Value> {
    let streams = report["streams"].as_array().context("no streams")?;
    let found = streams.iter().find(|stream| stream["region"] == region);
    found.cloned().with_context(|| format!("{region} is not in {report}"))
}

fn segments(world: &World, region: &str) -> Result<Vec<String>> {
    let all = objects::all(&world.repository(region))?;
    Ok(all.into_keys().filter(|key| key.contains("/wal/")).collect())
}

#[test]
fn pg15_wal_goes_when_every_backup_begins_behind_it() -> Result<()> {
    let mut world = World::start(15)?;
    ledger::create(&world.source)?;
    for _ in 0..3 {
        ledger::append(&world.source)?;
        world.archive()?;
    }
    let early = segments(&world, "east")?;
    ensure!(early.len() >= 3, "{early:?}");

    age(&world, "east", DAY * 3)?;
    let none = pruned(&world.json(&["repo", "prune"])?, "east")?;
    ensure!(none["held"] == "there is no backup yet", "{none}");
    ensure!(none["before_backups"]["objects"] == 0 && segments(&world, "east")? == early);

    world.backup()?;
    let point = ledger::append(&world.source)?;
    world.archive()?;
    let young = pruned(&world.json(&["repo", "prune", "--dry-run"])?, "west")?;
    ensure!(young["before_backups"]["objects"] == 0, "an hour is too young: {young}");
    ensure!(young["too_young"].as_u64() >= Some(early.len() as u64), "{young}");

    let before = segments(&world, "east")?;
    let shown = pruned(&world.json(&["repo", "prune", "--dry-run"])?, "east")?;
    ensure!(segments(&world, "east")? == before, "a dry run deletes nothing");
    let done = pruned(&world.json(&["repo", "prune"])?, "east")?;
    ensure!(done["before_backups"] == shown["before_backups"], "{done} after {shown}");
    let after = segments(&world, "east")?;
    ensure!(early.iter().all(|key| !after.contains(key)), "{after:?}");
    ensure!(before.len() - after.len() == early.len(), "{before:?} became {after:?}");

    // One region is pruned, the other is not: nothing is wrong with either.
    world.ok(&["wal", "status", DATABASE])?;
    world.ok(&["repo", "check", "--read-data"])?;
    let mut copy = restore(&world, "east", "latest", &["--latest"])?;
    verify(&mut copy)?;
    ledger::is_at(&copy, &point)
}
