//! A process that outlives the agent which started it, and is known again by the next one.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use lifeboat_telemetry::{Code, Failure, Outcome};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// A log that is longer starts anew with the next process.
const LOG_BYTES_MAX: u64 = 16 << 20;
/// What of its end is told.
const TAIL_BYTES: u64 = 4096;
/// Address space, in KiB: a receiver's memory does not grow with the database.
const SPACE_KIB: u64 = 4 << 20;
/// Who is killed first where memory runs out: what can be started again.
const OUT_OF_MEMORY: &str = "500";

/// Which process it is: a number alone may be another one's by now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Identity {
    /// Its number.
    pub(crate) pid: i32,
    /// When it was started, in ticks since the host was.
    pub(crate) started: u64,
    /// The epoch that it works for.
    pub(crate) epoch: u64,
}

impl Identity {
    /// Whether that very process lives.
    pub(crate) fn lives(&self) -> bool {
        started(self.pid) == Some(self.started)
    }

    /// Sends a signal to it and its children.
    pub(crate) fn signal(&self, signal: Signal) {
        if self.lives() {
            // Gone in between is gone.
            let _ = kill(Pid::from_raw(-self.pid), signal);
        }
    }
}

/// Where processes of one receiver leave their traces.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    folder: PathBuf,
}

impl Place {
    pub(crate) fn new(folder: PathBuf) -> Outcome<Self> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(|error| failed(&folder, error))?;
        Ok(Self { folder })
    }

    /// The log of a kind of process.
    pub(crate) fn log(&self, kind: &str) -> PathBuf {
        self.folder.join(format!("{kind}.log"))
    }

    /// The process of a kind that an earlier agent started, if it lives.
    pub(crate) fn known(&self, kind: &str) -> Option<Identity> {
        let bytes = std::fs::read(self.folder.join(format!("{kind}.process"))).ok()?;
        let identity: Identity = serde_json::from_slice(&bytes).ok()?;
        identity.lives().then_some(identity)
    }

    /// Starts a process in a group of its own, with limits.
    pub(crate) fn start(
        &self,
        kind: &str,
        epoch: u64,
        program: &Path,
        arguments: &[String],
    ) -> Outcome<(Child, Identity)> {
        let log = self.log(kind);
        let long = std::fs::metadata(&log).is_ok_and(|found| found.len() > LOG_BYTES_MAX);
        let mut options = OpenOptions::new();
        options.create(true).append(!long).write(true).truncate(long).mode(0o600);
        let output = options.open(&log).map_err(|error| failed(&log, error))?;
        let errors = output.try_clone().map_err(|error| failed(&log, error))?;
        let mut command = Command::new("/bin/sh");
        // The shell sets the limits and becomes the program.
        let limits = format!("ulimit -c 0; ulimit -v {SPACE_KIB}; exec \"$0\" \"$@\"");
        command.arg("-c").arg(limits).arg(program).args(arguments);
        command.current_dir("/").stdin(Stdio::null()).stdout(output).stderr(errors);
        command.process_group(0);
        let child = command.spawn().map_err(|error| failed(program, error))?;
        let pid = child.id().cast_signed();
        let identity = Identity { pid, started: started(pid).unwrap_or_default(), epoch };
        let _ = std::fs::write(format!("/proc/{pid}/oom_score_adj"), OUT_OF_MEMORY);
        let path = self.folder.join(format!("{kind}.process"));
        let text = serde_json::to_vec(&identity).unwrap_or_default();
        let staged = path.with_extension("new");
        // Not known again after a crash, it is in the way of its successor, which says so.
        let _ = std::fs::write(&staged, text).and_then(|()| std::fs::rename(&staged, &path));
        Ok((child, identity))
    }

    /// The last lines of a log.
    pub(crate) fn tail(&self, kind: &str) -> Vec<String> {
        let read = || -> std::io::Result<String> {
            let mut file = File::open(self.log(kind))?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
            let mut bytes = Vec::new();
            file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let text = read().unwrap_or_default();
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let skipped = lines.len().saturating_sub(6);
        lines.into_iter().skip(skipped).map(str::to_owned).collect()
    }
}

/// When a process was started, in ticks; none if there is none, or only its remains.
fn started(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    (!matches!(state, "Z" | "X")).then(|| fields.nth(18)?.parse().ok()).flatten()
}

fn failed(path: &Path, error: std::io::Error) -> Failure {
    Failure::new(Code::LocalFile, format!("cannot use {}", path.display()))
        .because(error)
        .hint("See that this user may use it, and that the disk has room.")
}
