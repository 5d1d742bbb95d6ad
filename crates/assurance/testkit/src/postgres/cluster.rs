//! One cluster and its server process.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Builder, Installation};
use crate::process::{PATIENCE, Running, kill_tree, run, wait_until};
use crate::scratch::{self, Scratch};

/// How to stop a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Ends sessions, writes a checkpoint.
    Fast,
    /// No checkpoint: the next start recovers.
    Immediate,
}

/// A cluster. Dropping it stops the server and removes what the fixture made.
#[derive(Debug)]
pub struct Cluster {
    installation: Installation,
    data: PathBuf,
    configuration: PathBuf,
    port: Option<u16>,
    sockets: PathBuf,
    tablespaces: Vec<PathBuf>,
    server: Option<Child>,
    scratch: Scratch,
}

impl Cluster {
    /// Begins a new cluster of a major version.
    pub fn builder(major: u32) -> Builder {
        Builder::new(major)
    }

    /// A stopped cluster over a data directory that something else made, as a restore does. The
    /// directory is not removed.
    pub fn over(major: u32, data: impl Into<PathBuf>) -> Result<Self> {
        let data = data.into();
        let configuration = data.join("postgresql.conf");
        Self::new(Installation::find(major)?, Scratch::new()?, data, configuration, None)
    }

    /// Makes it listen on a port of 127.0.0.1 from the next start on.
    pub fn listening(mut self) -> Result<Self> {
        self.port = Some(free_port()?);
        Ok(self)
    }

    pub(super) fn new(
        installation: Installation,
        scratch: Scratch,
        data: PathBuf,
        configuration: PathBuf,
        port: Option<u16>,
    ) -> Result<Self> {
        let sockets = scratch.folder("run")?;
        let (tablespaces, server) = (Vec::new(), None);
        Ok(Self { installation, data, configuration, port, sockets, tablespaces, server, scratch })
    }

    /// The programs of its version.
    pub fn installation(&self) -> &Installation {
        &self.installation
    }

    /// The data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// postgresql.conf, which in Debian's layout lies outside the data directory.
    pub fn configuration(&self) -> &Path {
        &self.configuration
    }

    /// A folder of this cluster that lives as long as the cluster.
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// The folder with the server's socket.
    pub fn sockets(&self) -> &Path {
        &self.sockets
    }

    /// The port; without TCP it only names the socket.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(5432)
    }

    /// A libpq connection string through the socket.
    pub fn connection(&self) -> String {
        let sockets = self.sockets.display();
        format!("host={sockets} port={} user=postgres dbname=postgres", self.port())
    }

    /// What the server logged so far.
    pub fn log(&self) -> String {
        fs::read(self.log_path())
            .map_or_else(|_| String::new(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    fn log_path(&self) -> PathBuf {
        self.scratch.join("server.log")
    }

    /// Starts the server and waits until it accepts connections, read-only ones at least.
    pub fn start(&mut self) -> Result<()> {
        self.launch()?;
        let ready = wait_until(PATIENCE, || {
            if self.server_ended()? {
                bail!("the server ended while starting:\n{}", self.log());
            }
            Ok(self
                .postmaster_status()
                .is_some_and(|status| status == "ready" || status == "standby"))
        })?;
        if !ready {
            bail!("the server is not ready:\n{}", self.log());
        }
        Ok(())
    }

    /// Starts the server and does not wait; for servers that are expected to fail or to pause.
    pub fn launch(&mut self) -> Result<()> {
        if self.server.is_some() && !self.server_ended()? {
            bail!("the server is running already");
        }
        let log = fs::File::options().create(true).append(true).open(self.log_path())?;
        let mut command = self.installation.server_command("postgres")?;
        command.arg("-D").arg(&self.data);
        // What belongs to the fixture goes to the command line: a restored copy of the
        // configuration then never fights with its source for a port or a socket.
        let tcp = if self.port.is_some() { "127.0.0.1" } else { "" };
        command.arg("-c").arg(format!("config_file={}", self.configuration.display()));
        command.arg("-c").arg(format!("listen_addresses={tcp}"));
        command.arg("-c").arg(format!("port={}", self.port()));
        command.arg("-c").arg(format!("unix_socket_directories={}", self.sockets.display()));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.server = Some(command.spawn().context("cannot start postgres")?);
        Ok(())
    }

    /// Waits until the server process has ended by itself; its exit code.
    pub fn wait_for_end(&mut self) -> Result<Option<i32>> {
        if !wait_until(PATIENCE, || self.server_ended())? {
            bail!("the server still runs:\n{}", self.log());
        }
        let status = self.server.take().context("the server was never started")?.wait()?;
        Ok(status.code())
    }

    /// Stops the server and waits until it is gone.
    pub fn stop(&mut self, mode: Stop) -> Result<()> {
        let Some(pid) = self.pid() else { bail!("the server is not running") };
        let signal = match mode {
            Stop::Fast => Signal::SIGINT,
            Stop::Immediate => Signal::SIGQUIT,
        };
        kill(pid, signal)?;
        self.wait_for_end().map(drop)
    }

    /// Stops and starts the server.
    pub fn restart(&mut self) -> Result<()> {
        self.stop(Stop::Fast)?;
        self.start()
    }

    /// Kills every process of the server at once, archive commands included.
    pub fn kill9(&mut self) -> Result<()> {
        let Some(pid) = self.pid() else { bail!("the server is not running") };
        kill_tree(pid);
        self.wait_for_end().map(drop)
    }

    /// The postmaster's process id, while it runs.
    pub fn pid(&self) -> Option<Pid> {
        self.server.as_ref().map(|child| Pid::from_raw(child.id().cast_signed()))
    }

    /// Runs SQL in database `postgres`; rows as `a|b`, one a line.
    pub fn psql(&self, sql: &str) -> Result<String> {
        self.psql_in("postgres", sql)
    }

    /// Runs SQL in a database. Each statement is its own transaction, as in an interactive psql.
    pub fn psql_in(&self, database: &str, sql: &str) -> Result<String> {
        let mut command = self.installation.client_command("psql")?;
        command.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-f", "-", "-d"]);
        command.arg(format!("{} dbname={database}", self.connection()));
        let finished = Running::spawn(&mut command, Some(sql))?.wait(PATIENCE)?.success()?;
        Ok(finished.stdout.trim_end().to_owned())
    }

    /// Repeats a query until it answers `expected`; connection errors count as "not yet".
    pub fn wait_for(&mut self, sql: &str, expected: &str) -> Result<()> {
        let mut last = String::new();
        let reached = wait_until(PATIENCE, || {
            if self.server_ended()? {
                bail!("the server ended:\n{}", self.log());
            }
            last = self.psql(sql).unwrap_or_else(|error| format!("{error:#}"));
            Ok(last == expected)
        })?;
        if !reached {
            bail!("{sql}\nexpected {expected}, got {last}\n{}", self.log());
        }
        Ok(())
    }

    /// Runs pgbench against database `postgres` to its end.
    pub fn pgbench<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Result<String> {
        Ok(self.pgbench_in_background(args)?.wait(PATIENCE)?.success()?.stdout)
    }

    /// Starts pgbench as load; dropping the result ends it.
    pub fn pgbench_in_background<'a>(
        &self,
        args: impl IntoIterator<Item = &'a str>,
    ) -> Result<Running> {
        let mut command = self.installation.client_command("pgbench")?;
        command.args(args).env("PGHOST", &self.sockets).env("PGUSER", "postgres");
        command.env("PGPORT", self.port().to_string()).arg("postgres");
        Running::spawn(&mut command, None)
    }

    /// Makes a tablespace in a folder of its own.
    pub fn tablespace(&mut self, name: &str) -> Result<PathBuf> {
        let folder = self.scratch.folder(&format!("tablespaces/{name}"))?;
        self.psql(&format!("CREATE TABLESPACE {name} LOCATION '{}'", folder.display()))?;
        self.tablespaces.push(folder.clone());
        Ok(folder)
    }

    /// Makes and starts a standby that streams from this server.
    pub fn standby(&self) -> Result<Self> {
        let scratch = Scratch::new()?;
        let data = scratch.folder("data")?;
        let mut command = self.installation.client_command("pg_basebackup")?;
        command.arg("-d").arg(self.connection()).arg("-D").arg(&data);
        command.args(["--checkpoint=fast", "--wal-method=stream"]);
        for (number, source) in self.tablespaces.iter().enumerate() {
            let target = scratch.folder(&format!("tablespaces/{number}"))?;
            command.arg("-T").arg(format!("{}={}", source.display(), target.display()));
        }
        run(&mut command)?.success()?;
        // Not --write-recovery-conf: a newer client writes options that an older server refuses.
        let source = format!("\nprimary_conninfo = '{}'\n", self.connection());
        let mut automatic = fs::read_to_string(data.join("postgresql.auto.conf"))?;
        automatic.push_str(&source);
        scratch::write(&data.join("postgresql.auto.conf"), automatic)?;
        scratch::write(&data.join("standby.signal"), "")?;
        let configuration = data.join("postgresql.conf");
        if !configuration.exists() {
            // Debian's layout: the source's configuration serves, but it names the source's data.
            let text = fs::read_to_string(&self.configuration)?;
            let kept = text.lines().filter(|line| !line.starts_with("data_directory"));
            scratch::write(&configuration, kept.collect::<Vec<_>>().join("\n"))?;
            scratch.folder("data/conf.d")?;
        }
        let mut standby = Self::new(self.installation.clone(), scratch, data, configuration, None)?;
        standby.start()?;
        Ok(standby)
    }

    /// Waits until `standby` has replayed everything that this server has written.
    pub fn wait_for_replay(&self, standby: &mut Self) -> Result<()> {
        let position = self.psql("SELECT pg_current_wal_flush_lsn()")?;
        standby.wait_for(&format!("SELECT pg_last_wal_replay_lsn() >= '{position}'"), "t")
    }

    fn server_ended(&mut self) -> Result<bool> {
        match &mut self.server {
            Some(child) => Ok(child.try_wait()?.is_some()),
            None => Ok(true),
        }
    }

    /// The eighth line of postmaster.pid says how far the start is.
    fn postmaster_status(&self) -> Option<String> {
        let text = fs::read_to_string(self.data.join("postmaster.pid")).ok()?;
        let mut lines = text.lines();
        let pid = lines.next()?.trim().parse::<i32>().ok()?;
        // The file may still be that of the process before.
        (Some(Pid::from_raw(pid)) == self.pid()).then_some(())?;
        Some(lines.nth(6)?.trim().to_owned())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let Some(pid) = self.pid() else { return };
        // An immediate shutdown frees the shared memory segment, which SIGKILL would leave.
        let _ = kill(pid, Signal::SIGQUIT);
        if !matches!(wait_until(Duration::from_secs(10), || self.server_ended()), Ok(true)) {
            kill_tree(pid);
        }
        if let Some(mut child) = self.server.take() {
            let _ = child.wait();
        }
    }
}

/// A TCP port that nobody uses at this moment.
pub(super) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
