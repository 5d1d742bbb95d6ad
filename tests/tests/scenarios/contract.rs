//! What the command line promises: exit codes, envelopes, and clear words for wrong input.

use std::fs;

use anyhow::{Context, Result, ensure};
use lifeboat_scenarios::objects;
use lifeboat_scenarios::restored::untouched;
use lifeboat_scenarios::world::{DATABASE, Setup, World, refused};
use lifeboat_testkit::scratch;

/// The envelope of a failure, whose message, hint and code are all there.
fn envelope(world: &World, code: i32, error: &str, words: &[&str]) -> Result<()> {
    let finished = world.run(&[words, &["--json"]].concat())?.expect_code(code)?;
    let document = finished.json()?;
    ensure!(document["lifeboat"] == 1, "{document}");
    let failure = &document["error"];
    ensure!(failure["code"] == error, "{document}\nexpected {error}");
    for part in ["message", "hint"] {
        let text = failure[part].as_str().with_context(|| format!("no {part} in {document}"))?;
        ensure!(!text.is_empty(), "{document}");
    }
    let explained = world.ok(&["explain", error])?;
    ensure!(explained.stdout.contains(error), "{explained}");
    Ok(())
}

#[test]
fn pg15_a_wrong_passphrase_and_a_missing_key_are_told_apart() -> Result<()> {
    let setup = Setup::new(15)?;
    let passphrase = setup.scratch().file("passphrase", "correct horse battery staple\n")?;
    let world =
        setup.slots(format!("{{ passphrase: \"file:{}\" }}", passphrase.display())).start()?;
    world.backup()?;
    let to = world.target("locked").to_string_lossy().into_owned();
    let words = ["restore", DATABASE, "--to", &to, "--immediate"];
    scratch::write(&passphrase, "wrong horse battery staple\n")?;
    envelope(&world, 1, "LB3008", &words)?;
    fs::remove_file(&passphrase)?;
    envelope(&world, 1, "LB3007", &words)?;
    untouched(&world, "locked")?;
    // A writer needs no passphrase.
    world.backup()?;
    world.ok(&["repo", "check", "--read-data"])?;
    fs::remove_file(world.writer_key())?;
    envelope(&world, 1, "LB3009", &["backup", DATABASE])?;
    scratch::write(&passphrase, "correct horse battery staple\n")?;
    world.ok(&["key", "enroll"])?;
    world.backup()?;
    world.ok(&words)?;
    Ok(())
}

#[test]
fn pg15_a_wrong_spec_is_refused_with_every_finding() -> Result<()> {
    let world = Setup::new(15)?.prepare()?;
    world.edit_spec(|text| {
        text.replace("rto: 4h", "rto: 4 parsecs")
            .replace("    home: east", "    home: easst\n    colour: red")
    })?;
    let finished = world.refused(2, "LB1003", &["backup", DATABASE])?;
    for part in ["4 parsecs", "colour", "easst"] {
        ensure!(finished.stderr.contains(part), "{finished}\nexpected {part}");
    }
    envelope(&world, 2, "LB1003", &["backups", "list"])?;
    for (what, code) in [("push", 2), ("fetch", 200)] {
        let finished =
            world.run(&["wal", what, "000000010000000000000001", "x", "--db", DATABASE])?;
        ensure!(finished.code == Some(code), "{finished}");
    }
    fs::remove_file(world.spec())?;
    envelope(&world, 2, "LB1002", &["backup", DATABASE])
}

#[test]
fn pg15_what_the_spec_does_not_know_is_refused() -> Result<()> {
    let world = World::start(15)?;
    envelope(&world, 2, "LB1007", &["backup", "shop/other"])?;
    let north = world.lifeboat.run(world.arguments("north", &["backup", DATABASE]))?;
    refused(north, 2, "LB1006")?;
    let finished = world.run(&["backup", "--no-such-flag"])?.expect_code(2)?;
    ensure!(finished.stderr.contains("LB1001"), "{finished}");
    envelope(&world, 2, "LB1001", &["restore", DATABASE])?;
    // West has no node of the database.
    let west = world.lifeboat.run(world.arguments("west", &["backup", DATABASE]))?;
    refused(west, 2, "LB1006")?;
    Ok(())
}

#[test]
fn pg15_a_newer_repository_is_refused_and_not_written_to() -> Result<()> {
    let mut world = World::start(15)?;
    world.backup()?;
    world.archive()?;
    for region in ["east", "west"] {
        let path = world.repository(region).join("format");
        let mut bytes = fs::read(&path)?;
        *bytes.get_mut(10).context("format is too short")? = 2;
        scratch::write(&path, bytes)?;
    }
    let before = objects::contents(&world.repository("east"))?;
    envelope(&world, 4, "LB3003", &["backup", DATABASE])?;
    envelope(&world, 4, "LB3003", &["repo", "create"])?;
    envelope(&world, 4, "LB3003", &["repo", "check"])?;
    let to = world.target("newer").to_string_lossy().into_owned();
    envelope(&world, 4, "LB3003", &["restore", DATABASE, "--to", &to, "--latest"])?;
    untouched(&world, "newer")?;
    let name = world.source.psql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")?;
    world.source.psql("SELECT pg_create_restore_point('x'), pg_switch_wal()")?;
    let push = world.push(&format!("pg_wal/{name}"))?;
    ensure!(push.code.is_some_and(|code| (1..=125).contains(&code)), "{push}");
    ensure!(push.stderr.contains("LB3003"), "{push}");
    ensure!(objects::contents(&world.repository("east"))? == before, "something was written");
    Ok(())
}

#[test]
fn pg15_a_repository_of_another_vault_is_refused() -> Result<()> {
    let world = World::start(15)?;
    let other = World::start(15)?;
    world.backup()?;
    let mine = world.repository("west").display().to_string();
    let theirs = other.repository("west").display().to_string();
    world.edit_spec(|text| text.replace(&mine, &theirs))?;
    let before = objects::contents(&other.repository("west"))?;
    envelope(&world, 4, "LB3004", &["backup", DATABASE])?;
    ensure!(objects::contents(&other.repository("west"))? == before, "something was written");
    // One region's URL given twice.
    let east = world.repository("east").display().to_string();
    world.edit_spec(|text| text.replace(&theirs, &east))?;
    let finished = world.run(&["backup", DATABASE])?;
    ensure!(matches!(finished.code, Some(2 | 4)), "{finished}");
    Ok(())
}

#[test]
fn pg15_no_secret_is_stored_or_said() -> Result<()> {
    let setup = Setup::new(15)?;
    let secret = "correct-horse-battery-staple-canary";
    let passphrase = setup.scratch().file("passphrase", secret)?;
    let mut world =
        setup.slots(format!("{{ passphrase: \"file:{}\" }}", passphrase.display())).start()?;
    let canary = "plaintext-canary-of-the-database";
    world
        .source
        .psql(&format!("CREATE TABLE t AS SELECT '{canary}'::text FROM generate_series(1, 100)"))?;
    let taken = world.ok(&["backup", DATABASE, "-vv", "--label", "labelled"])?;
    world.archive()?;
    for region in ["east", "west"] {
        for (key, bytes) in objects::contents(&world.repository(region))? {
            for word in [canary, secret, "labelled"] {
                let found = bytes.windows(word.len()).any(|window| window == word.as_bytes());
                ensure!(!found, "{word} stands in {key} of {region}");
            }
        }
    }
    ensure!(!taken.stderr.contains(secret) && !world.source.log().contains(secret));
    Ok(())
}
