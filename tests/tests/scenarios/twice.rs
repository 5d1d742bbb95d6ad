//! Every command twice in a row: the second run does no harm, changes nothing that lasts, and says
//! so. And once more after a success that nobody heard of: killed behind its last durable act.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Result, ensure};
use lifeboat_scenarios::restored::{attempt, restore, verify};
use lifeboat_scenarios::world::{DATABASE, Setup, World, refused};
use lifeboat_scenarios::{ledger, objects};
use lifeboat_testkit::postgres::Cluster;

type Contents = BTreeMap<String, Vec<u8>>;

/// What both regions hold.
fn held(world: &World) -> Result<[Contents; 2]> {
    Ok([
        objects::contents(&world.repository("east"))?,
        objects::contents(&world.repository("west"))?,
    ])
}

/// What was there is there, byte by byte; new are only objects below these folders.
fn only_added(world: &World, before: &[Contents; 2], below: &[&str]) -> Result<()> {
    for (before, after) in before.iter().zip(held(world)?) {
        for (key, bytes) in before {
            ensure!(after.get(key) == Some(bytes), "{key} was changed");
        }
        for key in after.keys().filter(|key| !before.contains_key(*key)) {
            ensure!(below.iter().any(|folder| key.contains(folder)), "{key} is new");
        }
    }
    Ok(())
}

#[test]
fn pg15_repo_create_and_key_commands_twice() -> Result<()> {
    let world = Setup::new(15)?.prepare()?;
    world.ok(&["repo", "create"])?;
    let (before, key) = (held(&world)?, fs::read(world.writer_key())?);
    let again = world.ok(&["repo", "create"])?;
    ensure!(again.stdout.matches("is there already").count() == 2, "{again}");
    only_added(&world, &before, &[])?;
    ensure!(fs::read(world.writer_key())? == key);

    // Each run is in the audit log, and nothing else is new.
    let again = world.ok(&["key", "enroll"])?;
    ensure!(again.stdout.contains("is enrolled"), "{again}");
    ensure!(fs::read(world.writer_key())? == key, "the key is another one");
    only_added(&world, &before, &["audit/"])?;

    let file = world.scratch.file("second.key", "another key file of thirty-two bytes")?;
    let add = ["key", "add", "--key-file", &file.to_string_lossy()];
    world.ok(&add)?;
    let before = held(&world)?;
    // One more slot for the same secret: of no use and no harm.
    let again = world.ok(&add)?;
    ensure!(again.stdout.contains("Slot 3"), "{again}");
    only_added(&world, &before, &["audit/", "keys/slot-00000003"])?;

    world.ok(&["key", "remove", "3"])?;
    let before = held(&world)?;
    let again = world.ok(&["key", "remove", "3"])?;
    ensure!(again.stdout.contains("was removed before"), "{again}");
    only_added(&world, &before, &[])?;
    world.refused(2, "there is no slot 7", &["key", "remove", "7"])?;
    world.ok(&["key", "remove", "2"])?;
    world.refused(2, "LB1001", &["key", "remove", "1"])?;
    world.ok(&["repo", "check", "--read-data"])?;

    // A region that is made anew, by a run that dies before it counts.
    fs::remove_dir_all(world.repository("west"))?;
    let create = world.arguments("east", &["repo", "create"]);
    world.lifeboat.killed_at("create.before_format", create)?;
    world.ok(&["repo", "create"])?;
    world.ok(&["repo", "check", "--read-data"])?;
    Ok(())
}

#[test]
fn pg15_wal_commands_twice() -> Result<()> {
    let world = Setup::new(15)?.archive_command("false").start()?;
    let name = world.source.psql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")?;
    world.source.psql("SELECT pg_create_restore_point('here'), pg_switch_wal()")?;
    let path = format!("pg_wal/{name}");
    let pushed = |how: &str| -> Result<()> {
        let words = ["wal", "push", &path, "--db", DATABASE, "--json"];
        let finished = world.archiver()?.ok(world.arguments("east", &words))?;
        let said = finished.json()?;
        ensure!(said["result"]["how"] == how, "{said}");
        Ok(())
    };
    pushed("stored")?;
    let before = held(&world)?;
    pushed("identical")?;
    only_added(&world, &before, &[])?;

    let to = world.scratch.folder("fetched")?.join("segment");
    let fetch = ["wal", "fetch", &name, &to.to_string_lossy(), "--db", DATABASE];
    let original = fs::read(world.source.data().join(&path))?;
    for _ in 0..2 {
        world.archiver()?.ok(world.arguments("east", &fetch))?;
        ensure!(fs::read(&to)? == original);
    }
    only_added(&world, &before, &[])?;

    // Other content under the same name, from the same cluster.
    let mut other = original.clone();
    other[12_345] ^= 1;
    lifeboat_testkit::scratch::write(&world.source.data().join(&path), &other)?;
    for _ in 0..2 {
        let push = world.push(&path)?;
        ensure!(push.code.is_some_and(|code| (1..=125).contains(&code)), "{push}");
        ensure!(push.stderr.contains("LB5006") && push.stderr.contains("hint:"), "{push}");
        only_added(&world, &before, &[])?;
    }
    lifeboat_testkit::scratch::write(&world.source.data().join(&path), &original)?;
    pushed("identical")?;

    // A success that nobody heard of.
    let name = world.source.psql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")?;
    world.source.psql("SELECT pg_create_restore_point('there'), pg_switch_wal()")?;
    let words = ["wal", "push", &format!("pg_wal/{name}"), "--db", DATABASE];
    let words = world.arguments("east", &words);
    world.archiver()?.killed_at("push.acked", words)?;
    let before = held(&world)?;
    world.push(&format!("pg_wal/{name}"))?.success()?;
    // It died when the first of two regions had the segment.
    only_added(&world, &before, &[&name])
}

#[test]
fn pg15_backup_and_restore_twice() -> Result<()> {
    let mut world = World::start(15)?;
    ledger::create(&world.source)?;
    let first = world.backup()?;
    let before = held(&world)?;
    let second = world.backup()?;
    ensure!(first != second);
    only_added(
        &world,
        &before,
        &["audit/", "/packs/", "/maps/", "/manifests/", "/sessions/", "/wal/"],
    )?;
    let backup = world.arguments("east", &["backup", DATABASE]);
    world.lifeboat.killed_at("backup.after_manifest", backup)?;
    world.backup()?;
    ensure!(world.backups()?.len() == 4, "{:?}", world.backups()?);
    let point = ledger::append(&world.source)?;
    world.archive()?;
    world.ok(&["repo", "check", "--read-data"])?;

    // Over a whole copy nothing is restored, whether anybody heard of it or not.
    let to = world.target("copy").to_string_lossy().into_owned();
    let words = ["restore", DATABASE, "--to", &to, "--latest"];
    world.lifeboat.killed_at("restore.half", world.arguments("east", &words))?;
    restore(&world, "east", "copy", &["--latest"])?;
    let whole = held(&world)?;
    for _ in 0..2 {
        refused(attempt(&world, "east", "copy", &["--latest"])?, 4, "LB6002")?;
    }
    only_added(&world, &whole, &[])?;
    let mut copy = Cluster::over(15, world.target("copy"))?;
    verify(&mut copy)?;
    ledger::is_at(&copy, &point)
}

#[test]
fn pg15_adopt_twice() -> Result<()> {
    let mut world = World::start(15)?;
    ledger::create(&world.source)?;
    world.backup()?;
    world.archive()?;
    // The source adopts itself: it had the right.
    let before = held(&world)?;
    for _ in 0..2 {
        let again = world.ok(&["adopt", DATABASE])?;
        ensure!(again.stdout.contains("was the source already"), "{again}");
    }
    only_added(&world, &before, &["audit/"])?;

    let copy = restore(&world, "east", "copy", &["--immediate"])?;
    let (from, to) = (world.source.data().display().to_string(), copy.data().display().to_string());
    world.edit_spec(|text| text.replace(&from, &to))?;
    let adopted = world.ok(&["adopt", DATABASE])?;
    ensure!(adopted.stdout.contains("is the source now"), "{adopted}");
    let before = held(&world)?;
    let again = world.ok(&["adopt", DATABASE])?;
    ensure!(again.stdout.contains("was the source already"), "{again}");
    only_added(&world, &before, &["audit/"])?;
    world.ok(&["repo", "check", "--read-data"])?;
    Ok(())
}
