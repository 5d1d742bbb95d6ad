//! The steps of act one, in their order.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lifeboat_environment::{Clock, SystemClock};
use lifeboat_testkit::process::Running;

use super::Step;
use super::figures::{self, Figures};
use super::ledger::{self, EAST, WEST};
use super::proof::{self, Moment};
use super::stage::Stage;

/// Titles and steps.
pub const STEPS: [(&str, Step<Story>); 14] = [
    ("A PostgreSQL with a ledger", Story::cluster),
    ("A spec: two regions, a tier, one database", Story::spec),
    ("Repositories, keys, archive_command", Story::repositories),
    ("Is everything ready?", Story::ready),
    ("A backup while pgbench writes", Story::backup),
    ("A moment to come back to", Story::moment),
    ("A DELETE without WHERE", Story::damage),
    ("What could be restored now", Story::window),
    ("Then the whole region is lost", Story::disaster),
    ("Restore in the west, to the moment", Story::restore),
    ("Is it that state? Row by row", Story::compare),
    ("The copy cannot write into the archive", Story::refusal),
    ("Is the west's repository whole?", Story::whole),
    ("What it came to", Story::measured),
];

/// What a step leaves to the next ones.
pub struct Story {
    load: Option<Running>,
    seconds: Duration,
    load_began: Duration,
    moment: Option<Moment>,
    killed: Duration,
    figures: Figures,
    /// Where it happens. Goes last, as it ends everything that still runs.
    pub stage: Stage,
}

const IN_EAST: [&str; 5] = ["lifeboat", "--spec", "lifeboat.yaml", "--here", "east"];
const IN_WEST: [&str; 5] = ["lifeboat", "--spec", "lifeboat.yaml", "--here", "west"];

impl Story {
    /// Nothing has happened yet.
    pub fn new(stage: Stage, seconds: Duration) -> Self {
        Self {
            load: None,
            seconds,
            load_began: Duration::ZERO,
            moment: None,
            killed: Duration::ZERO,
            figures: Figures::default(),
            stage,
        }
    }

    fn east(&self, words: &[&str]) -> Result<Duration> {
        self.stage.show(&[&IN_EAST, words].concat())
    }

    fn west(&self, words: &[&str]) -> Result<Duration> {
        self.stage.show(&[&IN_WEST, words].concat())
    }

    /// A command that works on all regions, and says with its exit code that one is missing.
    fn without_east(&self, words: &[&str]) -> Result<Duration> {
        self.stage.show_ending(&[&IN_WEST, words].concat(), 5)
    }

    fn moment_noted(&self) -> Result<&Moment> {
        self.moment.as_ref().context("no moment was noted")
    }

    fn cluster(&mut self) -> Result<()> {
        let here = self.stage.directory().display();
        self.stage.note(&format!("Everything happens in {}, as PostgreSQL's own account.\n", here));
        ledger::create(&self.stage)
    }

    fn spec(&mut self) -> Result<()> {
        let stage = &self.stage;
        stage.file("passphrase", "correct horse battery staple\n")?;
        stage.file("lifeboat.yaml", &spec(&stage.directory().display().to_string()))?;
        stage.note("`lifeboat init` writes a commented one to begin with. This is ours:\n");
        stage.show(&["cat", "lifeboat.yaml"]).map(drop)
    }

    fn repositories(&mut self) -> Result<()> {
        self.east(&["repo", "create"])?;
        self.east(&["key", "enroll"])?;
        ledger::archive(&self.stage)
    }

    fn ready(&mut self) -> Result<()> {
        self.east(&["check"]).map(drop)
    }

    fn backup(&mut self) -> Result<()> {
        self.load = Some(ledger::load(&self.stage)?);
        self.load_began = SystemClock.elapsed();
        ledger::write_for(&self.stage, Duration::from_secs(2))?;
        self.figures.backup = self.east(&["backup", "payments/ledger"])?;
        self.east(&["backups", "list", "payments/ledger"])?;
        self.still_writing()
    }

    fn still_writing(&mut self) -> Result<()> {
        ledger::assert_running(self.load.as_mut().context("pgbench was never started")?)
    }

    fn moment(&mut self) -> Result<()> {
        let written = SystemClock.elapsed().saturating_sub(self.load_began);
        ledger::write_for(&self.stage, (self.seconds / 2).saturating_sub(written))?;
        self.still_writing()?;
        self.stage.note(
            "moment.sql locks the tables, so that pgbench waits for it, writes down the md5 of \
             every row,\nadds a row that marks the moment, and commits.\n",
        );
        self.moment = Some(proof::note_moment(&self.stage)?);
        ledger::write_for(&self.stage, self.seconds / 2)?;
        self.still_writing()
    }

    fn damage(&mut self) -> Result<()> {
        let stage = &self.stage;
        stage.show(&["psql", "-X", "ledger", "-c", "DELETE FROM pgbench_accounts"])?;
        stage.show(&["psql", "-X", "ledger", "-c", "SELECT count(*) FROM pgbench_accounts"])?;
        self.still_writing()
    }

    fn window(&mut self) -> Result<()> {
        let lsn = &self.moment_noted()?.after;
        let archived =
            format!("SELECT last_archived_wal >= pg_walfile_name('{lsn}') FROM pg_stat_archiver");
        self.stage.wait_until("the archiving of the moment", || {
            Ok(self.stage.ask(EAST, &archived)? == "t")
        })?;
        self.east(&["wal", "status", "payments/ledger"])?;
        self.still_writing()
    }

    fn disaster(&mut self) -> Result<()> {
        self.figures.killed_at = SystemClock.now();
        self.killed = SystemClock.elapsed();
        ledger::kill(&self.stage, "east/data")?;
        self.load = None;
        // The table at the end counts in it what no archive had. Nothing else reads it.
        fs::rename(self.stage.path("east/data/pg_wal"), self.stage.path("evidence"))?;
        self.stage.show(&["rm", "-r", "east", "state"])?;
        self.stage.note(
            "Gone: the data directory, the east's repository, and this host's keys and state.\n\
             Left: the west's repository, the spec, and the passphrase from the safe.",
        );
        Ok(())
    }

    fn restore(&mut self) -> Result<()> {
        let time = self.moment_noted()?.time.clone();
        self.stage.note("A new host takes over. With the passphrase it gets a key of its own.\n");
        self.without_east(&["key", "enroll"])?;
        self.figures.restore =
            self.west(&["restore", "payments/ledger", "--to", "west/data", "--time", &time])?;
        let start = SystemClock.elapsed();
        ledger::start(&self.stage, "west", WEST)?;
        self.stage.wait_until("the promotion", || {
            Ok(self.stage.ask(WEST, "SELECT pg_is_in_recovery()")? == "f")
        })?;
        let now = SystemClock.elapsed();
        self.figures.recovery = now.saturating_sub(start);
        self.figures.outage = now.saturating_sub(self.killed);
        self.stage.show(&[
            "grep",
            "-E",
            "recovery stopping|last completed|new timeline",
            "west/server.log",
        ])?;
        Ok(())
    }

    fn compare(&mut self) -> Result<()> {
        self.stage.show(&["psql", "-X", "-p", WEST, "ledger", "-c", "SELECT * FROM moments"])?;
        proof::note_restored(&self.stage)?;
        self.stage.show(&["sh", "-c", "md5sum moment/pgbench_* restored/pgbench_*"])?;
        self.figures.rows = proof::compare(&self.stage)?;
        ensure!(self.figures.rows > 0, "there was nothing to compare");
        Ok(())
    }

    fn refusal(&mut self) -> Result<()> {
        self.stage.note("This is what the archiver of a copy would run.\n");
        let name = self.stage.ask(WEST, "SELECT pg_walfile_name(pg_switch_wal())")?;
        let segment = format!("pg_wal/{name}");
        let shell = ["lifeboat", "--spec", "../../lifeboat.yaml", "--here", "west"];
        let push = ["wal", "push", &segment, "--db", "payments/ledger"];
        self.stage.show_in("west/data", &[&shell[..], &push].concat(), 4)?;
        Ok(())
    }

    fn whole(&mut self) -> Result<()> {
        self.without_east(&["repo", "check", "--read-data"]).map(drop)
    }

    fn measured(&mut self) -> Result<()> {
        figures::tell(&self.stage, &self.figures, self.moment_noted()?)
    }
}

/// A real spec, for the directory of the story.
fn spec(here: &str) -> String {
    format!(
        "lifeboat: 1
state: {here}/state
regions:
  east: {{ repository: {{ url: \"file://{here}/east/repository\" }} }}
  west: {{ repository: {{ url: \"file://{here}/west/repository\" }} }}
encryption:
  slots:
    - passphrase: \"file:{here}/passphrase\"
    - recovery_key: {{}}
  writer: \"file:{here}/state/writer.key\"
tiers:
  tier-2: {{ rto: 30m, rpo: 5m }}
services:
  payments:
    tier: tier-2
    home: east
    databases:
      ledger:
        engine: postgres
        nodes:
          east-1:
            region: east
            data_directory: {here}/east/data
            connection: \"host={here}/run port={EAST} user=postgres dbname=postgres\"
            bin_directory: /usr/lib/postgresql/15/bin
          west-1:
            region: west
            data_directory: {here}/west/data
            connection: \"host={here}/run port={WEST} user=postgres dbname=postgres\"
            bin_directory: /usr/lib/postgresql/15/bin
        backup: {{ compression: zstd-1, workers: 2 }}
        wal: {{ mode: archive, every: 1m }}
"
    )
}
