//! archive_command: one file into every region, and what is ready next to it along the way.
//!
//! Success means that at least one repository holds the file durably. Whatever goes wrong,
//! nothing is overwritten, and a file that PostgreSQL asks for again is recognised.

mod ahead;
mod call;
pub(crate) mod file;
mod identity;
pub(crate) mod parts;
pub(crate) mod place;
mod spool;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat_environment::Environment;
use lifeboat_model::WalFileName;
use lifeboat_objects::Blocking;
use lifeboat_repository::keys::WriterStream;
use lifeboat_repository::regions::Regions;
use lifeboat_telemetry::{Cancel, Code, Failure, Outcome, Reporter};
use serde::Serialize;

pub use ahead::Ahead;

use ahead::Queue;
use call::Call;
use identity::Source;
use place::Places;
use spool::{FileIdentity, Spool};

/// Opens the repositories of the spec, except those named; called only if a file must be stored.
pub type OpenRegions<'a> = dyn Fn(&Blocking, &BTreeSet<String>) -> Outcome<Regions> + Sync + 'a;

/// What `wal push` needs to know.
pub struct PushRequest<'a> {
    /// Time, chance, failpoints.
    pub environment: &'a Environment,
    /// Set when somebody wants the call to end.
    pub cancel: &'a Cancel,
    /// Hears what is worth a line although the call succeeds.
    pub reporter: &'a Reporter,
    /// `SERVICE/DATABASE`.
    pub database: &'a str,
    /// The database's stream in this host's writer key.
    pub stream: &'a WriterStream,
    /// Data directories of the database's nodes in this region.
    pub data_directories: &'a [PathBuf],
    /// Where PostgreSQL started the command: its data directory.
    pub working_directory: &'a Path,
    /// The file; a relative path is relative to the working directory.
    pub path: &'a Path,
    /// The state directory.
    pub state: &'a Path,
    /// The level of zstd.
    pub level: i32,
    /// How long the call may take.
    pub deadline: Duration,
    /// How much is pushed besides.
    pub ahead: Ahead,
    /// Opens the repositories.
    pub open: &'a OpenRegions<'a>,
}

/// How a file came to be durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// This call stored it, at least in one region.
    Stored,
    /// Every region that answered had the same content already.
    Identical,
    /// An earlier call pushed it ahead.
    Ahead,
}

/// What a push did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pushed {
    /// The file.
    pub file: String,
    /// How it came to be durable.
    pub how: How,
    /// The regions that hold it; not known if an earlier call pushed it.
    pub regions: Vec<String>,
    /// The regions that do not have everything, and why.
    pub lag: BTreeMap<String, String>,
    /// Files that were pushed ahead.
    pub ahead: Vec<String>,
}

/// Archives one file.
pub fn push(request: &PushRequest<'_>) -> Outcome<Pushed> {
    let clock = request.environment.clock();
    let end = clock.elapsed().saturating_add(request.deadline);
    request.environment.failpoints().hit("push.start")?;
    let path = request.working_directory.join(request.path);
    let name = name_of(&path)?;
    let spool = Spool::new(request.state, &request.stream.keys);
    let pushed_ahead = match was_pushed_ahead(&path, name, &spool) {
        // Called from the wrong place, the file is not what is wrong.
        Err(failure) => return Err(identity::check(request).err().unwrap_or(failure)),
        Ok(pushed_ahead) => pushed_ahead,
    };
    if pushed_ahead {
        let (file, how) = (name.to_string(), How::Ahead);
        let (regions, lag, ahead) = (Vec::new(), BTreeMap::new(), Vec::new());
        return Ok(Pushed { file, how, regions, lag, ahead });
    }
    let source = identity::check(request)?;
    let blocking = Blocking::new()?;
    let lock = spool.lock();
    let resting = spool.resting(clock.now());
    let regions = open(request, &blocking, &resting)?;
    let places = Places::new(request.environment, &blocking, &request.stream.keys, &regions, end);
    identity::check_binding(request, &places)?;

    let call = Call { request, source: &source, places: &places, spool: &spool };
    let queue = if lock.is_some() && is_beside_others(&path, &source) {
        Queue::of(&source, name, &spool, request.ahead.files)
    } else {
        Queue::default()
    };
    let answer = call.run(&path, name, &queue);
    let mut lag = places.lag();
    if answer.is_ok() {
        lag.keys().for_each(|region| spool.rest(region));
    }
    for region in resting {
        lag.entry(region).or_insert_with(|| "it failed a moment ago and is left alone".to_owned());
    }
    let (ahead, trouble) = queue.finish();
    trouble.into_iter().for_each(|trouble| request.reporter.warn(trouble));
    let (regions, how) = answer?;
    Ok(Pushed { file: name.to_string(), how, regions, lag, ahead })
}

fn name_of(path: &Path) -> Outcome<WalFileName> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    Ok(name.parse::<WalFileName>()?)
}

fn was_pushed_ahead(path: &Path, name: WalFileName, spool: &Spool<'_>) -> Outcome<bool> {
    let found = std::fs::metadata(path).map_err(|error| {
        Failure::new(Code::LocalFile, format!("cannot look at {}", path.display())).because(error)
    })?;
    let name = name.to_string();
    let known = spool.is_acknowledged(&name, &FileIdentity::of(&found));
    if known {
        spool.forget(&name);
    }
    Ok(known)
}

/// Only PostgreSQL's own files have neighbours that PostgreSQL will ask for.
fn is_beside_others(path: &Path, source: &Source) -> bool {
    let folder = path.parent().and_then(|folder| folder.canonicalize().ok());
    folder.is_some() && folder == source.directory.join("pg_wal").canonicalize().ok()
}

fn open(
    request: &PushRequest<'_>,
    blocking: &Blocking,
    resting: &BTreeSet<String>,
) -> Outcome<Regions> {
    let regions = match (request.open)(blocking, resting) {
        // Better a slow region than none.
        Err(_) if !resting.is_empty() => (request.open)(blocking, &BTreeSet::new()),
        opened => opened,
    }?;
    if regions.vault() == request.stream.keys.vault() {
        return Ok(regions);
    }
    let message = "the repositories belong to another vault than this host's writer key";
    Err(Failure::new(Code::VaultMismatch, message)
        .hint("Correct the URLs in the spec, or run `lifeboat key enroll` for the new vault."))
}
