//! Segments that were fetched ahead, in a folder of one restore and one boot of the machine.
//!
//! They are not synced: a crash of the machine may tear them, and PostgreSQL takes a torn segment
//! for the end of the WAL. So what an earlier boot left is not used.

use std::fs::{DirBuilder, File, TryLockError};
use std::io::Seek;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use lifeboat_model::{SegmentName, SegmentSize};
use lifeboat_telemetry::Outcome;

use super::FetchRequest;
use super::archive::check_segment;
use crate::durable::{beside, unwritable};
use crate::plan::RecoveryPlan;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const STAGED: &str = ".staged";
/// So many bytes may wait in the queue.
const BYTES: u64 = 128 << 20;
const MOST_FILES: u64 = 16;
const LEAST_FILES: u64 = 2;
/// How long a region that did not answer is asked last.
const REST: Duration = Duration::from_secs(60);
const RESTS: &str = "rests-";
/// How long to wait for a segment that is being fetched.
const PATIENCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(1);

/// The queue of a plan.
#[derive(Debug)]
pub(crate) struct Queue {
    folder: PathBuf,
    size: SegmentSize,
}

impl Queue {
    /// `None` where the machine does not tell its boots apart.
    pub(crate) fn of(plan: &RecoveryPlan) -> Option<Self> {
        let boot = std::fs::read_to_string(BOOT_ID).ok()?;
        let folder = plan.prefetch.join(boot.trim());
        Some(Self { folder, size: plan.segment_size().ok()? })
    }

    /// How many segments may wait.
    pub(crate) fn capacity(&self) -> usize {
        let files = (BYTES / self.size.bytes()).clamp(LEAST_FILES, MOST_FILES);
        usize::try_from(files).unwrap_or_default()
    }

    /// Makes the folder, removes those of earlier boots, and takes the lock of the one process
    /// that fills the queue; `None` if another one does.
    pub(crate) fn lock(&self) -> Option<File> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder).ok()?;
        let lock = File::create(self.folder.join("lock")).ok()?;
        lock.try_lock().ok()?;
        let siblings = self.folder.parent().and_then(|folder| std::fs::read_dir(folder).ok());
        for entry in siblings.into_iter().flatten().flatten() {
            if entry.path() != self.folder {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
        Some(lock)
    }

    fn is_being_filled(&self) -> bool {
        let lock = File::open(self.folder.join("lock"));
        lock.is_ok_and(|lock| matches!(lock.try_lock(), Err(TryLockError::WouldBlock)))
    }

    /// The segments that wait.
    pub(crate) fn waiting(&self) -> Vec<SegmentName> {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    }

    /// Removes what the recovery that has come to `after` does not need.
    pub(crate) fn clear_all_but_after(&self, after: SegmentName) {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        for entry in entries {
            let name = entry.file_name().to_str().and_then(|name| name.parse().ok());
            let keep = name.is_some_and(|name| self.is_ahead(name, after));
            let other = entry.file_name();
            let other = other.to_str().unwrap_or_default();
            if !keep && other != "lock" && !other.starts_with(RESTS) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    fn is_ahead(&self, name: SegmentName, of: SegmentName) -> bool {
        name.timeline() == of.timeline() && name.number(self.size) > of.number(self.size)
    }

    /// Where a segment waits.
    pub(crate) fn path(&self, name: SegmentName) -> PathBuf {
        self.folder.join(name.to_string())
    }

    /// Where it lies until it is whole.
    pub(crate) fn staged(&self, name: SegmentName) -> PathBuf {
        beside(&self.path(name), STAGED)
    }

    /// Whether a process should be started that fills the queue behind `after`.
    pub(crate) fn wants_more(&self, after: SegmentName) -> bool {
        let ahead = self.waiting().into_iter().filter(|name| self.is_ahead(*name, after)).count();
        ahead < self.capacity() / 2 && !self.is_being_filled()
    }

    /// Asks a region last for a while: each call is a process of its own, and would wait anew.
    pub(crate) fn rest(&self, region: &str) {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.folder);
        let _ =
            made.and_then(|()| std::fs::write(self.folder.join(format!("{RESTS}{region}")), ""));
    }

    /// Whether a region is asked last.
    pub(crate) fn rests(&self, region: &str, now: Timestamp) -> bool {
        let mark = std::fs::metadata(self.folder.join(format!("{RESTS}{region}")));
        let since = mark.and_then(|mark| mark.modified()).ok();
        let since = since.and_then(|since| Timestamp::try_from(since).ok());
        // A clock that jumped back ends the rest, too.
        since
            .and_then(|since| Duration::try_from(now.duration_since(since)).ok())
            .is_some_and(|rested| rested < REST)
    }

    /// Moves a segment that waits to `destination`; `false` if there is none that can be trusted.
    pub(crate) fn take(
        &self,
        request: &FetchRequest<'_>,
        name: SegmentName,
        destination: &Path,
    ) -> Outcome<bool> {
        let clock = request.environment.clock();
        let until = clock.elapsed().saturating_add(PATIENCE.min(request.deadline));
        let (path, staged) = (self.path(name), self.staged(name));
        loop {
            // The order matters: what is no longer staged after this look waits before the next.
            let coming = staged.exists() && self.is_being_filled();
            if let Ok(file) = File::open(&path) {
                if check_segment(request.plan, name, &file).is_err() {
                    let _ = std::fs::remove_file(&path);
                    return Ok(false);
                }
                deliver(file, &path, destination)?;
                return Ok(true);
            }
            if !coming || clock.elapsed() >= until {
                return Ok(false);
            }
            request.cancel.check()?;
            clock.sleep(POLL);
        }
    }
}

/// Moves a file that is open, over the border of a file system if need be. Whoever fills the queue may
/// have removed its name meanwhile: at the end of a recovery PostgreSQL goes back a segment.
fn deliver(mut file: File, path: &Path, destination: &Path) -> Outcome<()> {
    if std::fs::rename(path, destination).is_ok() {
        return Ok(());
    }
    let staged = beside(destination, ".lifeboat");
    let copied = file
        .rewind()
        .and_then(|()| super::open_staged(&staged))
        .and_then(|mut copy| std::io::copy(&mut file, &mut copy))
        .and_then(|_| std::fs::rename(&staged, destination));
    copied.map_err(|error| {
        let _ = std::fs::remove_file(&staged);
        unwritable(destination.display(), error)
    })?;
    // What stays behind is removed with the rest of the queue.
    let _ = std::fs::remove_file(path);
    Ok(())
}

#[cfg(test)]
mod tests;
