//! The files of a data directory that belong into a base backup.
//!
//! The rules are those of PostgreSQL's own base backup. Where it warns and goes on with a hole
//! (a link to somewhere else), the content is listed as if it lay in place.

mod relation;
mod skip;
mod walk;

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use lifeboat_telemetry::{Code, Failure, Outcome};

pub use relation::{Fork, Relation, relation_file_offset_block};

use crate::Release;

/// Everything to back up, in a fixed order; the control file comes last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Directories before their content.
    pub entries: Vec<Entry>,
    /// The tablespaces outside of the data directory.
    pub tablespaces: Vec<Tablespace>,
    /// What a person should know: skipped special files, followed links.
    pub notes: Vec<String>,
}

/// One file or directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path below the data directory; files of tablespaces lie below `pg_tblspc/OID`, which is
    /// also where they can be opened.
    pub path: PathBuf,
    /// What it is.
    pub kind: Kind,
    /// Length in bytes when it was listed; zero for what is not a file.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Last modification.
    pub modified: Timestamp,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A directory; also a link to one outside of `pg_tblspc`, `pg_wal` for instance.
    Directory,
    /// A link in `pg_tblspc`; its target is in [`Listing::tablespaces`].
    TablespaceLink,
    /// A file of pages.
    Relation(Relation),
    /// A part of the transaction status: pages without headers, never checked as pages.
    Slru,
    /// `global/pg_control`.
    Control,
    /// Configuration in the data directory itself.
    Config,
    /// Any other file.
    Other,
}

/// A tablespace outside of the data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tablespace {
    /// Its OID, which is the name of the link.
    pub oid: u32,
    /// Where the link leads, as the link says it.
    pub location: PathBuf,
}

impl Entry {
    /// Whether the content can be read as a file.
    pub fn is_file(&self) -> bool {
        !matches!(self.kind, Kind::Directory | Kind::TablespaceLink)
    }

    /// The relation, if this is a file of pages that can be checked.
    pub fn relation(&self) -> Option<Relation> {
        match self.kind {
            Kind::Relation(relation) => Some(relation),
            _ => None,
        }
    }
}

/// Lists a data directory. Files may come and go meanwhile: what vanishes is not listed.
pub fn list(data_directory: &Path, release: &Release) -> Outcome<Listing> {
    if !data_directory.join("PG_VERSION").is_file() {
        let message = format!("{} is no data directory", data_directory.display());
        return Err(Failure::new(Code::DataDirectoryInvalid, message)
            .hint("Name the directory that holds PG_VERSION and global/pg_control."));
    }
    walk::Walk::new(data_directory, release)?.run()
}

#[cfg(test)]
mod tests;
