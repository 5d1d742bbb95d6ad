//! Child processes of tests: run as the server's account, bounded in time, killed as a tree.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use lifeboat_environment::{Clock, SystemClock};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Pid, Uid, User};

/// How long a command may take before the test is held for hung. A guard, never an assertion.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// The account that servers run as. PostgreSQL refuses root, so root borrows `postgres`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// User id.
    pub uid: Uid,
    /// Primary group id.
    pub gid: Gid,
}

impl Account {
    /// `postgres` for root, otherwise nobody else than who runs the test.
    pub fn of_server() -> Result<Self> {
        if !Uid::effective().is_root() {
            return Ok(Self { uid: Uid::effective(), gid: Gid::effective() });
        }
        let user = User::from_name("postgres")?
            .context("there is no user `postgres`; run `cargo xtask install`")?;
        Ok(Self { uid: user.uid, gid: user.gid })
    }

    /// Makes `command` run as this account.
    pub fn apply(self, command: &mut Command) {
        if Uid::effective().is_root() {
            // The standard library drops root's supplementary groups together with the uid.
            command.uid(self.uid.as_raw()).gid(self.gid.as_raw());
        }
    }
}

/// How a process ended and what it said.
#[derive(Debug, Clone)]
pub struct Finished {
    /// The command line, for messages.
    pub shown: String,
    /// Exit code; `None` if a signal ended the process.
    pub code: Option<i32>,
    /// The signal that ended the process.
    pub signal: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Finished {
    /// The same, if the exit code is 0; otherwise an error with everything that was said.
    pub fn success(self) -> Result<Self> {
        self.expect_code(0)
    }

    /// The same, if the exit code is `code`; otherwise an error with everything that was said.
    pub fn expect_code(self, code: i32) -> Result<Self> {
        if self.code != Some(code) {
            bail!("{self}\nexpected exit code {code}");
        }
        Ok(self)
    }

    /// Standard output as one JSON document.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_str(&self.stdout).with_context(|| format!("no JSON from {self}"))
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { shown, code, signal, stdout, stderr } = self;
        write!(formatter, "{shown}\nexit code {code:?}, signal {signal:?}\n{stdout}{stderr}")
    }
}

/// A process whose output is being collected. Dropping it kills it and its descendants.
#[derive(Debug)]
pub struct Running {
    child: Child,
    shown: String,
    stdout: Option<JoinHandle<Vec<u8>>>,
    stderr: Option<JoinHandle<Vec<u8>>>,
}

impl Running {
    /// Starts `command` with piped output and `input` on its standard input.
    pub fn spawn(command: &mut Command, input: Option<&str>) -> Result<Self> {
        let shown = show(command);
        let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start {shown}"))?;
        let stdout = child.stdout.take().map(collect);
        let stderr = child.stderr.take().map(collect);
        if let (Some(mut pipe), Some(text)) = (child.stdin.take(), input) {
            let text = text.to_owned();
            // A thread, so that a child that answers before it has read all cannot deadlock us.
            // It may also end without reading: its exit status tells, not this pipe.
            std::thread::spawn(move || drop(pipe.write_all(text.as_bytes())));
        }
        Ok(Self { child, shown, stdout, stderr })
    }

    /// The process id.
    pub fn id(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Sends a signal to the process alone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.id(), signal).with_context(|| format!("cannot signal {}", self.shown))
    }

    /// Freezes the process and returns once none of its threads runs any more: a signal alone lets
    /// one that was just at work finish it.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)?;
        let tasks = format!("/proc/{}/task", self.id());
        let stopped = || {
            let mut running = 0;
            for task in std::fs::read_dir(&tasks)?.flatten() {
                let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
                let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
                running += u32::from(!matches!(state, None | Some('T')));
            }
            Ok(running == 0)
        };
        match wait_until(PATIENCE, stopped)? {
            true => Ok(()),
            false => bail!("{} does not stop", self.shown),
        }
    }

    /// Ends the frost.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// Has it not ended yet?
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Waits for the end; kills the tree and fails if that takes longer than `limit`.
    pub fn wait(mut self, limit: Duration) -> Result<Finished> {
        let ended = wait_until(limit, || Ok(self.child.try_wait()?.is_some()))?;
        if !ended {
            kill_tree(self.id());
        }
        let status = self.child.wait()?;
        let text = |thread: Option<JoinHandle<Vec<u8>>>| {
            let bytes = thread.and_then(|thread| thread.join().ok()).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let finished = Finished {
            shown: self.shown.clone(),
            code: status.code(),
            signal: status.signal(),
            stdout: text(self.stdout.take()),
            stderr: text(self.stderr.take()),
        };
        if !ended {
            bail!("{finished}\nstill running after {} s", limit.as_secs());
        }
        Ok(finished)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            kill_tree(self.id());
            let _ = self.child.wait();
        }
    }
}

/// Runs a command to its end, at most [`PATIENCE`].
pub fn run(command: &mut Command) -> Result<Finished> {
    Running::spawn(command, None)?.wait(PATIENCE)
}

/// Polls `done` until it says yes; `false` if that takes longer than `limit`.
pub fn wait_until(limit: Duration, mut done: impl FnMut() -> Result<bool>) -> Result<bool> {
    let start = SystemClock.elapsed();
    loop {
        if done()? {
            return Ok(true);
        }
        if SystemClock.elapsed().saturating_sub(start) > limit {
            return Ok(false);
        }
        SystemClock.sleep(Duration::from_millis(10));
    }
}

/// The process and everything below it, from `/proc`.
pub fn tree(root: Pid) -> Vec<Pid> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // The command name may hold anything, so fields are counted from its last parenthesis.
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace());
        if let Some(parent) = fields.and_then(|mut fields| fields.nth(1)?.parse().ok()) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = vec![root.as_raw()];
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        let below = children.remove(pid).unwrap_or_default();
        found.extend(below);
        next += 1;
    }
    found.into_iter().map(Pid::from_raw).collect()
}

/// Kills a process and everything below it as a power cut does: nobody gets to clean up.
pub fn kill_tree(root: Pid) {
    // Frozen processes cannot fork, so the second look finds whoever the first one missed.
    let mut frozen = Vec::new();
    loop {
        let fresh: Vec<Pid> = tree(root).into_iter().filter(|pid| !frozen.contains(pid)).collect();
        if fresh.is_empty() {
            break;
        }
        for pid in fresh {
            let _ = kill(pid, Signal::SIGSTOP);
            frozen.push(pid);
        }
    }
    for pid in frozen {
        let _ = kill(pid, Signal::SIGKILL);
    }
}

fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

fn collect(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        bytes
    })
}

#[cfg(test)]
mod tests;
