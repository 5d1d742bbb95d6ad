//! A server below a guard, and an agent that extends its life.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lifeboat_cluster::server::{Running, running};
use lifeboat_drivers::guard::{
    Client, GuardPlan, Mode, Options, arguments, connect, launch, manage, processes,
};
use lifeboat_environment::{Clock, SystemClock};
use lifeboat_testkit::postgres::{Builder, Cluster, DEBIAN_MAJOR};
use lifeboat_testkit::process::{PATIENCE, wait_until};
use lifeboat_testkit::run::Lifeboat;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};

/// How long every process may take to die (R8).
pub const FENCE_DEADLINE: Duration = Duration::from_millis(1500);

/// A server below a guard. Dropping it ends both.
#[derive(Debug)]
pub struct Guarded {
    /// How the guard was started.
    pub plan: GuardPlan,
    /// To ask it.
    pub client: Client,
    /// The files. Its own ways to start and stop are not used.
    pub cluster: Cluster,
    /// The binary.
    pub lifeboat: Lifeboat,
    mode: Mode,
}

impl Guarded {
    /// A managed cluster and its guard; nothing is started yet.
    pub fn new(mode: Mode) -> Result<Self> {
        Self::with(mode, Cluster::builder(DEBIAN_MAJOR), |_| {})
    }

    /// The same, with settings and another plan.
    pub fn with(mode: Mode, builder: Builder, change: impl FnOnce(&mut GuardPlan)) -> Result<Self> {
        ensure!(Uid::effective().is_root(), "a PID namespace needs root, and so does this test");
        let cluster = builder.tcp().create()?;
        let lifeboat = Lifeboat::new()?;
        let mut plan = GuardPlan {
            program: Some(lifeboat.program().to_owned()),
            state: cluster.scratch().join("guard"),
            data_directory: cluster.data().to_owned(),
            bin_directory: cluster.installation().bin().to_owned(),
            config_file: None,
            server_log: None,
            longest: Duration::from_secs(20),
            stop_limit: Duration::from_secs(60),
            watchdog: None,
        };
        if cluster.configuration().parent() != Some(cluster.data()) {
            plan.config_file = Some(cluster.configuration().to_owned());
        }
        change(&mut plan);
        manage(&plan.data_directory, plan.config_file.as_deref())?;
        let client = begin(&plan, &lifeboat, mode)?;
        Ok(Self { plan, client, cluster, lifeboat, mode })
    }

    /// Starts PostgreSQL and waits until it takes connections.
    pub fn start(&self, deadline: Option<Duration>) -> Result<()> {
        self.client.start(self.options(), deadline)?;
        let ready = wait_until(PATIENCE, || Ok(self.cluster.psql("SELECT 1").is_ok()))?;
        ensure!(ready, "PostgreSQL does not answer:\n{}", self.logs());
        Ok(())
    }

    /// Where it listens.
    pub fn options(&self) -> Options {
        let settings = BTreeMap::from([
            ("listen_addresses".to_owned(), "127.0.0.1".to_owned()),
            ("port".to_owned(), self.cluster.port().to_string()),
            ("unix_socket_directories".to_owned(), self.cluster.sockets().display().to_string()),
        ]);
        Options { settings, variables: BTreeMap::new() }
    }

    /// Ways to connect: over TCP and over the local socket.
    pub fn connections(&self) -> [String; 2] {
        let port = self.cluster.port();
        let tcp = format!("host=127.0.0.1 port={port} user=postgres dbname=postgres");
        [tcp, self.cluster.connection()]
    }

    /// Another guard in the place of one that has ended.
    pub fn begin_again(&mut self) -> Result<()> {
        self.client = begin(&self.plan, &self.lifeboat, self.mode)?;
        Ok(())
    }

    /// The processes of guard and instance, upper ones first.
    pub fn processes(&self) -> Result<Vec<Pid>> {
        let keeper = Pid::from_raw(self.client.status()?.keeper);
        let mut all = vec![keeper];
        all.extend(processes::living_below(keeper)?);
        Ok(all)
    }

    /// PostgreSQL's processes alone.
    pub fn instance(&self) -> Result<Vec<Pid>> {
        let status = self.client.status()?;
        let postmaster = Pid::from_raw(status.postmaster.context("no postmaster")?);
        let mut all = vec![postmaster];
        all.extend(processes::living_below(postmaster)?);
        Ok(all)
    }

    /// Waits until no process of PostgreSQL works in the data directory.
    pub fn wait_until_gone(&self) -> Result<()> {
        let gone = wait_until(PATIENCE, || Ok(running(self.cluster.data())? == Running::No))?;
        ensure!(gone, "something is left: {:?}", running(self.cluster.data())?);
        Ok(())
    }

    /// What guard and server said.
    pub fn logs(&self) -> String {
        let read = |path: PathBuf| std::fs::read_to_string(path).unwrap_or_default();
        format!("{}\n{}", read(self.plan.log()), read(self.plan.server_log()))
    }
}

fn begin(plan: &GuardPlan, lifeboat: &Lifeboat, mode: Mode) -> Result<Client> {
    let client = match mode {
        Mode::Namespace => launch(plan)?,
        Mode::Subreaper => {
            let mut words = vec!["guard".into(), "run".into(), "--detach".into()];
            words.extend(arguments(plan));
            lifeboat.ok(words)?;
            connect(&plan.socket())?.context("the guard does not listen")?
        }
    };
    ensure!(client.status()?.mode == mode, "the guard is not in mode {mode:?}");
    Ok(client)
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let frozen = self.client.status().is_err();
        let _ = self.client.fence();
        let _ = self.client.end();
        if std::thread::panicking() || frozen {
            eprintln!("{}", self.logs());
        }
        // What a failed test has left, frozen or not: the guard's own, by its directory.
        let all = processes::table().unwrap_or_default();
        let state = self.plan.state.display().to_string();
        for process in all {
            let command = std::fs::read(format!("/proc/{}/cmdline", process.pid));
            let command = String::from_utf8_lossy(&command.unwrap_or_default()).into_owned();
            if command.contains(&state) && process.pid != Pid::this() {
                let _ = kill(process.pid, Signal::SIGKILL);
            }
        }
        if let Ok(Running::Orphans(left)) = running(self.cluster.data()) {
            for pid in left {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }
}

/// Extends the life of an instance until it is told to stop, and remembers until when.
#[derive(Debug)]
pub struct Agent {
    asked: Arc<Mutex<Duration>>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<usize>,
}

impl Agent {
    /// Begins: each extension is for `life` from its sending.
    pub fn start(socket: PathBuf, life: Duration) -> Self {
        let asked = Arc::new(Mutex::new(SystemClock.elapsed() + life));
        let stop = Arc::new(AtomicBool::new(false));
        let (known, ends) = (Arc::clone(&asked), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut confirmed = 0;
            while !ends.load(Ordering::SeqCst) {
                // As after a restart: nothing is remembered but where the guard listens.
                if let Ok(Some(client)) = connect(&socket) {
                    let deadline = SystemClock.elapsed() + life;
                    *known.lock().unwrap_or_else(PoisonError::into_inner) = deadline;
                    confirmed += usize::from(client.extend(deadline).is_ok());
                }
                SystemClock.sleep(Duration::from_millis(100));
            }
            confirmed
        });
        Self { asked, stop, thread }
    }

    /// The last deadline that it has asked for. The guard may know it although it did not answer.
    pub fn asked(&self) -> Duration {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is gone; how often the guard has confirmed.
    pub fn stop(self) -> Result<usize> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().map_err(|_| anyhow::anyhow!("the agent panicked"))
    }
}
