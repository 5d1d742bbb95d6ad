//! Programs that this host runs on a stopped directory, one at a time, as the directory's owner.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use lifeboat_telemetry::{Code, Failure, Outcome, duration};
use nix::fcntl::{Flock, FlockArg};

use super::place;
use super::settings::Settings;

const LOOK: Duration = Duration::from_millis(50);
/// What is kept of what a program says.
const SAID_BYTES_MAX: u64 = 256 << 10;

/// What a program did.
#[derive(Debug)]
pub(crate) struct Finished {
    /// Its exit code; none if a signal ended it.
    pub(crate) code: Option<i32>,
    /// What it said, on both outputs, one after the other.
    pub(crate) said: String,
}

impl Finished {
    pub(crate) fn success(&self) -> bool {
        self.code == Some(0)
    }

    /// Its last lines, for a failure.
    pub(crate) fn lines(&self) -> Vec<String> {
        let lines: Vec<&str> = self.said.lines().filter(|line| !line.trim().is_empty()).collect();
        let skipped = lines.len().saturating_sub(20);
        lines.into_iter().skip(skipped).map(str::to_owned).collect()
    }
}

/// Nobody else works on the directory. The programs have the lock too, as their input: one that
/// outlives an agent that was killed keeps the next agent out.
pub(crate) struct Work {
    lock: Flock<File>,
}

impl Work {
    /// Takes the lock of this node.
    pub(crate) fn begin(settings: &Settings) -> Outcome<Self> {
        let path = place::aside(settings)?.join("work.lock");
        let open = File::options().create(true).read(true).append(true).open(&path);
        let file = open.map_err(|error| place::failed(&path, error))?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| {
            let message = format!("another program works on node {}", settings.node);
            Failure::new(Code::InstanceRole, message)
                .because(error)
                .hint("It was begun before; it is waited for, or ended by whoever started it.")
        })?;
        Ok(Self { lock })
    }

    /// Runs a program in the data directory, as its owner, to its end. Blocks.
    pub(crate) fn run<S: AsRef<OsStr>>(
        &self,
        settings: &Settings,
        program: &Path,
        arguments: impl IntoIterator<Item = S>,
        limit: Duration,
    ) -> Outcome<Finished> {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(settings.data()?);
        if nix::unistd::Uid::effective().is_root() {
            let (user, group) = place::owner_of(settings)?;
            command.uid(user).gid(group);
        }
        self.wait(settings, command, limit)
    }

    /// Runs lifeboat itself, as this user, to its end. Blocks.
    pub(crate) fn lifeboat<S: AsRef<OsStr>>(
        &self,
        settings: &Settings,
        arguments: impl IntoIterator<Item = S>,
        limit: Duration,
    ) -> Outcome<Finished> {
        let mut command = Command::new(&settings.program);
        command.args(arguments).current_dir("/");
        self.wait(settings, command, limit)
    }

    fn wait(
        &self,
        settings: &Settings,
        mut command: Command,
        limit: Duration,
    ) -> Outcome<Finished> {
        let program = PathBuf::from(command.get_program());
        let shown = program.display();
        let failed = |error: std::io::Error| {
            Failure::new(Code::LocalFile, format!("{shown} cannot be run"))
                .because(error)
                .hint("Install it, or name its place in `bin_directory` of the node.")
        };
        let said = place::aside(settings)?.join("work.log");
        let log = File::create(&said).map_err(failed)?;
        command.env("LC_ALL", "C").env_remove("PGOPTIONS");
        command.stdin(Stdio::from(self.lock.try_clone().map_err(failed)?));
        command.stdout(log.try_clone().map_err(failed)?).stderr(log);
        // A signal to the agent's group is not meant for it.
        command.process_group(0);
        let mut child = command.spawn().map_err(failed)?;
        let clock = settings.environment.clock();
        let end = clock.elapsed().saturating_add(limit);
        let status = loop {
            if let Some(status) = child.try_wait().map_err(failed)? {
                break status;
            }
            if clock.elapsed() > end {
                let _ = child.kill();
                let _ = child.wait();
                let message = format!("{shown} did not end within {}", duration(limit));
                return Err(Failure::new(Code::DeadlineExceeded, message)
                    .hint("It was killed. See the host's disks and the connection."));
            }
            clock.sleep(LOOK);
        };
        let mut bytes = Vec::new();
        File::open(&said)
            .and_then(|file| file.take(SAID_BYTES_MAX).read_to_end(&mut bytes))
            .map_err(failed)?;
        Ok(Finished { code: status.code(), said: String::from_utf8_lossy(&bytes).into_owned() })
    }
}
