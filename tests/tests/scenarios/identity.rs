//! Who may write into an archive: one life of one cluster, and nobody else.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use lifeboat_scenarios::restored::{promote, restore};
use lifeboat_scenarios::world::{DATABASE, Setup, World, refused};
use lifeboat_scenarios::{ledger, objects};
use lifeboat_testkit::postgres::{Cluster, Stop};
use lifeboat_testkit::process::{Account, Finished, run};
use lifeboat_testkit::run::Lifeboat;

/// Runs `wal push` for the newest closed segment of a server, in its own data directory.
fn push_from(world: &World, cluster: &Cluster, name: &str) -> Result<Finished> {
    let path = format!("pg_wal/{name}");
    let words = world.arguments("east", &["wal", "push", &path, "--db", DATABASE]);
    Lifeboat::new()?.directory(cluster.data()).run(words)
}

/// Closes a segment with something of this server in it; its name.
fn close(cluster: &Cluster) -> Result<String> {
    let name = cluster.psql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")?;
    cluster.psql(
        "CREATE TABLE IF NOT EXISTS own (at timestamptz); INSERT INTO own VALUES (now());
         SELECT pg_switch_wal()",
    )?;
    Ok(name)
}

/// Refused with a code that PostgreSQL counts as a failure, and nothing in either region changed.
fn refused_and_untouched(
    world: &World,
    code: &str,
    push: impl FnOnce() -> Result<Finished>,
) -> Result<()> {
    let archive = || -> Result<_> {
        Ok((
            objects::contents(&world.repository("east"))?,
            objects::contents(&world.repository("west"))?,
        ))
    };
    let before = archive()?;
    let finished = push()?;
    ensure!(finished.code.is_some_and(|code| (1..=125).contains(&code)), "{finished}");
    ensure!(finished.stderr.contains(code), "{finished}\nexpected {code}");
    ensure!(finished.stderr.contains("hint:"), "{finished}\nexpected a hint");
    ensure!(archive()? == before, "the archive was changed");
    Ok(())
}

fn copy_directory(from: &Path, to: &Path) -> Result<()> {
    run(Command::new("cp").arg("-a").arg(from).arg(to))?.success()?;
    Ok(())
}

#[test]
fn pg15_a_copy_cannot_archive_until_it_is_adopted_and_then_the_old_one_cannot() -> Result<()> {
    let mut world = World::start(15)?;
    ledger::create(&world.source)?;
    ledger::append(&world.source)?;
    world.backup()?;
    world.archive()?;
    // The old host: its own spec, state and writer key, as they are now.
    let old_state = world.scratch.folder("old-state")?;
    let old_key = world.scratch.file("old-writer.key", fs::read(world.writer_key())?)?;
    let text = fs::read_to_string(world.spec())?
        .replace(
            &world.scratch.join("state").display().to_string(),
            &old_state.display().to_string(),
        )
        .replace(&world.writer_key().display().to_string(), &old_key.display().to_string());
    let old_spec = world.scratch.file("old.yaml", text)?;

    let mut copy = restore(&world, "east", "copy", &["--latest"])?;
    promote(&mut copy)?;
    let name = close(&copy)?;
    // Refused for the place, and when the spec names the place, for the life.
    refused_and_untouched(&world, "LB5005", || push_from(&world, &copy, &name))?;
    // Outside of any data directory too: the file that is not there is not what is wrong.
    refused_and_untouched(&world, "LB5005", || {
        let path = format!("pg_wal/{name}");
        let words = world.arguments("east", &["wal", "push", &path, "--db", DATABASE]);
        Lifeboat::new()?.directory(&world.scratch.folder("elsewhere")?).run(words)
    })?;
    let source_data = world.source.data().display().to_string();
    let copy_data = copy.data().display().to_string();
    let (from, to) = (world.source.connection(), copy.connection());
    world.edit_spec(|text| text.replace(&source_data, &copy_data).replace(&from, &to))?;
    refused_and_untouched(&world, "LB5005", || push_from(&world, &copy, &name))?;
    let taken = world.run(&["backup", DATABASE])?;
    refused(taken, 4, "LB5005")?;

    world.ok(&["adopt", DATABASE])?;
    push_from(&world, &copy, &name)?.success()?;
    let old_name = close(&world.source)?;
    refused_and_untouched(&world, "LB5005", || push_from(&world, &world.source, &old_name))?;
    let spec = old_spec.to_string_lossy().into_owned();
    let path = format!("pg_wal/{old_name}");
    let old_host = Lifeboat::new()?.directory(world.source.data());
    refused_and_untouched(&world, "LB5005", || {
        old_host.run(["--spec", &spec, "--here", "east", "wal", "push", &path, "--db", DATABASE])
    })?;
    let taken = old_host.run(["--spec", &spec, "--here", "east", "backup", DATABASE])?;
    refused(taken, 4, "LB5005")?;
    // The archive of the new source goes on.
    copy.psql("ALTER SYSTEM SET archive_mode = on")?;
    copy.stop(Stop::Fast)?;
    copy.start()?;
    ledger::append(&copy)?;
    world.ok(&["backup", DATABASE])?;
    Ok(())
}

/// The verdict of one check of the database, and what it says.
fn checked(world: &World, check: &str) -> Result<(String, String)> {
    let document = world.run(&["check", "--json"])?.json()?;
    let lines = document["result"]["lines"].as_array().context("no lines")?;
    let found = lines.iter().find(|line| line["subject"] == DATABASE && line["check"] == check);
    let line = found.with_context(|| format!("no {check} in {document}"))?;
    let verdict = line["verdict"].as_str().context("no verdict")?.to_owned();
    Ok((verdict, format!("{} {}", line["message"], line["advice"])))
}

#[test]
fn pg15_check_sees_who_may_not_archive_and_a_command_that_archives_elsewhere() -> Result<()> {
    let mut world = World::start(15)?;
    for check in ["archive_command", "incarnation"] {
        let (verdict, said) = checked(&world, check)?;
        ensure!(verdict == "pass", "{check}: {said}");
    }
    let command = world.source.psql("SHOW archive_command")?;
    let program = world.lifeboat.program().display().to_string();
    let spec = world.spec().display().to_string();
    let other = world.scratch.file("other.yaml", fs::read(world.spec())?)?.display().to_string();
    for (right, wrong) in [
        (DATABASE, "shop/other"),
        (spec.as_str(), other.as_str()),
        (spec.as_str(), "/nowhere/lifeboat.yaml"),
        (program.as_str(), "/nowhere/lifeboat"),
        ("east", "west"),
    ] {
        // Not in the paths, which may hold the word as well.
        let (right, wrong) = (format!(" {right} "), format!(" {wrong} "));
        let changed = format!(" {command} ").replace(&right, &wrong);
        let changed = changed.trim();
        ensure!(changed != command, "{right:?} is not in {command}");
        world.source.psql(&format!("ALTER SYSTEM SET archive_command = '{changed}'"))?;
        world.source.psql("SELECT pg_reload_conf()")?;
        world.source.wait_for("SHOW archive_command", changed)?;
        let (verdict, said) = checked(&world, "archive_command")?;
        ensure!(verdict == "fail" && said.contains(wrong.trim()), "{verdict}: {said}");
        ensure!(said.contains(&format!("--db {DATABASE}")), "no advice: {said}");
    }
    world.source.psql("ALTER SYSTEM RESET archive_command")?;
    world.source.psql("SELECT pg_reload_conf()")?;
    world.backup()?;
    world.archive()?;

    let mut copy = restore(&world, "east", "copy", &["--latest"])?;
    promote(&mut copy)?;
    let (old, new) = (world.source.data().display().to_string(), copy.data().display().to_string());
    let (from, to) = (world.source.connection(), copy.connection());
    world.edit_spec(|text| text.replace(&old, &new).replace(&from, &to))?;
    let (verdict, said) = checked(&world, "incarnation")?;
    ensure!(verdict == "fail" && said.contains("lifeboat adopt shop/main"), "{verdict}: {said}");
    world.ok(&["adopt", DATABASE])?;
    let (verdict, said) = checked(&world, "incarnation")?;
    ensure!(verdict == "pass", "{said}");
    Ok(())
}

#[test]
fn pg15_a_plain_copy_of_the_directory_cannot_archive() -> Result<()> {
    let mut world = World::start(15)?;
    world.archive()?;
    world.source.stop(Stop::Fast)?;
    let place = world.scratch.join("clone");
    copy_directory(world.source.data(), &place)?;
    world.source.start()?;
    let mut clone = Cluster::over(15, &place)?;
    // Its archive_command is the source's; it runs, and is refused each time.
    clone.start()?;
    clone.psql("SELECT pg_stat_reset_shared('archiver')")?;
    let name = close(&clone)?;
    refused_and_untouched(&world, "LB5005", || push_from(&world, &clone, &name))?;
    clone.wait_for("SELECT failed_count > 0 FROM pg_stat_archiver", "t")?;
    ensure!(clone.psql("SELECT archived_count FROM pg_stat_archiver")? == "0");
    Ok(())
}

#[test]
fn pg15_a_second_cluster_on_a_bound_database_is_refused() -> Result<()> {
    let world = World::start(15)?;
    world.backup()?;
    let stranger = Cluster::builder(15)
        .setting("archive_mode = on")
        .setting("archive_command = 'true'")
        .start()?;
    let (old, new) =
        (world.source.data().display().to_string(), stranger.data().display().to_string());
    let (from, to) = (world.source.connection(), stranger.connection());
    world.edit_spec(|text| text.replace(&old, &new).replace(&from, &to))?;
    world.refused(4, "LB3011", &["backup", DATABASE])?;
    let name = close(&stranger)?;
    refused_and_untouched(&world, "LB3011", || push_from(&world, &stranger, &name))?;
    world.refused(4, "LB3011", &["key", "enroll"])?;
    Ok(())
}

#[test]
fn pg15_other_wal_under_a_known_name_is_a_split_brain() -> Result<()> {
    let mut world = World::start(15)?;
    world.archive()?;
    // Two servers with the same past, one after the other in the same place.
    world.source.stop(Stop::Fast)?;
    let (data, twin) = (world.source.data().to_owned(), world.scratch.join("twin"));
    copy_directory(&data, &twin)?;
    world.source.start()?;
    let name = close(&world.source)?;
    world.wait_for_archiver()?;
    world.source.stop(Stop::Fast)?;
    fs::rename(&data, world.scratch.join("first"))?;
    fs::rename(&twin, &data)?;
    world.source.start()?;
    let second = close(&world.source)?;
    ensure!(second == name, "{second} is not {name}");
    refused_and_untouched(&world, "LB5006", || push_from(&world, &world.source, &name))
}

#[test]
fn pg15_an_archive_of_pgbackrest_and_one_of_lifeboat_fill_side_by_side() -> Result<()> {
    let setup = Setup::new(15)?;
    let configuration = setup.scratch().join("pgbackrest.conf");
    let both = format!(
        "pgbackrest --config={} --stanza=main archive-push \"%p\" && {{push}}",
        configuration.display()
    );
    let mut world = setup.archive_command(&both).start()?;
    let folder = world.scratch.folder("pgbackrest")?;
    let text = format!(
        "[global]\nrepo1-path={0}/repo\nlog-path={0}/log\nlock-path={0}/lock\nspool-path={0}/spool\n\
         log-level-file=off\n[main]\npg1-path={1}\npg1-socket-path={2}\npg1-port={3}\npg1-user=postgres\n",
        folder.display(),
        world.source.data().display(),
        world.source.sockets().display(),
        world.source.port(),
    );
    world.scratch.file("pgbackrest.conf", text)?;
    let pgbackrest = |words: &[&str]| -> Result<Finished> {
        let mut command = Command::new("pgbackrest");
        command
            .arg(format!("--config={}", configuration.display()))
            .arg("--stanza=main")
            .args(words);
        Account::of_server()?.apply(&mut command);
        run(&mut command)?.success()
    };
    pgbackrest(&["stanza-create"])?;
    ledger::create(&world.source)?;
    world.backup()?;
    pgbackrest(&["backup", "--type=full", "--start-fast"])?;
    let point = ledger::append(&world.source)?;
    world.archive()?;
    pgbackrest(&["check"])?;

    let mut ours = restore(&world, "east", "ours", &["--latest"])?;
    promote(&mut ours)?;
    ledger::is_at(&ours, &point).context("from Lifeboat")?;
    let theirs = world.scratch.folder("theirs")?;
    pgbackrest(&["restore", &format!("--pg1-path={}", theirs.display()), "--archive-mode=off"])?;
    let mut theirs = Cluster::over(15, theirs)?;
    promote(&mut theirs)?;
    ledger::is_at(&theirs, &point).context("from pgBackRest")
}
