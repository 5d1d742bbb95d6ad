//! The server, its load, and a receiver that it waits for.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lifeboat_environment::{Clock, SystemClock};
use lifeboat_model::Lsn;
use lifeboat_testkit::postgres::{Cluster, DEBIAN_MAJOR};
use lifeboat_testkit::process::{Running, wait_until};
use lifeboat_testkit::run::Lifeboat;
use lifeboat_testkit::scratch::{self, Scratch};
use nix::sys::signal::Signal;
use nix::unistd::{Pid, SysconfVar, sysconf};

use super::lag::Lag;

/// The database of the bench.
pub const DATABASE: &str = "bench/main";
/// What the receiver of `bench/main` in the west is called.
const OURS: &str = "lifeboat_bench_main_west";
const PEER: &str = "peer";
const PATIENCE: Duration = Duration::from_secs(60);

/// Who receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Receiver {
    /// `lifeboat wal receive`, encryption on, `durable: spool`.
    Lifeboat,
    /// `pg_receivewal --synchronous`.
    PgReceivewal,
}

/// What one run came to.
#[derive(Debug, Clone)]
pub struct Measured {
    /// Transactions a second.
    pub tps: f64,
    /// WAL that was written, in bytes.
    pub wal_bytes: u64,
    /// Processor time of the receiver.
    pub cpu_seconds: f64,
    /// The largest resident set of the receiver.
    pub peak_bytes: u64,
}

impl Measured {
    /// Seconds of processor time for 10^9 bytes of WAL.
    pub fn cpu_per_gb(&self) -> f64 {
        self.cpu_seconds / (self.wal_bytes as f64 / 1e9)
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (wal, peak) = (self.wal_bytes as f64 / 1e6, self.peak_bytes as f64 / 1_048_576.0);
        write!(
            formatter,
            "{:.0} tps, {wal:.0} MB of WAL, {:.2} CPU s ({:.2} a GB), peak {peak:.0} MiB",
            self.tps,
            self.cpu_seconds,
            self.cpu_per_gb()
        )
    }
}

/// A cluster that streams, and the folder that everything else lies in.
pub struct Ground {
    lifeboat: Lifeboat,
    cluster: Cluster,
    spec: PathBuf,
    scratch: Scratch,
}

impl Ground {
    /// Builds Lifeboat for release, makes a cluster for pgbench and two repositories.
    pub fn new(root: &Path) -> Result<Self> {
        let lifeboat = Lifeboat::of(&crate::demo::build(root)?)?;
        let scratch = Scratch::new()?;
        let cluster = Cluster::builder(DEBIAN_MAJOR)
            .setting("fsync = on")
            .setting("shared_buffers = 512MB")
            .setting("max_wal_size = 8GB")
            .setting("checkpoint_timeout = 1h")
            .setting("autovacuum = off")
            .tcp()
            .start()?;
        cluster.pgbench(["-i", "-q", "-s", "20"])?;
        cluster.psql(&format!("SELECT pg_create_physical_replication_slot('{PEER}', true)"))?;
        let spec = scratch.join("lifeboat.yaml");
        let here = scratch.path().display().to_string();
        scratch.file("passphrase", "a passphrase for the bench\n")?;
        scratch::write(&spec, spec_text(&here, &cluster, cluster.port()))?;
        let ground = Self { lifeboat, cluster, spec, scratch };
        ground.lifeboat.ok(ground.words("east", &["repo", "create"]))?;
        Ok(ground)
    }

    fn words(&self, region: &str, words: &[&str]) -> Vec<String> {
        let spec = self.spec.to_string_lossy().into_owned();
        let global = ["--spec", &spec, "--here", region];
        global.iter().chain(words).map(|word| (*word).to_owned()).collect()
    }

    /// Runs the load once with this receiver as the only one that commits wait for.
    pub fn measure(&self, receiver: Receiver, seconds: u32, clients: u32) -> Result<Measured> {
        self.while_receiving(receiver, |pid| {
            let (cpu, wal) = (cpu_seconds(pid)?, self.written()?);
            Ok(Measured {
                tps: self.load(seconds, clients)?,
                wal_bytes: self.written()?.distance_from(wal),
                cpu_seconds: cpu_seconds(pid)? - cpu,
                peak_bytes: peak_bytes(pid)?,
            })
        })
    }

    /// How many seconds after the server it was in the repository, for moments under load.
    pub fn lag(&self, seconds: u32, clients: u32) -> Result<Vec<f64>> {
        self.while_receiving(Receiver::Lifeboat, |_| {
            let lag = Lag::watch(&self.scratch.join("west/streams"), &self.cluster);
            let load = self.load(seconds, clients);
            let lags = lag.end();
            load.and(lags)
        })
    }

    fn while_receiving<T>(
        &self,
        receiver: Receiver,
        work: impl FnOnce(Pid) -> Result<T>,
    ) -> Result<T> {
        let mut running = self.receive(receiver)?;
        let name = if receiver == Receiver::Lifeboat { OURS } else { PEER };
        self.commits_wait_for(&format!("ANY 1 ({name})"))?;
        let state = format!(
            "SELECT count(*) FROM pg_stat_replication
             WHERE application_name = '{name}' AND sync_state = 'quorum'"
        );
        let waits = wait_until(PATIENCE, || {
            Ok(!running.is_running()? || self.cluster.psql(&state)? == "1")
        })?;
        if !waits || !running.is_running()? {
            bail!("{receiver:?} does not receive\n{}", running.wait(Duration::ZERO)?);
        }
        let done = work(running.id())?;
        ensure!(running.is_running()?, "{receiver:?} ended too early");
        self.commits_wait_for("")?;
        running.signal(Signal::SIGINT)?;
        running.wait(PATIENCE)?;
        Ok(done)
    }

    fn receive(&self, receiver: Receiver) -> Result<Running> {
        if receiver == Receiver::Lifeboat {
            return self
                .lifeboat
                .spawn(self.words("west", &["--quiet", "wal", "receive", DATABASE]));
        }
        let folder = self.scratch.folder(&format!("peer-{}", SystemClock.now().as_second()))?;
        let mut command = self.cluster.installation().client_command("pg_receivewal")?;
        command.arg("--synchronous").arg(format!("--slot={PEER}")).arg("-D").arg(folder);
        let port = self.cluster.port();
        command.arg("-d").arg(format!(
            "host=127.0.0.1 port={port} user=postgres sslmode=disable application_name={PEER}"
        ));
        Running::spawn(&mut command, None)
    }

    fn commits_wait_for(&self, names: &str) -> Result<()> {
        let alter = format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'");
        self.cluster.psql(&alter)?;
        self.cluster.psql("SELECT pg_reload_conf()").map(drop)
    }

    fn written(&self) -> Result<Lsn> {
        Ok(self.cluster.psql("SELECT pg_current_wal_flush_lsn()")?.parse()?)
    }

    /// pgbench's own transactions; how many a second.
    fn load(&self, seconds: u32, clients: u32) -> Result<f64> {
        let (clients, time) = (clients.to_string(), seconds.to_string());
        let words = ["--no-vacuum", "--client", &clients, "--jobs=2", "--time", &time];
        let said = self
            .cluster
            .pgbench_in_background(words)?
            .wait(PATIENCE + Duration::from_secs(u64::from(seconds)))?
            .success()?
            .stdout;
        let tps = said.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next());
        Ok(tps.context("pgbench said no tps")?.parse()?)
    }
}

/// A spec with a receiver in the west, which reaches the server at a port of this host.
pub fn spec_text(here: &str, cluster: &Cluster, port: u16) -> String {
    format!(
        "lifeboat: 1
state: {here}/state
regions:
  east: {{ repository: {{ url: \"file://{here}/east\" }} }}
  west: {{ repository: {{ url: \"file://{here}/west\" }} }}
encryption:
  slots:
    - passphrase: \"file:{here}/passphrase\"
tiers:
  bench: {{ rto: 1h, rpo: 0s }}
services:
  bench:
    tier: bench
    home: east
    standby: west
    databases:
      main:
        engine: postgres
        nodes:
          one: {{ region: east, data_directory: {data}, connection: \"{connection} sslmode=disable\", address: \"127.0.0.1:{port}\", bin_directory: {programs} }}
        wal: {{ mode: stream, receivers: [west], acknowledge: {{ remote: 1, durable: spool, on_loss: block }}, flush_every: 500ms }}
",
        data = cluster.data().display(),
        connection = cluster.connection(),
        programs = cluster.installation().bin().display(),
    )
}

/// User and system time of a process and those below it.
pub fn cpu_seconds(pid: Pid) -> Result<f64> {
    let ticks = sysconf(SysconfVar::CLK_TCK)?.context("no clock ticks")? as f64;
    let mut seconds = 0.0;
    for pid in lifeboat_testkit::process::tree(pid) {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let (_, fields) = stat.rsplit_once(')').context("no name in stat")?;
        // Of the whole line these are fields 14 and 15: proc(5).
        let fields: Vec<&str> = fields.split_whitespace().collect();
        for field in fields.get(11..13).context("a short stat")? {
            seconds += field.parse::<f64>()? / ticks;
        }
    }
    Ok(seconds)
}

/// The largest resident set of a process.
pub fn peak_bytes(pid: Pid) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).context("no VmHWM")?;
    Ok(kib.parse::<u64>()? * 1024)
}
