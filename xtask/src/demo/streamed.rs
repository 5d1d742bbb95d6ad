//! The steps of act two: commits wait for another region, and then the own one is gone.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use lifeboat_environment::{Clock, SystemClock};
use lifeboat_model::{Lsn, SegmentName, SegmentSize};
use lifeboat_telemetry::duration;
use lifeboat_testkit::process::Running;
use nix::sys::signal::Signal;

use super::Step;
use super::figures::judged;
use super::ledger::{self, WEST};
use super::stage::Stage;

/// Titles and steps.
pub const STEPS: [(&str, Step<Streamed>); 10] = [
    ("A ledger that may lose nothing", Streamed::cluster),
    ("A spec with an RPO of 0", Streamed::spec),
    ("A host in each region, each with its own key", Streamed::hosts),
    ("A receiver in each region, and a backup", Streamed::receivers),
    ("Commits wait for the west", Streamed::acknowledge),
    ("Load, with every acknowledgement written down", Streamed::load),
    ("The region is lost, with its server, its disk and its repository", Streamed::disaster),
    ("Restore in the west, from the west alone", Streamed::restore),
    ("Is every acknowledged row there?", Streamed::compare),
    ("What it came to", Streamed::measured),
];

const RTO: Duration = Duration::from_secs(5 * 60);
const CLIENTS: usize = 4;

/// Each client writes its own numbers, one a transaction.
const ORDER: &str = "\\set number :number + 1
INSERT INTO orders VALUES (:client_id, :number, clock_timestamp());
";

/// What a step leaves to the next ones.
pub struct Streamed {
    east: Option<Running>,
    west: Option<Running>,
    load: Option<Running>,
    seconds: Duration,
    /// The server in the east listens there, for the receiver of the west.
    port: String,
    killed: Duration,
    outage: Duration,
    proof: Proof,
    /// Where it happens. Goes last, as it ends everything that still runs.
    pub stage: Stage,
}

/// What was found about commits.
#[derive(Default)]
struct Proof {
    /// Commits that clients were told of.
    told: u64,
    /// Of these, restored.
    kept: u64,
    /// Where the newest of them lies in the WAL of the dead server.
    last_acknowledged: Lsn,
    /// Where the restored server's recovery ended.
    restored_to: Lsn,
    /// Rows that were found.
    restored: u64,
    /// Commits on the dead server's disk that nobody was told of and the west does not have.
    untold: usize,
}

impl Streamed {
    /// Nothing has happened yet.
    pub fn new(stage: Stage, seconds: Duration) -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
        Ok(Self {
            east: None,
            west: None,
            load: None,
            seconds,
            port,
            killed: Duration::ZERO,
            outage: Duration::ZERO,
            proof: Proof::default(),
            stage,
        })
    }

    /// A command on the host of a region: hosts differ in their state directory.
    fn on<'a>(region: &'a str, state: &'a str, words: &[&'a str]) -> Vec<&'a str> {
        let shell = ["env", state, "lifeboat", "--spec", "lifeboat.yaml", "--here", region];
        [&shell, words].concat()
    }

    fn in_east(&self, words: &[&str]) -> Result<Duration> {
        self.stage.show(&Self::on("east", "LIFEBOAT_STATE=east/state", words))
    }

    fn in_west(&self, words: &[&str], code: i32) -> Result<Duration> {
        self.stage.show_ending(&Self::on("west", "LIFEBOAT_STATE=west/state", words), code)
    }

    fn psql(&self, sql: &str) -> Result<()> {
        self.stage.show(&["psql", "-X", "-p", &self.port, "ledger", "-c", sql]).map(drop)
    }

    fn cluster(&mut self) -> Result<()> {
        let stage = &self.stage;
        stage.note(&format!("Everything happens in {}.\n", stage.directory().display()));
        stage.brief(&[
            "initdb",
            "--pgdata=east/data",
            "--data-checksums",
            "--auth=trust",
            "--username=postgres",
            "--no-sync",
        ])?;
        let path = "east/data/postgresql.conf";
        let defaults = fs::read_to_string(stage.path(path))?;
        let settings = format!(
            "listen_addresses = '127.0.0.1'
unix_socket_directories = '{}'
dynamic_shared_memory_type = mmap
",
            stage.path("run").display()
        );
        stage.note(&format!("postgresql.conf, at its end; no archive_command:\n\n{settings}"));
        stage.file(path, &format!("{defaults}\n{settings}"))?;
        ledger::start(stage, "east", &self.port)?;
        stage.brief(&["createdb", "-p", &self.port, "ledger"])?;
        self.psql("CREATE TABLE orders (client int, number int, at timestamptz, PRIMARY KEY (client, number))")
    }

    fn spec(&mut self) -> Result<()> {
        let stage = &self.stage;
        stage.file("passphrase", "correct horse battery staple\n")?;
        let here = stage.directory().display().to_string();
        stage.file("lifeboat.yaml", &spec(&here, &self.port))?;
        stage.show(&["cat", "lifeboat.yaml"]).map(drop)
    }

    fn hosts(&mut self) -> Result<()> {
        self.in_east(&["repo", "create"])?;
        self.in_west(&["key", "enroll"], 0).map(drop)
    }

    fn receivers(&mut self) -> Result<()> {
        self.east = Some(self.receive("east", "LIFEBOAT_STATE=east/state")?);
        self.west = Some(self.receive("west", "LIFEBOAT_STATE=west/state")?);
        let streaming = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
        self.stage.wait_until("streaming to both receivers", || {
            Ok(self.stage.ask(&self.port, streaming)? == "2")
        })?;
        self.in_east(&["backup", "payments/ledger"]).map(drop)
    }

    fn receive(&self, region: &str, state: &str) -> Result<Running> {
        let words = Self::on(region, state, &["wal", "receive", "payments/ledger"]);
        self.stage.echo(&format!("{} &", words.join(" ")));
        self.stage.background(&words)
    }

    fn acknowledge(&mut self) -> Result<()> {
        self.in_east(&["wal", "acknowledge", "payments/ledger"])?;
        self.psql(
            "SELECT application_name, state, sync_state, sent_lsn - flush_lsn AS bytes_behind
             FROM pg_stat_replication",
        )
    }

    fn load(&mut self) -> Result<()> {
        let stage = &self.stage;
        stage.file("order.sql", ORDER)?;
        stage.folder("told")?;
        let clients = CLIENTS.to_string();
        let words = [
            "pgbench",
            "--no-vacuum",
            "--file=order.sql",
            "--define=number=0",
            "--log",
            "--log-prefix=told/log",
            "--client",
            &clients,
            "--jobs=2",
            "--time=3600",
            "--port",
            &self.port,
            "ledger",
        ];
        stage.show(&["cat", "order.sql"])?;
        stage.echo(&format!("{} &", words.join(" ")));
        let mut load = stage.background(&words)?;
        ledger::write_for(stage, self.seconds)?;
        ledger::assert_running(&mut load)?;
        self.load = Some(load);
        self.in_east(&["wal", "status", "payments/ledger"]).map(drop)
    }

    fn disaster(&mut self) -> Result<()> {
        self.killed = SystemClock.elapsed();
        ledger::kill(&self.stage, "east/data")?;
        let east = self.east.take().context("no receiver in the east")?;
        self.stage.echo(&format!("kill -9 {}", east.id()));
        east.signal(Signal::SIGKILL)?;
        let load = self.load.take().context("pgbench was never started")?;
        // It ends by itself, as every session is lost, and has then written all that it was told.
        load.wait(Duration::from_secs(60))?;
        // The table at the end counts in it what nobody was told of. Nothing else reads it.
        fs::rename(self.stage.path("east/data/pg_wal"), self.stage.path("evidence"))?;
        self.stage.show(&["rm", "-r", "east"])?;
        self.stage.note(
            "Gone: the data directory, the east's repository, the east's receiver with its spool.\n\
             Left: the west's receiver and repository, the spec, and the passphrase from the safe.",
        );
        Ok(())
    }

    fn restore(&mut self) -> Result<()> {
        let west = self.west.take().context("no receiver in the west")?;
        self.stage.note("The west's receiver ships what it holds, and ends.\n");
        self.stage.echo(&format!("kill {}", west.id()));
        west.signal(Signal::SIGTERM)?;
        let ended = west.wait(Duration::from_secs(60))?.success()?;
        println!("{}", ended.stdout);
        self.in_west(&["restore", "payments/ledger", "--to", "west/data", "--latest"], 0)?;
        ledger::start(&self.stage, "west", WEST)?;
        self.stage.wait_until("the promotion", || {
            Ok(self.stage.ask(WEST, "SELECT pg_is_in_recovery()")? == "f")
        })?;
        self.outage = SystemClock.elapsed().saturating_sub(self.killed);
        let lines = "redo done|last completed|new timeline";
        self.stage.show(&["grep", "-E", lines, "west/server.log"]).map(drop)
    }

    fn compare(&mut self) -> Result<()> {
        let told_by_client = self.told()?;
        ensure!(told_by_client.len() == CLIENTS, "a client was told of no commit");
        let mut table = Table::new();
        table.load_style(NOTHING);
        table.set_header([
            "client",
            "told of",
            "of these restored",
            "restored untold",
            "newest told, at",
        ]);
        for (client, told) in told_by_client {
            let found = self.stage.ask(
                WEST,
                &format!(
                    "SELECT count(*) FILTER (WHERE number <= {told}), count(*),
                         max(xmin::text::bigint) FILTER (WHERE number = {told})
                     FROM orders WHERE client = {client}"
                ),
            )?;
            let mut words = found.split('|');
            let mut next = || words.next().context("no answer about a client");
            let (kept, all, xid): (u64, u64, String) =
                (next()?.parse()?, next()?.parse()?, next()?.to_owned());
            ensure!(kept == told, "client {client} was told of {told} commits, {kept} are there");
            let lsn = self.committed(&xid)?;
            self.proof.told += told;
            self.proof.kept += kept;
            self.proof.last_acknowledged = self.proof.last_acknowledged.max(lsn);
            self.proof.restored += all;
            table.add_row([
                client.to_string(),
                told.to_string(),
                kept.to_string(),
                (all - kept).to_string(),
                lsn.to_string(),
            ]);
        }
        println!("{table}\n");
        self.compare_positions()
    }

    /// The dead server's WAL, beside where the restored one's recovery ended.
    fn compare_positions(&mut self) -> Result<()> {
        let history = fs::read_to_string(self.stage.path("west/data/pg_wal/00000002.history"))?;
        let end = history.lines().rev().find_map(|line| line.split('\t').nth(1));
        self.proof.restored_to = end.context("no position in the history file")?.parse()?;
        let commits = self.commits()?;
        let untold = commits.iter().filter(|(_, lsn)| *lsn >= self.proof.restored_to);
        self.proof.untold = untold.count();
        ensure!(
            self.proof.restored_to > self.proof.last_acknowledged,
            "the recovery ended before the newest commit that a client was told of"
        );
        Ok(())
    }

    /// How many commits each client was told of: a line each in pgbench's log.
    fn told(&self) -> Result<BTreeMap<usize, u64>> {
        let mut told = BTreeMap::new();
        for file in fs::read_dir(self.stage.path("told"))? {
            for line in fs::read_to_string(file?.path())?.lines() {
                let mut words = line.split(' ');
                let client: usize = words.next().unwrap_or_default().parse()?;
                let microseconds = words.nth(1).unwrap_or_default();
                ensure!(microseconds.parse::<u64>().is_ok(), "pgbench says of a commit: {line}");
                *told.entry(client).or_default() += 1;
            }
        }
        Ok(told)
    }

    /// Where a transaction's commit lies.
    fn committed(&self, xid: &str) -> Result<Lsn> {
        let commits = self.commits()?;
        let found = commits.iter().find(|(one, _)| one == xid);
        Ok(found.with_context(|| format!("transaction {xid} is not in the evidence"))?.1)
    }

    /// All commits that the dead server had on its disk: transaction and position.
    fn commits(&self) -> Result<Vec<(String, Lsn)>> {
        let files = fs::read_dir(self.stage.path("evidence"))?;
        let names = files.filter_map(|file| file.ok()?.file_name().to_str()?.parse().ok());
        let first: SegmentName = names.min().context("no WAL is left as evidence")?;
        let start = first.start(SegmentSize::DEFAULT).unwrap_or_default().to_string();
        let words = ["pg_waldump", "--path=evidence", "--rmgr=Transaction", "--start", &start];
        // It ends with an error, at the torn end of the WAL.
        let said = self.stage.quiet(&words)?.stdout;
        let commits: Vec<_> = said.lines().filter_map(commit).collect();
        ensure!(!commits.is_empty(), "pg_waldump found no commit");
        Ok(commits)
    }

    fn measured(&mut self) -> Result<()> {
        let Proof { told, kept, last_acknowledged, restored_to, restored, untold } = &self.proof;
        let mut table = Table::new();
        table.load_style(NOTHING).set_header(["", "measured", "objective", ""]);
        let title = "RTO: from kill -9 to the first answer in the west";
        table.add_row(judged(title, self.outage, RTO));
        let title = "RPO: commits that clients were told of and that are gone";
        let gone = told - kept;
        let verdict = if gone == 0 { "met" } else { "MISSED" };
        table.add_row([title, &format!("{gone} of {told}"), "0", verdict]);
        let mut row = |name: &str, value: String| {
            table.add_row([name, &value]);
        };
        row("newest commit that a client was told of", format!("at {last_acknowledged}"));
        row("the restored server's recovery ended", format!("at {restored_to}"));
        row("rows restored", restored.to_string());
        row("commits that nobody was told of, and that are gone", untold.to_string());
        println!("{table}\n");
        ensure!(self.outage <= RTO, "the RTO of {} was missed", duration(RTO));
        Ok(())
    }
}

fn commit(line: &str) -> Option<(String, Lsn)> {
    let (_, xid) = line.split_once("tx: ")?;
    let (_, lsn) = line.split_once("lsn: ")?;
    line.contains("COMMIT").then_some(())?;
    let (xid, _) = xid.trim_start().split_once(',')?;
    let (lsn, _) = lsn.split_once(',')?;
    Some((xid.to_owned(), lsn.parse().ok()?))
}

/// A real spec, for the directory of the story. State lies where each host says.
fn spec(here: &str, port: &str) -> String {
    format!(
        "lifeboat: 1
regions:
  east: {{ repository: {{ url: \"file://{here}/east/repository\" }} }}
  west: {{ repository: {{ url: \"file://{here}/west/repository\" }} }}
encryption:
  slots:
    - passphrase: \"file:{here}/passphrase\"
    - recovery_key: {{}}
tiers:
  tier-1: {{ rto: 5m, rpo: 0s }}
services:
  payments:
    tier: tier-1
    home: east
    standby: west
    databases:
      ledger:
        engine: postgres
        nodes:
          east-1:
            region: east
            data_directory: {here}/east/data
            connection: \"host={here}/run port={port} user=postgres dbname=postgres sslmode=disable\"
            address: \"127.0.0.1:{port}\"
            bin_directory: /usr/lib/postgresql/15/bin
          west-1:
            region: west
            data_directory: {here}/west/data
            connection: \"host={here}/run port={WEST} user=postgres dbname=postgres\"
            bin_directory: /usr/lib/postgresql/15/bin
        wal:
          mode: stream
          receivers: [east, west]
          acknowledge: {{ remote: 1, durable: spool, on_loss: block }}
          flush_every: 500ms
"
    )
}
