//! Commits wait for receivers in other regions, and nobody is fooled about who they are.
//!
//! pg_receivewal stands in for receivers: PostgreSQL believes the name, and so do impostors.

use std::fs;

use anyhow::{Context, Result, ensure};
use lifeboat_scenarios::world::{DATABASE, Setup, World};
use lifeboat_testkit::process::{PATIENCE, Running};
use serde_json::Value;

const WEST: &str = "lifeboat_shop_main_west";
const EAST: &str = "lifeboat_shop_main_east";
const NORTH: &str = "lifeboat_shop_main_north";
const ACKNOWLEDGE: [&str; 3] = ["wal", "acknowledge", DATABASE];
const SETTING: &str = "SHOW synchronous_standby_names";

fn start(receivers: &str) -> Result<World> {
    let setup = Setup::new(15)?;
    let north = format!("url: \"file://{}\"", setup.scratch().join("north").display());
    setup
        .region("north", north)
        .wal(&format!("mode: stream, receivers: [{receivers}], acknowledge: {{ remote: 1 }}"))
        .start()
}

/// Somebody who receives under a name, with the slot of a receiver or without.
fn receive(world: &mut World, name: &str, slot: Option<&str>) -> Result<Running> {
    let folder = world.scratch.folder(&format!("received/{name}-{}", slot.is_some()))?;
    let mut command = world.source.installation().client_command("pg_receivewal")?;
    let connection = format!("{} application_name={name}", world.source.connection());
    command.args(["--synchronous", "--no-loop", "-d", &connection, "-D"]).arg(folder);
    if let Some(slot) = slot {
        world.source.psql(&format!(
            "SELECT pg_create_physical_replication_slot('{slot}', true)
             WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = '{slot}')"
        ))?;
        command.args(["--slot", slot]);
    }
    let running = Running::spawn(&mut command, None)?;
    let with_slot = slot.map_or("IS NULL".to_owned(), |slot| format!("= '{slot}'"));
    world.source.wait_for(
        &format!(
            "SELECT count(*) FROM pg_stat_replication r
             LEFT JOIN pg_replication_slots s ON s.active_pid = r.pid
             WHERE application_name = '{name}' AND state = 'streaming' AND slot_name {with_slot}"
        ),
        "1",
    )?;
    Ok(running)
}

fn receiver(world: &mut World, name: &str) -> Result<Running> {
    receive(world, name, Some(name))
}

/// Runs it, which must be refused and change nothing.
fn refused(world: &World, more: &[&str], said: &str) -> Result<()> {
    let before = world.source.psql(SETTING)?;
    let finished = world.refused(4, "LB5014", &[&ACKNOWLEDGE, more].concat())?;
    ensure!(finished.stdout.contains(said), "{finished}\nexpected {said}");
    ensure!(world.source.psql(SETTING)? == before, "the setting was changed");
    Ok(())
}

fn acknowledge(world: &World, more: &[&str]) -> Result<Value> {
    world.json(&[&ACKNOWLEDGE, more].concat())
}

fn automatic(world: &World) -> Result<String> {
    Ok(fs::read_to_string(world.source.data().join("postgresql.auto.conf"))?)
}

fn gone(world: &mut World, name: &str) -> Result<()> {
    world.source.wait_for(
        &format!("SELECT count(*) FROM pg_stat_replication WHERE application_name = '{name}'"),
        "0",
    )
}

#[test]
fn pg15_commits_wait_for_another_region_until_it_is_undone() -> Result<()> {
    let mut world = start("east, west")?;
    world.source.psql("CREATE TABLE t (n int)")?;
    refused(&world, &[], "0 of 1 needed receivers are streaming")?;
    // The region that writes does not count.
    let _east = receiver(&mut world, EAST)?;
    refused(&world, &[], "0 of 1 needed receivers are streaming")?;
    let dry = acknowledge(&world, &["--dry-run"])?;
    ensure!(dry["refusals"][0]["message"].is_string() && dry["changed"] == false, "{dry}");

    let west = receiver(&mut world, WEST)?;
    let dry = acknowledge(&world, &["--dry-run"])?;
    ensure!(dry["refusals"] == serde_json::json!([]) && dry["changed"] == false, "{dry}");
    ensure!(world.source.psql(SETTING)?.is_empty(), "a dry run changed the setting");
    let done = acknowledge(&world, &[])?;
    let value = format!("ANY 1 (\"{WEST}\")");
    ensure!(done["changed"] == true && done["after"] == value.as_str(), "{done}");
    ensure!(done["receivers"][0]["sync_state"] == "quorum", "{done}");
    ensure!(done["from_lsn"].is_string(), "{done}");
    ensure!(world.source.psql(SETTING)? == value);
    world.source.psql("INSERT INTO t VALUES (1)")?;
    ensure!(acknowledge(&world, &[])?["changed"] == false, "the second time changes nothing");

    // Without the receiver a commit waits; undo lets it go.
    drop(west);
    gone(&mut world, WEST)?;
    let mut psql = world.source.installation().client_command("psql")?;
    psql.args(["-X", "-d", &world.source.connection(), "-c", "INSERT INTO t VALUES (2)"]);
    let waits = Running::spawn(&mut psql, None)?;
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    world.source.wait_for(waiting, "1")?;
    let undone = acknowledge(&world, &["--undo"])?;
    ensure!(undone["changed"] == true && undone["after"] == "", "{undone}");
    let warning = undone["warnings"][0]["message"].as_str().context("no warning")?;
    ensure!(warning.contains("1 waiting commits"), "{undone}");
    waits.wait(PATIENCE)?.success()?;
    ensure!(world.source.psql(SETTING)?.is_empty());
    ensure!(!automatic(&world)?.contains("synchronous_standby_names"), "a line was left behind");
    ensure!(acknowledge(&world, &["--undo"])?["changed"] == false);
    Ok(())
}

#[test]
fn pg15_who_has_a_receivers_name_and_is_none_is_found() -> Result<()> {
    let mut world = start("west")?;
    // Alone, PostgreSQL would take it for the receiver.
    let impostor = receive(&mut world, WEST, None)?;
    refused(&world, &[], "no slot")?;
    let _west = receiver(&mut world, WEST)?;
    refused(&world, &[], "besides the receiver")?;
    drop(impostor);
    world.source.wait_for("SELECT count(*) FROM pg_stat_replication", "1")?;
    let upper = WEST.to_uppercase();
    let impostor = receive(&mut world, &upper, None)?;
    refused(&world, &[], &upper)?;
    drop(impostor);
    gone(&mut world, &upper)?;
    ensure!(acknowledge(&world, &[])?["changed"] == true);
    Ok(())
}

#[test]
fn pg15_a_receiver_that_makes_nothing_durable_is_not_waited_for() -> Result<()> {
    let mut world = start("west")?;
    let west = receiver(&mut world, WEST)?;
    west.signal(nix::sys::signal::Signal::SIGSTOP)?;
    let finished = world.refused(4, "LB5014", &ACKNOWLEDGE)?;
    west.signal(nix::sys::signal::Signal::SIGCONT)?;
    ensure!(finished.stderr.contains("durable within"), "{finished}");
    ensure!(world.source.psql(SETTING)?.is_empty());
    Ok(())
}

#[test]
fn pg15_a_value_of_somebody_else_is_named_and_comes_back() -> Result<()> {
    let mut world = start("west")?;
    let _west = receiver(&mut world, WEST)?;
    let _rack = receive(&mut world, "rack", None)?;
    let set = |value: &str| format!("ALTER SYSTEM SET synchronous_standby_names = '{value}'");
    let reload = "SELECT pg_reload_conf()";
    world.source.psql(&format!("{}; {reload}", set("first 1 (rack)")))?;
    world.source.wait_for(SETTING, "first 1 (rack)")?;
    refused(&world, &[], "first 1 (rack)")?;
    let done = acknowledge(&world, &["--replace", "first 1 (rack)"])?;
    let between = format!("ANY 2 (\"{WEST}\", \"rack\")");
    ensure!(done["between"] == between.as_str(), "{done}");

    // Changed by hand since: neither the spec's nor the old value goes over it.
    let by_hand = format!("ANY 1 ({WEST}, rack)");
    world.source.psql(&format!("{}; {reload}", set(&by_hand)))?;
    world.source.wait_for(SETTING, &by_hand)?;
    refused(&world, &[], &by_hand)?;
    refused(&world, &["--undo"], &by_hand)?;
    // This host forgets; the audit log does not.
    fs::remove_dir_all(world.scratch.join("state/acknowledge"))?;
    refused(&world, &["--undo"], &by_hand)?;
    let undone = acknowledge(&world, &["--undo", "--replace", &by_hand])?;
    ensure!(undone["after"] == "first 1 (rack)", "{undone}");
    ensure!(world.source.psql(SETTING)? == "first 1 (rack)");
    let line = "synchronous_standby_names = 'first 1 (rack)'";
    ensure!(automatic(&world)?.contains(line), "{}", automatic(&world)?);
    Ok(())
}

#[test]
fn pg15_commits_that_do_not_wait_are_named() -> Result<()> {
    let mut world = start("west")?;
    let _west = receiver(&mut world, WEST)?;
    for value in ["local", "off", "remote_write"] {
        world.source.psql(&format!(
            "ALTER SYSTEM SET synchronous_commit = {value}; SELECT pg_reload_conf()"
        ))?;
        world.source.wait_for("SHOW synchronous_commit", value)?;
        refused(&world, &[], &format!("synchronous_commit is {value}"))?;
    }
    world
        .source
        .psql("ALTER SYSTEM SET synchronous_commit = remote_apply; SELECT pg_reload_conf()")?;
    world.source.wait_for("SHOW synchronous_commit", "remote_apply")?;
    world.source.psql(
        "CREATE ROLE batch LOGIN; CREATE DATABASE reports;
         ALTER ROLE batch SET synchronous_commit = off;
         ALTER ROLE batch IN DATABASE reports SET synchronous_commit = local;
         ALTER DATABASE reports SET synchronous_commit = remote_write",
    )?;
    let done = acknowledge(&world, &[])?;
    let said = done.to_string();
    for part in [
        "role batch has synchronous_commit = off",
        "role batch in database reports has synchronous_commit = local",
        "database reports has synchronous_commit = remote_write",
        "synchronous_commit is remote_apply",
    ] {
        ensure!(said.contains(part), "{part}: {done}");
    }
    Ok(())
}

#[test]
fn pg15_a_change_of_receivers_never_asks_for_less_than_before() -> Result<()> {
    let mut world = start("west")?;
    let west = receiver(&mut world, WEST)?;
    let _north = receiver(&mut world, NORTH)?;
    acknowledge(&world, &[])?;
    world.edit_spec(|text| text.replace("receivers: [west]", "receivers: [north]"))?;
    let done = acknowledge(&world, &[])?;
    let (both, after) =
        (format!("ANY 2 (\"{NORTH}\", \"{WEST}\")"), format!("ANY 1 (\"{NORTH}\")"));
    ensure!(done["between"] == both.as_str() && done["after"] == after.as_str(), "{done}");
    let log = world.source.log();
    let changed = |value: &str| {
        let line = format!("parameter \"synchronous_standby_names\" changed to \"{value}\"");
        log.rfind(&line).with_context(|| format!("{line} is not in the log"))
    };
    ensure!(changed(&format!("ANY 1 (\"{WEST}\")"))? < changed(&both)?);
    ensure!(changed(&both)? < changed(&after)?);

    // Back to a receiver that is gone would stop every commit.
    drop(west);
    gone(&mut world, WEST)?;
    world.edit_spec(|text| text.replace("receivers: [north]", "receivers: [west]"))?;
    refused(&world, &[], "0 of 1 needed receivers are streaming")?;
    ensure!(acknowledge(&world, &["--undo"])?["after"] == "");
    Ok(())
}
