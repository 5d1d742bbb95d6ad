//! A directory on which no process works: what pg_control says of it.

use std::path::Path;

use lifeboat_cluster::control::{self, State};
use lifeboat_cluster::{ControlFile, server};
use lifeboat_environment::Environment;
use lifeboat_model::Lsn;
use lifeboat_quorum::Instance;
use lifeboat_telemetry::Outcome;

use super::wal_end;

/// The state of a directory without processes.
pub(crate) fn instance(data: &Path, environment: &Environment) -> Outcome<Instance> {
    if !is_there(data) {
        return Ok(Instance::Absent);
    }
    let control = control::read(data, environment)?;
    // What cannot be read is as good as unclean: the caller asks more of what is.
    let shut_down_at = clean_end(data, &control).ok().flatten();
    Ok(Instance::Down { timeline: control.timeline, shut_down_at })
}

/// Whether there is a data directory that a server could start.
pub(crate) fn is_there(data: &Path) -> bool {
    server::data_version(data).is_ok() && data.join(control::PATH).is_file()
}

/// Where a clean shutdown ended; none if it was none.
pub(crate) fn clean_end(data: &Path, control: &ControlFile) -> Outcome<Option<Lsn>> {
    match control.state {
        State::ShutDown => wal_end::end_of_record(data, control, control.checkpoint).map(Some),
        State::ShutDownInRecovery => Ok(Some(wal_end::recovered(control).1)),
        _ => Ok(None),
    }
}

/// Whether the directory was last a primary. A standby's must be promoted, or two servers write
/// on one timeline.
pub(crate) fn was_primary(data: &Path, control: &ControlFile) -> bool {
    // A copy holds the control file of the primary that it was taken from.
    let is_copy = data.join("backup_label").exists();
    !is_copy
        && matches!(
            control.state,
            State::ShutDown | State::ShuttingDown | State::InProduction | State::CrashRecovery
        )
}
