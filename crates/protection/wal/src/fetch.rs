//! restore_command: one file out of the archive, or the proof that it is not there.
//!
//! `Absent` makes PostgreSQL end its recovery and promote. So it is said only of what is proved
//! absent; on a standby, which asks again and again, also of what is not available now.

mod absence;
mod archive;
mod fragments;
mod own;
mod prefetch;
mod queue;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use lifeboat_environment::Environment;
use lifeboat_model::WalFileName;
use lifeboat_telemetry::{Cancel, Code, Failure, Outcome, Reporter};

pub use prefetch::{PrefetchRequest, prefetch};

use crate::durable::{beside, unwritable};
use crate::plan::RecoveryPlan;
use archive::{Archive, Attempt};
use queue::Queue;

/// Between two attempts. PostgreSQL does nothing else meanwhile.
const PAUSE: Duration = Duration::from_millis(500);

/// What `wal fetch` needs to know.
pub struct FetchRequest<'a> {
    /// Time, chance, failpoints.
    pub environment: &'a Environment,
    /// Set when somebody wants the call to end.
    pub cancel: &'a Cancel,
    /// Hears what is worth a line although the call succeeds.
    pub reporter: &'a Reporter,
    /// Where WAL comes from.
    pub plan: &'a RecoveryPlan,
    /// The name that PostgreSQL asks for.
    pub file: &'a str,
    /// Where it wants the file; a relative path is relative to the working directory.
    pub destination: &'a Path,
    /// Where PostgreSQL started the command: its data directory.
    pub working_directory: &'a Path,
    /// How long the call may take.
    pub deadline: Duration,
}

/// The answer to PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    /// The file is in its place.
    Done {
        /// The region that it came from; `None` if it had been fetched ahead.
        region: Option<String>,
        /// Whether the caller should start [`prefetch`] in a process of its own.
        prefetch: bool,
    },
    /// There is no such file.
    Absent {
        /// How that is known.
        reason: String,
    },
}

/// Fetches one file.
pub fn fetch(request: &FetchRequest<'_>) -> Outcome<Fetched> {
    let clock = request.environment.clock();
    let end = clock.elapsed().saturating_add(request.deadline);
    let name: WalFileName = request.file.parse()?;
    let destination = request.working_directory.join(request.destination);
    let queue = Queue::of(request.plan);
    if let (WalFileName::Segment(segment), Some(queue)) = (name, &queue)
        && queue.take(request, segment, &destination)?
    {
        return Ok(Fetched::Done { region: None, prefetch: queue.wants_more(segment) });
    }
    let standby = request.working_directory.join("standby.signal").exists();
    let archive = Archive::open(request.environment, request.plan, queue.as_ref(), end)?;
    let staged = beside(&destination, ".lifeboat");
    loop {
        request.cancel.check()?;
        let opened = open_staged(&staged).map_err(|error| unwritable(staged.display(), error));
        let attempt = opened.and_then(|mut file| archive.attempt(name, &mut file));
        let failure = match attempt {
            Ok(Attempt::Written { whole: false, .. }) if own::has_as_much(request, &staged)? => {
                remove(&staged);
                let reason = "pg_wal has as much of it as the repository";
                return Ok(Fetched::Absent { reason: reason.to_owned() });
            }
            Ok(Attempt::Written { region, whole }) => {
                request.environment.failpoints().hit("fetch.written")?;
                std::fs::rename(&staged, &destination)
                    .map_err(|error| unwritable(destination.display(), error))?;
                let prefetch = match (name, &queue) {
                    (WalFileName::Segment(segment), Some(queue)) if whole => {
                        queue.wants_more(segment)
                    }
                    _ => false,
                };
                return Ok(Fetched::Done { region: Some(region), prefetch });
            }
            Ok(Attempt::Absent(reason)) => {
                remove(&staged);
                return Ok(Fetched::Absent { reason });
            }
            Err(failure) => failure,
        };
        let left = end.saturating_sub(clock.elapsed());
        let refused = matches!(failure.code(), Code::Interrupted | Code::SplitBrain);
        if standby && !refused {
            remove(&staged);
            return Ok(Fetched::Absent { reason: format!("not available now: {failure}") });
        }
        if is_final(&failure) || left <= PAUSE {
            remove(&staged);
            return Err(failure);
        }
        request.reporter.note(format!("{failure}; trying again"));
        clock.sleep(PAUSE);
    }
}

/// What waiting cannot cure. A gap may be a segment on its way; damage may be cured by a copy.
fn is_final(failure: &Failure) -> bool {
    matches!(
        failure.code(),
        Code::Usage
            | Code::KeyUnavailable
            | Code::VaultMismatch
            | Code::SplitBrain
            | Code::FormatNewer
            | Code::SpecInvalid
            | Code::LocalFile
            | Code::Internal
            | Code::Interrupted
            | Code::Failpoint
    )
}

/// The staged file beside the destination; one that an earlier call left is used again.
fn open_staged(staged: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(staged)
}

fn remove(staged: &Path) {
    // The next call truncates what cannot be removed.
    let _ = std::fs::remove_file(staged);
}
