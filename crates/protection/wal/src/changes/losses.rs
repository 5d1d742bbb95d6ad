//! Where data was lost by a command that did what it was told: tables dropped or emptied, rows
//! deleted.
//!
//! WAL knows files and OIDs, no names. A transaction that drops a table removes files and makes
//! none; one that truncates makes empty files in their place; one that rewrites, as `VACUUM FULL`
//! does, fills the new files, through a table that it creates and drops again. The OIDs come from
//! the exclusive locks that such commands take, which the WAL tells for the sake of standbys, and
//! from 15 on from the list of statistics that a drop removes.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use lifeboat_cluster::files::Fork;
use lifeboat_cluster::wal::{End, Fact, Record, RelationFile, RowsChanged};
use lifeboat_model::Lsn;

use super::is_catalog;

/// Transactions at work that are kept in mind, subtransactions included.
const MAX_OPEN: usize = 1 << 16;
/// Files and tables of one transaction that are kept in mind, each.
pub(super) const MAX_NAMES: usize = 1 << 12;

/// A commit that lost data, or may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// What happened.
    pub kind: LossKind,
    /// The start of the record that made it so: the commit, or the removal of a database.
    pub lsn: Lsn,
    /// Its end.
    pub end: Lsn,
    /// The start of the record before: a recovery that ends with that one ends just before.
    pub before: Lsn,
    /// The transaction.
    pub xid: u32,
    /// When.
    pub time: Timestamp,
    /// How many rows were deleted.
    pub rows: u64,
    /// The files that are gone, or whose rows are: tables, their indexes and TOAST.
    pub files: Vec<RelationFile>,
    /// OIDs of databases and of tables and indexes that were locked for it.
    pub tables: Vec<(u32, u32)>,
}

/// What lost data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LossKind {
    /// `DROP TABLE`, `DROP INDEX`, `DROP SCHEMA` and the like.
    Dropped,
    /// `TRUNCATE`.
    Truncated,
    /// Files were replaced by filled ones: `VACUUM FULL`, `CLUSTER`, `ALTER TABLE`. What the same
    /// transaction dropped besides goes unnoticed; before 15 any `DROP` beside a `CREATE` does.
    Rewritten,
    /// `DELETE`.
    Deleted,
    /// `DROP DATABASE`, or a move of the database to another tablespace.
    DatabaseDropped,
}

/// Finds losses in records as they pass.
#[derive(Debug)]
pub struct LossScan {
    /// Rows deleted from one table by one transaction, below which nothing is said.
    fewest_rows: u64,
    open: BTreeMap<u32, Open>,
    /// The time of the last end of a transaction, for records without a time.
    time: Timestamp,
}

/// What a transaction did so far.
#[derive(Debug, Default)]
struct Open {
    deleted: BTreeMap<RelationFile, u64>,
    /// Files that it made, and whether rows were put into them.
    created: BTreeMap<RelationFile, Filled>,
    tables: BTreeSet<(u32, u32)>,
    truncated: BTreeSet<(u32, u32)>,
    /// It put rows into a catalog, as whoever creates a table does.
    created_names: bool,
}

/// What was put into a new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Filled {
    rows: bool,
    blocks: bool,
}

impl LossScan {
    /// Begins. A `DELETE` of fewer rows of a table than `fewest_rows` is not told.
    pub fn new(fewest_rows: u64) -> Self {
        Self { fewest_rows: fewest_rows.max(1), open: BTreeMap::new(), time: Timestamp::UNIX_EPOCH }
    }

    /// The time of the last end of a transaction.
    pub fn time(&self) -> Timestamp {
        self.time
    }

    /// Takes in the next record; gives what it lost to `found`.
    pub fn note(&mut self, record: &Record<'_>, mut found: impl FnMut(Loss)) {
        match &record.fact {
            Some(Fact::End(end)) => {
                self.time = end.time;
                self.end(record, end, &mut found);
            }
            Some(Fact::DatabaseDropped { database, .. }) => {
                let mut loss = self.loss(LossKind::DatabaseDropped, record, record.xid);
                loss.tables.push((*database, 0));
                found(loss);
            }
            Some(Fact::EndOfRecovery { .. } | Fact::Checkpoint { shutdown: true, .. }) => {
                // What had not ended never will, except what is prepared: rare enough.
                self.open.clear();
            }
            Some(Fact::Locked(locks)) => {
                for (xid, database, table) in locks.iter() {
                    let tables = &mut self.open(xid).tables;
                    if tables.len() < MAX_NAMES {
                        tables.insert((database, table));
                    }
                }
            }
            _ if record.xid != 0 => self.change(record),
            _ => {}
        }
    }

    /// What a transaction does on its way.
    fn change(&mut self, record: &Record<'_>) {
        let first = record.blocks.first().map(|block| block.relation);
        match &record.fact {
            Some(Fact::Rows(rows)) => {
                let Some(relation) = first else { return };
                let (catalog, count) = (is_catalog(relation), u64::from(rows.rows));
                match rows.kind {
                    RowsChanged::Deleted if !catalog => {
                        let deleted = &mut self.open(record.xid).deleted;
                        if deleted.len() < MAX_NAMES || deleted.contains_key(&relation) {
                            *deleted.entry(relation).or_default() += count;
                        }
                    }
                    RowsChanged::Inserted if catalog => {
                        self.open(record.xid).created_names = true;
                    }
                    RowsChanged::Inserted => self.fill(record.xid, relation, true),
                    _ => {}
                }
            }
            Some(Fact::FileCreated { relation, fork: Fork::Main }) => {
                let created = &mut self.open(record.xid).created;
                if created.len() < MAX_NAMES {
                    created.entry(*relation).or_default();
                }
            }
            Some(Fact::TablesTruncated { database, tables }) => {
                let truncated = &mut self.open(record.xid).truncated;
                truncated.extend(tables.iter().take(MAX_NAMES).map(|table| (*database, table)));
            }
            _ => {
                for block in record.blocks.iter().filter(|block| block.fork == Fork::Main) {
                    self.fill(record.xid, block.relation, false);
                }
            }
        }
    }

    /// Something was put into a file; of interest if the same transaction made it.
    fn fill(&mut self, xid: u32, relation: RelationFile, rows: bool) {
        let open = self.open.get_mut(&xid);
        if let Some(filled) = open.and_then(|open| open.created.get_mut(&relation)) {
            filled.rows |= rows;
            filled.blocks = true;
        }
    }

    fn open(&mut self, xid: u32) -> &mut Open {
        if self.open.len() >= MAX_OPEN && !self.open.contains_key(&xid) {
            self.open.pop_first();
        }
        self.open.entry(xid).or_default()
    }

    fn end(&mut self, record: &Record<'_>, end: &End<'_>, found: &mut impl FnMut(Loss)) {
        let mut all = Open::default();
        for xid in [end.xid].into_iter().chain(end.subtransactions.iter()) {
            if let Some(open) = self.open.remove(&xid) {
                all.add(open);
            }
        }
        if !end.committed {
            return;
        }
        if let Some(kind) = all.kind(end) {
            let mut loss = self.loss(kind, record, end.xid);
            loss.files = end.dropped.iter().take(MAX_NAMES).collect();
            let truncated = &all.truncated;
            let tables = if truncated.is_empty() { &all.tables } else { truncated };
            let dropped = end.dropped_tables.iter().filter(|_| kind == LossKind::Dropped);
            let tables: BTreeSet<_> = tables.iter().chain(dropped).copied().collect();
            loss.tables = tables.into_iter().take(MAX_NAMES).collect();
            found(loss);
        }
        for (relation, rows) in all.deleted {
            if rows >= self.fewest_rows {
                let mut loss = self.loss(LossKind::Deleted, record, end.xid);
                (loss.rows, loss.files) = (rows, vec![relation]);
                found(loss);
            }
        }
    }

    fn loss(&self, kind: LossKind, record: &Record<'_>, xid: u32) -> Loss {
        Loss {
            kind,
            lsn: record.lsn,
            end: record.end,
            before: record.previous,
            xid,
            time: self.time,
            rows: 0,
            files: Vec::new(),
            tables: Vec::new(),
        }
    }
}

impl Open {
    fn add(&mut self, other: Self) {
        for (relation, rows) in other.deleted {
            *self.deleted.entry(relation).or_default() += rows;
        }
        self.created.extend(other.created);
        self.tables.extend(other.tables);
        self.truncated.extend(other.truncated);
        self.created_names |= other.created_names;
    }

    /// What became of the files that go with the transaction; `None` if none goes.
    fn kind(&self, end: &End<'_>) -> Option<LossKind> {
        if !self.truncated.is_empty() {
            return Some(LossKind::Truncated);
        }
        // A table that lived only within the transaction is no loss.
        let mut gone = end.dropped.iter().filter(|file| !self.created.contains_key(file));
        gone.next()?;
        // A rewrite fills a table of its own, whose file is named after its OID, and drops it with
        // the old file. It may drop indexes besides, to make them anew.
        let own = |table: u32| self.created.keys().any(|file| file.filenode == table);
        if end.dropped_tables.iter().any(|(_, table)| own(*table)) {
            return Some(LossKind::Rewritten);
        }
        if self.created.is_empty() || !end.dropped_tables.is_empty() {
            return Some(LossKind::Dropped);
        }
        // An index is never without a page; the file of an emptied table is, until it is filled.
        let emptied = self.created.values().any(|filled| !filled.blocks || filled.rows);
        let truncated = emptied && !self.created_names;
        Some(if truncated { LossKind::Truncated } else { LossKind::Rewritten })
    }
}
