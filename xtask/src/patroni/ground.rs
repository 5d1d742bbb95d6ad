//! Two hosts with a server each under Patroni, three members of etcd, and HAProxy before them.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lifeboat_environment::{Clock, SystemClock};
use lifeboat_testkit::etcd::Cluster as Etcd;
use lifeboat_testkit::haproxy::{Member, Proxy};
use lifeboat_testkit::postgres::{DEBIAN_MAJOR, Installation};
use lifeboat_testkit::process::{Account, Running, kill_tree, run, tree, wait_until};
use lifeboat_testkit::scratch::Scratch;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// The ports of Patroni's examples. Each host has a loopback address of its own.
const POSTGRES: u16 = 5432;
const REST: u16 = 8008;
/// What takes longer has failed; a lease alone takes half a minute.
const PATIENCE: Duration = Duration::from_secs(180);
/// Between two looks at servers.
const LOOK: Duration = Duration::from_millis(200);
/// A killed process is gone by then.
const END: Duration = Duration::from_secs(20);

/// A host with a server. It also has a member of etcd; the third one is elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The first primary.
    East,
    /// The first standby.
    West,
}

impl Side {
    /// Where the service goes when it leaves this one.
    pub fn other(self) -> Self {
        match self {
            Self::East => Self::West,
            Self::West => Self::East,
        }
    }

    fn member(self) -> usize {
        match self {
            Self::East => 0,
            Self::West => 1,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::East => "east",
            Self::West => "west",
        })
    }
}

/// Who died with a host.
#[derive(Debug, Clone, Copy)]
pub struct Killed {
    /// Patroni, postmaster and all that belongs to them, without the member of etcd.
    pub processes: usize,
    /// Whether the member of etcd led the others.
    pub led: bool,
}

struct Host {
    address: Ipv4Addr,
    folder: PathBuf,
    patroni: Option<Running>,
}

/// Everything that runs. Dropping it ends and removes it.
pub struct Ground {
    east: Host,
    west: Host,
    primary: Side,
    synchronous: bool,
    check: String,
    installation: Installation,
    interrupted: Arc<AtomicBool>,
    proxy: Proxy,
    etcd: Etcd,
    scratch: Scratch,
}

impl Ground {
    /// A primary with the clients' table in the east, and a standby that streams in the west.
    pub fn start(synchronous: bool, check: &str) -> Result<Self> {
        let (etcd, scratch) = (Etcd::start()?, Scratch::new()?);
        let host = |side: Side| Host::new(side, &etcd, &scratch);
        let (east, west) = (host(Side::East)?, host(Side::West)?);
        let member = |name: &str, host: &Host| Member {
            name: name.to_owned(),
            serves: host.at(POSTGRES),
            agent: host.at(REST),
        };
        let members = [member("east", &east), member("west", &west)];
        let proxy = Proxy::start_as("orders", &members, |text| as_patroni(&text, check))?;
        let mut ground = Self {
            east,
            west,
            primary: Side::East,
            synchronous,
            check: check.to_owned(),
            installation: Installation::find(DEBIAN_MAJOR)?,
            interrupted: Arc::default(),
            proxy,
            etcd,
            scratch,
        };
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&ground.interrupted))?;
        }
        let begun = ground.begin();
        begun.map_err(|error| error.context(ground.log()))?;
        Ok(ground)
    }

    fn begin(&mut self) -> Result<()> {
        for side in [Side::East, Side::West] {
            let text = self.configuration(side);
            self.scratch.file(&format!("{side}/patroni.yml"), text)?;
        }
        self.launch(Side::East)?;
        self.wait("the first primary", |ground| Ok(ground.answers(Side::East, "/primary")))?;
        let table = "CREATE TABLE orders (client int, number int, at timestamptz, \
                     PRIMARY KEY (client, number))";
        self.psql(table)?;
        self.launch(Side::West)?;
        self.wait_for_standby()
    }

    /// What was measured, for the report.
    pub fn describe(&self) -> Result<String> {
        let first_line = |command: &mut Command| -> Result<String> {
            let said = run(command)?.success()?.stdout;
            Ok(said.lines().next().unwrap_or_default().to_owned())
        };
        let patroni = first_line(Command::new("patroni").arg("--version"))?;
        let server = first_line(self.installation.server_command("postgres")?.arg("--version"))?;
        let etcd = first_line(Command::new("etcd").arg("--version"))?;
        let proxy = first_line(Command::new("/usr/sbin/haproxy").arg("-v"))?;
        let Self { synchronous, check, .. } = self;
        Ok(format!(
            "{patroni} with ttl 30, loop_wait 10, retry_timeout 10, synchronous_mode {synchronous}\n\
             {server}\n{etcd}\n{proxy}\nHAProxy checks OPTIONS /primary, {check}"
        ))
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.proxy.address()
    }

    /// Who serves.
    pub fn primary(&self) -> Side {
        self.primary
    }

    /// The address by which a server calls itself.
    pub fn server(&self, side: Side) -> IpAddr {
        IpAddr::V4(self.host(side).address)
    }

    fn host(&self, side: Side) -> &Host {
        match side {
            Side::East => &self.east,
            Side::West => &self.west,
        }
    }

    fn host_mut(&mut self, side: Side) -> &mut Host {
        match side {
            Side::East => &mut self.east,
            Side::West => &mut self.west,
        }
    }

    /// Lets clients write.
    pub fn rest(&mut self, time: Duration) -> Result<()> {
        let end = SystemClock.elapsed() + time;
        while SystemClock.elapsed() < end {
            self.check()?;
            SystemClock.sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Waits until `holds` says yes.
    pub fn wait(&mut self, what: &str, holds: impl Fn(&Self) -> Result<bool>) -> Result<()> {
        let reached = wait_until(PATIENCE, || {
            self.check()?;
            SystemClock.sleep(LOOK);
            holds(self)
        })?;
        ensure!(reached, "{what} did not happen within {} s", PATIENCE.as_secs());
        Ok(())
    }

    fn check(&mut self) -> Result<()> {
        ensure!(!self.interrupted.load(Ordering::Relaxed), "interrupted");
        for side in [Side::East, Side::West] {
            let host = self.host_mut(side);
            let Some(mut patroni) = host.patroni.take() else { continue };
            if !patroni.is_running()? {
                bail!("Patroni of the {side} ended: {}", patroni.wait(END)?);
            }
            host.patroni = Some(patroni);
        }
        Ok(())
    }

    /// Waits until the standby streams and Patroni would let it take over.
    pub fn wait_for_standby(&mut self) -> Result<()> {
        let standby = self.primary.other();
        let path = if self.synchronous { "/synchronous" } else { "/replica" };
        let streams = format!(
            "SELECT count(*) FROM pg_stat_replication
             WHERE application_name = '{standby}' AND state = 'streaming'"
        );
        self.wait("a standby that streams", |ground| {
            Ok(ground.answers(standby, path) && ground.psql(&streams)? == "1")
        })?;
        self.etcd.heal()
    }

    /// Everything of the primary's host dies by SIGKILL, in the same moment as far as processors
    /// can do that. Patroni goes first, so that it cannot tell anybody of the rest.
    pub fn kill(&mut self) -> Result<Killed> {
        let side = self.primary;
        let led = self.etcd.leader()? == side.member();
        let host = self.host_mut(side);
        let patroni = host.patroni.take().context("Patroni does not run")?;
        let server = host.postmaster().context("no server runs")?;
        let mut victims = tree(patroni.id());
        victims.extend(tree(server));
        kill_tree(patroni.id());
        kill_tree(server);
        self.etcd.kill(side.member())?;
        let ended = patroni.wait(END)?;
        ensure!(ended.signal == Some(Signal::SIGKILL as i32), "Patroni ended otherwise: {ended}");
        let gone = wait_until(END, || Ok(!victims.iter().any(|pid| lives(*pid))))?;
        ensure!(gone, "the server of the {side} was killed and still runs");
        self.primary = side.other();
        Ok(Killed { processes: victims.len(), led })
    }

    /// Starts what was killed.
    pub fn revive(&mut self, side: Side) -> Result<()> {
        self.etcd.restart(side.member())?;
        self.launch(side)
    }

    /// Asks for a planned move, as `patronictl switchover` does.
    pub fn switch(&mut self) -> Result<()> {
        let (from, to) = (self.primary, self.primary.other());
        let wish = format!("{{\"leader\": \"{from}\", \"candidate\": \"{to}\"}}");
        let (code, answer) = ask(self.host(from).at(REST), "POST", "/switchover", &wish)?;
        ensure!(code == 200, "Patroni refuses to switch: {code} {answer}");
        self.primary = to;
        Ok(())
    }

    /// All rows of the clients, as psql prints them.
    pub fn rows(&self) -> Result<String> {
        self.psql("SELECT client, number FROM orders")
    }

    /// The last words of both Patronis, for messages.
    pub fn log(&self) -> String {
        let of = |side: Side| {
            let path = self.host(side).folder.join("log/patroni.log");
            let text = fs::read_to_string(path).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let tail = lines.get(lines.len().saturating_sub(30)..).unwrap_or_default();
            format!("Patroni of the {side}:\n{}\n", tail.join("\n"))
        };
        of(Side::East) + &of(Side::West)
    }

    fn launch(&mut self, side: Side) -> Result<()> {
        let host = self.host_mut(side);
        let mut command = Command::new("patroni");
        command.arg(host.folder.join("patroni.yml")).current_dir("/");
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C.UTF-8");
        Account::of_server()?.apply(&mut command);
        host.patroni = Some(Running::spawn(&mut command, None)?);
        Ok(())
    }

    fn answers(&self, side: Side, path: &str) -> bool {
        ask(self.host(side).at(REST), "OPTIONS", path, "").is_ok_and(|(code, _)| code == 200)
    }

    fn psql(&self, sql: &str) -> Result<String> {
        let mut command = self.installation.client_command("psql")?;
        let address = self.host(self.primary).address.to_string();
        command.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", "postgres"]);
        command.args(["-h", &address, "-p", &POSTGRES.to_string(), "-c", sql]);
        Ok(run(&mut command)?.success()?.stdout.trim_end().to_owned())
    }

    /// Patroni's example, with its defaults spelt out, and nothing to prove who somebody is.
    fn configuration(&self, side: Side) -> String {
        let Host { address, folder, .. } = self.host(side);
        let here = folder.display();
        let endpoints = self.etcd.endpoints();
        let etcd: Vec<&str> =
            endpoints.iter().map(|one| one.trim_start_matches("http://")).collect();
        format!(
            "scope: orders
name: {side}
log:
  dir: {here}/log
restapi:
  listen: {address}:{REST}
  connect_address: {address}:{REST}
etcd3:
  hosts: [{etcd}]
bootstrap:
  dcs:
    ttl: 30
    loop_wait: 10
    retry_timeout: 10
    maximum_lag_on_failover: 1048576
    synchronous_mode: {synchronous}
    postgresql:
      use_pg_rewind: true
      parameters:
        # The other kind outlives a killed server.
        dynamic_shared_memory_type: mmap
  initdb:
    - encoding: UTF8
    - data-checksums
postgresql:
  listen: {address}:{POSTGRES}
  connect_address: {address}:{POSTGRES}
  data_dir: {here}/data
  bin_dir: {programs}
  pgpass: {here}/pgpass
  pg_hba:
    - local all all trust
    - host all all 127.0.0.0/8 trust
    - host replication all 127.0.0.0/8 trust
  authentication:
    superuser: {{ username: postgres }}
    replication: {{ username: replicator }}
  parameters:
    unix_socket_directories: {here}/run
watchdog:
  # It would reset this machine when Patroni is killed.
  mode: off
",
            etcd = etcd.join(", "),
            synchronous = self.synchronous,
            programs = self.installation.bin().display(),
        )
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        self.east.end();
        self.west.end();
    }
}

impl Host {
    /// On the address of a member of etcd, where no other server may be.
    fn new(side: Side, etcd: &Etcd, scratch: &Scratch) -> Result<Self> {
        let endpoints = etcd.endpoints();
        let endpoint = endpoints.get(side.member()).context("no such member")?;
        let address = endpoint.trim_start_matches("http://").split(':').next();
        let address: Ipv4Addr = address.context("no address")?.parse()?;
        for port in [POSTGRES, REST] {
            TcpListener::bind((address, port))
                .with_context(|| format!("{address}:{port} is not free"))?;
        }
        for folder in ["data", "log", "run"] {
            scratch.folder(&format!("{side}/{folder}"))?;
        }
        Ok(Self { address, folder: scratch.join(&side.to_string()), patroni: None })
    }

    fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::from((self.address, port))
    }

    /// The server, which is nobody's child: Patroni detaches it.
    fn postmaster(&self) -> Option<Pid> {
        let text = fs::read_to_string(self.folder.join("data/postmaster.pid")).ok()?;
        let pid = Pid::from_raw(text.lines().next()?.trim().parse().ok()?);
        processes_of(&self.folder).contains(&pid).then_some(pid)
    }

    /// Ends Patroni as a power cut does, and the server so that nothing stays in the kernel.
    fn end(&mut self) {
        self.patroni = None;
        if let Some(server) = self.postmaster() {
            let _ = kill(server, Signal::SIGQUIT);
            let _ = wait_until(END, || Ok(!lives(server)));
        }
        for pid in processes_of(&self.folder) {
            kill_tree(pid);
        }
        // A killed server leaves a few bytes of shared memory, named in its pid file.
        let file = self.folder.join("data/postmaster.pid");
        let text = fs::read_to_string(file).unwrap_or_default();
        let segment = text.lines().nth(6).and_then(|line| line.split_whitespace().nth(1));
        if let Some(segment) = segment {
            let _ = run(Command::new("ipcrm").args(["--shmem-id", segment]));
        }
    }
}

/// The testkit's HAProxy asks Lifeboat's agents; Patroni's examples ask otherwise.
fn as_patroni(text: &str, check: &str) -> String {
    text.replace("httpchk GET /primary", "httpchk OPTIONS /primary")
        .replace("inter 500ms fall 1 rise 1", check)
        .replace("timeout check 500ms", "timeout check 5s")
}

/// One request to Patroni; the code and all of the answer.
fn ask(address: SocketAddr, method: &str, path: &str, body: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    write!(stream, "{method} {path} HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{body}")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let code = answer.split_whitespace().nth(1).context("no HTTP")?.parse()?;
    Ok((code, answer))
}

/// Whether a process still does something; a dead one stays until somebody asks for its end.
fn lives(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// The processes whose command line names something below a folder.
fn processes_of(folder: &Path) -> BTreeSet<Pid> {
    let folder = format!("{}/", folder.display());
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let found = entries.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        String::from_utf8_lossy(&line).contains(&folder).then(|| Pid::from_raw(pid))
    });
    found.collect()
}

#[cfg(test)]
mod tests;
