//! One damaged object of each class: found, named, and never restored as if it were sound.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use lifeboat_scenarios::ledger::{self, Point};
use lifeboat_scenarios::objects;
use lifeboat_scenarios::restored::{attempt, not_startable, verify};
use lifeboat_scenarios::world::{DATABASE, Setup, World};
use lifeboat_testkit::oracle;
use lifeboat_testkit::postgres::{Cluster, Stop};
use lifeboat_testkit::process::run;
use lifeboat_testkit::scratch;

const SLOT: u16 = 2;
const BINDING: u16 = 5;
const MANIFEST: u16 = 11;
const SEGMENT: u16 = 12;
const AUDIT: u16 = 22;

/// What happens to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Harm {
    Truncated,
    Flipped,
    Missing,
    Swapped,
}

const HARMS: [Harm; 4] = [Harm::Truncated, Harm::Flipped, Harm::Missing, Harm::Swapped];

/// What a restore from nothing but the damaged region comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Restore {
    /// It fails and leaves nothing that starts.
    Fails,
    /// It works: the object is not needed for it.
    Works,
    /// It is refused, or the server stops at the damage; it never promotes short of the target.
    NeverShort,
}

/// A world of two backups on two timelines, with two objects of every class where that can be; the
/// server is stopped.
fn two_incarnations() -> Result<(World, Point)> {
    let setup = Setup::new(15)?;
    let key = setup.scratch().join("vault.key");
    let slots = format!("{{ key_file: \"file:{}\" }}, {{ recovery_key: {{}} }}", key.display());
    // Nobody mends the damage while a fetch tries again.
    let setup = setup.slots(slots).wal("mode: archive, every: 5m, fetch_deadline: 5s");
    let mut world = setup.start()?;
    world.ok(&["key", "enroll", "--renew"])?;
    ledger::create(&world.source)?;
    ledger::append(&world.source)?;
    world.backup()?;
    world.archive()?;
    world.source.stop(Stop::Fast)?;
    let to = world.source.data().to_string_lossy().into_owned();
    world.ok(&["restore", DATABASE, "--to", &to, "--delta", "--adopt", "--latest"])?;
    world.source.start()?;
    world.source.wait_for("SELECT pg_is_in_recovery()", "f")?;
    // More than one leaf, so that there is a map; more than a pack.
    world.source.psql(
        "CREATE TABLE large AS SELECT n, md5(n::text) || md5((n + 1)::text) AS s
         FROM generate_series(1, 400000) AS n",
    )?;
    world.backup()?;
    world.archive()?;
    let point = ledger::append(&world.source)?;
    world.archive()?;
    world.source.stop(Stop::Fast)?;
    world.ok(&["repo", "check", "--read-data"])?;
    Ok((world, point))
}

fn harm(harm: Harm, object: &Path, other: &Path) -> Result<()> {
    let bytes = fs::read(object)?;
    match harm {
        Harm::Truncated => scratch::write(object, &bytes[..bytes.len() - 1]),
        Harm::Flipped => oracle::flip_bit(object, bytes.len() as u64 / 2),
        Harm::Missing => Ok(fs::remove_file(object)?),
        Harm::Swapped => {
            let others = fs::read(other)?;
            scratch::write(object, others)?;
            scratch::write(other, bytes)
        }
    }
}

/// Damages the newest object of a type in east in each way, and looks what comes of it.
fn class(kind: u16, named: &str, expected: Restore) -> Result<()> {
    let (world, point) = two_incarnations()?;
    let (east, west) = (world.repository("east"), world.repository("west"));
    let sound = world.scratch.join("sound");
    run(std::process::Command::new("cp").arg("-a").arg(&east).arg(&sound))?.success()?;
    let (key, path, other) = victim(&east, kind, named)?;
    for (number, how) in HARMS.into_iter().enumerate() {
        let shown = format!("{how:?} {key}");
        harm(how, &path, &other)?;
        is_found(&world, how, &key).with_context(|| shown.clone())?;

        // With the other region at hand the state comes back whole, or nothing does.
        let name = format!("both-{number}");
        let finished = attempt(&world, "east", &name, &["--latest"])?;
        judged(&world, how, &name, finished.code, &point).with_context(|| shown.clone())?;

        let away = world.scratch.join("west-away");
        fs::rename(&west, &away)?;
        let name = format!("alone-{number}");
        let finished = attempt(&world, "east", &name, &["--latest"])?;
        fs::rename(&away, &west)?;
        match (finished.code, expected) {
            // Without its binding an incarnation is known by its backups, and named.
            (Some(0), _) if kind == BINDING && how == Harm::Missing => {
                ensure!(finished.stdout.contains("no binding names"), "{finished}");
                fs::rename(&west, &away)?;
                let judged = never_short(&world, &name, &point);
                fs::rename(&away, &west)?;
                judged.with_context(|| shown.clone())?;
            }
            // Without its only backup it is out of reach, but known, and named.
            (Some(0), _) if kind == MANIFEST && how == Harm::Missing => {
                ensure!(finished.stdout.contains("is read, an older one"), "{finished}");
            }
            (Some(0), Restore::Fails) => bail!("{shown}: nobody noticed: {finished}"),
            (Some(0), Restore::Works) => {}
            (Some(0), Restore::NeverShort) => {
                fs::rename(&west, &away)?;
                let judged = never_short(&world, &name, &point);
                fs::rename(&away, &west)?;
                judged.with_context(|| shown.clone())?;
            }
            (_, Restore::Works) => bail!("{shown}: {finished}"),
            (_, _) => {
                let said = &finished.stderr;
                ensure!(said.contains("error[LB"), "{shown}: no code in {finished}");
                ensure!(said.contains("hint:"), "{shown}: no hint in {finished}");
                not_startable(&world, &name).with_context(|| shown.clone())?;
            }
        }
        fs::remove_dir_all(&east)?;
        run(std::process::Command::new("cp").arg("-a").arg(&sound).arg(&east))?.success()?;
    }
    world.ok(&["repo", "check", "--read-data"])?;
    Ok(())
}

/// The newest object of a type whose name contains `named`, and another one to exchange it with.
fn victim(repository: &Path, kind: u16, named: &str) -> Result<(String, PathBuf, PathBuf)> {
    let mut all = objects::of_kind(repository, kind)?;
    all.retain(|(key, _)| key.contains(named));
    let newest = |path: &Path| fs::metadata(path).and_then(|found| found.modified());
    let mut all: Vec<_> =
        all.into_iter().map(|(key, path)| (newest(&path).ok(), key, path)).collect();
    all.sort();
    if kind == SEGMENT {
        // The newest one is the end of the archive: nobody can know that there was more.
        all.pop();
    }
    let (_, key, path) = all.pop().with_context(|| format!("no object of type {kind}"))?;
    // Where there is one only, one of another type stands in. Two damaged slots would be both.
    let stands_in = all.pop().filter(|_| kind != SLOT).map(|(_, _, other)| other);
    let other = match stands_in {
        Some(other) => other,
        None => objects::of_kind(repository, AUDIT)?.pop().context("no audit entry")?.1,
    };
    Ok((key, path, other))
}

/// `repo check --read-data` does not pass, and names the object; where that is `format`, the
/// region that cannot be opened without it.
fn is_found(world: &World, how: Harm, key: &str) -> Result<()> {
    let lost_backup = how == Harm::Missing && key.contains("/manifests/");
    if lost_backup {
        // A region that was away has no such backup either: that is lag, and told as such.
        let name = key.rsplit('/').next().unwrap_or_default();
        let status = world.run(&["wal", "status", "--json"])?.expect_code(5)?;
        ensure!(status.stdout.contains(name), "{status}");
        return Ok(());
    }
    let finished = world.run(&["repo", "check", "--read-data", "--json"])?;
    let said = format!("{}{}", finished.stdout, finished.stderr);
    let named = if key == "format" { "east" } else { key };
    ensure!(said.contains(named), "{finished}\nexpected {named}");
    if key == "format" {
        ensure!(matches!(finished.code, Some(3..=5)), "{finished}");
        return Ok(());
    }
    finished.expect_code(3).map(drop)
}

/// A restore that had both regions: the exact state, or a failure that leaves nothing to start.
fn judged(world: &World, how: Harm, name: &str, code: Option<i32>, point: &Point) -> Result<()> {
    if code != Some(0) {
        return not_startable(world, name);
    }
    let mut copy = Cluster::over(15, world.target(name))?;
    if how != Harm::Flipped {
        return oracle::verify_backup(copy.installation(), copy.data());
    }
    verify(&mut copy)?;
    ledger::is_at(&copy, point)
}

/// The server comes to the exact state, or it stops; it never takes less for the end.
fn never_short(world: &World, name: &str, point: &Point) -> Result<()> {
    let mut copy = Cluster::over(15, world.target(name))?;
    oracle::verify_backup(copy.installation(), copy.data())?;
    copy.launch()?;
    let log = || copy.log();
    let over = |log: &str| log.contains("recovery complete") || log.contains("is shut down");
    world.wait_until("the end of the recovery", || Ok(over(&log())))?;
    if log().contains("is shut down") {
        return Ok(());
    }
    copy.wait_for("SELECT pg_is_in_recovery()", "f")?;
    ledger::is_at(&copy, point)
}

#[test]
fn pg15_a_damaged_pack() -> Result<()> {
    class(7, "", Restore::Fails)
}

#[test]
fn pg15_a_damaged_map() -> Result<()> {
    class(8, "", Restore::Fails)
}

#[test]
fn pg15_a_damaged_file_table() -> Result<()> {
    class(9, "", Restore::Fails)
}

#[test]
fn pg15_a_damaged_object_table() -> Result<()> {
    class(10, "", Restore::Works)
}

#[test]
fn pg15_a_damaged_manifest() -> Result<()> {
    class(MANIFEST, "", Restore::Fails)
}

#[test]
fn pg15_a_damaged_segment() -> Result<()> {
    class(SEGMENT, "wal/00000002/", Restore::NeverShort)
}

#[test]
fn pg15_a_damaged_history_file() -> Result<()> {
    class(15, ".history", Restore::NeverShort)
}

#[test]
fn pg15_a_damaged_slot() -> Result<()> {
    class(SLOT, "", Restore::Works)
}

#[test]
fn pg15_a_damaged_certificate() -> Result<()> {
    class(3, "", Restore::Fails)
}

#[test]
fn pg15_a_damaged_binding() -> Result<()> {
    class(BINDING, "", Restore::Fails)
}

#[test]
fn pg15_a_damaged_format() -> Result<()> {
    class(1, "", Restore::Fails)
}

#[test]
fn pg15_a_push_goes_past_a_region_with_a_damaged_format() -> Result<()> {
    let world = Setup::new(15)?.archive_command("false").start()?;
    let format = world.repository("east").join("format");
    let length = fs::metadata(&format)?.len();
    oracle::flip_bit(&format, length / 2)?;
    let before = objects::contents(&world.repository("east"))?;
    let name = world.source.psql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")?;
    world.source.psql("SELECT pg_create_restore_point('x'), pg_switch_wal()")?;
    let pushed = world.push(&format!("pg_wal/{name}"))?.success()?;
    ensure!(
        pushed.stderr.contains("is not in east") && pushed.stderr.contains("format"),
        "{pushed}"
    );
    let west = objects::all(&world.repository("west"))?;
    ensure!(west.keys().any(|key| key.ends_with(&name)), "west does not hold {name}");
    ensure!(objects::contents(&world.repository("east"))? == before, "east was written to");
    // Everything else is refused.
    world.refused(4, "LB3002", &["backup", DATABASE])?;
    // With both unreadable nothing is pretended.
    oracle::flip_bit(&world.repository("west").join("format"), length / 2)?;
    let pushed = world.push(&format!("pg_wal/{name}"))?;
    ensure!(pushed.code.is_some_and(|code| (1..=125).contains(&code)), "{pushed}");
    ensure!(pushed.stderr.contains("error[LB3002]"), "{pushed}");
    Ok(())
}

#[test]
fn pg15_a_backup_that_a_region_missed_is_no_damage_there() -> Result<()> {
    let world = World::start(15)?;
    let (west, away) = (world.repository("west"), world.scratch.join("away"));
    fs::rename(&west, &away)?;
    let taken = world.run(&["backup", DATABASE])?.expect_code(5)?;
    assert!(taken.stderr.contains("west"), "{taken}");
    fs::rename(&away, &west)?;
    world.backup()?;
    let checked = world.run(&["repo", "check"])?.expect_code(5)?;
    assert!(checked.stdout.contains("this backup was never here; east has it"), "{checked}");
    assert!(!checked.stdout.contains("damaged"), "{checked}");
    Ok(())
}
