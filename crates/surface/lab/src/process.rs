//! Processes that outlive the command that started them, and how to be sure which is which.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use lifeboat_environment::{Clock, SystemClock};
use lifeboat_telemetry::{Code, Failure, Outcome};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, getpid};
use serde::{Deserialize, Serialize};

use crate::layout::{Domain, Layout};
use crate::state::{Unit, local};

/// The variable that every process of a lab carries, with the lab's directory: it is also where
/// the commands inside find their lab.
pub const MARK: &str = "LIFEBOAT_LAB";

/// A process, told from a later one with the same id by when it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Its id.
    pub pid: i32,
    /// When it started, in ticks since the machine did.
    pub started: u64,
}

/// What a look at a process finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It runs.
    Up,
    /// It is stopped, or its cgroup is frozen.
    Frozen,
    /// It is gone.
    Down,
}

impl Identity {
    /// The process that has this id now.
    pub fn of(pid: i32) -> Option<Self> {
        let stat = Stat::of(pid)?;
        (stat.state != 'Z').then_some(Self { pid, started: stat.started })
    }

    /// What it does now. Collects it if it was a child of ours that has ended.
    pub fn life(&self) -> Life {
        let _ = waitpid(Pid::from_raw(self.pid), Some(WaitPidFlag::WNOHANG));
        match Stat::of(self.pid) {
            Some(stat) if stat.started != self.started || stat.state == 'Z' => Life::Down,
            Some(stat) if stat.state == 'T' || is_frozen(self.pid) => Life::Frozen,
            Some(_) => Life::Up,
            None => Life::Down,
        }
    }

    /// Sends a signal, if it is still this process.
    pub fn signal(&self, signal: Signal) {
        if self.life() != Life::Down {
            let _ = kill(Pid::from_raw(self.pid), signal);
        }
    }
}

struct Stat {
    state: char,
    parent: i32,
    started: u64,
}

impl Stat {
    fn of(pid: i32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The command name may hold anything, so fields are counted from its last parenthesis.
        let (_, rest) = text.rsplit_once(')')?;
        let mut fields = rest.split_whitespace();
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        let started = fields.nth(17)?.parse().ok()?;
        Some(Self { state, parent, started })
    }
}

/// The freezer cgroup of a process says more than its state: a frozen one shows as `D`.
fn is_frozen(pid: i32) -> bool {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let group = groups.lines().find_map(|line| line.split_once(":freezer:").map(|(_, path)| path));
    let Some(group) = group.filter(|group| *group != "/") else { return false };
    let state = format!("/sys/fs/cgroup/freezer{group}/freezer.state");
    fs::read_to_string(state).is_ok_and(|state| state.trim() != "THAWED")
}

fn all() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The name of the file that a process runs.
pub fn program(one: Identity) -> String {
    let path = fs::read_link(format!("/proc/{}/exe", one.pid)).unwrap_or_default();
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The words with which a process was started.
pub fn words(one: Identity) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{}/cmdline", one.pid)).unwrap_or_default();
    let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// Those whose parent is none of them.
pub fn roots(all: &BTreeSet<Identity>) -> BTreeSet<Identity> {
    let is_below = |one: &&Identity| {
        let parent = Stat::of(one.pid).map(|stat| stat.parent);
        all.iter().any(|other| Some(other.pid) == parent)
    };
    all.iter().filter(|one| !is_below(one)).copied().collect()
}

/// A process and everything below it.
pub fn tree(root: Identity) -> Vec<Identity> {
    let everything: Vec<(Identity, i32)> = all()
        .filter_map(|pid| {
            let stat = Stat::of(pid)?;
            Some((Identity { pid, started: stat.started }, stat.parent))
        })
        .collect();
    let mut found: Vec<Identity> =
        everything.iter().map(|(one, _)| *one).filter(|one| *one == root).collect();
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        let below = everything.iter().filter(|(_, above)| *above == parent.pid);
        found.extend(below.map(|(one, _)| *one));
        next += 1;
    }
    found
}

/// Every process of the lab that can be told to be one: in its cgroups, with its mark, or a
/// PostgreSQL in one of its directories (backends overwrite their variables).
pub fn of_lab(layout: &Layout) -> BTreeSet<Identity> {
    let own = getpid().as_raw();
    let mut found: BTreeSet<Identity> = of_cgroups(layout);
    let mark = [MARK.as_bytes(), b"=", layout.root().as_os_str().as_bytes()].concat();
    for pid in all().filter(|pid| *pid != own) {
        let variables = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let marked = variables.split(|byte| *byte == 0).any(|variable| variable == mark);
        if marked || is_postgres_below(pid, layout.root()) {
            // Not the shell of somebody who has set the variable, nor what he runs.
            let foreign = marked && is_interactive(pid);
            found.extend(Identity::of(pid).filter(|_| !foreign));
        }
    }
    found
}

fn is_postgres_below(pid: i32, root: &Path) -> bool {
    let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let directory = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
    program.file_name().is_some_and(|name| name == "postgres") && directory.starts_with(root)
}

/// Whether a process has a terminal: none of the lab's has.
fn is_interactive(pid: i32) -> bool {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = text.rsplit_once(')').map(|(_, rest)| rest.split_whitespace());
    fields.and_then(|mut fields| fields.nth(4)).is_some_and(|terminal| terminal != "0")
}

fn of_cgroups(layout: &Layout) -> BTreeSet<Identity> {
    Domain::ALL.into_iter().flat_map(|domain| of_cgroup(layout, domain)).collect()
}

fn of_cgroup(layout: &Layout, domain: Domain) -> Vec<Identity> {
    let path = layout.cgroup().join(domain.name()).join("cgroup.procs");
    let text = fs::read_to_string(path).unwrap_or_default();
    let own = getpid().as_raw();
    text.lines()
        .filter_map(|line| line.parse().ok())
        .filter(|pid| *pid != own)
        .filter_map(Identity::of)
        .collect()
}

/// Every process of a domain.
pub fn of_domain(layout: &Layout, units: &[Unit], domain: Domain) -> BTreeSet<Identity> {
    let mut found: BTreeSet<Identity> = of_cgroup(layout, domain).into_iter().collect();
    for unit in units.iter().filter(|unit| unit.domain == domain) {
        found.extend(unit.process.into_iter().flat_map(tree));
    }
    let data = layout.disk(domain);
    found.extend(all().filter(|pid| is_postgres_below(*pid, &data)).filter_map(Identity::of));
    found
}

/// Freezes or thaws a domain's cgroup; nothing where there is none.
pub fn freeze(layout: &Layout, domain: Domain, frozen: bool) -> Outcome<()> {
    let path = layout.cgroup().join(domain.name()).join("freezer.state");
    if !path.exists() {
        return Ok(());
    }
    let word = if frozen { "FROZEN" } else { "THAWED" };
    fs::write(&path, word).map_err(|error| local("cannot write", &path).because(error))
}

/// Kills everything that `find` finds, until it finds nothing.
pub fn kill_all(find: impl Fn() -> BTreeSet<Identity>) -> Outcome<()> {
    let start = SystemClock.elapsed();
    loop {
        let left = find();
        if left.is_empty() {
            return Ok(());
        }
        for one in &left {
            one.signal(Signal::SIGKILL);
        }
        if SystemClock.elapsed().saturating_sub(start) > Duration::from_secs(20) {
            let names = left.iter().map(|one| one.pid.to_string()).collect::<Vec<_>>();
            let message = format!("processes do not end: {}", names.join(", "));
            return Err(Failure::new(Code::LabPart, message)
                .hint("Are they blocked by a disk? `ps -o pid,stat,wchan,args -p PID` tells."));
        }
        SystemClock.sleep(Duration::from_millis(10));
    }
}

/// Starts a unit; who it is.
pub fn start(layout: &Layout, unit: &Unit) -> Outcome<Identity> {
    let log = layout.logs(unit.domain).join(format!("{}.log", unit.name));
    let file = fs::File::options()
        .create(true)
        .append(true)
        .open(&log)
        .map_err(|error| local("cannot open", &log).because(error))?;
    let failed = |error: std::io::Error| {
        Failure::new(Code::LabPart, format!("cannot start {}", unit.label())).because(error)
    };
    let mut command = enter(layout);
    command.arg("--detached");
    command.args(unit.privileged.then_some("--privileged"));
    command.args([unit.domain.name(), "--"]);
    // Set after root has entered the domain: what a preloaded library makes must be the account's.
    if !unit.variables.is_empty() {
        let set = unit.variables.iter().map(|(name, value)| format!("{name}={value}"));
        command.arg("/usr/bin/env").args(set);
    }
    let child = command
        .args(&unit.command)
        .stdin(Stdio::null())
        .stdout(file.try_clone().map_err(failed)?)
        .stderr(file)
        .spawn()
        .map_err(failed)?;
    let pid = child.id().cast_signed();
    Identity::of(pid).ok_or_else(|| {
        let said = tail(&log);
        Failure::new(Code::LabPart, format!("{} ended at once", unit.label())).details(said)
    })
}

/// A command that will run in a domain; its program and arguments are still to be added.
pub fn within(layout: &Layout, domain: Domain) -> Command {
    let mut command = enter(layout);
    command.args([domain.name(), "--"]);
    command
}

fn enter(layout: &Layout) -> Command {
    let mut command = Command::new(layout.binary());
    command.env_clear().current_dir(layout.root());
    // So that whoever looks for what is the lab's finds it also before it has entered.
    command.env(MARK, layout.root());
    command.args(["--quiet", "lab", "enter", "--directory"]).arg(layout.root());
    command
}

/// What every process of a domain has in its environment.
pub fn usual_variables(layout: &Layout, domain: Domain) -> Vec<(String, String)> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let path = format!(
        "{}:{}:/usr/sbin:/usr/bin:/sbin:/bin",
        text(&layout.root().join("bin")),
        text(Path::new(crate::programs::POSTGRES))
    );
    let mut variables = vec![
        ("PATH".to_owned(), path),
        ("LC_ALL".to_owned(), "C.UTF-8".to_owned()),
        ("TZ".to_owned(), "UTC".to_owned()),
        (MARK.to_owned(), text(layout.root())),
        ("LIFEBOAT_SPEC".to_owned(), text(&layout.spec())),
    ];
    if domain != Domain::Clients {
        variables.push(("LIFEBOAT_STATE".to_owned(), text(&layout.state(domain))));
        variables.push(("LIFEBOAT_REGION".to_owned(), domain.name().to_owned()));
    }
    variables
}

/// The last lines of a log.
pub fn tail(log: &Path) -> Vec<String> {
    let bytes = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines.iter().skip(lines.len().saturating_sub(12)).map(|line| (*line).to_owned()).collect()
}

#[cfg(test)]
mod tests;
