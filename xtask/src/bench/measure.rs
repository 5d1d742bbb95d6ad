//! Wall time, processor time and memory of what runs between two moments.

use std::fmt;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use lifeboat_environment::{Clock, SystemClock};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, getpid};
use serde::Serialize;

use super::ground::Ground;

/// What one run of a task took.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Measured {
    /// Seconds from start to end.
    pub wall_seconds: f64,
    /// Seconds of processor time, user and system, of the tool's processes.
    pub cpu_seconds: f64,
    /// The largest resident set, summed over the processes that ran together.
    pub peak_bytes: u64,
    /// The size of the repository afterwards, where the task fills it.
    pub stored_bytes: Option<u64>,
}

impl fmt::Display for Measured {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peak = lifeboat_telemetry::bytes(self.peak_bytes);
        let Self { wall_seconds, cpu_seconds, .. } = self;
        write!(formatter, "{wall_seconds:.2} s, {cpu_seconds:.2} CPU s, peak {peak}")?;
        match self.stored_bytes {
            Some(bytes) => write!(formatter, ", stored {}", lifeboat_telemetry::bytes(bytes)),
            None => Ok(()),
        }
    }
}

/// Runs commands one after the other.
pub struct Runner {
    log: PathBuf,
}

impl Runner {
    /// Runs a command to its end; an exit code other than 0 is an error with its output.
    pub fn run(&self, command: &mut Command) -> Result<()> {
        let output = File::create(&self.log)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
        if !status.success() {
            let said = fs::read_to_string(&self.log).unwrap_or_default();
            bail!("{command:?} ended with {status}\n{said}");
        }
        Ok(())
    }
}

/// Measures what `work` runs. The processor time of daemons that it leaves behind counts too, until
/// they end.
pub fn measure(ground: &Ground, work: impl FnOnce(&Runner) -> Result<()>) -> Result<Measured> {
    // Orphans become our children, so that their processor time reaches us.
    set_child_subreaper(true)?;
    // What earlier runs left in the page cache is not written at the expense of this one.
    nix::unistd::sync();
    let (peak, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let server = ground.server();
    let before = cpu_seconds()?;
    let start = SystemClock.elapsed();
    let wall = std::thread::scope(|scope| {
        scope.spawn(|| sample(server, &peak, &done));
        let result = work(&Runner { log: ground.log() });
        let wall = SystemClock.elapsed().saturating_sub(start);
        done.store(true, Ordering::Relaxed);
        result.map(|()| wall)
    })?;
    wait_for_orphans(server)?;
    Ok(Measured {
        wall_seconds: wall.as_secs_f64(),
        cpu_seconds: cpu_seconds()? - before,
        peak_bytes: peak.into_inner(),
        stored_bytes: None,
    })
}

fn cpu_seconds() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let times = [usage.user_time(), usage.system_time()];
    Ok(times.iter().map(|time| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6).sum())
}

/// The tool's processes: all children of this one but the server.
fn tools(server: Option<Pid>) -> impl Iterator<Item = Pid> {
    children(getpid()).into_iter().filter(move |pid| Some(*pid) != server)
}

fn wait_for_orphans(server: Option<Pid>) -> Result<()> {
    while let Some(orphan) = tools(server).next() {
        waitpid(orphan, None)?;
    }
    Ok(())
}

fn sample(server: Option<Pid>, peak: &AtomicU64, done: &AtomicBool) {
    while !done.load(Ordering::Relaxed) {
        peak.fetch_max(tools(server).map(resident_bytes).sum(), Ordering::Relaxed);
        SystemClock.sleep(Duration::from_millis(10));
    }
}

/// The resident set of a process and all below it. Shared pages count once a process.
fn resident_bytes(pid: Pid) -> u64 {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    let below: u64 = children(pid).into_iter().map(resident_bytes).sum();
    (pages * 4096).saturating_add(below)
}

/// The children of each thread of a process; cheaper than a walk through all of `/proc`.
fn children(pid: Pid) -> Vec<Pid> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.map(|thread| fs::read_to_string(thread.path().join("children")));
    let text = lists.map(Result::unwrap_or_default).collect::<Vec<_>>().join(" ");
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw).collect()
}
