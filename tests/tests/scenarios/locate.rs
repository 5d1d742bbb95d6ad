//! An accident is found in the archive, and the position just before it brings the rows back.

use anyhow::{Context, Result, ensure};
use lifeboat_scenarios::restored::{restore, verify};
use lifeboat_scenarios::world::{DATABASE, World};
use serde_json::Value;

/// The only loss that `wal locate` names.
fn only(world: &World, before: &str) -> Result<Value> {
    let found = world.json(&["wal", "locate", DATABASE, "--before", before])?;
    let losses = found["losses"].as_array().context("losses")?;
    ensure!(losses.len() == 1, "{before}: {found:#}");
    ensure!(found["unread"] == Value::Array(Vec::new()), "{found:#}");
    Ok(losses[0].clone())
}

fn accidents(major: u32) -> Result<()> {
    let mut world = World::start(major)?;
    world.source.psql(
        "CREATE TABLE orders (n int PRIMARY KEY, s text); CREATE TABLE emptied (n int);
         CREATE TABLE kept (n int); CREATE TABLE notes (n int)",
    )?;
    world.backup()?;
    world.source.psql(
        "INSERT INTO orders SELECT n, md5(n::text) FROM generate_series(1, 700) AS n;
         INSERT INTO emptied SELECT generate_series(1, 800);
         INSERT INTO kept SELECT generate_series(1, 900); INSERT INTO notes VALUES (1)",
    )?;
    let oid = world.source.psql("SELECT 'orders'::regclass::oid")?;
    let others = "INSERT INTO notes VALUES (2); DELETE FROM notes WHERE n = 2;";
    world.source.psql(&format!(
        "DELETE FROM kept; {others} TRUNCATE emptied; {others} DROP TABLE orders; {others}
         VACUUM FULL notes; BEGIN; DELETE FROM notes; ROLLBACK"
    ))?;
    world.archive()?;

    let counts = "SELECT (SELECT count(*) FROM kept), (SELECT count(*) FROM emptied),
                  to_regclass('orders') IS NULL, (SELECT max(n) FROM notes)";
    let dropped = format!("drop table {oid}");
    let cases = [
        ("delete from kept", "deleted", "900|800|f|1"),
        ("TRUNCATE emptied;", "truncated", "0|800|f|1"),
        (dropped.as_str(), "dropped", "0|0|f|1"),
        // The server does not know the name any more: all drops are listed, and there is one.
        ("drop table orders", "dropped", "0|0|f|1"),
    ];
    for (number, (before, kind, expected)) in cases.into_iter().enumerate() {
        let loss = only(&world, before)?;
        ensure!(loss["kind"] == kind, "{before}: {loss:#}");
        ensure!(kind != "deleted" || loss["rows"] == 900, "{loss:#}");
        let position = loss["before_lsn"].as_str().context("before_lsn")?;
        let command = loss["restore"].as_str().context("restore")?;
        ensure!(command.contains(&format!("--lsn {position}")), "{command}");
        if number == 3 {
            break;
        }
        let mut copy = restore(&world, "west", &format!("before-{kind}"), &["--lsn", position])?;
        verify(&mut copy)?;
        let found = copy.psql(counts)?;
        ensure!(found == expected, "{before}: {found}, expected {expected}");
        ensure!(copy.psql("SELECT count(*) FROM orders")? == "700");
    }
    // A time span leaves out what lies outside of it, and a bound on rows what is small.
    let none = ["--since", "2099-01-01T00:00:00Z"];
    let words = [&["wal", "locate", DATABASE, "--before", "any"], &none[..]].concat();
    ensure!(world.json(&words)?["losses"] == Value::Array(Vec::new()));
    let words = ["wal", "locate", DATABASE, "--before", "delete", "--rows", "100"];
    ensure!(world.json(&words)?["losses"].as_array().context("losses")?.len() == 1);
    world.refused(2, "LB1001", &["wal", "locate", DATABASE, "--before", "update kept"])?;
    // What the search fetched is gone, its key with it.
    let left = std::fs::read_dir(world.scratch.join("state"))?;
    let left =
        left.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with("locate"));
    ensure!(left.count() == 0);
    Ok(())
}

#[test]
fn pg15_an_accident_is_found_and_undone() -> Result<()> {
    accidents(15)
}

#[test]
fn pg13_an_accident_is_found_and_undone() -> Result<()> {
    accidents(13)
}

#[test]
fn pg18_an_accident_is_found_and_undone() -> Result<()> {
    accidents(18)
}
