//! Every command with a fault at each of its calls to the stores, and at each of its messages to
//! PostgreSQL: a clear failure or success, nothing broken, and the next run succeeds.
//!
//! Each sweep runs twice: a sample of it always, all of it by `cargo xtask torture faults`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use lifeboat_scenarios::clouds::{Clouds, is_clear};
use lifeboat_scenarios::ledger;
use lifeboat_scenarios::restored::{restore, verify};
use lifeboat_scenarios::sweep::{Extent, Sweep};
use lifeboat_scenarios::world::{DATABASE, Setup, World};
use lifeboat_testkit::postgres::{Cut, Link};
use lifeboat_testkit::process::Finished;
use lifeboat_testkit::store::Objects;

/// Both tests of a sweep.
macro_rules! sweeps {
    ($($sample:ident, $full:ident, $sweep:ident, $cases:expr;)*) => {
        $(
            #[test]
            fn $sample() -> Result<()> {
                $sweep(Extent::Sample($cases))
            }

            #[test]
            #[ignore = "takes long: cargo xtask torture faults"]
            fn $full() -> Result<()> {
                $sweep(Extent::full())
            }
        )*
    };
}

sweeps! {
    pg15_repositories_and_keys_under_faults, full_repositories_and_keys, repositories_and_keys, 6;
    pg15_wal_under_faults, full_wal, wal, 8;
    pg15_backups_under_faults, full_backups, backups, 8;
    pg15_restores_and_checks_under_faults, full_restores_and_checks, restores_and_checks, 6;
    pg15_adoptions_under_faults, full_adoptions, adoptions, 6;
    pg15_a_lost_server_under_commands, full_lost_server, lost_server, 6;
}

fn nothing_stays(_: &str) -> bool {
    false
}

fn sweep(name: &str, extent: Extent) -> Sweep<'_> {
    Sweep { name, extent, stays: nothing_stays }
}

/// Nothing is damaged, and nothing that a region lacks goes unnamed.
fn is_sound(clouds: &mut Clouds, _: &Finished) -> Result<()> {
    let checked = clouds.world.run(&["repo", "check", "--read-data"])?;
    // 5: a region lags, and is named. 1: there is no repository at all.
    ensure!(matches!(checked.code, Some(0 | 1 | 5)), "{checked}");
    Ok(())
}

/// As [`is_sound`], and after success in all regions these do not differ.
fn is_whole_if_done(clouds: &mut Clouds, finished: &Finished) -> Result<()> {
    is_sound(clouds, finished)?;
    if finished.code == Some(0) {
        clouds.world.ok(&["repo", "check", "--read-data"])?;
    }
    Ok(())
}

fn repositories_and_keys(extent: Extent) -> Result<()> {
    let mut clouds = Clouds::prepare("false")?;
    let command = |clouds: &mut Clouds| clouds.world.run(&["repo", "create"]);
    sweep("repo create", extent).run(&mut clouds, command, is_whole_if_done)?;

    let command = |clouds: &mut Clouds| clouds.world.run(&["repo", "create"]);
    clouds.world.ok(&["repo", "create"])?;
    fs::remove_file(clouds.world.writer_key())?;
    clouds.stores[1].put_back(&Objects::new(), nothing_stays);
    sweep("repo create again", extent).run(&mut clouds, command, is_whole_if_done)?;

    clouds.world.ok(&["repo", "create"])?;
    fs::remove_file(clouds.world.writer_key())?;
    let command = |clouds: &mut Clouds| clouds.world.run(&["key", "enroll"]);
    sweep("key enroll", extent).run(&mut clouds, command, is_whole_if_done)?;

    clouds.world.ok(&["key", "enroll"])?;
    let file = clouds.world.scratch.file("second.key", "another key file of thirty-two bytes")?;
    let words = ["key", "add", "--key-file", &file.to_string_lossy()].map(str::to_owned);
    let add = |clouds: &mut Clouds| clouds.world.run(&words.each_ref().map(String::as_str));
    sweep("key add", extent).run(&mut clouds, add, is_whole_if_done)?;

    add(&mut clouds)?.success()?;
    add(&mut clouds)?.success()?;
    let command = |clouds: &mut Clouds| clouds.world.run(&["key", "remove", "2"]);
    let holds = |clouds: &mut Clouds, finished: &Finished| {
        is_whole_if_done(clouds, finished)?;
        let left = clouds.world.json(&["key", "list"])?;
        let listed = left.to_string().contains("\"number\":2");
        ensure!(!listed || finished.code != Some(0), "{left} after {finished}");
        Ok(())
    };
    sweep("key remove", extent).run(&mut clouds, command, holds)
}

fn push(clouds: &Clouds, name: &str) -> Result<Finished> {
    clouds.world.push(&format!("pg_wal/{name}"))
}

fn fetch(world: &World, region: &str, name: &str, to: &Path) -> Result<Finished> {
    let to = to.to_string_lossy();
    let words = ["wal", "fetch", name, &to, "--db", DATABASE, "--deadline", "5s"];
    world.archiver()?.run(world.arguments(region, &words))
}

/// What was acknowledged is there, byte by byte.
fn pushed(clouds: &mut Clouds, name: &str, finished: &Finished) -> Result<()> {
    if finished.code == Some(0) {
        let to = clouds.made("pushed")?;
        let mut found = false;
        // A region that missed it proves it absent, for itself.
        for region in ["east", "west"] {
            found = found || fetch(&clouds.world, region, name, &to)?.code == Some(0);
        }
        ensure!(found, "{name} is lost");
        let original = fs::read(clouds.world.source.data().join("pg_wal").join(name))?;
        ensure!(fs::read(&to)? == original, "{name} is another one");
        fs::remove_file(&to)?;
    }
    is_sound(clouds, finished)
}

fn wal(extent: Extent) -> Result<()> {
    let mut clouds = Clouds::start("false")?;
    let name = clouds.close()?;
    let command = |clouds: &mut Clouds| push(clouds, &name);
    let holds = |clouds: &mut Clouds, finished: &Finished| pushed(clouds, &name, finished);
    sweep("wal push segment", extent).run(&mut clouds, command, holds)?;

    push(&clouds, &name)?.success()?;
    let history = "00000002.history";
    let text = "1\t0/3000000\tno recovery target specified\n";
    let path = clouds.world.source.data().join("pg_wal").join(history);
    lifeboat_testkit::scratch::write(&path, text)?;
    let command = |clouds: &mut Clouds| push(clouds, history);
    let holds = |clouds: &mut Clouds, finished: &Finished| pushed(clouds, history, finished);
    sweep("wal push history", extent).run(&mut clouds, command, holds)?;
    fs::remove_file(&path)?;

    let to = clouds.made("fetched")?;
    let original = fs::read(clouds.world.source.data().join("pg_wal").join(&name))?;
    let command = |clouds: &mut Clouds| fetch(&clouds.world, "east", &name, &to);
    let holds = |_: &mut Clouds, finished: &Finished| {
        // 1 means "absent" to PostgreSQL, which then ends its recovery.
        ensure!(finished.code != Some(1), "{finished}");
        ensure!((finished.code == Some(0)) == to.exists(), "{finished}");
        ensure!(!to.exists() || fs::read(&to)? == original, "the segment differs");
        Ok(())
    };
    sweep("wal fetch", extent).run(&mut clouds, command, holds)?;

    let later = "0000000100000000000000F0";
    let command = |clouds: &mut Clouds| fetch(&clouds.world, "east", later, &to);
    let holds = |_: &mut Clouds, finished: &Finished| {
        ensure!(finished.code != Some(0) && !to.exists(), "{finished}");
        Ok(())
    };
    sweep("wal fetch of what is absent", extent).run(&mut clouds, command, holds)
}

fn is_wal(key: &str) -> bool {
    key.contains("/wal/")
}

/// Small, running, archived, with one backup, in stores that fail for no archiver.
fn backed_up() -> Result<(Clouds, ledger::Point)> {
    let mut clouds = Clouds::prepare("{push}")?;
    clouds.world.ok(&["repo", "create"])?;
    clouds.spare_archiver()?;
    clouds.world.source.start()?;
    ledger::create(&clouds.world.source)?;
    clouds.world.backup()?;
    let point = ledger::append(&clouds.world.source)?;
    clouds.world.archive()?;
    Ok((clouds, point))
}

fn backups(extent: Extent) -> Result<()> {
    let (mut clouds, _) = backed_up()?;
    let before = clouds.world.backups()?.len();
    let command = |clouds: &mut Clouds| clouds.world.run(&["backup", DATABASE]);
    let holds = |clouds: &mut Clouds, finished: &Finished| {
        let listed = clouds.world.backups()?.len();
        ensure!(!matches!(finished.code, Some(0 | 5)) || listed > before, "it is not listed");
        clouds.backups_are_whole()?;
        let sessions =
            "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'lifeboat%'";
        clouds.world.source.wait_for(sessions, "0")
    };
    let sweep = Sweep { name: "backup", extent, stays: is_wal };
    sweep.run(&mut clouds, command, holds)?;
    // The world goes on as if nothing had been.
    clouds.is_well()
}

fn restores_and_checks(extent: Extent) -> Result<()> {
    let (mut clouds, point) = backed_up()?;
    let to = clouds.made("copy")?;
    let shown = to.to_string_lossy().into_owned();
    let command = |clouds: &mut Clouds| {
        // Half a copy is continued; over a whole one nothing is restored.
        if to.join("global/pg_control").exists() {
            fs::remove_dir_all(&to)?;
        }
        clouds.world.run(&["restore", DATABASE, "--to", &shown, "--latest"])
    };
    let holds = |clouds: &mut Clouds, finished: &Finished| {
        let startable = to.join("global/pg_control").exists();
        ensure!(startable == (finished.code == Some(0)), "startable: {startable}");
        if startable {
            lifeboat_testkit::oracle::verify_backup(clouds.world.source.installation(), &to)?;
        }
        Ok(())
    };
    sweep("restore", extent).run(&mut clouds, command, holds)?;
    clouds.comes_back("swept", &point)?;

    let command = |clouds: &mut Clouds| clouds.world.run(&["repo", "check", "--read-data"]);
    sweep("repo check", extent).run(&mut clouds, command, |_, _| Ok(()))
}

fn adoptions(extent: Extent) -> Result<()> {
    let (mut clouds, _) = backed_up()?;
    let to = clouds.made("copy")?;
    clouds.world.ok(&["restore", DATABASE, "--to", &to.to_string_lossy(), "--immediate"])?;
    let source = clouds.world.source.data().display().to_string();
    clouds.world.edit_spec(|text| text.replace(&source, &to.to_string_lossy()))?;
    let command = |clouds: &mut Clouds| clouds.world.run(&["adopt", DATABASE]);
    let holds = |clouds: &mut Clouds, finished: &Finished| {
        is_whole_if_done(clouds, finished)?;
        let marker = fs::read_to_string(to.join("lifeboat.incarnation")).context("no marker")?;
        let granted = marker.contains("\"granted\": true");
        ensure!(granted == matches!(finished.code, Some(0 | 5)), "{marker} after {finished}");
        Ok(())
    };
    sweep("adopt", extent).run(&mut clouds, command, holds)
}

/// The connection to PostgreSQL is cut at each message that a command sends.
fn lost_server(extent: Extent) -> Result<()> {
    let mut world = Setup::new(15)?.prepare()?;
    let link = Link::to(&world.source)?;
    let direct = world.source.connection();
    world.edit_spec(|text| text.replace(&direct, link.connection()))?;
    world.ok(&["repo", "create"])?;
    world.source.start()?;
    ledger::create(&world.source)?;
    world.archive()?;
    world.backup()?;
    for words in [&["backup", DATABASE][..], &["check"]] {
        link.mend();
        world.run(words)?.expect_code(0)?;
        let messages = link.messages();
        let every = (0..messages.len()).flat_map(|at| [(at, Cut::Before), (at, Cut::After)]);
        let cuts = extent.choose(every.collect());
        for (at, cut) in &cuts {
            let kind = char::from(messages[*at]);
            let context = || format!("{words:?} cut {cut:?} message {at} ({kind:?})");
            cut_at(&mut world, &link, words, (*at, *cut)).with_context(context)?;
        }
        println!("sweep: {words:?}: {} messages, {} cuts", messages.len(), cuts.len());
        ensure!(!cuts.is_empty(), "{words:?} asks PostgreSQL nothing");
    }
    world.ok(&["repo", "check", "--read-data"])?;
    let point = ledger::append(&world.source)?;
    world.archive()?;
    let mut copy = restore(&world, "east", "after", &["--latest"])?;
    verify(&mut copy)?;
    ledger::is_at(&copy, &point)
}

fn cut_at(world: &mut World, link: &Link, words: &[&str], (at, cut): (usize, Cut)) -> Result<()> {
    let before = world.backups()?.len();
    link.mend();
    link.cut(at, cut);
    let finished = world.run(words)?;
    ensure!(!link.is_to_break(), "nothing was cut");
    link.mend();
    match finished.code {
        Some(0) => {}
        Some(1) => is_clear(&finished)?,
        _ => bail!("{finished}"),
    }
    let backs_up = words[0] == "backup";
    let added = usize::from(backs_up && finished.code == Some(0));
    let listed = world.backups()?;
    ensure!(listed.len() == before + added, "{listed:?} after {finished}");
    // The session ended, and with it the backup that it held open.
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'lifeboat%'";
    world.source.wait_for(sessions, "0")?;
    world.ok(words)?;
    ensure!(world.backups()?.len() == before + added + usize::from(backs_up));
    Ok(())
}
