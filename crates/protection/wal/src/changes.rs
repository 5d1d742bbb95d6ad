//! What the WAL of a span changed, and when: collected while it passes, so that an incremental
//! reads only the pages that changed, and a moment is found without a search.
//!
//! A [`ChangeMap`] answers for each block whether it may differ between a state at `from` and one
//! at `to`. It may say yes too often, never no wrongly. What is not in it:
//!
//! - **Free space and visibility maps** are always read whole: the former are hardly logged, bits
//!   of the latter are cleared by records that refer to the table's page only.
//! - **Files without pages** (commit log, `pg_filenode.map`, configuration) are always read.
//! - **Hint bits**, where neither checksums nor `wal_log_hints` log them. Pages then differ where
//!   the map says nothing, in bits that anybody may set again.
//! - **Empty pages** by which a file grew. A block behind the end of the parent's file is new.
//!
//! # Where a map ends to be valid
//!
//! A map speaks of what the WAL says. Three tools change pages or WAL behind its back:
//!
//! - `pg_checksums` rewrites pages of a stopped server. Seen by the checksum version in pg_control,
//!   which differs from the parent's, and never in the WAL.
//! - `pg_resetwal` begins new WAL elsewhere. Seen as a gap: the next segment is not the one that
//!   follows, or its first record does not link to the last one, which the decoder refuses.
//! - `pg_rewind` makes the directory that of another server, on another timeline. Seen by the
//!   history: the parent's position lies behind the point where its timeline was left. A map
//!   itself carries the timeline of its last page for that comparison.
//!
//! A map also breaks by itself ([`Break`]): with `wal_level = minimal` changes are not logged, and
//! a resource manager of an extension may change files in a way that only it understands.
//!
//! # Bytes
//!
//! Numbers are unsigned LEB128 unless said otherwise; "signed" ones are zigzag. Both structures
//! begin with a version (1), then the span: `from`, `to - from`, timeline.
//!
//! **Change map**
//!
//! | part | content |
//! |---|---|
//! | breaks | count (at most 64); each: kind (1 minimal, 2 unknown change, 3 too much), `lsn - from` |
//! | databases | count (at most 65,536); each: tablespace, database, flags (1 byte); ascending |
//! | relations | count (at most 262,144); each as below; ascending by tablespace, database, filenode, fork |
//!
//! A relation: flags (1 byte), then, unless bit 6 is set ("same directory as the one before"),
//! tablespace and database; filenode, less the former one's in the same directory; if bit 3 is set
//! the number of blocks that the lowest truncation left; if the relation is not whole, a count of
//! runs (all maps' together at most 4,194,304) and the runs. A run: the number of blocks skipped
//! since the end of the former run, times two, plus one if the run is longer than one block; then
//! its length less two. Runs never touch. Flags: 1 created, 2 dropped, 4 whole, 8 truncated, 16 the
//! init fork, 64 same directory. Flags of databases are the first three.
//!
//! **Time index**
//!
//! | part | content |
//! |---|---|
//! | buckets | count (at most 262,144); each: start less the former end, end less start, earliest time less the former latest (signed µs), latest less earliest (µs), ends of transactions |
//! | restore points | count (at most 65,536); each: lsn less the former, time (signed µs since 1970), length (at most 63), name |
//! | losses | count (at most 65,536), how many more there were; each as below |
//!
//! A loss: kind (1 byte; 1 tables dropped, 2 truncated, 3 rewritten, 4 rows deleted, 5 database
//! dropped), start of its record, less `from`; end less start; start less the record before; xid;
//! time (signed µs since 1970); rows; count (at most 4,096) and files (tablespace, database,
//! filenode); count (at most 4,096) and tables (database, OID).

mod blocks;
mod code;
mod collect;
mod losses;
mod map;
mod relation;
mod times;

use lifeboat_cluster::wal::RelationFile;
use lifeboat_model::{Lsn, Timeline};
use thiserror::Error;

pub use blocks::{Blocks, Run};
pub use collect::Collector;
pub use losses::{Loss, LossKind, LossScan};
pub use map::{Break, BreakKind, ChangeMap, Directory};
pub use relation::{Changed, Relation};
pub use times::{Moment, NamedPoint, Seeker, TimeIndex};

/// The stretch of WAL that was read: records that start at `from` or later and before `to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Where it starts.
    pub from: Lsn,
    /// Where it ends.
    pub to: Lsn,
    /// The timeline of its last page.
    pub timeline: Timeline,
}

/// Two spans that do not touch cannot become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "what ends at {end} on timeline {timeline} is not followed by what starts at {start} on timeline {next}"
)]
pub struct NotAdjacent {
    /// Where the earlier one ends.
    pub end: Lsn,
    /// The earlier one's timeline.
    pub timeline: Timeline,
    /// Where the later one starts.
    pub start: Lsn,
    /// The later one's timeline.
    pub next: Timeline,
}

impl Span {
    /// An empty span.
    pub fn empty(from: Lsn, timeline: Timeline) -> Self {
        Self { from, to: from, timeline }
    }

    /// This span and the one that follows it.
    pub fn and(self, later: Self) -> Result<Self, NotAdjacent> {
        if self.to != later.from || self.timeline > later.timeline {
            let (end, timeline) = (self.to, self.timeline);
            return Err(NotAdjacent { end, timeline, start: later.from, next: later.timeline });
        }
        Ok(Self { from: self.from, ..later })
    }

    /// Whether a record lies within, or behind it and so makes it longer.
    fn reach(&mut self, lsn: Lsn, end: Lsn) -> bool {
        self.to = self.to.max(end);
        lsn >= self.from
    }
}

/// Catalogs keep the numbers below; tables of users never have them.
const FIRST_NORMAL_OID: u32 = 16384;

fn is_catalog(relation: RelationFile) -> bool {
    relation.filenode < FIRST_NORMAL_OID
}

#[cfg(test)]
mod tests;
