//! Before anything is written: one backup at a time, the right server, the right stream.

use lifeboat_cluster::{ControlFile, control};
use lifeboat_model::Timeline;
use lifeboat_repository::binding;
use lifeboat_repository::regions::Regions;
use lifeboat_telemetry::{Code, Failure, Outcome};
use lifeboat_wal::incarnation;
use nix::fcntl::{Flock, FlockArg};

use crate::run::{BackupContext, BackupRequest};
use crate::source::Source;

/// The server, and what its control file says.
pub struct Opened {
    /// The control file.
    pub control: ControlFile,
    /// The session.
    pub source: Source,
}

/// Connects and refuses whatever would not restore.
pub fn source(
    request: &BackupRequest,
    context: &BackupContext<'_>,
    regions: &mut Regions,
) -> Outcome<Opened> {
    let control = control::read(&request.data_directory, context.environment)?;
    check_stream(context, control.system.0)?;
    incarnation::check(&request.data_directory, &request.database, context.stream)?;
    check_binding(request, context, regions)?;
    let source = context.blocking.run(Source::open(&request.connection))?;
    source.check_identity(&request.data_directory, control.system.0)?;
    source.check_settings(request.archiving, context.reporter)?;
    Ok(Opened { control, source })
}

/// One backup of a database at a time on one host; the kernel frees the lock of a dead process.
pub fn lock(request: &BackupRequest) -> Outcome<Flock<std::fs::File>> {
    let path = request.state.join(format!("backup-{}.lock", request.database.replace('/', "-")));
    let failure = |error: std::io::Error| {
        Failure::new(Code::LocalState, format!("cannot lock {}", path.display())).because(error)
    };
    std::fs::create_dir_all(&request.state).map_err(failure)?;
    let file = std::fs::File::create(&path).map_err(failure)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| {
        let message = format!("another backup of {} is running on this host", request.database);
        Failure::new(Code::BackupRunning, message)
            .because(error)
            .hint("Wait for it to end; a backup that was killed holds no lock.")
    })
}

fn check_stream(context: &BackupContext<'_>, system_identifier: u64) -> Outcome<()> {
    let bound = context.stream.system_identifier;
    if bound == system_identifier {
        return Ok(());
    }
    let message = format!(
        "the database is bound to system identifier {bound}, this cluster has {system_identifier}",
    );
    Err(Failure::new(Code::BindingConflict, message)
        .hint("Another cluster was put in its place. Give it a database of its own in the spec."))
}

/// Another incarnation may have been made the source meanwhile; this one's WAL would be refused.
fn check_binding(
    request: &BackupRequest,
    context: &BackupContext<'_>,
    regions: &mut Regions,
) -> Outcome<()> {
    let database = &request.database;
    let found = regions.ask(async |repository| repository.found_bindings(database).await);
    let newest = binding::merge(context.blocking.run(found)?)?.pop();
    match newest.filter(|newest| newest.body.stream != context.stream.keys.stream()) {
        None => Ok(()),
        Some(other) => {
            let number = other.body.incarnation.0;
            let message = format!("incarnation {number} of {database} is the source now");
            Err(Failure::new(Code::CloneRefused, message).hint(
                "Stop this server if another one has taken over. If this one is the source, run \
                 `lifeboat key enroll` here, or `lifeboat adopt` to make it so.",
            ))
        }
    }
}

/// A promotion in the middle makes two histories out of one backup.
pub fn check_timeline(
    context: &BackupContext<'_>,
    source: &Source,
    began: Timeline,
) -> Outcome<()> {
    let now = context.blocking.run(source.timeline())?;
    if now == began {
        return Ok(());
    }
    let message = format!("the server moved from timeline {began} to {now} during the backup");
    Err(Failure::new(Code::BackupAborted, message).hint("Take the backup again."))
}
