//! Sealing: from here on this spool acknowledges nothing more for an epoch, whatever happens.
//!
//! `seal.wanted` is the order, `seal` the deed. Whoever holds the spool's lock carries it out: a
//! running receiver at its next step, else the command itself.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::Duration;

use lifeboat_environment::Environment;
use lifeboat_model::{Lsn, SystemIdentifier, Timeline};
use lifeboat_repository::keys::WriterStream;
use lifeboat_telemetry::{Cancel, Code, Failure, Outcome, duration};
use serde::{Deserialize, Serialize};

use super::folder::Folder;
use super::reopen::reopen;
use super::spool_path;
use crate::durable;

const WANTED: &str = "seal.wanted";
const DONE: &str = "seal";
const BYTES_MAX: u64 = 4096;
const LOOK: Duration = Duration::from_millis(20);

/// A seal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seal {
    /// This control epoch and all before it are over.
    pub epoch: u64,
    /// The timeline of the last flushed position; none if nothing was ever received.
    pub timeline: Option<Timeline>,
    /// No record that ends behind this was ever acknowledged for the epoch.
    pub flushed: Option<Lsn>,
}

impl Seal {
    /// Whether it forbids to acknowledge anything for a control epoch.
    pub fn forbids(&self, epoch: u64) -> bool {
        self.epoch >= epoch
    }

    /// The seal to be made durable when one for `epoch` is ordered, everything up to `flushed` being
    /// on the disk; none if the one that is there says as much already.
    pub fn next(
        before: Option<&Self>,
        epoch: u64,
        flushed: Option<(Timeline, Lsn)>,
    ) -> Option<Self> {
        let (timeline, flushed) = (flushed.map(|at| at.0), flushed.map(|at| at.1));
        let forbidden = before.is_some_and(|before| before.forbids(epoch));
        (!forbidden).then_some(Self { epoch, timeline, flushed })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    epoch: u64,
}

/// What `lifeboat wal seal` needs to know.
pub struct SealRequest<'a> {
    /// Time, chance, failpoints.
    pub environment: &'a Environment,
    /// Set when somebody wants the call to end.
    pub cancel: &'a Cancel,
    /// The database's stream in this host's writer key.
    pub stream: &'a WriterStream,
    /// The region of the receiver.
    pub region: &'a str,
    /// The state directory.
    pub state: &'a Path,
    /// The control epoch to seal.
    pub epoch: u64,
    /// How long a running receiver may take.
    pub deadline: Duration,
}

/// Seals the receiver of this host. When this returns well, it has acknowledged its last for the
/// epoch, also if it is started again.
pub fn seal(request: &SealRequest<'_>) -> Outcome<Seal> {
    let path = spool_path(request.state, request.stream, request.region);
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
    made.map_err(|error| {
        Failure::new(Code::LocalState, format!("cannot use the spool {}", path.display()))
            .because(error)
    })?;
    if let Some(seal) = read(&path)?.filter(|seal| seal.forbids(request.epoch)) {
        return Ok(seal);
    }
    write(&path.join(WANTED), &Wanted { epoch: request.epoch })?;
    request.environment.failpoints().hit("seal.wanted")?;
    let clock = request.environment.clock();
    let end = clock.elapsed().saturating_add(request.deadline);
    loop {
        match Folder::open(path.clone()) {
            Ok(folder) => {
                let system = SystemIdentifier(request.stream.system_identifier);
                let held = reopen(&folder, system)?;
                let last = held.extents.last().map(|extent| (extent.timeline, extent.end));
                carry_out(&path, last)?;
            }
            Err(failure) if failure.code() == Code::ReceiverRunning => {}
            Err(failure) => return Err(failure),
        }
        if let Some(seal) = read(&path)?.filter(|seal| seal.forbids(request.epoch)) {
            return Ok(seal);
        }
        request.cancel.check()?;
        if clock.elapsed() > end {
            let waited = duration(request.deadline);
            let message = format!("the running receiver did not seal itself within {waited}");
            return Err(Failure::new(Code::DeadlineExceeded, message).hint(
                "The order stays and is carried out at its next step or start. Until then it may \
                 acknowledge: kill it (SIGKILL) and run this again.",
            ));
        }
        clock.sleep(LOOK);
    }
}

/// Whether a seal was ordered that is not carried out yet.
pub(crate) fn is_wanted(spool: &Path) -> bool {
    spool.join(WANTED).exists()
}

/// Writes the ordered seal durably; nothing may be acknowledged after this began.
pub(crate) fn carry_out(spool: &Path, flushed: Option<(Timeline, Lsn)>) -> Outcome<()> {
    let wanted: Option<Wanted> = load(&spool.join(WANTED))?;
    let Some(Wanted { epoch }) = wanted else { return Ok(()) };
    if let Some(seal) = Seal::next(read(spool)?.as_ref(), epoch, flushed) {
        write(&spool.join(DONE), &seal)?;
    }
    // An order that is carried out again changes nothing.
    let _ = std::fs::remove_file(spool.join(WANTED));
    Ok(())
}

/// The seal of a spool.
pub(crate) fn read(spool: &Path) -> Outcome<Option<Seal>> {
    load(&spool.join(DONE))
}

/// Says that a seal forbids to work for an epoch.
pub(crate) fn refusal(seal: &Seal, database: &str, region: &str) -> Failure {
    let at = match (seal.flushed, seal.timeline) {
        (Some(flushed), Some(timeline)) => format!(" at {flushed} of timeline {timeline}"),
        _ => String::new(),
    };
    let epoch = seal.epoch;
    let message = format!("the receiver of {database} in {region} is sealed for epoch {epoch}{at}");
    let next = epoch.saturating_add(1);
    Failure::new(Code::ReceiverSealed, message)
        .hint(format!("Start it with --epoch {next} or higher once the service has moved."))
}

fn write(path: &Path, content: &impl Serialize) -> Outcome<()> {
    let text = serde_json::to_vec(content)
        .map_err(|error| Failure::new(Code::Internal, "a seal cannot be encoded").because(error))?;
    durable::write(path, &text)
}

/// A seal that cannot be read forbids: who knows what it says.
fn load<T: for<'a> Deserialize<'a>>(path: &Path) -> Outcome<Option<T>> {
    let unreadable = |error: Box<dyn std::error::Error + Send + Sync>| {
        Failure::new(Code::ReceiverSealed, format!("cannot read {}", path.display()))
            .because(error)
            .hint("What was sealed is not known. Find out which epoch the service is in.")
    };
    let text = match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error.into())),
        Ok(found) if found.len() > BYTES_MAX => return Err(unreadable("it is too long".into())),
        Ok(_) => std::fs::read(path),
    };
    match text {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(error.into())),
        Ok(text) => {
            serde_json::from_slice(&text).map(Some).map_err(|error| unreadable(error.into()))
        }
    }
}
