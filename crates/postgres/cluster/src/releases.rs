//! What differs between the major versions, in one table.

use std::fmt;

/// One supported major version of PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Release {
    /// 13 to 18.
    pub major: u32,
    /// Catalog version; it never changes after a release and names tablespace directories.
    pub catalog: u32,
    /// Version of pg_control's layout.
    pub control: u32,
    /// Where pg_control's CRC lies: all before it is covered by it.
    pub control_crc: usize,
    /// Magic number of a WAL page.
    pub wal_magic: u16,
    /// Version of `backup_manifest`; 2 names the system identifier.
    pub manifest: u32,
    /// The server keeps WAL summaries in `pg_wal/summaries`.
    pub wal_summaries: bool,
}

/// Every version that Lifeboat knows, oldest first.
pub const RELEASES: [Release; 6] = [
    release(13, 202_007_201, 1300, 288, 0xD106, 1),
    release(14, 202_107_181, 1300, 288, 0xD10D, 1),
    release(15, 202_209_061, 1300, 288, 0xD110, 1),
    release(16, 202_307_071, 1300, 288, 0xD113, 1),
    release(17, 202_406_281, 1700, 288, 0xD116, 2),
    release(18, 202_506_291, 1800, 292, 0xD118, 2),
];

const fn release(
    major: u32,
    catalog: u32,
    control: u32,
    control_crc: usize,
    wal_magic: u16,
    manifest: u32,
) -> Release {
    let wal_summaries = major >= 17;
    Release { major, catalog, control, control_crc, wal_magic, manifest, wal_summaries }
}

impl Release {
    /// The release of a major version, as `PG_VERSION` names it.
    pub fn of_major(major: u32) -> Option<&'static Self> {
        RELEASES.iter().find(|release| release.major == major)
    }

    /// The release whose catalog this is.
    pub fn of_catalog(catalog: u32) -> Option<&'static Self> {
        RELEASES.iter().find(|release| release.catalog == catalog)
    }

    /// The release that writes WAL pages with this magic number.
    pub fn of_wal_magic(magic: u16) -> Option<&'static Self> {
        RELEASES.iter().find(|release| release.wal_magic == magic)
    }

    /// The directory that this version makes in a tablespace, as in `PG_15_202209061`.
    pub fn tablespace_directory(&self) -> String {
        format!("PG_{}_{}", self.major, self.catalog)
    }
}

impl fmt::Display for Release {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PostgreSQL {}", self.major)
    }
}
