//! The change map of a span.

use std::collections::BTreeMap;

use lifeboat_cluster::files::Fork;
use lifeboat_cluster::wal::{DatabaseOfTablespace, Fact, Record, RelationFile};
use lifeboat_model::{Lsn, Timeline};

use super::relation::{Changed, Relation};
use super::{NotAdjacent, Span};

/// Runs that a map keeps, about 32 MiB of them. Then the relation with the most becomes whole.
pub(super) const MAX_RUNS: usize = 1 << 22;
/// Relations that a map keeps. Then the database directory with the most becomes whole.
pub(super) const MAX_RELATIONS: usize = 1 << 18;
/// Database directories that a map keeps. There cannot be many more than databases.
pub(super) const MAX_DIRECTORIES: usize = 1 << 16;
/// Breaks that a map keeps; one is enough to distrust it.
pub(super) const MAX_BREAKS: usize = 64;

/// A relation's fork. The order is that of the bytes.
pub(super) type Key = (RelationFile, Fork);

/// What changed within a span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeMap {
    pub(super) span: Span,
    pub(super) breaks: Vec<Break>,
    pub(super) directories: BTreeMap<DatabaseOfTablespace, Directory>,
    pub(super) relations: BTreeMap<Key, Relation>,
    /// Runs of all relations, at most.
    pub(super) weight: usize,
}

/// What happened to the directory of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Directory {
    /// It came into being: all its files are new.
    pub created: bool,
    /// It is gone at the end of the span.
    pub dropped: bool,
    /// Too many relations changed to keep count of them.
    pub overflown: bool,
}

/// A place behind which the WAL does not tell of all changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Break {
    /// Where.
    pub lsn: Lsn,
    /// Why.
    pub kind: BreakKind,
}

/// Why the WAL does not tell of all changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakKind {
    /// `wal_level` was turned to `minimal`.
    Minimal,
    /// A record changed files in a way that Lifeboat does not know, as an extension's may.
    Unknown,
    /// More databases came and went than a map keeps.
    TooMuch,
}

impl Directory {
    /// Every block of every relation may have changed.
    pub fn is_whole(self) -> bool {
        self.created || self.overflown
    }
}

impl ChangeMap {
    /// An empty map that starts at `from`.
    pub fn starting(from: Lsn, timeline: Timeline) -> Self {
        Self {
            span: Span::empty(from, timeline),
            breaks: Vec::new(),
            directories: BTreeMap::new(),
            relations: BTreeMap::new(),
            weight: 0,
        }
    }

    /// What it covers.
    pub fn span(&self) -> Span {
        self.span
    }

    /// Places where the WAL does not tell all. With one, the map cannot be used.
    pub fn breaks(&self) -> &[Break] {
        &self.breaks
    }

    /// Database directories that were made or removed.
    pub fn directories(&self) -> impl Iterator<Item = (DatabaseOfTablespace, Directory)> {
        self.directories.iter().map(|(name, directory)| (*name, *directory))
    }

    /// Relations of which anything is known, in order. Those of a directory that is whole are not
    /// all among them.
    pub fn relations(&self) -> impl Iterator<Item = (RelationFile, Fork, &Relation)> {
        self.relations.iter().map(|((relation, fork), changes)| (*relation, *fork, changes))
    }

    /// Which blocks of a fork may differ.
    pub fn changed(&self, relation: RelationFile, fork: Fork) -> Changed {
        if matches!(fork, Fork::FreeSpace | Fork::Visibility)
            || self.directories.get(&directory(relation)).is_some_and(|it| it.is_whole())
        {
            return Changed::Everything;
        }
        self.relations.get(&(relation, fork)).map_or(Changed::Nothing, Relation::changed)
    }

    /// Takes in the next record. One before the span is left out.
    pub fn note(&mut self, record: &Record<'_>) {
        if !self.span.reach(record.lsn, record.end) {
            return;
        }
        for block in record.blocks {
            if matches!(block.fork, Fork::Main | Fork::Init) {
                self.insert((block.relation, block.fork), block.block);
            }
        }
        let known = record.fact.as_ref().is_some_and(|fact| self.note_fact(record.lsn, fact));
        if record.is_special() && !known {
            self.note_break(record.lsn, BreakKind::Unknown);
        }
    }

    /// Ends the span: all records before `to` were taken in. Within a span, `to` may be later
    /// than the end of the last record by a page header.
    pub fn finish(&mut self, to: Lsn, timeline: Timeline) {
        self.span.to = self.span.to.max(to);
        self.span.timeline = timeline;
    }

    /// This map and that of the span that follows.
    pub fn merge(mut self, later: Self) -> Result<Self, NotAdjacent> {
        self.span = self.span.and(later.span)?;
        for at in later.breaks {
            self.note_break(at.lsn, at.kind);
        }
        for (name, directory) in later.directories {
            self.change_directory(later.span.from, name, |known| {
                known.dropped = directory.dropped || (known.dropped && !directory.created);
                known.created |= directory.created;
                known.overflown |= directory.overflown;
            });
        }
        for (key, relation) in later.relations {
            self.change(key, |known| known.extend(relation));
        }
        self.forget_within_whole();
        Ok(self)
    }

    /// Whether the fact tells how files changed.
    pub(super) fn note_fact(&mut self, lsn: Lsn, fact: &Fact<'_>) -> bool {
        match fact {
            Fact::FileCreated { relation, fork: fork @ (Fork::Main | Fork::Init) } => {
                self.change((*relation, *fork), Relation::create);
            }
            Fact::FileTruncated { relation, blocks: Some(blocks) } => {
                self.change((*relation, Fork::Main), |it| it.truncate(*blocks));
            }
            Fact::DatabaseCopied { to: name, .. } | Fact::DatabaseCreated(name) => {
                let created = Directory { created: true, ..Directory::default() };
                self.change_directory(lsn, *name, |it| *it = created);
                self.forget_within_whole();
            }
            Fact::DatabaseDropped { database, tablespaces } => {
                for tablespace in tablespaces.iter() {
                    let name = DatabaseOfTablespace { tablespace, database: *database };
                    self.change_directory(lsn, name, |it| it.dropped = true);
                }
            }
            Fact::End(end) => {
                for relation in end.dropped.iter() {
                    self.change((relation, Fork::Main), |it| it.dropped = true);
                }
            }
            Fact::Parameters { wal_level: 0, .. } => self.note_break(lsn, BreakKind::Minimal),
            Fact::FileCreated { .. } | Fact::FileTruncated { .. } => {}
            _ => return false,
        }
        true
    }

    fn note_break(&mut self, lsn: Lsn, kind: BreakKind) {
        if self.breaks.len() < MAX_BREAKS {
            self.breaks.push(Break { lsn, kind });
        }
    }

    pub(super) fn insert(&mut self, key: Key, block: u32) {
        self.change(key, |it| it.insert(block));
    }

    /// Changes what is known of a fork, and keeps the map small.
    pub(super) fn change(&mut self, key: Key, change: impl FnOnce(&mut Relation)) {
        if self.directories.get(&directory(key.0)).is_some_and(|it| it.is_whole()) {
            return;
        }
        let relation = self.relations.entry(key).or_default();
        let before = relation.blocks.weight();
        change(relation);
        let after = relation.blocks.weight();
        self.weight = self.weight.saturating_sub(before).saturating_add(after);
        if self.weight > MAX_RUNS {
            self.keep_fewer_runs();
        }
        if self.relations.len() > MAX_RELATIONS {
            self.keep_fewer_relations();
        }
    }

    fn change_directory(
        &mut self,
        lsn: Lsn,
        name: DatabaseOfTablespace,
        change: impl FnOnce(&mut Directory),
    ) {
        if self.directories.len() >= MAX_DIRECTORIES && !self.directories.contains_key(&name) {
            return self.note_break(lsn, BreakKind::TooMuch);
        }
        change(self.directories.entry(name).or_default());
    }

    fn keep_fewer_runs(&mut self) {
        for relation in self.relations.values_mut() {
            relation.blocks.settle();
        }
        let weight = |relation: &Relation| relation.blocks.weight();
        self.weight = self.relations.values().map(weight).sum();
        // Well below, so that this is rare.
        while self.weight > MAX_RUNS / 2 {
            let heaviest = self.relations.values_mut().max_by_key(|relation| weight(relation));
            let Some(relation) = heaviest else { return };
            self.weight -= weight(relation);
            relation.overflow();
        }
    }

    fn keep_fewer_relations(&mut self) {
        let mut counts: BTreeMap<DatabaseOfTablespace, usize> = BTreeMap::new();
        for (relation, _) in self.relations.keys() {
            *counts.entry(directory(*relation)).or_default() += 1;
        }
        if let Some((name, _)) = counts.into_iter().max_by_key(|(_, count)| *count) {
            self.change_directory(self.span.from, name, |it| it.overflown = true);
            self.forget_within_whole();
        }
    }

    /// Nothing need be known of relations whose directory is whole.
    fn forget_within_whole(&mut self) {
        let directories = &self.directories;
        self.relations.retain(|(relation, _), _| {
            !directories.get(&directory(*relation)).is_some_and(|it| it.is_whole())
        });
        self.weight = self.relations.values().map(|it| it.blocks.weight()).sum();
    }
}

fn directory(relation: RelationFile) -> DatabaseOfTablespace {
    let RelationFile { tablespace, database, .. } = relation;
    DatabaseOfTablespace { tablespace, database }
}
