//! The guard of this instance, and whether anything of the instance lives.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat_cluster::server::{self, Running};
use lifeboat_repository::ids::Digest;
use lifeboat_telemetry::{Code, Failure, Outcome};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::settings::Settings;
use crate::Killed;
use crate::guard::{self, Client, GuardPlan, GuardStatus, Phase};

/// How long a fast shutdown may take. What is left then is killed, and was not shut down.
pub(crate) const STOP_LIMIT: Duration = Duration::from_secs(120);
/// What a socket's path may take, with its own name.
const STATE_BYTES_MAX: usize = 80;
const LOOK: Duration = Duration::from_millis(20);
/// How long processes without a guard may take to die.
const KILLING: Duration = Duration::from_secs(10);

/// What is known of the processes of an instance.
pub(crate) enum Life {
    /// There are none.
    None,
    /// A guard's, and what it says.
    Guarded(Client, Box<GuardStatus>),
    /// Somebody else's.
    Strange(Running),
}

/// How the guard of this node is made.
pub(crate) fn plan(settings: &Settings) -> Outcome<GuardPlan> {
    let database = &settings.database;
    let long = format!("{}_{}_{}", database.service, database.database, settings.node);
    let folder = settings.state.join("guard");
    let mut state = folder.join(&long);
    if state.as_os_str().len() > STATE_BYTES_MAX {
        let digest = Digest::of(long.as_bytes()).to_string();
        state = folder.join(digest.get(..12).unwrap_or(&digest));
    }
    let bin = settings.server_program("postgres")?;
    Ok(GuardPlan {
        program: Some(settings.program.clone()),
        state,
        data_directory: settings.data()?.to_owned(),
        bin_directory: bin.parent().map(PathBuf::from).unwrap_or_default(),
        config_file: settings.config_file()?,
        server_log: None,
        longest: settings.timing.lease,
        stop_limit: STOP_LIMIT,
        watchdog: None,
    })
}

/// Looks. Blocks for a second at most.
pub(crate) fn look(settings: &Settings) -> Outcome<Life> {
    // A directory that no server can start has no guard that could be asked by its plan.
    if let Some(client) = client(settings)? {
        let status = client.status()?;
        if status.phase != Phase::Down {
            return Ok(Life::Guarded(client, Box::new(status)));
        }
    }
    match server::running(settings.data()?)? {
        Running::No => Ok(Life::None),
        other => Ok(Life::Strange(other)),
    }
}

/// The guard, if one answers.
pub(crate) fn client(settings: &Settings) -> Outcome<Option<Client>> {
    match plan(settings) {
        Ok(plan) => guard::connect(&plan.socket()),
        Err(_) if !super::stopped::is_there(settings.data()?) => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// The guard that must be there.
pub(crate) fn guarded(settings: &Settings) -> Outcome<Client> {
    client(settings)?.ok_or_else(|| {
        Failure::new(Code::InstanceRole, format!("node {} runs below no guard", settings.node))
            .hint("The agent starts it below one; a server that was started by hand is stopped first.")
    })
}

/// Kills everything of the instance, whoever started it.
pub(crate) fn fence(settings: &Settings) -> Outcome<Killed> {
    let killed = match client(settings)? {
        Some(client) => client.fence()?,
        None => Killed { processes: 0, took: Duration::ZERO },
    };
    let strangers = kill_all_in(settings, settings.data()?)?;
    Ok(Killed {
        processes: killed.processes.saturating_add(strangers.processes),
        took: killed.took.saturating_add(strangers.took),
    })
}

/// Servers that no guard started: each process that works in the directory, until none is left.
pub(crate) fn kill_all_in(settings: &Settings, data: &Path) -> Outcome<Killed> {
    let clock = settings.environment.clock();
    let began = clock.elapsed();
    let mut seen = std::collections::BTreeSet::new();
    loop {
        let pids = match server::running(data)? {
            Running::No => break,
            Running::Server(server) => vec![server.pid],
            Running::Orphans(pids) => pids,
        };
        for pid in pids {
            seen.insert(pid);
            // One that is gone meanwhile is what was wanted.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        if clock.elapsed().saturating_sub(began) > KILLING {
            let message = format!("processes {seen:?} of node {} do not die", settings.node);
            return Err(Failure::new(Code::InstanceRole, message).hint(
                "They hang in the kernel, as on a disk that does not answer: power it off.",
            ));
        }
        clock.sleep(LOOK);
    }
    let processes = u32::try_from(seen.len()).unwrap_or(u32::MAX);
    Ok(Killed { processes, took: clock.elapsed().saturating_sub(began) })
}

/// Makes the server read its configuration anew, without a word of SQL.
pub(crate) fn reload(settings: &Settings) -> Outcome<()> {
    let postmaster = match look(settings)? {
        Life::Guarded(_, status) => status.postmaster,
        Life::Strange(Running::Server(server)) => Some(server.pid),
        Life::None | Life::Strange(_) => None,
    };
    let Some(postmaster) = postmaster else { return Ok(()) };
    signal(postmaster, Signal::SIGHUP)
}

/// Sends a signal to the server's first process.
pub(crate) fn signal(postmaster: i32, signal: Signal) -> Outcome<()> {
    kill(Pid::from_raw(postmaster), signal).map_err(|error| {
        Failure::new(Code::ClusterUnreachable, format!("process {postmaster} takes no signal"))
            .because(error)
            .hint("It has ended meanwhile: see the server's log.")
    })
}
