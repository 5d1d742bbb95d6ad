//! The list of a backup's files, one page at a time, and what a restore makes of each entry.

use lifeboat_repository::ids::Digest;
use lifeboat_repository::object::ObjectType;
use lifeboat_repository::tree::{FileEntry, FileTablePage, Root};
use lifeboat_telemetry::Outcome;

use crate::source::Source;

/// Configuration from outside the data directory lands below this directory of it.
pub(crate) const CONFIGURATION: &str = "lifeboat.configuration";
/// The name that the control file has until everything else is safe on disk.
pub(crate) const HELD_CONTROL: &str = "global/pg_control.lifeboat";
/// Where PostgreSQL looks for the control file.
pub(crate) const CONTROL: &str = "global/pg_control";

/// What belongs to the server that ran, to an earlier backup or restore, or to this one.
const LEFT_OUT: [&str; 13] = [
    "backup_label",
    "backup_label.old",
    "backup_manifest",
    "global/pg_control.lifeboat",
    "lifeboat.incarnation",
    "lifeboat.restore",
    "postmaster.opts",
    "postmaster.pid",
    "recovery.done",
    "recovery.signal",
    "standby.signal",
    "tablespace_map",
    "tablespace_map.old",
];

/// The list of a backup's files.
#[derive(Clone, Copy)]
pub(crate) struct FileTable<'a> {
    source: &'a Source,
    pages: &'a [Digest],
}

impl<'a> FileTable<'a> {
    pub(crate) fn new(source: &'a Source, pages: &'a [Digest]) -> Self {
        Self { source, pages }
    }

    /// Hands every entry to `take`, in order; never holds more than one page.
    pub(crate) fn each(&self, mut take: impl FnMut(FileEntry) -> Outcome<()>) -> Outcome<()> {
        for digest in self.pages {
            let decode = |bytes: &_| FileTablePage::decode(self.source.keys(), digest, bytes);
            for entry in self.source.metadata(ObjectType::FileTable, digest, decode)? {
                take(entry)?;
            }
        }
        Ok(())
    }
}

/// Where an entry goes, below the target; `None` if it is left out.
pub(crate) fn destination(entry: &FileEntry) -> Option<Vec<u8>> {
    match entry.root {
        Root::Outside => Some([CONFIGURATION.as_bytes(), &entry.path].concat()),
        Root::Data if entry.path == CONTROL.as_bytes() => Some(HELD_CONTROL.into()),
        Root::Data if LEFT_OUT.iter().any(|name| entry.path == name.as_bytes()) => None,
        Root::Data => Some(entry.path.clone()),
    }
}
