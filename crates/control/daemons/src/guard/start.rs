//! Before a guard guards: its place, its mode, and whether PostgreSQL may be started.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use lifeboat_cluster::server::{Postmaster, Running, forget_number, running};
use lifeboat_drivers::guard::processes::living_below;
use lifeboat_drivers::guard::{GuardPlan, Mode, Refusal, arguments, connect, unmanaged};
use lifeboat_environment::Environment;
use lifeboat_telemetry::{Code, Failure, Outcome};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{Pid, Uid};

use super::log::log;
use super::protect;

/// A socket has a short name.
const LONGEST_STATE: usize = 80;
/// How long a detached guard may take until it answers.
const ANSWERS: Duration = Duration::from_secs(8);

/// Starts a guard that outlives this process and everything that is done to its group, and waits
/// until it answers.
pub fn detach(plan: &GuardPlan, environment: &Environment) -> Outcome<()> {
    directory(plan)?;
    let failed = |error: io::Error| {
        Failure::new(Code::GuardSilent, "no guard could be started").because(error)
    };
    let log = OpenOptions::new().append(true).create(true).mode(0o600).open(plan.log());
    let log = log.map_err(failed)?;
    let begin = log.metadata().map_err(failed)?.len();
    let mut guard = Command::new("/proc/self/exe")
        .arg0("lifeboat")
        .args(["guard", "run"])
        .args(arguments(plan))
        .stdin(Stdio::null())
        .stdout(log.try_clone().map_err(failed)?)
        .stderr(log)
        .current_dir("/")
        .spawn()
        .map_err(failed)?;
    let clock = environment.clock();
    let until = clock.elapsed().saturating_add(ANSWERS);
    loop {
        let status = guard.try_wait().map_err(failed)?;
        // Another guard may have been quicker.
        if connect(&plan.socket())?.is_some() {
            return Ok(());
        }
        let why = match status {
            Some(status) => format!("it ended with {status}"),
            None if clock.elapsed() > until => "it does not answer".to_owned(),
            None => {
                clock.sleep(Duration::from_millis(5));
                continue;
            }
        };
        let said = std::fs::read(plan.log()).unwrap_or_default();
        let said = said.get(usize::try_from(begin).unwrap_or_default()..).unwrap_or_default();
        let said = String::from_utf8_lossy(said);
        return Err(Failure::new(Code::GuardSilent, "no guard could be started")
            .because(why)
            .details(said.lines().take(20).map(str::to_owned)));
    }
}

/// Takes the state directory, the socket and the mode.
pub(super) fn take_place(
    plan: &GuardPlan,
    environment: &Environment,
) -> Outcome<(UnixListener, Mode, bool, File)> {
    protect::detach(c"lifeboat-keeper");
    directory(plan)?;
    let lock = lock(&plan.lock())?;
    let mode = mode(environment)?;
    let memory_locked = protect::stay();
    if !memory_locked {
        log(environment, "keeper", "memory is not locked: the limit (ulimit -l) is too low");
    }
    let listener = listen(&plan.socket()).map_err(|error| state(&plan.socket(), error))?;
    Ok((listener, mode, memory_locked, lock))
}

fn directory(plan: &GuardPlan) -> Outcome<()> {
    let path = &plan.state;
    if path.as_os_str().len() > LONGEST_STATE {
        let message = format!("{} is longer than {LONGEST_STATE} bytes", path.display());
        let failure = Failure::new(Code::LocalState, message);
        return Err(failure.hint("Name a shorter state directory: a socket has a short name."));
    }
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| state(path, error))?;
    let found = std::fs::metadata(path).map_err(|error| state(path, error))?;
    if found.uid() != Uid::effective().as_raw() {
        return Err(state(path, "it belongs to another user"));
    }
    // Who can write there can put another guard in the place of this one.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
        .map_err(|error| state(path, error))
}

fn lock(path: &Path) -> Outcome<File> {
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
    let file = file.map_err(|error| state(path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let message = format!("another guard holds {}", path.display());
            Err(Failure::new(Code::GuardRunning, message)
                .hint("`lifeboat guard status` asks it; SIGTERM ends it and its instance."))
        }
        Err(TryLockError::Error(error)) => Err(state(path, error)),
    }
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    // The lock says that nobody listens there any more.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// A namespace where the kernel allows one; else orphans come here.
fn mode(environment: &Environment) -> Outcome<Mode> {
    if Uid::effective().is_root() {
        match enter_namespace().and_then(|()| leave_namespace()) {
            Ok(()) => return Ok(Mode::Namespace),
            Err(error) => {
                let what = format!("no PID namespace ({error}): goes on as without root");
                log(environment, "keeper", &what);
            }
        }
    }
    let set = nix::sys::prctl::set_child_subreaper(true);
    set.map(|()| Mode::Subreaper).map_err(|error| {
        Failure::new(Code::Internal, "orphans cannot be made to come to the guard").because(error)
    })
}

/// The next child becomes the first process of a new namespace.
pub(super) fn enter_namespace() -> io::Result<()> {
    // A process makes one only from its own: children may be bound for the one before.
    leave_namespace()?;
    Ok(unshare(CloneFlags::CLONE_NEWPID)?)
}

fn leave_namespace() -> io::Result<()> {
    Ok(setns(File::open("/proc/self/ns/pid")?, CloneFlags::CLONE_NEWPID)?)
}

/// Whether PostgreSQL may be started: nobody else runs it, and nobody else could.
pub(super) fn may_start(plan: &GuardPlan) -> Result<(), (Refusal, String)> {
    let data = &plan.data_directory;
    let failed = |failure: Failure| (Refusal::Start, failure.full_message());
    match running(data).map_err(failed)? {
        Running::No => {}
        Running::Server(Postmaster { pid, .. }) => {
            let why = format!("a server runs on {} already: process {pid}", data.display());
            return Err((Refusal::Held, why));
        }
        Running::Orphans(left) => {
            let why = format!("processes of a server are left on {}: {left:?}", data.display());
            return Err((Refusal::Held, why));
        }
    }
    let open = unmanaged(data, plan.config_file.as_deref()).map_err(failed)?;
    if let Some(file) = open.first() {
        let why = format!("{} does not refuse other starts", file.display());
        return Err((Refusal::Unmanaged, why));
    }
    forget_number(data);
    Ok(())
}

/// Whether no process of a server works in the data directory.
pub(super) fn nothing_lives(plan: &GuardPlan) -> bool {
    matches!(running(&plan.data_directory), Ok(Running::No))
}

/// What has not ended although it was sent SIGKILL.
pub(super) fn left() -> String {
    let left = living_below(Pid::this()).unwrap_or_default();
    let left: Vec<_> = left.iter().map(ToString::to_string).collect();
    format!("{} processes have not ended after SIGKILL: {}", left.len(), left.join(", "))
}

fn state(path: &Path, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Failure {
    Failure::new(Code::LocalState, format!("cannot use {}", path.display()))
        .because(error)
        .hint("The guard's state directory must belong to the guard's user alone.")
}
