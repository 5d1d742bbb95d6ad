//! Commits wait for receivers in other regions, and nobody is fooled about who they are.
//!
//! pg_receivewal stands in for receivers: PostgreSQL believes the name, and so do impostors.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use lifeboat_scenarios::restored::{promote, restore};
use lifeboat_scenarios::world::{DATABASE, Setup, World};
use lifeboat_scenarios::{ledger, objects};
use lifeboat_testkit::postgres::{Cluster, Stop};
use lifeboat_testkit::process::{PATIENCE, Running};
use lifeboat_testkit::scratch;
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
    receive_from(&mut world.source, &folder, name, slot)
}

fn receive_from(
    server: &mut Cluster,
    folder: &Path,
    name: &str,
    slot: Option<&str>,
) -> Result<Running> {
    let mut command = server.installation().client_command("pg_receivewal")?;
    let connection = format!("{} application_name={name}", server.connection());
    command.args(["--synchronous", "--no-loop", "-d", &connection, "-D"]).arg(folder);
    if let Some(slot) = slot {
        server.psql(&format!(
            "SELECT pg_create_physical_replication_slot('{slot}', true)
             WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = '{slot}')"
        ))?;
        command.args(["--slot", slot]);
    }
    let running = Running::spawn(&mut command, None)?;
    let with_slot = slot.map_or_else(|| "IS NULL".to_owned(), |slot| format!("= '{slot}'"));
    server.wait_for(
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
    let mut psql = world.source.installation().client_command("psql")?;
    let statement = "SET synchronous_commit TO 'off'; SELECT pg_sleep(600), 'secret'";
    psql.args(["-X", "-d", &world.source.connection(), "-c", statement]);
    let session = Running::spawn(&mut psql, None)?;
    let sleeps = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    world.source.wait_for(sleeps, "1")?;
    let done = acknowledge(&world, &[])?;
    drop(session);
    let said = done.to_string();
    ensure!(!said.contains("secret"), "a statement of somebody else is printed: {done}");
    for part in [
        "role batch has synchronous_commit = off",
        "role batch in database reports has synchronous_commit = local",
        "database reports has synchronous_commit = remote_write",
        "synchronous_commit is remote_apply",
        "by its own statement) has synchronous_commit = off",
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

#[test]
fn pg15_what_is_interrupted_is_taken_back_or_known() -> Result<()> {
    let mut world = start("west")?;
    let _west = receiver(&mut world, WEST)?;
    let arguments = world.arguments("east", &ACKNOWLEDGE);
    // It fails after the setting: what was before is back.
    let failed = world.lifeboat.with_failpoints("acknowledge.set=error", &arguments)?;
    ensure!(failed.expect_code(1)?.stderr.contains("is empty again"), "no word of the return");
    ensure!(world.source.psql(SETTING)?.is_empty());
    ensure!(!automatic(&world)?.contains("synchronous_standby_names"), "a line was left behind");
    // It dies: the setting stays, and is known for Lifeboat's own.
    world.lifeboat.killed_at("acknowledge.set", &arguments)?;
    ensure!(world.source.psql(SETTING)? == format!("ANY 1 (\"{WEST}\")"));
    ensure!(acknowledge(&world, &[])?["changed"] == false);
    ensure!(acknowledge(&world, &["--undo"])?["after"] == "");
    ensure!(!automatic(&world)?.contains("synchronous_standby_names"), "a line was left behind");
    Ok(())
}

#[test]
fn pg15_after_a_move_the_other_receivers_count() -> Result<()> {
    let mut world = start("east, west")?;
    let west = receiver(&mut world, WEST)?;
    acknowledge(&world, &[])?;
    // The other region's server brings the old rule along.
    let mut moved = world.source.standby()?;
    let line = world.node("west-1", "west", &moved);
    world.edit_spec(|text| {
        text.replace("        nodes:\n", &format!("        nodes:\n          {line}\n"))
    })?;
    drop(west);
    world.source.stop(Stop::Fast)?;
    moved.psql("SELECT pg_promote()")?;
    moved.wait_for("SELECT pg_is_in_recovery()", "f")?;
    ensure!(moved.psql(SETTING)? == format!("ANY 1 (\"{WEST}\")"));

    let finished = world.refused(4, "LB5014", &ACKNOWLEDGE)?;
    ensure!(finished.stdout.contains("writes on west-1 in west"), "{finished}");
    let folder = world.scratch.folder("received-from-west")?;
    let _east = receive_from(&mut moved, &folder, EAST, Some(EAST))?;
    let done = acknowledge(&world, &[])?;
    ensure!(done["region"] == "west" && done["between"].is_null(), "{done}");
    ensure!(moved.psql(SETTING)? == format!("ANY 1 (\"{EAST}\")"));
    moved.psql("CREATE TABLE t (n int)")?;
    ensure!(acknowledge(&world, &["--undo"])?["after"] == "");
    ensure!(moved.psql(SETTING)?.is_empty());
    Ok(())
}

/// The verdict and the message of a line of `check`.
fn line(world: &World, check: &str) -> Result<String> {
    let document = world.run(&["check", "--json"])?.json()?;
    let lines = document["result"]["lines"].as_array().context("no lines")?;
    let found = lines.iter().filter(|line| line["check"] == check);
    let shown = found.map(|line| format!("{}: {}", line["verdict"], line["message"]));
    Ok(shown.collect::<Vec<_>>().join("\n"))
}

fn says(world: &World, check: &str, verdict: &str, said: &str) -> Result<()> {
    let found = line(world, check)?;
    ensure!(found.contains(&format!("\"{verdict}\"")), "{check}: {found}, expected {verdict}");
    ensure!(found.contains(said), "{check}: {found}, expected {said}");
    Ok(())
}

#[test]
fn pg15_check_knows_what_streaming_needs() -> Result<()> {
    let setup = Setup::new(15)?.wal("mode: stream, receivers: [east, west], acknowledge: {}");
    let setup = setup.cluster(|cluster| {
        cluster.setting("max_replication_slots = 1").setting("max_slot_wal_keep_size = 1MB")
    });
    let mut world = setup.start()?;
    ensure!(line(&world, "archive_command")?.is_empty(), "archive_command is asked for");
    says(&world, "replication", "pass", "postgres may receive")?;
    says(&world, "max_wal_senders", "pass", "2 are still to come")?;
    says(&world, "max_replication_slots", "fail", "2 are still to come")?;
    says(&world, "receiver west", "warn", "no slot")?;
    says(&world, "synchronous_standby_names", "warn", "ANY 1")?;

    let west = receiver(&mut world, WEST)?;
    acknowledge(&world, &[])?;
    says(&world, "receiver west", "pass", "streaming")?;
    says(&world, "synchronous_standby_names", "pass", "ANY 1")?;
    says(&world, "synchronous_commit", "pass", "on")?;
    acknowledge(&world, &["--undo"])?;

    // It stays away for too long.
    drop(west);
    gone(&mut world, WEST)?;
    for _ in 0..3 {
        world.source.psql("CREATE TABLE t (n int); DROP TABLE t; SELECT pg_switch_wal()")?;
    }
    world.source.psql("CHECKPOINT")?;
    says(&world, "receiver west", "fail", "is lost")?;

    // pg_hba.conf lets nobody replicate any more.
    let rules = world.source.data().join("pg_hba.conf");
    let text = fs::read_to_string(&rules)?;
    let kept = text.lines().filter(|line| !line.contains("replication"));
    fs::write(&rules, kept.collect::<Vec<_>>().join("\n") + "\n")?;
    world.source.psql("SELECT pg_reload_conf()")?;
    world.wait_until("the rules", || Ok(line(&world, "replication")?.contains("fail")))?;
    says(&world, "replication", "fail", "pg_hba.conf")
}

fn live(world: &World) -> Result<Value> {
    Ok(world.run(&["wal", "status", DATABASE, "--json"])?.json()?["result"]["live"].clone())
}

#[test]
fn pg15_status_says_what_would_be_lost_now_and_never_guesses() -> Result<()> {
    let mut world = start("east, west")?;
    world.source.psql("CREATE TABLE t (n int)")?;
    world.backup()?;
    let now = live(&world)?;
    ensure!(now["receivers"][1]["slot"] == "inactive", "{now}");
    ensure!(now["rpo_promised"] == false, "{now}");
    ensure!(now["rpo_reason"].as_str().is_some_and(|why| why.contains("wait for nobody")), "{now}");

    let mut west = receiver(&mut world, WEST)?;
    acknowledge(&world, &[])?;
    world.source.psql("INSERT INTO t VALUES (1)")?;
    let now = live(&world)?;
    ensure!(now["rpo_promised"] == true && now["rpo_seconds"] == 0.0, "{now}");
    let reason = now["rpo_reason"].as_str().unwrap_or_default();
    ensure!(reason.contains("west has acknowledged up to"), "{now}");
    ensure!(now["receivers"][1]["sync_state"] == "quorum", "{now}");
    ensure!(now["receivers"][1]["durable_lsn"].is_string(), "{now}");

    // A role that does not wait breaks the promise, and so does who bears the name.
    world.source.psql("CREATE ROLE batch; ALTER ROLE batch SET synchronous_commit = off")?;
    ensure!(live(&world)?["rpo_promised"] == false);
    world.source.psql("ALTER ROLE batch RESET ALL")?;
    let impostor = receive(&mut world, WEST, None)?;
    let now = live(&world)?;
    ensure!(
        now["rpo_promised"] == false && now["receivers"][1]["impostors"][0].is_string(),
        "{now}"
    );
    drop(impostor);

    ensure!(west.is_running()?);
    drop(west);
    world.source.wait_for("SELECT count(*) FROM pg_stat_replication", "0")?;
    let now = live(&world)?;
    ensure!(now["rpo_promised"] == false && now["receivers"][1]["state"].is_null(), "{now}");

    world.source.kill9()?;
    let now = live(&world)?;
    ensure!(now["unanswered"].is_string() && now["rpo_seconds"].is_null(), "{now}");
    ensure!(now["rpo_reason"] == "not known: the server does not answer", "{now}");
    Ok(())
}

/// Streams, and archives nothing; its old WAL goes at the next checkpoint.
fn streaming(receivers: &str, keep: &str) -> Result<World> {
    let mut world = Setup::new(15)?
        .wal(&format!("mode: stream, receivers: [{receivers}], flush_every: 500ms"))
        .cluster(|cluster| cluster.setting(format!("max_slot_wal_keep_size = {keep}")))
        .cluster(|cluster| cluster.setting("min_wal_size = 32MB").setting("max_wal_size = 64MB"))
        .prepare()?;
    let configuration = world.source.configuration().to_owned();
    let text = fs::read_to_string(&configuration)? + "archive_mode = off\n";
    scratch::write(&configuration, text)?;
    world.ok(&["repo", "create"])?;
    world.source.start()?;
    Ok(world)
}

/// Fills segments and lets the server drop what nobody keeps.
fn churn(world: &World) -> Result<()> {
    for _ in 0..4 {
        world.source.psql(
            "CREATE TABLE churn AS SELECT generate_series(1, 1000) AS n; DROP TABLE churn;
             SELECT pg_switch_wal()",
        )?;
    }
    world.source.psql("CHECKPOINT; CHECKPOINT")?;
    Ok(())
}

#[test]
fn pg15_a_backup_without_a_receiver_brings_its_wal_and_no_gap_follows() -> Result<()> {
    let mut world = streaming("east, west", "-1")?;
    ledger::create(&world.source)?;
    let point = ledger::append(&world.source)?;
    let finished = world.ok(&["backup", DATABASE])?;
    ensure!(finished.stderr.contains("brought its own"), "{finished}");
    let slots = "SELECT string_agg(slot_name, ' ' ORDER BY slot_name) FROM pg_replication_slots
                 WHERE restart_lsn IS NOT NULL";
    ensure!(world.source.psql(slots)? == format!("{EAST} {WEST}"));
    for region in ["east", "west"] {
        let mut copy = restore(&world, region, region, &["--immediate"])?;
        promote(&mut copy)?;
        ledger::is_at(&copy, &point)?;
    }

    // A receiver that comes later finds everything since.
    churn(&world)?;
    let last = ledger::append(&world.source)?;
    let receiver = world.spawn(&["wal", "receive", DATABASE])?;
    world.source.wait_for(
        &format!(
            "SELECT count(*) FROM pg_stat_replication
             WHERE application_name = '{EAST}' AND flush_lsn >= '{}'",
            last.lsn
        ),
        "1",
    )?;
    receiver.signal(nix::sys::signal::Signal::SIGTERM)?;
    receiver.wait(PATIENCE)?.success()?;
    let status = world.run(&["wal", "status", DATABASE, "--json"])?.json()?;
    let east = &status["result"]["incarnations"][0]["regions"][0];
    ensure!(east["region"] == "east" && east["gaps"] == serde_json::json!([]), "{status}");
    let mut copy = restore(&world, "east", "latest", &["--latest"])?;
    promote(&mut copy)?;
    ledger::is_at(&copy, &last)?;
    Ok(())
}

#[test]
fn pg15_a_backup_without_a_receiver_brings_the_histories_of_its_timeline() -> Result<()> {
    let mut world = streaming("east", "-1")?;
    ledger::create(&world.source)?;
    for _ in 0..2 {
        world.source.stop(Stop::Fast)?;
        scratch::write(&world.source.data().join("standby.signal"), "")?;
        world.source.start()?;
        world.source.psql("SELECT pg_promote()")?;
        world.source.wait_for("SELECT pg_is_in_recovery()", "f")?;
        world.source.psql("CHECKPOINT")?;
    }
    let point = ledger::append(&world.source)?;
    world.ok(&["backup", DATABASE])?;
    for history in ["00000002.history", "00000003.history"] {
        let path = format!("pg_wal/{history}");
        ensure!(world.source.data().join(&path).exists(), "{path}");
    }
    for region in ["east", "west"] {
        let stored = objects::all(&world.repository(region))?;
        for history in ["00000002.history", "00000003.history"] {
            ensure!(stored.keys().any(|key| key.ends_with(history)), "{region} lacks {history}");
        }
    }
    let mut copy = restore(&world, "west", "west", &["--latest"])?;
    promote(&mut copy)?;
    ledger::is_at(&copy, &point)?;
    Ok(())
}

#[test]
fn pg15_a_backup_beside_a_receiver_waits_for_it() -> Result<()> {
    let mut world = streaming("east", "-1")?;
    ledger::create(&world.source)?;
    let _receiver = world.spawn(&["wal", "receive", DATABASE])?;
    world.source.wait_for("SELECT count(*) FROM pg_replication_slots WHERE active", "1")?;
    let point = ledger::append(&world.source)?;
    let finished = world.ok(&["backup", DATABASE])?;
    ensure!(!finished.stderr.contains("brought its own"), "{finished}");
    // West has no receiver, and has what the backup needs all the same.
    let mut copy = restore(&world, "west", "west", &["--immediate"])?;
    promote(&mut copy)?;
    ledger::is_at(&copy, &point)?;
    Ok(())
}

#[test]
fn pg15_a_backup_makes_a_lost_slot_anew() -> Result<()> {
    let world = streaming("east", "32MB")?;
    world.ok(&["backup", DATABASE])?;
    churn(&world)?;
    let state = format!("SELECT wal_status FROM pg_replication_slots WHERE slot_name = '{EAST}'");
    ensure!(world.source.psql(&state)? == "lost", "the slot is not lost");
    let finished = world.ok(&["backup", DATABASE])?;
    ensure!(finished.stderr.contains("made anew"), "{finished}");
    ensure!(world.source.psql(&state)? != "lost");
    Ok(())
}

/// With receivers as they are: in the other region, over TCP.
fn a_receiver_in_the_other_region_is_waited_for(major: u32) -> Result<()> {
    let setup = Setup::new(major)?.cluster(|cluster| cluster.tcp()).archive_command("true");
    let wal = "mode: stream, receivers: [east, west], acknowledge: { remote: 1 }";
    let mut world = setup.wal(wal).start()?;
    let address = format!(" sslmode=disable\", address: \"127.0.0.1:{}\"", world.source.port());
    world.edit_spec(|text| {
        text.replace("dbname=postgres\"", &format!("dbname=postgres{address}"))
    })?;
    world.source.psql("CREATE TABLE t (n int)")?;
    let start = |world: &World, region: &str| {
        world.lifeboat.spawn(world.arguments(region, &["wal", "receive", DATABASE]))
    };
    let _east = start(&world, "east")?;
    let west = start(&world, "west")?;
    let streaming = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
    world.source.wait_for(streaming, "2")?;
    world.backup()?;
    let done = acknowledge(&world, &[])?;
    ensure!(done["after"] == format!("ANY 1 (\"{WEST}\")").as_str(), "{done}");
    world.source.psql("INSERT INTO t VALUES (1)")?;
    let now = live(&world)?;
    ensure!(now["rpo_promised"] == true && now["rpo_seconds"] == 0.0, "{now}");
    ensure!(now["receivers"][1]["shipped_lsn"].is_string(), "{now}");
    says(&world, "receiver west", "pass", "streaming")?;

    // Dead, commits wait for it; back, they go on.
    west.signal(nix::sys::signal::Signal::SIGKILL)?;
    drop(west);
    gone(&mut world, WEST)?;
    let mut psql = world.source.installation().client_command("psql")?;
    psql.args(["-X", "-d", &world.source.connection(), "-c", "INSERT INTO t VALUES (2)"]);
    let mut waits = Running::spawn(&mut psql, None)?;
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    world.source.wait_for(waiting, "1")?;
    ensure!(live(&world)?["rpo_promised"] == false && waits.is_running()?);
    let _west = start(&world, "west")?;
    waits.wait(PATIENCE)?.success()?;
    ensure!(acknowledge(&world, &["--undo"])?["after"] == "");
    Ok(())
}

#[test]
fn pg13_a_receiver_in_the_other_region_is_waited_for() -> Result<()> {
    a_receiver_in_the_other_region_is_waited_for(13)
}

#[test]
fn pg15_a_receiver_in_the_other_region_is_waited_for() -> Result<()> {
    a_receiver_in_the_other_region_is_waited_for(15)
}

#[test]
fn pg18_a_receiver_in_the_other_region_is_waited_for() -> Result<()> {
    a_receiver_in_the_other_region_is_waited_for(18)
}
