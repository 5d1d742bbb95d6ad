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
use lifeboat_scenarios::sweep::{Ended, Extent, Sweep};
use lifeboat_scenarios::world::{DATABASE, Setup, World};
use lifeboat_testkit::postgres::{Cut, Link};
use lifeboat_testkit::process::Finished;
use lifeboat_testkit::store::Objects;

/// The sample of a sweep, and the shares of all of it: those of long sweeps run beside each other.
macro_rules! sweeps {
    ($($sweep:ident: $sample:ident, $cases:expr; $($full:ident $number:literal of $of:literal),*;)*) => {
        $(
            #[test]
            fn $sample() -> Result<()> {
                $sweep(Extent::Sample($cases))
            }

            $(
                #[test]
                #[ignore = "takes long: cargo xtask torture faults"]
                fn $full() -> Result<()> {
                    $sweep(Extent::full($number, $of))
                }
            )*
        )*
    };
}

sweeps! {
    repositories: pg15_repositories_under_faults, 8; full_repositories 1 of 1;
    keys: pg15_keys_under_faults, 6; full_keys 1 of 1;
    wal: pg15_wal_under_faults, 8; full_wal 1 of 1;
    backups: pg15_backups_under_faults, 8;
        full_backups_1 1 of 4, full_backups_2 2 of 4, full_backups_3 3 of 4, full_backups_4 4 of 4;
    restores: pg15_restores_under_faults, 6;
        full_restores_1 1 of 4, full_restores_2 2 of 4, full_restores_3 3 of 4,
        full_restores_4 4 of 4;
    checks: pg15_checks_under_faults, 6; full_checks_1 1 of 2, full_checks_2 2 of 2;
    adoptions: pg15_adoptions_under_faults, 6; full_adoptions 1 of 1;
    lost_server: pg15_a_lost_server_under_commands, 6; full_lost_server 1 of 1;
}

fn nothing_stays(_: &str) -> bool {
    false
}

fn sweep(name: &str, extent: Extent) -> Sweep<'_> {
    Sweep { name, extent, stays: nothing_stays }
}

/// No object is damaged. What a region missed while it was away is named, and once a command has
/// done everything, it missed nothing.
fn is_sound(clouds: &mut Clouds, ended: &Ended) -> Result<()> {
    if ended.lied_to {
        return Ok(());
    }
    let checked = clouds.world.run(&["repo", "check", "--read-data", "--json"])?;
    ensure!(checked.code == Some(0) || !ended.is_done(), "{checked}");
    let missed = |what: &str| what.starts_with("missing here;");
    for region in checked.json()?["result"]["regions"].as_array().into_iter().flatten() {
        for damage in region["damage"].as_array().into_iter().flatten() {
            ensure!(damage["what"].as_str().is_some_and(missed), "{damage} in {checked}");
        }
    }
    Ok(())
}

fn repositories(extent: Extent) -> Result<()> {
    let mut clouds = Clouds::prepare("false")?;
    let command = |clouds: &mut Clouds| clouds.world.run(&["repo", "create"]);
    sweep("repo create", extent).run(&mut clouds, command, is_sound)?;

    let command = |clouds: &mut Clouds| clouds.world.run(&["repo", "create"]);
    clouds.world.ok(&["repo", "create"])?;
    fs::remove_file(clouds.world.writer_key())?;
    clouds.stores[1].put_back(&Objects::new(), nothing_stays);
    sweep("repo create again", extent).run(&mut clouds, command, is_sound)
}

fn keys(extent: Extent) -> Result<()> {
    let mut clouds = Clouds::prepare("false")?;
    clouds.world.ok(&["repo", "create"])?;
    fs::remove_file(clouds.world.writer_key())?;
    let command = |clouds: &mut Clouds| clouds.world.run(&["key", "enroll"]);
    sweep("key enroll", extent).run(&mut clouds, command, is_sound)?;

    clouds.world.ok(&["key", "enroll"])?;
    let file = clouds.world.scratch.file("second.key", "another key file of thirty-two bytes")?;
    let words = ["key", "add", "--key-file", &file.to_string_lossy()].map(str::to_owned);
    let add = |clouds: &mut Clouds| clouds.world.run(&words.each_ref().map(String::as_str));
    sweep("key add", extent).run(&mut clouds, add, is_sound)?;

    add(&mut clouds)?.success()?;
    add(&mut clouds)?.success()?;
    let command = |clouds: &mut Clouds| clouds.world.run(&["key", "remove", "2"]);
    let holds = |clouds: &mut Clouds, ended: &Ended| {
        is_sound(clouds, ended)?;
        let left = clouds.world.json(&["key", "list"])?.to_string();
        ensure!(!left.contains("\"slot\":2") || !ended.is_done(), "{left}");
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
fn pushed(clouds: &mut Clouds, name: &str, ended: &Ended) -> Result<()> {
    if ended.is_done() {
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
    // A push is done once one region has it: that the other one lags is no damage.
    clouds.backups_are_whole()
}

fn wal(extent: Extent) -> Result<()> {
    let mut clouds = Clouds::start("false")?;
    let name = clouds.close()?;
    let command = |clouds: &mut Clouds| push(clouds, &name);
    let holds = |clouds: &mut Clouds, ended: &Ended| pushed(clouds, &name, ended);
    sweep("wal push segment", extent).run(&mut clouds, command, holds)?;

    push(&clouds, &name)?.success()?;
    let history = "00000002.history";
    let text = "1\t0/3000000\tno recovery target specified\n";
    let path = clouds.world.source.data().join("pg_wal").join(history);
    lifeboat_testkit::scratch::write(&path, text)?;
    let command = |clouds: &mut Clouds| push(clouds, history);
    let holds = |clouds: &mut Clouds, ended: &Ended| pushed(clouds, history, ended);
    sweep("wal push history", extent).run(&mut clouds, command, holds)?;
    fs::remove_file(&path)?;

    let to = clouds.made("fetched")?;
    let original = fs::read(clouds.world.source.data().join("pg_wal").join(&name))?;
    let command = |clouds: &mut Clouds| fetch(&clouds.world, "east", &name, &to);
    let holds = |_: &mut Clouds, ended: &Ended| {
        // 1 means "absent" to PostgreSQL, which then ends its recovery.
        ensure!(ended.finished.code != Some(1), "a false end of the WAL");
        ensure!(ended.is_done() == to.exists(), "the file is there: {}", to.exists());
        ensure!(!to.exists() || fs::read(&to)? == original, "the segment differs");
        Ok(())
    };
    sweep("wal fetch", extent).run(&mut clouds, command, holds)?;

    let later = "0000000100000000000000F0";
    let command = |clouds: &mut Clouds| fetch(&clouds.world, "east", later, &to);
    let holds = |_: &mut Clouds, ended: &Ended| {
        ensure!(!ended.is_done() && !to.exists(), "it is there");
        Ok(())
    };
    sweep("wal fetch of what is absent", extent).run(&mut clouds, command, holds)?;

    // Anything above 125 would end a standby.
    lifeboat_testkit::scratch::write(&clouds.world.source.data().join("standby.signal"), "")?;
    let command = |clouds: &mut Clouds| fetch(&clouds.world, "east", &name, &to);
    let holds = |_: &mut Clouds, ended: &Ended| {
        ensure!(matches!(ended.finished.code, Some(0 | 1)), "a standby would end");
        ensure!(ended.is_done() == to.exists(), "the file is there: {}", to.exists());
        Ok(())
    };
    sweep("wal fetch of a standby", extent).run(&mut clouds, command, holds)
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
    let holds = |clouds: &mut Clouds, ended: &Ended| {
        let listed = clouds.world.backups()?.len();
        let complete = matches!(ended.finished.code, Some(0 | 5));
        ensure!(!complete || listed > before, "it is not listed");
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

fn restores(extent: Extent) -> Result<()> {
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
    let holds = |clouds: &mut Clouds, ended: &Ended| {
        let startable = to.join("global/pg_control").exists();
        ensure!(startable == ended.is_done(), "startable: {startable}");
        if startable {
            lifeboat_testkit::oracle::verify_backup(clouds.world.source.installation(), &to)?;
        }
        Ok(())
    };
    sweep("restore", extent).run(&mut clouds, command, holds)?;
    clouds.comes_back("swept", &point)
}

fn checks(extent: Extent) -> Result<()> {
    let (mut clouds, _) = backed_up()?;
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
    let holds = |clouds: &mut Clouds, ended: &Ended| {
        is_sound(clouds, ended)?;
        let marker = fs::read_to_string(to.join("lifeboat.incarnation")).context("no marker")?;
        let granted = marker.contains("\"granted\": true");
        let done = matches!(ended.finished.code, Some(0 | 5));
        ensure!(granted == done || ended.lied_to, "{marker}");
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
        // Nobody waits for the goodbye.
        let numbers = (0..messages.len()).filter(|at| messages[*at] != b'X');
        let every = numbers.flat_map(|at| [(at, Cut::Before), (at, Cut::After)]);
        let (mut cases, mut cuts) = (0, 0);
        for (at, cut) in extent.choose(every.collect()) {
            let kind = char::from(messages[at]);
            let context = || format!("{words:?} cut {cut:?} message {at} ({kind:?})");
            cases += 1;
            cuts += usize::from(cut_at(&mut world, &link, words, (at, cut)).with_context(context)?);
        }
        println!("sweep: {words:?}: {} messages, {cases} cases, {cuts} cuts", messages.len());
        ensure!(cuts > cases / 2, "{words:?}: {cuts} cuts only");
    }
    world.ok(&["repo", "check", "--read-data"])?;
    let point = ledger::append(&world.source)?;
    world.archive()?;
    let mut copy = restore(&world, "east", "after", &["--latest"])?;
    verify(&mut copy)?;
    ledger::is_at(&copy, &point)
}

/// One cut; `false` if the command came to its end before that message.
fn cut_at(world: &mut World, link: &Link, words: &[&str], (at, cut): (usize, Cut)) -> Result<bool> {
    let before = world.backups()?.len();
    link.mend();
    link.cut(at, cut);
    let finished = world.run(words)?;
    let was_cut = !link.is_to_break();
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
    Ok(was_cut)
}
