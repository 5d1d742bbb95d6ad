//! Stores that fail, lie, hang or fill up: success is true, failure is clear and bounded, and the
//! next run succeeds.

use std::fs;

use anyhow::{Result, bail, ensure};
use lifeboat_scenarios::clouds::{Clouds, is_clear};
use lifeboat_scenarios::ledger;
use lifeboat_scenarios::restored::{attempt, promote, restore, verify};
use lifeboat_scenarios::volume::Volume;
use lifeboat_scenarios::world::{DATABASE, Setup, World};
use lifeboat_testkit::postgres::Cluster;
use lifeboat_testkit::store::{Fault, FaultProxy, Kind, Profile};

#[test]
fn pg15_two_calm_clouds() -> Result<()> {
    let mut clouds = Clouds::start("{push}")?;
    clouds.is_well()?;
    clouds.world.ok(&["repo", "check", "--read-data"])?;
    Ok(())
}

#[test]
fn pg15_two_clouds_on_a_bad_day() -> Result<()> {
    let mut clouds = Clouds::start("{push}")?;
    clouds.both(Profile::AWS_BAD_DAY);
    clouds.world.backup()?;
    let point = ledger::append(&clouds.world.source)?;
    clouds.world.archive()?;
    clouds.comes_back("bad-day", &point)?;
    clouds.is_well()
}

#[test]
fn pg15_clouds_that_do_what_they_are_told_and_lose_the_answer() -> Result<()> {
    let mut clouds = Clouds::start("{push}")?;
    for call in 0..400 {
        // Every second call, whatever it is.
        clouds.proxies[0].fail_call(call * 2, Fault::LostReply);
        clouds.proxies[1].fail_call(call * 2 + 1, Fault::ErrorAfterwards);
    }
    clouds.world.backup()?;
    let point = ledger::append(&clouds.world.source)?;
    clouds.world.archive()?;
    clouds.comes_back("lost", &point)?;
    clouds.is_well()
}

#[test]
fn pg15_a_cloud_that_acknowledges_and_stores_nothing_is_found_out() -> Result<()> {
    let clouds = Clouds::start("false")?;
    for liars in [&[0][..], &[0, 1]] {
        clouds.calm();
        for liar in liars {
            clouds.proxies[*liar].fail_kind(Kind::Put, Fault::AcknowledgeOnly);
        }
        let name = clouds.close()?;
        let push = clouds.world.push(&format!("pg_wal/{name}"))?;
        match push.code {
            // I7: who says 0 has it.
            Some(0) => {
                ensure!(clouds.holds(0, &name) || clouds.holds(1, &name), "{name} is lost: {push}");
            }
            Some(1..=125) => is_clear(&push)?,
            _ => bail!("{push}"),
        }
    }
    clouds.calm();
    let name = clouds.close()?;
    clouds.world.push(&format!("pg_wal/{name}"))?.success()?;
    Ok(())
}

/// What a lying store took is never listed as a backup there.
fn backup_into(lie: impl Fn(&FaultProxy)) -> Result<()> {
    let mut clouds = Clouds::start("{push}")?;
    clouds.world.archive()?;
    lie(&clouds.proxies[0]);
    let taken = clouds.world.run(&["backup", DATABASE])?;
    ensure!(taken.code == Some(5), "{taken}");
    is_clear(&taken)?;
    clouds.calm();
    clouds.backups_are_whole()?;
    let point = ledger::append(&clouds.world.source)?;
    clouds.world.archive()?;
    clouds.comes_back("lied", &point)
}

#[test]
fn pg15_a_backup_into_a_cloud_that_stores_nothing_is_partial() -> Result<()> {
    backup_into(|proxy| proxy.fail_kind(Kind::Put, Fault::AcknowledgeOnly))
}

#[test]
fn pg15_a_backup_into_a_cloud_that_stores_halves_is_partial() -> Result<()> {
    backup_into(|proxy| proxy.fail_kind(Kind::Put, Fault::Halve))
}

#[test]
fn pg15_a_backup_into_a_cloud_that_lies_now_and_then_is_partial() -> Result<()> {
    backup_into(|proxy| proxy.set_profile(Profile::LIAR))
}

#[test]
fn pg15_clouds_that_never_answer_end_in_a_deadline() -> Result<()> {
    let clouds = Clouds::start("false")?;
    // One region: the push is done by the other.
    clouds.proxies[0].set_profile(Profile::TARPIT);
    let name = clouds.close()?;
    clouds.world.push(&format!("pg_wal/{name}"))?.success()?;
    ensure!(clouds.holds(1, &name));
    // Both: it fails, by its deadline, as PostgreSQL can count.
    clouds.both(Profile::TARPIT);
    let name = clouds.close()?;
    let path = format!("pg_wal/{name}");
    let words = ["wal", "push", &path, "--db", DATABASE, "--deadline", "3s"];
    let push = clouds.world.archiver()?.run(clouds.world.arguments("east", &words))?;
    ensure!(push.code.is_some_and(|code| (1..=125).contains(&code)), "{push}");
    is_clear(&push)?;
    let words = ["wal", "fetch", &name, "x", "--db", DATABASE, "--deadline", "3s"];
    let fetch = clouds.world.archiver()?.run(clouds.world.arguments("east", &words))?;
    ensure!(fetch.code == Some(200), "{fetch}");
    is_clear(&fetch)?;
    clouds.calm();
    clouds.world.push(&path)?.success()?;
    clouds.world.push(&path)?.success()?;
    Ok(())
}

#[test]
fn pg15_a_region_that_never_answers_does_not_hold_up_a_backup_for_ever() -> Result<()> {
    let mut clouds = Clouds::start("{push}")?;
    clouds.world.archive()?;
    clouds.proxies[0].set_profile(Profile::TARPIT);
    let taken = clouds.world.run(&["backup", DATABASE])?;
    ensure!(taken.code == Some(5), "{taken}");
    ensure!(taken.stderr.contains("east"), "{taken}");
    clouds.calm();
    clouds.backups_are_whole()?;
    let point = ledger::append(&clouds.world.source)?;
    clouds.world.archive()?;
    clouds.comes_back("held-up", &point)
}

#[test]
fn pg15_a_region_that_goes_away_during_a_backup_is_left_out() -> Result<()> {
    let mut clouds = Clouds::start("{push}")?;
    clouds.world.archive()?;
    for (number, first) in [3, 8, 15].into_iter().enumerate() {
        clouds.calm();
        for call in first..500 {
            clouds.proxies[0].fail_call(call, Fault::Deny);
        }
        let taken = clouds.world.run(&["backup", DATABASE])?;
        ensure!(taken.code == Some(5), "from call {first} on: {taken}");
        is_clear(&taken)?;
        clouds.calm();
        let listed = clouds.world.json(&["backups", "list", DATABASE])?;
        let regions = &listed["backups"][number]["regions"];
        ensure!(*regions == serde_json::json!(["west"]), "from call {first} on: {listed}");
        clouds.backups_are_whole()?;
    }
    let point = ledger::append(&clouds.world.source)?;
    clouds.world.archive()?;
    clouds.comes_back("left-out", &point)
}

#[test]
fn pg15_a_region_that_is_away_is_named_and_the_backup_is_valid() -> Result<()> {
    let mut world = World::start(15)?;
    ledger::create(&world.source)?;
    world.backup()?;
    world.archive()?;
    let (east, away) = (world.repository("east"), world.scratch.join("east-away"));
    fs::rename(&east, &away)?;
    let finished = world.run(&["backup", DATABASE, "--json"])?.expect_code(5)?;
    let document = finished.json()?;
    ensure!(document["error"]["code"] == "LB5004", "{document}");
    ensure!(document["result"]["skipped"] == serde_json::json!(["east"]), "{document}");
    ensure!(document["result"]["regions"] == serde_json::json!(["west"]), "{document}");
    let point = ledger::append(&world.source)?;
    world.archive()?;
    ensure!(!east.exists(), "something was made where the repository should be");
    let mut copy = restore(&world, "east", "from-west", &["--latest"])?;
    verify(&mut copy)?;
    ledger::is_at(&copy, &point)?;
    // Back again, with its lag named. The end of its WAL is not the newest state.
    fs::rename(&away, &east)?;
    let finished = attempt(&world, "east", "from-both", &["--latest"])?.success()?;
    ensure!(finished.stdout.contains("goes on behind"), "{finished}");
    let mut copy = Cluster::over(15, world.target("from-both"))?;
    promote(&mut copy)?;
    ledger::is_at(&copy, &point)?;
    let status = world.run(&["wal", "status", "--json"])?.expect_code(5)?;
    ensure!(status.stdout.contains("\"lag\""), "{status}");
    world.backup()?;
    Ok(())
}

#[test]
fn pg15_a_full_repository_fails_clearly_and_heals() -> Result<()> {
    let mut world = Setup::new(15)?.archive_command("false").prepare()?;
    let mounted =
        |region: &str| -> Result<Volume> { Volume::mount(&world.scratch.folder(region)?, 3) };
    let (east, west) = (mounted("east")?, mounted("west")?);
    world.ok(&["repo", "create"])?;
    world.source.start()?;
    world.source.psql("CREATE TABLE t AS SELECT n, md5(n::text) || md5((n * 7)::text) AS s FROM generate_series(1, 40000) AS n")?;
    let name = world.source.psql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")?;
    world.source.psql("SELECT pg_switch_wal()")?;
    let path = format!("pg_wal/{name}");
    // One region: named, and the other has everything.
    west.resize(200)?;
    east.fill(0)?;
    world.push(&path)?.success()?;
    east.empty()?;
    // Both: nothing is pretended.
    west.fill(0)?;
    east.fill(0)?;
    let name = world.source.psql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")?;
    world.source.psql("SELECT pg_create_restore_point('x'), pg_switch_wal()")?;
    let path = format!("pg_wal/{name}");
    let push = world.push(&path)?;
    ensure!(push.code.is_some_and(|code| (1..=125).contains(&code)), "{push}");
    is_clear(&push)?;
    let backup = world.run(&["backup", DATABASE])?;
    ensure!(backup.code == Some(1), "{backup}");
    ensure!(backup.stderr.contains("LB2006"), "{backup}");
    is_clear(&backup)?;
    // Full in the middle of the packs.
    for volume in [&east, &west] {
        volume.empty()?;
        volume.fill(2 << 20)?;
    }
    let backup = world.run(&["backup", DATABASE])?;
    ensure!(backup.code == Some(1), "{backup}");
    ensure!(backup.stderr.contains("LB2006"), "{backup}");
    for volume in [&east, &west] {
        volume.empty()?;
        volume.resize(300)?;
    }
    ensure!(world.backups()?.is_empty());
    world.push(&path)?.success()?;
    // The archiver works from now on.
    let program = world.lifeboat.program().display().to_string();
    let push = format!(
        "{program} --spec {} --here east wal push \"%p\" --db {DATABASE}",
        world.spec().display()
    );
    world.source.psql(&format!("ALTER SYSTEM SET archive_command = '{push}'"))?;
    world.source.psql("SELECT pg_reload_conf()")?;
    world.backup()?;
    world.archive()?;
    world.ok(&["repo", "check", "--read-data"])?;
    let mut copy = restore(&world, "east", "healed", &["--latest"])?;
    verify(&mut copy)
}
