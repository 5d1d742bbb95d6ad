//! What records say that no block reference shows: the ends of transactions, files that come, go
//! and shrink, bits of the visibility map, and the settings that backups depend on.
//!
//! Sources of facts: PostgreSQL source, access/xact.h, catalog/storage_xlog.h,
//! commands/dbcommands_xlog.h, access/heapam_xlog.h, storage/standbydefs.h, catalog/pg_control.h,
//! access/xlog_internal.h.

use jiff::{SignedDuration, Timestamp};
use lifeboat_model::{Lsn, Timeline};

use super::layout::Layout;
use super::{Record, RelationFile};
use crate::bytes::{half, long, take, word};
use crate::files::Fork;

/// 2000-01-01, PostgreSQL's day zero.
const EPOCH: Timestamp = Timestamp::constant(946_684_800, 0);
const POINT_NAME: usize = 64;

/// Resource managers by number (access/rmgrlist.h); no supported version has changed them.
mod resource {
    pub(super) const XLOG: u8 = 0;
    pub(super) const TRANSACTION: u8 = 1;
    pub(super) const STORAGE: u8 = 2;
    pub(super) const DATABASE: u8 = 4;
    pub(super) const STANDBY: u8 = 8;
    pub(super) const HEAP2: u8 = 9;
    pub(super) const HEAP: u8 = 10;
}

/// What a record says besides its block references.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact<'a> {
    /// A transaction committed or aborted.
    End(End<'a>),
    /// Rows of a table changed.
    Rows(RowChange),
    /// `TRUNCATE`, by OID; only with `wal_level = logical`.
    TablesTruncated {
        /// OID of the database.
        database: u32,
        /// OIDs of the tables, not their files.
        tables: Oids<'a>,
    },
    /// A file came into being. One that is made again under the name of an older one is new.
    FileCreated {
        /// The relation.
        relation: RelationFile,
        /// The fork.
        fork: Fork,
    },
    /// A relation became shorter. It may have grown again since, without a trace of the pages
    /// that are empty.
    FileTruncated {
        /// The relation.
        relation: RelationFile,
        /// How many blocks of the main fork are left, if that was cut.
        blocks: Option<u32>,
    },
    /// A directory of a database was copied file by file.
    DatabaseCopied {
        /// The new directory.
        to: DatabaseOfTablespace,
        /// What was copied.
        from: DatabaseOfTablespace,
    },
    /// A database came into being; its blocks are in records of their own.
    DatabaseCreated(DatabaseOfTablespace),
    /// Directories of a database were removed: the database was dropped, or moved.
    DatabaseDropped {
        /// OID of the database.
        database: u32,
        /// OIDs of the tablespaces.
        tablespaces: Oids<'a>,
    },
    /// Tables were locked so that nobody else may even read, as `DROP` and `TRUNCATE` do.
    Locked(Locks<'a>),
    /// A checkpoint.
    Checkpoint {
        /// Where a recovery from it starts.
        redo: Lsn,
        /// The timeline from here on: one at the end of a recovery may begin a new one.
        timeline: Timeline,
        /// At the end of a shutdown or of a recovery: nothing lies between the two.
        shutdown: bool,
        /// Pages are logged whole when they change first after a checkpoint.
        full_page_writes: bool,
    },
    /// `pg_create_restore_point`.
    RestorePoint {
        /// When.
        time: Timestamp,
        /// What it is called.
        name: String,
    },
    /// Settings that a standby must know.
    Parameters {
        /// 0 is `minimal`: changes may be missing in the WAL.
        wal_level: u32,
        /// Hint bits are logged even without checksums.
        wal_log_hints: bool,
    },
    /// `full_page_writes` was turned on or off.
    FullPageWrites(bool),
    /// A recovery ended and its server went on.
    EndOfRecovery {
        /// The timeline from here on.
        timeline: Timeline,
        /// The timeline up to here.
        previous: Timeline,
    },
    /// The rest of the segment is padding.
    Switch,
}

impl Fact<'_> {
    /// The timeline that the record says it is on. Its page may be of the one before.
    pub(in crate::wal) fn timeline(&self) -> Option<Timeline> {
        match self {
            Self::EndOfRecovery { timeline, .. } | Self::Checkpoint { timeline, .. } => {
                Some(*timeline)
            }
            _ => None,
        }
    }
}

/// A database within one tablespace: one directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DatabaseOfTablespace {
    /// OID of the tablespace.
    pub tablespace: u32,
    /// OID of the database.
    pub database: u32,
}

/// The end of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End<'a> {
    /// Committed, not aborted.
    pub committed: bool,
    /// When, by the server's clock.
    pub time: Timestamp,
    /// The transaction; of a prepared one that, and not the one that ends it.
    pub xid: u32,
    /// It had been prepared.
    pub prepared: bool,
    /// Its subtransactions.
    pub subtransactions: Oids<'a>,
    /// Relations whose files go with it.
    pub dropped: Relations<'a>,
    /// Tables that are gone with all their statistics: dropped, not only rewritten. Pairs of
    /// OIDs of database and table; 15 and later.
    pub dropped_tables: Vec<(u32, u32)>,
    /// The record was read to its end. Only one above 32 MiB is not.
    pub complete: bool,
}

/// Rows that a record changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowChange {
    /// How.
    pub kind: RowsChanged,
    /// How many rows.
    pub rows: u16,
    /// Bits of the visibility map were cleared for the blocks of these references.
    pub(super) cleared: [bool; 2],
}

/// How rows changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowsChanged {
    /// They are new.
    Inserted,
    /// They have new versions.
    Updated,
    /// They were deleted.
    Deleted,
    /// They were locked, or an insert was taken back.
    Touched,
}

/// Numbers of four bytes: OIDs or transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Oids<'a>(&'a [u8]);

impl Oids<'_> {
    /// The numbers.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.0.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes))
    }
}

/// Relations, by their files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Relations<'a>(&'a [u8]);

impl Relations<'_> {
    /// The relations.
    pub fn iter(&self) -> impl Iterator<Item = RelationFile> {
        self.0.chunks_exact(RelationFile::LENGTH).filter_map(|it| RelationFile::parse(it, 0))
    }
}

/// Locks on tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Locks<'a>(&'a [u8]);

impl Locks<'_> {
    /// Transaction, OID of the database, OID of the table.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u32, u32)> {
        self.0
            .chunks_exact(12)
            .filter_map(|lock| Some((word(lock, 0)?, word(lock, 4)?, word(lock, 8)?)))
    }
}

/// The record's content is not laid out as it should be.
#[derive(Debug)]
pub(super) struct Unreadable;

/// What the record says. `complete` is false if only its beginning is there.
pub(super) fn fact<'a>(
    record: &Record<'a>,
    layout: &Layout,
    complete: bool,
) -> Result<Option<Fact<'a>>, Unreadable> {
    let (data, kind) = (record.data(), record.info & 0xF0);
    let known = match record.resource {
        resource::XLOG => log(kind, data),
        resource::TRANSACTION => transaction(record.xid, kind, data, layout, complete),
        resource::STORAGE => storage(kind, data),
        resource::DATABASE => database(kind, data, layout),
        resource::STANDBY if kind == 0x00 => items(data, 12).map(Locks).map(Fact::Locked).map(Some),
        resource::HEAP => heap(kind & 0x70, data),
        resource::HEAP2 => heap2(kind & 0x70, data),
        _ => Some(None),
    };
    known.ok_or(Unreadable)
}

/// In these functions the outer `None` means that the record is not what it must be.
fn log(kind: u8, data: &[u8]) -> Option<Option<Fact<'_>>> {
    Some(Some(match kind {
        0x00 | 0x10 => Fact::Checkpoint {
            redo: Lsn(long(data, 0)?),
            timeline: Timeline(word(data, 8)?),
            shutdown: kind == 0x00,
            // Behind the two timelines.
            full_page_writes: flag(data, 16)?,
        },
        0x40 => Fact::Switch,
        0x60 => Fact::Parameters {
            // Behind the maxima of connections, workers, senders, prepared transactions, locks.
            wal_level: word(data, 20)?,
            wal_log_hints: flag(data, 24)?,
        },
        0x70 => {
            let name: [u8; POINT_NAME] = take(data, 8)?;
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            let name = String::from_utf8_lossy(name).into_owned();
            Fact::RestorePoint { time: time(data, 0)?, name }
        }
        0x80 => Fact::FullPageWrites(flag(data, 0)?),
        0x90 => Fact::EndOfRecovery {
            timeline: Timeline(word(data, 8)?),
            previous: Timeline(word(data, 12)?),
        },
        _ => return Some(None),
    }))
}

fn transaction<'a>(
    xid: u32,
    kind: u8,
    data: &'a [u8],
    layout: &Layout,
    complete: bool,
) -> Option<Option<Fact<'a>>> {
    const HAS_INFO: u8 = 0x80;
    let (committed, prepared) = match kind & 0x70 {
        0x00 => (true, false),
        0x20 => (false, false),
        0x30 => (true, true),
        0x40 => (false, true),
        _ => return Some(None),
    };
    let mut end = End {
        committed,
        time: time(data, 0)?,
        xid,
        prepared,
        subtransactions: Oids::default(),
        dropped: Relations::default(),
        dropped_tables: Vec::new(),
        complete: true,
    };
    if kind & HAS_INFO != 0 {
        let whole = end.read_parts(data, layout);
        if whole.is_none() && complete {
            return None;
        }
        end.complete = whole.is_some();
    }
    Some(Some(Fact::End(end)))
}

impl<'a> End<'a> {
    /// Parts follow each other in this order, each if its flag is set.
    fn read_parts(&mut self, data: &'a [u8], layout: &Layout) -> Option<()> {
        const DATABASE: u32 = 1 << 0;
        const SUBTRANSACTIONS: u32 = 1 << 1;
        const RELATIONS: u32 = 1 << 2;
        const INVALIDATIONS: u32 = 1 << 3;
        const PREPARED: u32 = 1 << 4;
        const STATISTICS: u32 = 1 << 8;
        let flags = word(data, 8)?;
        let mut rest = data.get(12..)?;
        if flags & DATABASE != 0 {
            rest = rest.get(8..)?;
        }
        if flags & SUBTRANSACTIONS != 0 {
            self.subtransactions = Oids(list(&mut rest, 4)?);
        }
        if flags & RELATIONS != 0 {
            self.dropped = Relations(list(&mut rest, RelationFile::LENGTH)?);
        }
        if flags & STATISTICS != 0 {
            let size = layout.statistics_item?;
            self.dropped_tables = dropped_tables(list(&mut rest, size)?, size);
        }
        if flags & INVALIDATIONS != 0 {
            list(&mut rest, 16)?;
        }
        if flags & PREPARED != 0 {
            self.xid = word(rest, 0)?;
        }
        // The name of a prepared transaction and a replication origin may follow.
        Some(())
    }
}

/// Items of a kind, a database's OID and an object's; that of a table is 32 bits long.
fn dropped_tables(items: &[u8], size: usize) -> Vec<(u32, u32)> {
    const TABLE: u32 = 2;
    let tables = items.chunks_exact(size).filter(|item| word(item, 0) == Some(TABLE));
    tables.filter_map(|item| Some((word(item, 4)?, word(item, 8)?))).collect()
}

fn storage(kind: u8, data: &[u8]) -> Option<Option<Fact<'_>>> {
    const MAIN_FORK: u32 = 1;
    Some(Some(match kind {
        0x10 => Fact::FileCreated {
            relation: RelationFile::parse(data, 0)?,
            fork: fork(word(data, 12)?)?,
        },
        0x20 => {
            let cut = word(data, 16)? & MAIN_FORK != 0;
            let blocks = cut.then_some(word(data, 0)?);
            Fact::FileTruncated { relation: RelationFile::parse(data, 4)?, blocks }
        }
        _ => return Some(None),
    }))
}

fn fork(number: u32) -> Option<Fork> {
    Some(match number {
        0 => Fork::Main,
        1 => Fork::FreeSpace,
        2 => Fork::Visibility,
        3 => Fork::Init,
        _ => return None,
    })
}

fn database<'a>(kind: u8, data: &'a [u8], layout: &Layout) -> Option<Option<Fact<'a>>> {
    let directory = |at: usize| -> Option<DatabaseOfTablespace> {
        Some(DatabaseOfTablespace { database: word(data, at)?, tablespace: word(data, at + 4)? })
    };
    Some(Some(if kind == layout.database_copied {
        Fact::DatabaseCopied { to: directory(0)?, from: directory(8)? }
    } else if Some(kind) == layout.database_logged {
        Fact::DatabaseCreated(directory(0)?)
    } else if kind == layout.database_dropped {
        let tablespaces = Oids(items(data.get(4..)?, 4)?);
        Fact::DatabaseDropped { database: word(data, 0)?, tablespaces }
    } else {
        return Some(None);
    }))
}

fn heap(kind: u8, data: &[u8]) -> Option<Option<Fact<'_>>> {
    const CLEARED: u8 = 1 << 0;
    const NEW_CLEARED: u8 = 1 << 1;
    // An insert that is taken back, and the half of an update that moves a row to another
    // partition: nobody deleted a row.
    const NO_DELETE: u8 = 1 << 3 | 1 << 4;
    Some(Some(match kind {
        0x00 => rows(RowsChanged::Inserted, 1, [byte(data, 2)? & CLEARED != 0, false]),
        0x10 => {
            let flags = byte(data, 7)?;
            let touched = flags & NO_DELETE != 0;
            let kind = if touched { RowsChanged::Touched } else { RowsChanged::Deleted };
            rows(kind, 1, [flags & CLEARED != 0, false])
        }
        0x20 | 0x40 => {
            // The new page's reference is the first one.
            let flags = byte(data, 7)?;
            rows(RowsChanged::Updated, 1, [flags & NEW_CLEARED != 0, flags & CLEARED != 0])
        }
        0x30 => {
            let count = word(data, 4)? as usize;
            let tables = data.get(12..)?.get(..count.checked_mul(4)?)?;
            Fact::TablesTruncated { database: word(data, 0)?, tables: Oids(tables) }
        }
        0x60 => rows(RowsChanged::Touched, 1, [byte(data, 7)? & CLEARED != 0, false]),
        _ => return Some(None),
    }))
}

fn heap2(kind: u8, data: &[u8]) -> Option<Option<Fact<'_>>> {
    const CLEARED: u8 = 1 << 0;
    Some(Some(match kind {
        0x50 => {
            let cleared = byte(data, 0)? & CLEARED != 0;
            rows(RowsChanged::Inserted, half(data, 2)?, [cleared, false])
        }
        0x60 => rows(RowsChanged::Touched, 1, [byte(data, 7)? & CLEARED != 0, false]),
        _ => return Some(None),
    }))
}

fn rows(kind: RowsChanged, rows: u16, cleared: [bool; 2]) -> Fact<'static> {
    Fact::Rows(RowChange { kind, rows, cleared })
}

/// The items behind a count.
fn items(data: &[u8], size: usize) -> Option<&[u8]> {
    let mut rest = data;
    list(&mut rest, size)
}

/// Takes a count and as many items off.
fn list<'a>(rest: &mut &'a [u8], size: usize) -> Option<&'a [u8]> {
    let count = word(rest, 0)? as usize;
    let (items, behind) = rest.get(4..)?.split_at_checked(count.checked_mul(size)?)?;
    *rest = behind;
    Some(items)
}

fn byte(data: &[u8], at: usize) -> Option<u8> {
    data.get(at).copied()
}

fn flag(data: &[u8], at: usize) -> Option<bool> {
    byte(data, at).map(|byte| byte != 0)
}

fn time(data: &[u8], at: usize) -> Option<Timestamp> {
    let microseconds = i64::from_le_bytes(take(data, at)?);
    EPOCH.checked_add(SignedDuration::from_micros(microseconds)).ok()
}
