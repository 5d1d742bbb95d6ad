//! The spool on disk: `STATE/receive/STREAM/REGION/`, one file a segment below its timeline.
//!
//! Files have their whole length from the start and are used again, so that a flush writes data
//! and no metadata. What of a file counts is found by its content ([`super::reopen`]).

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use lifeboat_model::{Lsn, SegmentName, SegmentSize, Timeline, WalFileName};
use lifeboat_telemetry::{Code, Failure, Outcome, bytes};
use nix::fcntl::{Flock, FlockArg};

use super::reopen::Extent;
use crate::durable;

/// A file that is ready to become the next segment.
const SPARE: &str = "spare";
static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

/// The spool of one stream in one region, locked for this process.
pub(crate) struct Folder {
    path: PathBuf,
    limit: AtomicU64,
    /// Bytes of all files, full or not.
    used: AtomicU64,
    /// A file for the next segment is there. It is asked for each commit.
    spare: AtomicBool,
    _lock: Flock<File>,
}

impl Folder {
    /// Makes the folder if it is missing and locks it; the kernel frees the lock of a dead process.
    pub(crate) fn open(path: PathBuf) -> Outcome<Self> {
        let unusable = |error: std::io::Error| {
            Failure::new(Code::LocalState, format!("cannot use the spool {}", path.display()))
                .because(error)
        };
        DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(unusable)?;
        let file = File::create(path.join("lock")).map_err(unusable)?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| {
            let message = format!("another receiver works in {}", path.display());
            Failure::new(Code::ReceiverRunning, message)
                .because(error)
                .hint("One receiver a region is enough; a killed one holds no lock.")
        })?;
        let (limit, used) = (AtomicU64::new(0), AtomicU64::new(0));
        let folder = Self { path, limit, used, spare: AtomicBool::new(false), _lock: lock };
        let mut used = length(&folder.path.join(SPARE));
        for timeline in folder.timelines()? {
            let segments = folder.segments(timeline)?;
            used += segments.iter().map(|name| length(&folder.segment(*name))).sum::<u64>();
        }
        folder.used.store(used, Ordering::Relaxed);
        Ok(folder)
    }

    /// Where the folder lies.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes on disk.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Bytes that may still come.
    pub(crate) fn room(&self) -> u64 {
        self.limit.load(Ordering::Relaxed).saturating_sub(self.used())
    }

    /// Says how many bytes there may be at most.
    pub(crate) fn set_limit(&self, limit: u64) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// The file of a segment.
    pub(crate) fn segment(&self, name: SegmentName) -> PathBuf {
        self.timeline(name.timeline()).join(name.to_string())
    }

    fn timeline(&self, timeline: Timeline) -> PathBuf {
        self.path.join(format!("{:08X}", timeline.0))
    }

    /// The timelines that have files, oldest first.
    pub(crate) fn timelines(&self) -> Outcome<Vec<Timeline>> {
        let plain = |name: &str| {
            let digits = u32::from_str_radix(name, 16).ok();
            digits.filter(|_| name.len() == 8).map(Timeline)
        };
        names(&self.path, plain)
    }

    /// The segments of a timeline, oldest first.
    pub(crate) fn segments(&self, timeline: Timeline) -> Outcome<Vec<SegmentName>> {
        let ours = |name: &SegmentName| name.timeline() == timeline;
        names(&self.timeline(timeline), |name| name.parse().ok().filter(ours))
    }

    /// The histories that were not shipped yet, oldest first.
    pub(crate) fn histories(&self) -> Outcome<Vec<Timeline>> {
        names(&self.path, |name| match name.parse() {
            Ok(WalFileName::History(timeline)) => Some(timeline),
            _ => None,
        })
    }

    /// The file of a history.
    pub(crate) fn history(&self, timeline: Timeline) -> PathBuf {
        self.path.join(WalFileName::History(timeline).to_string())
    }

    /// Keeps a history durably until it is shipped.
    pub(crate) fn put_history(&self, timeline: Timeline, content: &[u8]) -> Outcome<()> {
        durable::write(&self.history(timeline), content)
    }

    /// Forgets a history.
    pub(crate) fn forget_history(&self, timeline: Timeline) {
        // It would be shipped once more, which changes nothing.
        let _ = std::fs::remove_file(self.history(timeline));
    }

    /// Makes sure that a next segment has its file. `false` if there is no room for it.
    pub(crate) fn prepare(&self, size: SegmentSize) -> Outcome<bool> {
        if self.spare.load(Ordering::Relaxed) {
            return Ok(true);
        }
        let path = self.path.join(SPARE);
        if length(&path) == size.bytes() {
            self.spare.store(true, Ordering::Relaxed);
            return Ok(true);
        }
        if self.room() < size.bytes() {
            return Ok(false);
        }
        let staged = durable::beside(&path, ".new");
        match make_zeros(&staged, size.bytes()).and_then(|()| std::fs::rename(&staged, &path)) {
            Ok(()) => {
                self.used.fetch_add(size.bytes(), Ordering::Relaxed);
                self.spare.store(true, Ordering::Relaxed);
                Ok(true)
            }
            Err(error) if is_full(&error) => {
                let _ = std::fs::remove_file(&staged);
                Ok(false)
            }
            Err(error) => Err(failed("cannot make", &staged, error)),
        }
    }

    /// Opens the file of a segment; a new one is the spare, under its new name durably.
    pub(crate) fn open_segment(&self, name: SegmentName) -> Outcome<File> {
        let path = self.segment(name);
        let open = || OpenOptions::new().read(true).write(true).open(&path);
        match open() {
            Ok(file) => return Ok(file),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(failed("cannot open", &path, error)),
        }
        let folder = self.timeline(name.timeline());
        self.spare.store(false, Ordering::Relaxed);
        let attempt = || {
            DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
            std::fs::rename(self.path.join(SPARE), &path)?;
            File::open(&folder)?.sync_all()?;
            File::open(&self.path)?.sync_all()?;
            open()
        };
        attempt().map_err(|error| failed("cannot make", &path, error))
    }

    /// Gives up the file of a segment: it becomes the spare, or goes.
    pub(crate) fn retire(&self, name: SegmentName) -> Outcome<()> {
        let (path, spare) = (self.segment(name), self.path.join(SPARE));
        let size = length(&path);
        let done = if spare.exists() {
            self.used.fetch_sub(size.min(self.used()), Ordering::Relaxed);
            std::fs::remove_file(&path)
        } else {
            std::fs::rename(&path, &spare)
        };
        match done {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(failed("cannot remove", &path, error))
            }
            _ => Ok(()),
        }
    }

    /// Gives up all files of an extent.
    pub(crate) fn retire_extent(&self, extent: Extent, size: SegmentSize) -> Outcome<()> {
        for name in self.segments(extent.timeline)? {
            let start = name.start(size);
            if start.is_some_and(|start| start >= extent.start && start < extent.end) {
                self.retire(name)?;
            }
        }
        Ok(())
    }

    /// Reads bytes of one timeline into `buffer`, over as many segments as it takes.
    pub(crate) fn read(
        &self,
        timeline: Timeline,
        size: SegmentSize,
        start: Lsn,
        buffer: &mut [u8],
    ) -> Outcome<()> {
        let (mut at, mut rest) = (start, buffer);
        while !rest.is_empty() {
            let name = SegmentName::from_lsn(timeline, at, size);
            let path = self.segment(name);
            let offset = size.offset_of(at);
            let left = usize::try_from(size.bytes() - offset).unwrap_or(usize::MAX);
            let (now, later) = rest.split_at_mut(left.min(rest.len()));
            File::open(&path)
                .and_then(|file| file.read_exact_at(now, offset))
                .map_err(|error| failed("cannot read", &path, error))?;
            at = Lsn(at.0.saturating_add(now.len() as u64));
            rest = later;
        }
        Ok(())
    }
}

fn names<T: Ord>(folder: &Path, parse: impl Fn(&str) -> Option<T>) -> Outcome<Vec<T>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed("cannot list", folder, error)),
    };
    let names = entries.flatten().filter_map(|entry| entry.file_name().to_str().and_then(&parse));
    let mut names: Vec<T> = names.collect();
    names.sort();
    Ok(names)
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |file| file.len())
}

/// Written zeros, not a hole and not `fallocate`: only then a later flush has no metadata to
/// write (measured on ext4: a fifth of the mean time of a flush, a tenth of the worst).
fn make_zeros(path: &Path, length: u64) -> std::io::Result<()> {
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    let mut left = length;
    while left > 0 {
        let piece = usize::try_from(left).unwrap_or(usize::MAX).min(ZEROS.len());
        file.write_all(ZEROS.get(..piece).unwrap_or_default())?;
        left -= piece as u64;
    }
    file.sync_all()
}

fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

pub(crate) fn failed(what: &str, path: &Path, error: std::io::Error) -> Failure {
    let hint = "What was acknowledged before is safe. See the disk's state and the system's log, \
                then start the receiver again: it checks what the spool holds.";
    Failure::new(Code::SpoolFailed, format!("{what} {}", path.display())).because(error).hint(hint)
}

/// `limit`, but never so few that receiving and shipping would wait for each other.
pub(crate) fn least_limit(limit: u64, size: SegmentSize) -> u64 {
    limit.max(size.bytes().saturating_mul(4))
}

/// What a person is told when the spool is full.
pub(crate) fn full(folder: &Folder) -> String {
    format!(
        "the spool is full ({} in {}): nothing is received or acknowledged until the repository \
         has taken some of it; the server keeps the WAL",
        bytes(folder.used()),
        folder.path().display()
    )
}
