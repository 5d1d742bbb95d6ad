//! `lifeboat check` and `lifeboat init` beside real servers: what they say is true, and following
//! their advice helps.

use std::path::Path;

use anyhow::{Context, Result, bail};
use lifeboat_testkit::postgres::Cluster;
use lifeboat_testkit::run::Lifeboat;
use lifeboat_testkit::scratch::Scratch;
use serde_json::Value;

/// A server with a spec and repositories.
struct World {
    lifeboat: Lifeboat,
    cluster: Cluster,
    scratch: Scratch,
}

impl World {
    fn new(major: u32, settings: &[&str], checksums: bool) -> Result<Self> {
        let builder = Cluster::builder(major).checksums(checksums);
        let builder = settings.iter().fold(builder, |builder, line| builder.setting(*line));
        let mut cluster = builder.create()?;
        cluster.start()?;
        let scratch = Scratch::new()?;
        let lifeboat = Lifeboat::of(Path::new(env!("CARGO_BIN_EXE_lifeboat")))?
            .variable("LIFEBOAT_SPEC", scratch.join("lifeboat.yaml").display().to_string())
            .variable("LIFEBOAT_REGION", "east");
        let world = Self { lifeboat, cluster, scratch };
        world.connect_as("postgres")?;
        world.scratch.file("passphrase", "a passphrase for tests\n")?;
        world.lifeboat.ok(["repo", "create"])?;
        Ok(world)
    }

    /// Writes the spec with this role in the connection.
    fn connect_as(&self, role: &str) -> Result<()> {
        let root = self.scratch.path().display();
        let connection = self.cluster.connection().replace("user=postgres", "user={role}");
        let connection = connection.replace("{role}", role);
        let data = self.cluster.data().display();
        let spec = format!(
            "lifeboat: 1
state: {root}/state
regions:
  east: {{ repository: {{ url: \"file://{root}/east\" }} }}
  west: {{ repository: {{ url: \"file://{root}/west\" }} }}
encryption: {{ slots: [{{ passphrase: \"file:{root}/passphrase\" }}] }}
tiers: {{ t: {{ rto: 1h, rpo: 1h }} }}
services:
  pay:
    tier: t
    home: east
    databases:
      ledger:
        engine: postgres
        nodes:
          east-1: {{ region: east, data_directory: {data}, connection: \"{connection}\" }}
        wal: {{ mode: archive, every: 30m }}
"
        );
        self.scratch.file("lifeboat.yaml", spec).map(drop)
    }

    fn check(&self, flags: &[&str]) -> Result<Checked> {
        let finished = self.lifeboat.run([&["check", "--json"], flags].concat())?;
        Ok(Checked { code: finished.code, document: finished.json()? })
    }
}

/// What a check said.
#[derive(Debug)]
struct Checked {
    code: Option<i32>,
    document: Value,
}

impl Checked {
    fn line(&self, check: &str) -> Result<&Value> {
        let lines = self.document["result"]["lines"].as_array().context("lines")?;
        let line = lines.iter().find(|line| line["check"] == check);
        line.with_context(|| format!("no line {check} in {:#}", self.document))
    }

    fn expect(&self, check: &str, verdict: &str) -> Result<&Value> {
        let line = self.line(check)?;
        if line["verdict"] != verdict {
            bail!("{check} is not {verdict}: {line:#}");
        }
        Ok(line)
    }
}

/// Follows the advice until nothing is left to change.
fn advice_helps(major: u32) -> Result<()> {
    let mut world = World::new(major, &["fsync = on"], true)?;
    let before = world.check(&[])?;
    assert_eq!(before.code, Some(1));
    for check in ["connection", "identity", "role", "wal_level", "full_page_writes", "fsync"] {
        before.expect(check, "pass")?;
    }
    before.expect("data checksums", "pass")?;
    before.expect("archive_mode", "fail")?;
    let advice = before.expect("archive_command", "fail")?["advice"].as_str().context("advice")?;
    let command = advice.strip_prefix("Set archive_command = ").context("a setting")?;
    world.cluster.psql(&format!("ALTER SYSTEM SET archive_command = {command}"))?;
    world.cluster.psql("ALTER SYSTEM SET archive_mode = on")?;
    world.cluster.restart()?;
    world.cluster.psql("CREATE TABLE t (); SELECT pg_switch_wal()")?;
    let archived = "SELECT archived_count > 0 FROM pg_stat_archiver";
    world.cluster.wait_for(archived, "t")?;
    let after = world.check(&["--strict"])?;
    assert_eq!(after.code, Some(0), "{:#}", after.document);
    after.expect("archiver", "pass")?;
    after.expect("archive_timeout", "warn")?;
    world.cluster.psql("ALTER SYSTEM SET archive_timeout = '30min'")?;
    world.cluster.psql("SELECT pg_reload_conf()")?;
    world.cluster.wait_for("SHOW archive_timeout", "30min")?;
    world.check(&[])?.expect("archive_timeout", "pass")?;

    let spec = std::fs::read_to_string(world.scratch.join("lifeboat.yaml"))?;
    let spec = format!("{spec}        verify: {{ schedule: \"0 4 * * *\", level: V4 }}\n");
    world.scratch.file("lifeboat.yaml", spec)?;
    assert_eq!(world.check(&[])?.code, Some(0));
    let strict = world.check(&["--strict"])?;
    assert_eq!(strict.code, Some(1));
    assert_eq!(strict.document["error"]["code"], "LB1008");
    Ok(())
}

#[test]
fn pg13_following_the_advice_of_check_leaves_nothing_to_change() -> Result<()> {
    advice_helps(13)
}

#[test]
fn pg15_following_the_advice_of_check_leaves_nothing_to_change() -> Result<()> {
    advice_helps(15)
}

#[test]
fn pg18_following_the_advice_of_check_leaves_nothing_to_change() -> Result<()> {
    advice_helps(18)
}

#[test]
fn pg15_a_role_without_rights_is_told_which_it_needs() -> Result<()> {
    let world = World::new(15, &[], true)?;
    world.cluster.psql("CREATE ROLE weak LOGIN")?;
    world.connect_as("weak")?;
    world.check(&[])?.expect("connection", "fail")?;
    world.cluster.psql("GRANT pg_read_all_settings TO weak")?;
    let checked = world.check(&[])?;
    let advice = checked.expect("role", "fail")?["advice"].as_str().context("advice")?.to_owned();
    world.cluster.psql(&advice)?;
    world.check(&[])?.expect("role", "pass")?;
    Ok(())
}

#[test]
fn pg15_settings_that_endanger_a_restore_are_named() -> Result<()> {
    let settings =
        ["wal_level = minimal", "max_wal_senders = 0", "fsync = off", "full_page_writes = off"];
    let world = World::new(15, &settings, false)?;
    let checked = world.check(&[])?;
    assert_eq!(checked.code, Some(1));
    checked.expect("wal_level", "fail")?;
    checked.expect("fsync", "warn")?;
    checked.expect("full_page_writes", "fail")?;
    checked.expect("data checksums", "warn")?;
    Ok(())
}

#[test]
fn pg15_a_stopped_server_and_another_one_in_its_place_are_noticed() -> Result<()> {
    let mut world = World::new(15, &[], true)?;
    world.cluster.stop(lifeboat_testkit::postgres::Stop::Fast)?;
    let stopped = world.check(&[])?;
    let message = stopped.expect("connection", "fail")?["message"].as_str().context("message")?;
    assert!(message.contains("[LB4001]"), "{message}");
    stopped.expect("data directory", "pass")?;
    let mut other = Cluster::builder(15).create()?;
    other.start()?;
    let spec = std::fs::read_to_string(world.scratch.join("lifeboat.yaml"))?;
    let spec = spec.replace(&world.cluster.connection(), &other.connection());
    world.scratch.file("lifeboat.yaml", spec)?;
    let message = world.check(&[])?.expect("identity", "fail")?["message"].to_string();
    assert!(message.contains("LB4"), "{message}");
    Ok(())
}

#[test]
fn pg15_init_finds_the_running_server() -> Result<()> {
    let world = World::new(15, &[], true)?;
    let spec = world.scratch.join("begun.yaml");
    let spec = spec.to_str().context("a path")?;
    let finished = world.lifeboat.ok(["init", "--json", "--output", spec])?;
    let document = finished.json()?;
    let clusters = document["result"]["clusters"].as_array().context("clusters")?;
    let data = world.cluster.data().canonicalize()?.display().to_string();
    let found = clusters.iter().find(|found| found["data_directory"] == data.as_str());
    let found = found.with_context(|| format!("{data} is not in {clusters:#?}"))?;
    assert_eq!((&found["running"], &found["readable"]), (&true.into(), &true.into()));
    assert_eq!(found["version"], "15");
    let checked = world.lifeboat.run(["check", "--json", "--spec", spec])?.json()?;
    let findings = checked["result"]["findings"].as_array().context("findings")?;
    assert!(findings.iter().all(|finding| finding["severity"] != "error"), "{findings:#?}");
    Ok(())
}
