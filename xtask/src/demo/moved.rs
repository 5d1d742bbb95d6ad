//! The steps of act three: a service moves, by plan and by itself, and comes home.

use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use lifeboat_environment::{Clock, SystemClock};
use lifeboat_telemetry::duration;
use lifeboat_testkit::etcd::Cluster as Etcd;
use lifeboat_testkit::haproxy::{Member, Proxy};
use lifeboat_testkit::process::{Running, tree};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::Step;
use super::clients::{Clients, all_there, one_at_a_time, outage};
use super::ledger;
use super::stage::Stage;

/// Titles and steps.
pub const STEPS: [(&str, Step<Moved>); 11] = [
    ("Three failure domains: etcd, and a load balancer", Moved::ground),
    ("A ledger in the east, and its first backup", Moved::cluster),
    ("Agents and controllers; from now on only a guard starts PostgreSQL", Moved::daemons),
    ("A standby in the west, made from the west's repository", Moved::standby),
    ("Clients that remember every acknowledged write", Moved::clients),
    ("A planned move to the west, under load", Moved::switchover),
    ("The west is lost: server, guard, agent, controller, receiver, etcd member", Moved::disaster),
    ("Nobody is asked: the service comes up in the east", Moved::failover),
    ("The west comes back, and is refused", Moved::refused),
    ("The west follows, and commits wait for it again", Moved::fallback),
    ("What it came to", Moved::measured),
];

const RTO: Duration = Duration::from_secs(5 * 60);
const CLIENTS: i32 = 4;

/// What runs in a region or at the witness.
#[derive(Default)]
struct Domain {
    agent: Option<Running>,
    controller: Option<Running>,
}

/// What a step leaves to the next ones.
pub struct Moved {
    etcd: Option<Etcd>,
    proxy: Option<Proxy>,
    ports: Ports,
    east: Domain,
    west: Domain,
    north: Domain,
    clients: Option<Clients>,
    seconds: Duration,
    switchover_at: Duration,
    lost_at: Duration,
    back_at: Duration,
    /// Where it happens. Goes last, as it ends everything that still runs.
    pub stage: Stage,
}

/// Loopback ports of its own.
struct Ports {
    east: u16,
    west: u16,
    east_health: u16,
    west_health: u16,
}

impl Moved {
    /// Nothing has happened yet.
    pub fn new(stage: Stage, seconds: Duration) -> Result<Self> {
        let held: Vec<TcpListener> =
            (0..4).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<std::io::Result<_>>()?;
        let port = |index: usize| -> Result<u16> {
            Ok(held.get(index).context("no port")?.local_addr()?.port())
        };
        let ports =
            Ports { east: port(0)?, west: port(1)?, east_health: port(2)?, west_health: port(3)? };
        Ok(Self {
            etcd: None,
            proxy: None,
            ports,
            east: Domain::default(),
            west: Domain::default(),
            north: Domain::default(),
            clients: None,
            seconds,
            switchover_at: Duration::ZERO,
            lost_at: Duration::ZERO,
            back_at: Duration::ZERO,
            stage,
        })
    }

    fn words<'a>(region: &'a str, state: &'a str, words: &[&'a str]) -> Vec<&'a str> {
        let shell = ["env", state, "lifeboat", "--spec", "lifeboat.yaml", "--here", region];
        [&shell, words].concat()
    }

    /// Hosts differ in their state directory; what an agent starts works in other directories.
    fn state(&self, region: &str) -> String {
        let state = self.stage.path(region).join("state");
        format!("LIFEBOAT_STATE={}", state.display())
    }

    fn show(&self, region: &str, words: &[&str]) -> Result<Duration> {
        self.stage.show(&Self::words(region, &self.state(region), words))
    }

    fn background(&self, region: &str, words: &[&str]) -> Result<Running> {
        let state = self.state(region);
        let words = Self::words(region, &state, words);
        self.stage.echo(&format!("{} &", words.join(" ")));
        self.stage.background(&words)
    }

    fn status(&self) -> Result<Value> {
        let state = self.state("north");
        let words = Self::words("north", &state, &["status", "--json"]);
        self.stage.quiet(&words)?.json()
    }

    /// Waits until the service says of itself what is wanted.
    fn wait(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Result<()> {
        self.stage.wait_until(what, || {
            // A store that elects a leader just now is no reason to give up.
            let Ok(status) = self.status() else { return Ok(false) };
            Ok(status.pointer("/result/services/0").is_some_and(&holds))
        })
    }

    fn ground(&mut self) -> Result<()> {
        let stage = &self.stage;
        stage.note(&format!("Everything happens in {}.\n", stage.directory().display()));
        stage.folder("north")?;
        for domain in ["east", "west", "north"] {
            stage.folder(&format!("{domain}/state"))?;
            stage.folder(&format!("{domain}/run"))?;
        }
        let etcd = Etcd::start()?;
        stage
            .note("etcd has a member in the east, in the west, and at the witness in the north:\n");
        for endpoint in etcd.endpoints() {
            stage.note(&format!("  {endpoint}"));
        }
        let local = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let Ports { east, west, east_health, west_health } = self.ports;
        let member = |name: &str, serves, agent| Member {
            name: name.to_owned(),
            serves: local(serves),
            agent: local(agent),
        };
        let members = [member("east", east, east_health), member("west", west, west_health)];
        let proxy = Proxy::start("ledger", &members)?;
        stage.note(&format!(
            "\nClients connect to HAProxy at {}. It asks both agents `GET /primary`.",
            proxy.address()
        ));
        (self.etcd, self.proxy) = (Some(etcd), Some(proxy));
        Ok(())
    }

    fn cluster(&mut self) -> Result<()> {
        let stage = &self.stage;
        let words = ["initdb", "--pgdata=east/data", "--data-checksums", "--auth=trust"];
        stage.brief(&[&words[..], &["--username=postgres", "--no-sync"]].concat())?;
        let path = "east/data/postgresql.conf";
        let defaults = fs::read_to_string(stage.path(path))?;
        let settings = format!(
            "port = {}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\n\
             wal_log_hints = on\n",
            self.ports.east,
            stage.path("run").display()
        );
        stage.file(path, &format!("{defaults}\n{settings}"))?;
        let port = self.ports.east.to_string();
        ledger::start(stage, "east", &port)?;
        stage.brief(&["createdb", "-p", &port, "ledger"])?;
        let table = "CREATE TABLE orders (client int, number int, at timestamptz, \
                     PRIMARY KEY (client, number))";
        stage.show(&["psql", "-X", "-p", &port, "ledger", "-c", table])?;
        stage.file("passphrase", "correct horse battery staple\n")?;
        let etcd = self.etcd.as_ref().context("no etcd")?;
        let proxy = self.proxy.as_ref().context("no proxy")?;
        stage.file("lifeboat.yaml", &spec(stage, &self.ports, etcd, proxy))?;
        stage.show(&["cat", "lifeboat.yaml"])?;
        self.show("east", &["repo", "create"])?;
        self.show("west", &["key", "enroll"])?;
        self.show("north", &["key", "enroll"])?;
        self.show("east", &["backup", "payments/ledger"]).map(drop)
    }

    fn daemons(&mut self) -> Result<()> {
        let stop = ["pg_ctl", "-D", "east/data", "-m", "fast", "-w", "stop"];
        self.stage.show(&stop)?;
        self.show("north", &["apply"])?;
        for region in ["east", "west", "north"] {
            self.start(region)?;
        }
        self.wait("the first epoch", |service| service["state"] == "serving")?;
        self.show("north", &["status"]).map(drop)
    }

    /// Starts what runs in a domain.
    fn start(&mut self, region: &str) -> Result<()> {
        let agent = match region {
            "north" => None,
            region => Some(self.background(region, &["agent"])?),
        };
        let controller = Some(self.background(region, &["controller"])?);
        let domain = match region {
            "east" => &mut self.east,
            "west" => &mut self.west,
            _ => &mut self.north,
        };
        *domain = Domain { agent, controller };
        Ok(())
    }

    fn standby(&mut self) -> Result<()> {
        self.stage
            .note("The west's agent makes it from the west's repository, and lets it stream.\n");
        self.wait("a standby that is ready", |service| {
            let nodes = service["nodes"].as_array().into_iter().flatten();
            let streams = nodes.filter(|node| node["role"] == "standby").count() == 1;
            streams && service["not_ready"].as_array().is_some_and(Vec::is_empty)
        })?;
        self.show("north", &["status"])?;
        self.show("north", &["switchover", "payments", "--to", "west", "--dry-run"]).map(drop)
    }

    fn clients(&mut self) -> Result<()> {
        let address = self.proxy.as_ref().context("no proxy")?.address();
        let clients = Clients::start(CLIENTS, address);
        self.stage.note(&format!(
            "{CLIENTS} clients write numbered rows through {address}, connect again when they must, \
             and remember each write that was acknowledged, with the server that said so."
        ));
        ledger::write_for(&self.stage, self.seconds)?;
        ensure!(!clients.told().is_empty(), "no write was acknowledged");
        self.clients = Some(clients);
        Ok(())
    }

    fn switchover(&mut self) -> Result<()> {
        self.switchover_at = SystemClock.elapsed();
        self.show("north", &["switchover", "payments", "--to", "west"])?;
        ledger::write_for(&self.stage, self.seconds)
    }

    /// Everything of the west dies in the same moment, as far as one processor can do that.
    fn disaster(&mut self) -> Result<()> {
        // A service stays for its `dwell` after a move.
        self.stage.wait_until("the end of the dwell time", || {
            let since = SystemClock.elapsed().saturating_sub(self.switchover_at);
            Ok(since > Duration::from_secs(15))
        })?;
        let west = self.stage.path("west").display().to_string();
        let mut victims = processes_of(&west)?;
        let daemons = [&self.west.agent, &self.west.controller].into_iter().flatten();
        // The receiver is a child of the agent.
        victims.extend(daemons.flat_map(|running| tree(running.id())));
        let words: Vec<String> = victims.iter().map(ToString::to_string).collect();
        self.lost_at = SystemClock.elapsed();
        self.stage.echo(&format!("kill -9 {}", words.join(" ")));
        for pid in &victims {
            let _ = kill(*pid, Signal::SIGKILL);
        }
        self.etcd.as_mut().context("no etcd")?.kill(1)?;
        self.stage.note("Also gone: the west's member of etcd.");
        self.west = Domain::default();
        Ok(())
    }

    fn failover(&mut self) -> Result<()> {
        self.wait("a service in the east", |service| {
            service["region"] == "east" && service["state"] == "serving" && service["run"].is_null()
        })?;
        self.show("north", &["runs", "list"])?;
        self.show("north", &["runs", "show", "payments", "2"])?;
        ledger::write_for(&self.stage, self.seconds)?;
        self.show("north", &["status"]).map(drop)
    }

    fn refused(&mut self) -> Result<()> {
        self.back_at = SystemClock.elapsed();
        self.etcd.as_mut().context("no etcd")?.restart(1)?;
        self.stage.note("Somebody starts the old server by hand:\n");
        let words =
            ["pg_ctl", "-D", "west/data", "-l", "west/by-hand.log", "-w", "-t", "10", "start"];
        self.stage.show_ending(&words, 1)?;
        self.stage.show(&["tail", "-n", "2", "west/by-hand.log"]).map(drop)
    }

    fn fallback(&mut self) -> Result<()> {
        self.start("west")?;
        let follows = |service: &Value| {
            let nodes = service["nodes"].as_array().into_iter().flatten();
            nodes.filter(|node| node["role"] == "standby").count() == 1
        };
        let diverged = |service: &Value| {
            let mut nodes = service["nodes"].as_array().into_iter().flatten();
            nodes.any(|node| node["node"] == "west-1" && node["role"] == "down")
        };
        let patience = SystemClock.elapsed() + Duration::from_secs(20);
        self.wait("the west to follow", |service| {
            follows(service) || (diverged(service) && SystemClock.elapsed() > patience)
        })?;
        let status = self.status()?;
        let service = status.pointer("/result/services/0").context("no service")?;
        if !follows(service) {
            self.stage
                .note("The west had written what nobody was told of. It is set apart first:\n");
            self.show("north", &["fallback", "payments"])?;
        }
        self.wait("commits that wait again", |service| {
            follows(service) && service["degraded"].is_null()
        })?;
        self.show("north", &["status"]).map(drop)
    }

    fn measured(&mut self) -> Result<()> {
        let told = self.clients.take().context("no clients")?.end()?;
        let turns = one_at_a_time(&told)?;
        ensure!(turns == 3, "the servers acknowledged in {turns} turns: two wrote at once");
        let rows = self.stage.quiet(&[
            "psql",
            "-XAtq",
            "-p",
            &self.ports.east.to_string(),
            "ledger",
            "-c",
            "SELECT client, number FROM orders",
        ])?;
        let untold = all_there(&told, rows.success()?.stdout.trim_end())?;
        let planned = outage(&told, self.switchover_at, self.lost_at)?;
        let unplanned = outage(&told, self.lost_at, self.back_at)?;
        let mut table = Table::new();
        table.load_style(NOTHING);
        table.set_header(["", "measured", "objective", ""]);
        let mut row = |what: &str, measured: Duration| {
            let verdict = if measured <= RTO { "met" } else { "MISSED" };
            table.add_row([what.to_owned(), duration(measured), duration(RTO), verdict.to_owned()]);
        };
        row("planned move: to the first acknowledgement in the west", planned.0);
        row("planned move: the slowest client", planned.1);
        row("region lost: to the first acknowledgement in the east", unplanned.0);
        row("region lost: the slowest client", unplanned.1);
        let count = told.len();
        let zero = [&format!("0 of {count}"), "0", "met"];
        let [lost, objective, verdict] = zero;
        table.add_row(["RPO: acknowledged writes that are gone", lost, objective, verdict]);
        table.add_row(["servers that acknowledged at the same time", "none", "none", "met"]);
        table.add_row(["rows that nobody was told of", &untold.to_string(), "", ""]);
        println!("{table}\n");
        if planned.1 > RTO || unplanned.1 > RTO {
            bail!("an objective was missed");
        }
        Ok(())
    }
}

/// The processes whose command line names something below a directory.
fn processes_of(directory: &str) -> Result<BTreeSet<Pid>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&line).contains(directory) {
            found.insert(Pid::from_raw(pid));
        }
    }
    ensure!(!found.is_empty(), "nothing runs below {directory}");
    Ok(found)
}

fn spec(stage: &Stage, ports: &Ports, etcd: &Etcd, proxy: &Proxy) -> String {
    let here = stage.directory().display();
    let programs = stage.programs().display();
    let endpoints: Vec<String> = etcd.endpoints().iter().map(|one| format!("{one:?}")).collect();
    let node = |region: &str, port: u16, health: u16| {
        format!(
            "{region}-1: {{ region: {region}, data_directory: {here}/{region}/data, \
             connection: \"host={here}/run port={port} user=postgres dbname=ledger sslmode=disable\", \
             address: \"127.0.0.1:{port}\", bin_directory: {programs}, health: \"127.0.0.1:{health}\" }}"
        )
    };
    format!(
        "lifeboat: 1
regions:
  east: {{ repository: {{ url: \"file://{here}/east/repository\" }} }}
  west: {{ repository: {{ url: \"file://{here}/west/repository\" }} }}
witness: north
encryption:
  slots:
    - passphrase: \"file:{here}/passphrase\"
quorum:
  etcd: {{ endpoints: [{}] }}
  lease: 6s
  renew: 500ms
  probe_timeout: 500ms
  store_timeout: 750ms
  fence_deadline: 1500ms
  margin: 500ms
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
          {}
          {}
        endpoint: \"{}\"
        wal: {{ mode: stream, receivers: [east, west], acknowledge: {{ remote: 1 }}, flush_every: 500ms }}
    failover: {{ automatic: true, observers_agree: 2, unhealthy_for: 2s, dwell: 10s }}
",
        endpoints.join(", "),
        node("east", ports.east, ports.east_health),
        node("west", ports.west, ports.west_health),
        proxy.address(),
    )
}
