//! The first complete story: back up a busy server into two regions, lose one region and the
//! data directory, and come back from the other.

use std::fs;

use anyhow::{Result, ensure};
use lifeboat_scenarios::restored::{judge, restore, verify};
use lifeboat_scenarios::world::{DATABASE, Setup};
use lifeboat_testkit::oracle;
use lifeboat_testkit::postgres::Stop;

fn story(major: u32) -> Result<()> {
    let setup = Setup::new(major)?;
    let passphrase = setup.scratch().file("passphrase", "correct horse battery staple\n")?;
    let slots =
        format!("{{ passphrase: \"file:{}\" }}, {{ recovery_key: {{}} }}", passphrase.display());
    let mut world = setup.slots(slots).start()?;
    world.ok(&["key", "enroll"])?;
    world.source.pgbench(["-i", "-s", "5", "-q"])?;
    world.source.psql(
        "CREATE TABLE notes (id bigserial PRIMARY KEY, body jsonb, raw bytea);
         CREATE INDEX ON notes USING gin (body);
         INSERT INTO notes (body, raw) SELECT jsonb_build_object('n', n, 'text', md5(n::text)),
           decode(md5(n::text), 'hex') FROM generate_series(1, 5000) AS n;
         SELECT lo_from_bytea(0, decode(repeat('ab', 10000), 'hex'));
         CREATE DATABASE second",
    )?;
    world.source.psql_in("second", "CREATE TABLE t AS SELECT generate_series(1, 100) AS n")?;

    let load = world.source.pgbench_in_background(["-T", "1000", "-n", "-c", "2"])?;
    world.source.wait_for("SELECT count(*) > 50 FROM pgbench_history", "t")?;
    let name = world.backup()?;
    drop(load);
    let listed = world.json(&["backups", "list", DATABASE])?;
    let backup = &listed["backups"][0];
    ensure!(backup["name"] == name.as_str(), "{listed}");
    ensure!(backup["regions"] == serde_json::json!(["east", "west"]), "{listed}");
    ensure!(backup["damaged_pages"] == 0, "{listed}");

    // The state to come back to: nothing is written any more.
    world.source.wait_for(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgbench'",
        "0",
    )?;
    world.archive()?;
    let expected = oracle::dump(&world.source)?;
    let rows = "SELECT md5(string_agg(h::text, '|' ORDER BY h::text)) FROM pgbench_history h";
    let history = world.source.psql(rows)?;
    world.source.stop(Stop::Fast)?;
    fs::remove_dir_all(world.repository("east"))?;
    fs::remove_dir_all(world.source.data())?;

    let mut copy = restore(&world, "west", "story", &["--latest"])?;
    verify(&mut copy)?;
    ensure!(copy.psql(rows)? == history, "pgbench_history differs");
    ensure!(oracle::dump(&copy)? == expected, "the dumps differ");
    ensure!(copy.psql("SHOW archive_mode")? == "off", "a copy must not archive");
    judge(&mut copy)
}

#[test]
fn pg13_backup_under_load_and_restore_from_the_other_region() -> Result<()> {
    story(13)
}

#[test]
fn pg14_backup_under_load_and_restore_from_the_other_region() -> Result<()> {
    story(14)
}

#[test]
fn pg15_backup_under_load_and_restore_from_the_other_region() -> Result<()> {
    story(15)
}

#[test]
fn pg16_backup_under_load_and_restore_from_the_other_region() -> Result<()> {
    story(16)
}

#[test]
fn pg17_backup_under_load_and_restore_from_the_other_region() -> Result<()> {
    story(17)
}

#[test]
fn pg18_backup_under_load_and_restore_from_the_other_region() -> Result<()> {
    story(18)
}
