//! What differs between the versions in the records that Lifeboat reads, in one table.
//!
//! Sources of facts: PostgreSQL source of each version, access/xlogrecord.h (images),
//! commands/dbcommands_xlog.h (databases), access/xact.h (dropped statistics).

use crate::Release;

/// Numbers that differ between the versions.
#[derive(Debug)]
pub(super) struct Layout {
    /// Flags of a page image that say how it was compressed. A compressed image with a hole has
    /// two bytes more of header. 13 and 14 know one way, in the bit that 15 gave another meaning.
    pub(super) image_compressed: u8,
    /// Database made by copying files: the only way before 15.
    pub(super) database_copied: u8,
    /// Database whose blocks are all logged.
    pub(super) database_logged: Option<u8>,
    /// Database dropped.
    pub(super) database_dropped: u8,
    /// Commits and aborts list dropped statistics, in items of so many bytes.
    pub(super) statistics_item: Option<usize>,
}

const OLD: Layout = Layout {
    image_compressed: 0x02,
    database_copied: 0x00,
    database_logged: None,
    database_dropped: 0x10,
    statistics_item: None,
};

const FROM_15: Layout = Layout {
    image_compressed: 0x04 | 0x08 | 0x10,
    database_copied: 0x00,
    database_logged: Some(0x10),
    database_dropped: 0x20,
    statistics_item: Some(12),
};

const FROM_18: Layout = Layout { statistics_item: Some(16), ..FROM_15 };

impl Layout {
    pub(super) fn of(release: &Release) -> &'static Self {
        match release.major {
            ..=14 => &OLD,
            15..=17 => &FROM_15,
            18.. => &FROM_18,
        }
    }
}
