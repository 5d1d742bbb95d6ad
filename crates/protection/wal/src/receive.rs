//! The receiver: WAL of the primary, record by record, to this region's repository (ADR 0008).
//!
//! One thread receives: it writes to the spool, flushes and acknowledges ([`stream`]). Another one
//! ships what is flushed ([`ship`]). The [`ledger`] is all that they share.

mod attach;
mod facts;
mod folder;
mod ledger;
mod pages;
mod passing;
mod pause;
mod receiver;
mod reopen;
mod resume;
mod seal;
mod sender;
mod ship;
mod spool;
mod stream;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat_environment::Environment;
use lifeboat_model::spec::Durable;
use lifeboat_model::{Lsn, Timeline};
use lifeboat_objects::Blocking;
use lifeboat_repository::keys::{WriterKey, WriterStream};
use lifeboat_repository::repository::Repository;
use lifeboat_telemetry::{Cancel, Code, Failure, Outcome, Reporter};

pub use seal::{Seal, SealRequest, seal};
pub use sender::Node;

pub(crate) use reopen::Extent;
pub(crate) use resume::{Position, Stored};

use attach::attach;
use folder::Folder;
use ledger::Ledger;
use pause::Pause;
use receiver::Receiver;
use sender::{RealServers, Servers};
use ship::{Shipper, passes};
use stream::{Left, Streaming};

/// The setting by which a primary says in which control epoch it became one. One that was never
/// told by an agent says none.
pub const EPOCH_SETTING: &str = "lifeboat.epoch";

/// How many bytes a spool holds, unless said otherwise.
pub const SPOOL_LIMIT: u64 = 1 << 30;

/// What a receiver needs to know.
pub struct ReceiveRequest<'a> {
    /// Time, chance, failpoints.
    pub environment: &'a Environment,
    /// Set when somebody wants the receiver to end.
    pub cancel: &'a Cancel,
    /// Hears what happens.
    pub reporter: &'a Reporter,
    /// Runs store operations.
    pub blocking: &'a Blocking,
    /// `SERVICE/DATABASE`.
    pub database: &'a str,
    /// The region that is received in.
    pub region: &'a str,
    /// The name of this host.
    pub host: &'a str,
    /// Application name and slot.
    pub name: &'a str,
    /// This host's writer key.
    pub writer: &'a WriterKey,
    /// The database's stream in it.
    pub stream: &'a WriterStream,
    /// Servers that may be the primary, in the order in which they are tried.
    pub nodes: &'a [Node],
    /// The state directory.
    pub state: &'a Path,
    /// The level of zstd.
    pub level: i32,
    /// How long flushed WAL waits until it is shipped.
    pub flush_every: Duration,
    /// Where WAL must lie to be acknowledged.
    pub durable: Durable,
    /// The control epoch that is worked for.
    pub epoch: u64,
    /// The most that the spool takes of the disk.
    pub spool_limit: u64,
    /// Only ship what the spool holds, and end.
    pub drain: bool,
    /// Opens this region's repository.
    pub open: &'a (dyn Fn() -> Outcome<Repository> + Sync),
}

/// WAL that was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The timeline of the last byte before it.
    pub timeline: Timeline,
    /// Its first byte.
    pub from: Lsn,
    /// The timeline behind it.
    pub to_timeline: Timeline,
    /// The first byte behind it.
    pub to: Lsn,
}

impl fmt::Display for Gap {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { timeline, from, to_timeline, to } = self;
        write!(
            formatter,
            "WAL from {from} of timeline {timeline} to {to} of timeline {to_timeline}"
        )
    }
}

/// How far a receiver came.
#[derive(Debug, Default)]
pub struct Received {
    /// The last position that is durable, and its timeline.
    pub flushed: Option<(Timeline, Lsn)>,
    /// Bytes that only the spool holds.
    pub waiting_bytes: u64,
    /// What was lost on the way.
    pub gaps: Vec<Gap>,
    /// Why not everything is shipped.
    pub trouble: Option<Failure>,
}

/// Receives until somebody asks for the end, or something happens that must not be passed over.
pub fn receive(request: &ReceiveRequest<'_>) -> Outcome<Received> {
    let mut servers = RealServers::new(request.environment, request.nodes)?;
    receive_from(request, &mut servers)
}

fn receive_from(request: &ReceiveRequest<'_>, servers: &mut dyn Servers) -> Outcome<Received> {
    let folder = Folder::open(spool_path(request.state, request.stream, request.region))?;
    let ledger = Ledger::new(request.flush_every);
    let mut receiver = open(request, &folder, &ledger)?;
    let ended = std::thread::scope(|scope| {
        scope.spawn(|| Shipper::new(request, &folder, &ledger).run());
        // Whatever it is that ends this thread: what is flushed is shipped.
        let _end = EndSoon(&ledger);
        receiver.check_seal()?;
        if request.drain { Ok(()) } else { work(&mut receiver, servers) }
    });
    let trouble = ledger.take_failure();
    if trouble.as_ref().is_some_and(|trouble| !passes(trouble.code())) {
        return Err(trouble.unwrap_or_else(|| Failure::new(Code::Internal, "shipping has ended")));
    }
    ended?;
    let standing = ledger.standing();
    let (flushed, waiting_bytes) = (receiver.held(), standing.waiting);
    Ok(Received { flushed, waiting_bytes, gaps: receiver.gaps, trouble })
}

/// Lets the shipper come to its end, also after a panic.
struct EndSoon<'a>(&'a Ledger);

impl Drop for EndSoon<'_> {
    fn drop(&mut self) {
        self.0.end_soon();
    }
}

/// Looks at spool and repository. Without the repository nothing begins: local state alone does
/// not know what another receiver has stored.
fn open<'a>(
    request: &'a ReceiveRequest<'a>,
    folder: &'a Folder,
    ledger: &'a Ledger,
) -> Outcome<Receiver<'a>> {
    let mut pause = Pause::new(Duration::from_millis(500), Duration::from_secs(10));
    loop {
        match Receiver::open(request, folder, ledger) {
            Err(failure) if passes(failure.code()) && !request.cancel.is_requested() => {
                if !pause.is_used() {
                    request.reporter.warn(format!("waiting for the repository: {failure}"));
                }
            }
            opened => return opened,
        }
        pause.wait(request.environment, || request.cancel.is_requested());
    }
}

/// Attaches again and again, for as long as that may help.
fn work<'a>(receiver: &mut Receiver<'a>, servers: &mut dyn Servers) -> Outcome<()> {
    let request = receiver.request;
    let mut pause = Pause::new(Duration::from_millis(200), Duration::from_secs(5));
    let mut said = String::new();
    while !request.cancel.is_requested() && !receiver.ledger.is_done() {
        receiver.check_seal()?;
        let trouble = match attach(receiver, servers) {
            Ok(attached) => {
                let before = receiver.held();
                let left = Streaming::new(receiver, attached).run()?;
                // A server that takes us and fails at once is no better than one that refuses.
                if receiver.held() > before {
                    pause.reset();
                    said.clear();
                }
                match left {
                    Left::Asked => return Ok(()),
                    Left::Timeline => continue,
                    Left::Shutdown => "the server was shut down".to_owned(),
                    Left::Lost(failure) => failure.to_string(),
                }
            }
            Err(failure) if is_worth_waiting(&failure, receiver.was_attached) => told(&failure),
            Err(failure) if failure.code() == Code::Interrupted => return Ok(()),
            Err(failure) => return Err(failure),
        };
        // The same trouble again is no news.
        if trouble != said {
            receiver.warn(format!("not receiving: {trouble}"));
            said = trouble;
        }
        let folder = receiver.folder.path().to_owned();
        pause.wait(request.environment, || {
            request.cancel.is_requested() || seal::is_wanted(&folder)
        });
    }
    Ok(())
}

/// What passes by itself, or once a person has done something to the server. What was never right
/// ends a receiver that has just been started: somebody is looking.
fn is_worth_waiting(failure: &Failure, was_attached: bool) -> bool {
    match failure.code() {
        Code::ClusterUnreachable | Code::NotPrimary | Code::SlotUnusable | Code::WalGap => true,
        Code::ClusterPermission | Code::ClusterSettings | Code::ServerUntrusted => was_attached,
        code => passes(code),
    }
}

fn told(failure: &Failure) -> String {
    let lines = failure.detail_lines().join("; ");
    match lines.as_str() {
        "" => failure.to_string(),
        lines => format!("{failure}: {lines}"),
    }
}

fn spool_path(state: &Path, stream: &WriterStream, region: &str) -> PathBuf {
    state.join("receive").join(stream.keys.stream().to_string()).join(region)
}

#[cfg(test)]
mod tests;
