//! WAL segments and the small files beside them, read without a server.

mod crossing;
mod decode;
mod header;
mod history;
mod label;
mod record;
mod scan;

use lifeboat_model::{Lsn, SegmentName, Timeline};
use lifeboat_telemetry::{Code, Failure};
use thiserror::Error;

pub use crossing::{CROSSING_BYTES, crossing_point};
pub use decode::{DecodeError, Decoder, Fault, Source};
pub use header::{LongHeader, PageHeader, SegmentIdentity, identify_segment};
pub use history::{History, HistoryEntry};
pub use label::BackupLabel;
pub use record::{
    BlockReference, DatabaseOfTablespace, End, Fact, Locks, Oids, Record, RelationFile, Relations,
    RowChange, RowsChanged,
};
pub use scan::{RestorePoint, SegmentSummary, Tail, scan};

/// Why a WAL file is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WalError {
    /// Not even a page header.
    #[error("it has {length} bytes, too few for a WAL page")]
    TooShort {
        /// How many bytes there are.
        length: usize,
    },
    /// The first page is empty: the server made the file and never wrote to it.
    #[error("its first page is empty")]
    ZeroPage,
    /// Not WAL, or of a version that Lifeboat does not know.
    #[error("its magic number {magic:04X} is that of no known PostgreSQL")]
    WrongMagic {
        /// What stands there.
        magic: u16,
    },
    /// Flags that no version sets.
    #[error("its first page has unknown flags {flags:04X}")]
    UnknownFlags {
        /// What stands there.
        flags: u16,
    },
    /// A segment starts with a long header; this page does not.
    #[error("it does not start like a segment")]
    NotSegmentStart,
    /// No cluster can have this segment or block size.
    #[error("it names the impossible {what} {size}")]
    ImpossibleSize {
        /// `segment size` or `block size`.
        what: &'static str,
        /// What stands there.
        size: u32,
    },
    /// The name has no place in a cluster with this segment size.
    #[error("no segment of this size can be named {name}")]
    ImpossibleName {
        /// The name.
        name: SegmentName,
    },
    /// The content belongs to another place of the WAL, as in a recycled file.
    #[error("its name says {expected} and its content {found}")]
    WrongAddress {
        /// Where the name places it.
        expected: Lsn,
        /// Where the content places itself.
        found: Lsn,
    },
    /// The content is of a later timeline than the name. Earlier is right: a promotion copies the
    /// start of its first segment.
    #[error("its name is on timeline {name}, its content on {page}")]
    LaterTimeline {
        /// The name's timeline.
        name: Timeline,
        /// The content's timeline.
        page: Timeline,
    },
    /// The file is not as long as its header says.
    #[error("it has {found} bytes instead of {expected}")]
    WrongLength {
        /// The cluster's segment size.
        expected: u64,
        /// The file's length.
        found: u64,
    },
    /// A history or label file with a line that makes no sense.
    #[error("line {line} makes no sense: {reason}")]
    BadLine {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A label file without a line that each has.
    #[error("it lacks the line {name:?}")]
    LineMissing {
        /// How the line starts.
        name: &'static str,
    },
}

impl WalError {
    /// The failure that a person sees, about the file called `name`.
    pub fn at(self, name: impl std::fmt::Display) -> Failure {
        Failure::new(Code::WalInvalid, format!("{name} is not what its name says"))
            .because(self)
            .hint(
                "Compare the file with the server's pg_wal, and look for a second cluster that \
                   writes to the same place.",
            )
    }
}

#[cfg(test)]
mod tests;
