//! Local memory between calls of `wal push`: what was pushed ahead, and which region rests.
//!
//! All of it only saves time. A lost or spoilt file means that a segment is looked up in the
//! repository again; no ack is ever written before its segment is durable.

use std::collections::BTreeSet;
use std::fs::{DirBuilder, File, Metadata};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use lifeboat_repository::keys::StreamKeys;

/// How long a region that did not answer is left alone.
const REST: Duration = Duration::from_secs(60);

/// Which file it is, down to the last change: PostgreSQL reuses files under new names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileIdentity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileIdentity {
    pub(crate) fn of(file: &Metadata) -> Self {
        Self {
            device: file.dev(),
            inode: file.ino(),
            size: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }
}

/// The spool of one stream.
#[derive(Debug)]
pub(crate) struct Spool<'a> {
    folder: PathBuf,
    keys: &'a StreamKeys,
}

impl<'a> Spool<'a> {
    pub(crate) fn new(state: &Path, keys: &'a StreamKeys) -> Self {
        Self { folder: state.join("spool").join(keys.stream().to_string()), keys }
    }

    /// Only one call pushes ahead; the others see to their own file. `None` if another does, or
    /// if the spool cannot be used.
    pub(crate) fn lock(&self) -> Option<File> {
        for folder in ["acks", "resting"] {
            let made =
                DirBuilder::new().recursive(true).mode(0o700).create(self.folder.join(folder));
            made.ok()?;
        }
        let lock = File::create(self.folder.join("lock")).ok()?;
        lock.try_lock().ok().map(|()| lock)
    }

    /// Whether an earlier call made this very file durable.
    pub(crate) fn is_acknowledged(&self, name: &str, identity: &FileIdentity) -> bool {
        std::fs::read_to_string(self.ack(name))
            .is_ok_and(|found| found == self.proof(name, identity))
    }

    /// Remembers that a file is durable.
    pub(crate) fn acknowledge(&self, name: &str, identity: &FileIdentity) {
        // A half-written ack proves nothing, so there is nothing to do if this fails.
        let _ = std::fs::write(self.ack(name), self.proof(name, identity));
    }

    /// Forgets a file, of which PostgreSQL will not ask again.
    pub(crate) fn forget(&self, name: &str) {
        let _ = std::fs::remove_file(self.ack(name));
    }

    /// Names of all files that are remembered.
    pub(crate) fn acknowledged(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.join("acks")).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// Leaves a region alone for a while.
    pub(crate) fn rest(&self, region: &str) {
        let _ = std::fs::write(self.folder.join("resting").join(region), "");
    }

    /// The regions that are to be left alone.
    pub(crate) fn resting(&self, now: Timestamp) -> BTreeSet<String> {
        let entries = std::fs::read_dir(self.folder.join("resting")).into_iter().flatten();
        let rests = entries.flatten().filter_map(|entry| {
            let since = Timestamp::try_from(entry.metadata().ok()?.modified().ok()?).ok()?;
            // A clock that jumped back ends the rest, too.
            let rested = Duration::try_from(now.duration_since(since)).ok()?;
            (rested < REST).then(|| entry.file_name().into_string().ok()).flatten()
        });
        rests.collect()
    }

    fn ack(&self, name: &str) -> PathBuf {
        self.folder.join("acks").join(name)
    }

    /// Keyed, so that nobody without the writer key can make PostgreSQL drop a segment.
    fn proof(&self, name: &str, identity: &FileIdentity) -> String {
        let text = format!("lifeboat/1/ack {} {name} {identity:?}", self.keys.stream());
        hex::encode(self.keys.content_digest(text.as_bytes()))
    }
}
