//! Starting below a guard, as what is wanted.

use lifeboat_cluster::control;
use lifeboat_cluster::server::Running;
use lifeboat_cluster::settings::{RECOVERY_SIGNAL, STANDBY_SIGNAL};
use lifeboat_model::NodeName;
use lifeboat_telemetry::{Code, Failure, Outcome};

use super::configuration::{self, Change};
use super::life::{self, Life};
use super::settings::Settings;
use super::{archive, copy, place, rewind, stopped};
use crate::StartAs;
use crate::guard::{self, Options, Phase};

/// Starts it, if it is not running. Blocks: for a thread of its own.
pub(crate) fn start(settings: &Settings, start: &StartAs) -> Outcome<()> {
    match life::look(settings)? {
        Life::Guarded(_, status) if matches!(status.phase, Phase::Up | Phase::Starting) => {
            return Ok(());
        }
        Life::Guarded(..) => {
            return Err(Failure::new(
                Code::InstanceRole,
                format!("node {} is just being stopped", settings.node),
            )
            .hint("It can be started once nothing of it is left."));
        }
        Life::Strange(running) => return Err(strange(settings, &running)),
        Life::None => {}
    }
    if matches!(start, StartAs::Standby { .. }) && !stopped::is_there(settings.data()?) {
        copy::make(settings)?;
    }
    refuse_unfinished(settings)?;
    let deadline = match start {
        StartAs::Standby { upstream } => {
            prepare_standby(settings, upstream.as_ref())?;
            None
        }
        StartAs::Primary { deadline } => {
            prepare_primary(settings)?;
            Some(*deadline)
        }
    };
    let plan = life::plan(settings)?;
    guard::manage(&plan.data_directory, plan.config_file.as_deref())?;
    let client = guard::launch(&plan)?;
    client.start(Options::default(), deadline).map(drop)
}

fn prepare_standby(settings: &Settings, upstream: Option<&NodeName>) -> Outcome<()> {
    let data = settings.data()?;
    // Without its repository it streams all the same; the agent says what is missing.
    let _ = archive::refresh(settings);
    let conninfo = match upstream {
        Some(upstream) => conninfo(settings, upstream)?,
        None => String::new(),
    };
    configuration::write(settings, &Change { conninfo: Some(conninfo), ..Change::default() })?;
    // First the signal that makes it a standby: with the other one alone it would promote itself.
    place::write_new(&data.join(STANDBY_SIGNAL), b"")?;
    place::remove(&data.join(RECOVERY_SIGNAL))?;
    place::remove(&data.join("promote"))
}

fn prepare_primary(settings: &Settings) -> Outcome<()> {
    let data = settings.data()?;
    let control = control::read(data, &settings.environment)?;
    if !stopped::was_primary(data, &control) {
        // Without a promotion it would write on the timeline of another one: it comes up as the
        // standby that it is, and whoever asked promotes it.
        return prepare_standby(settings, None);
    }
    archive::forget_key(settings)?;
    let change = Change { conninfo: Some(String::new()), ..Change::default() };
    configuration::write(settings, &change)?;
    place::remove(&data.join(RECOVERY_SIGNAL))?;
    place::remove(&data.join(STANDBY_SIGNAL))
}

/// libpq's words for a node, with its password in a file.
pub(crate) fn conninfo(settings: &Settings, upstream: &NodeName) -> Outcome<String> {
    let passfile = configuration::passfile(settings)?;
    let place = place::other(settings, upstream)?;
    let conninfo = place::conninfo(&place, settings.node.as_str(), &passfile)?;
    if let Some(line) = &conninfo.passfile_line {
        place::write(&passfile, line.as_bytes())?;
    }
    Ok(conninfo.words)
}

fn strange(settings: &Settings, running: &Running) -> Failure {
    let who = match running {
        Running::Server(server) => format!("process {}", server.pid),
        Running::Orphans(pids) => format!("processes {pids:?}"),
        Running::No => String::new(),
    };
    let message = format!("node {} runs already, below no guard ({who})", settings.node);
    Failure::new(Code::InstanceRole, message)
        .hint("Stop it; the agent starts it again below its guard.")
}

/// What a restore or a rewind left half done must never start.
fn refuse_unfinished(settings: &Settings) -> Outcome<()> {
    let data = settings.data()?;
    let unfinished = match () {
        () if !stopped::is_there(data) => "holds no cluster",
        () if data.join("lifeboat.restore").exists() => "is an unfinished restore",
        () if rewind::is_unfinished(settings)? => "was rewound half-way",
        () => return Ok(()),
    };
    Err(Failure::new(Code::InstanceRole, format!("{} {unfinished}", data.display()))
        .hint("Run `lifeboat standby create` for it, or the step that was interrupted again."))
}
