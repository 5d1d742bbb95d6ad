//! The bytes of a change map and of a time index. The page of the module describes them.

use jiff::Timestamp;
use lifeboat_cluster::files::Fork;
use lifeboat_cluster::wal::{DatabaseOfTablespace, RelationFile};
use lifeboat_model::{Lsn, Timeline};
use lifeboat_repository::cursor::{Cursor, put_varint};
use lifeboat_telemetry::{Code, Failure, Outcome};

use super::Span;
use super::blocks::{Blocks, Run};
use super::losses::{Loss, LossKind, MAX_NAMES};
use super::map::{
    Break, BreakKind, ChangeMap, Directory, MAX_BREAKS, MAX_DIRECTORIES, MAX_RELATIONS, MAX_RUNS,
};
use super::relation::Relation;
use super::times::{Bucket, MAX_BUCKETS, MAX_LOSSES, MAX_POINTS, NamedPoint, TimeIndex};

const VERSION: u8 = 1;
/// As PostgreSQL allows, less the zero byte.
const LONGEST_NAME: usize = 63;

const CREATED: u8 = 1;
const DROPPED: u8 = 2;
const WHOLE: u8 = 4;
const TRUNCATED: u8 = 8;
const INIT_FORK: u8 = 16;
const SAME_DIRECTORY: u8 = 64;

impl ChangeMap {
    /// The map as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        put_span(&mut out, self.span);
        put_varint(&mut out, self.breaks.len() as u64);
        for Break { lsn, kind } in &self.breaks {
            out.push(match kind {
                BreakKind::Minimal => 1,
                BreakKind::Unknown => 2,
                BreakKind::TooMuch => 3,
            });
            put_varint(&mut out, lsn.distance_from(self.span.from));
        }
        put_varint(&mut out, self.directories.len() as u64);
        for (name, directory) in &self.directories {
            put_varint(&mut out, u64::from(name.tablespace));
            put_varint(&mut out, u64::from(name.database));
            let Directory { created, dropped, overflown } = *directory;
            out.push(flags(created, CREATED) | flags(dropped, DROPPED) | flags(overflown, WHOLE));
        }
        put_varint(&mut out, self.relations.len() as u64);
        let mut before = None;
        for ((file, fork), relation) in &self.relations {
            put_relation(&mut out, before, *file, *fork, relation);
            before = Some(*file);
        }
        out
    }

    /// Reads what [`ChangeMap::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Outcome<Self> {
        let mut cursor = Cursor::new(bytes, "the change map");
        let span = span(&mut cursor)?;
        let mut map = Self::starting(span.from, span.timeline);
        map.span = span;
        for _ in 0..count(&mut cursor, MAX_BREAKS)? {
            let kind = match cursor.u8()? {
                1 => BreakKind::Minimal,
                2 => BreakKind::Unknown,
                3 => BreakKind::TooMuch,
                _ => return Err(cursor.damaged("a break of no known kind")),
            };
            map.breaks.push(Break { lsn: forward(&mut cursor, span.from)?, kind });
        }
        for _ in 0..count(&mut cursor, MAX_DIRECTORIES)? {
            let (tablespace, database) = (cursor.varint32()?, cursor.varint32()?);
            let name = DatabaseOfTablespace { tablespace, database };
            let bits = cursor.u8()?;
            if map.directories.last_key_value().is_some_and(|(last, _)| *last >= name) {
                return Err(cursor.damaged("databases out of order"));
            }
            let directory = Directory {
                created: bits & CREATED != 0,
                dropped: bits & DROPPED != 0,
                overflown: bits & WHOLE != 0,
            };
            map.directories.insert(name, directory);
        }
        let mut before = None;
        for _ in 0..count(&mut cursor, MAX_RELATIONS)? {
            let (file, fork, relation) = relation(&mut cursor, before, &mut map.weight)?;
            let key = (file, fork);
            if map.relations.last_key_value().is_some_and(|(last, _)| *last >= key) {
                return Err(cursor.damaged("relations out of order"));
            }
            map.relations.insert(key, relation);
            before = Some(file);
        }
        cursor.end()?;
        Ok(map)
    }
}

fn put_relation(
    out: &mut Vec<u8>,
    before: Option<RelationFile>,
    file: RelationFile,
    fork: Fork,
    relation: &Relation,
) {
    let same = before.filter(|it| (it.tablespace, it.database) == (file.tablespace, file.database));
    out.push(
        flags(relation.created, CREATED)
            | flags(relation.dropped, DROPPED)
            | flags(relation.overflown, WHOLE)
            | flags(relation.truncated_to.is_some(), TRUNCATED)
            | flags(fork == Fork::Init, INIT_FORK)
            | flags(same.is_some(), SAME_DIRECTORY),
    );
    if same.is_none() {
        put_varint(out, u64::from(file.tablespace));
        put_varint(out, u64::from(file.database));
    }
    let former = same.map_or(0, |it| it.filenode);
    put_varint(out, u64::from(file.filenode.saturating_sub(former)));
    if let Some(blocks) = relation.truncated_to {
        put_varint(out, u64::from(blocks));
    }
    if relation.is_whole() {
        return;
    }
    let runs = relation.blocks.runs();
    put_varint(out, runs.len() as u64);
    let mut end = 0;
    for Run { first, last } in runs {
        let (skipped, more) = (u64::from(first).saturating_sub(end), u64::from(last - first));
        put_varint(out, skipped << 1 | u64::from(more > 0));
        if more > 0 {
            put_varint(out, more - 1);
        }
        end = u64::from(last) + 1;
    }
}

/// `weight` counts the runs of the whole map.
fn relation(
    cursor: &mut Cursor<'_>,
    before: Option<RelationFile>,
    weight: &mut usize,
) -> Outcome<(RelationFile, Fork, Relation)> {
    let bits = cursor.u8()?;
    let file = match before {
        Some(former) if bits & SAME_DIRECTORY != 0 => {
            let filenode = former.filenode.checked_add(cursor.varint32()?);
            let filenode = filenode.ok_or_else(|| cursor.damaged("a file number is too large"))?;
            RelationFile { filenode, ..former }
        }
        None if bits & SAME_DIRECTORY != 0 => {
            return Err(cursor.damaged("the first relation has no directory"));
        }
        _ => RelationFile {
            tablespace: cursor.varint32()?,
            database: cursor.varint32()?,
            filenode: cursor.varint32()?,
        },
    };
    let fork = if bits & INIT_FORK == 0 { Fork::Main } else { Fork::Init };
    let truncated_to = if bits & TRUNCATED == 0 { None } else { Some(cursor.varint32()?) };
    let mut relation = Relation {
        created: bits & CREATED != 0,
        dropped: bits & DROPPED != 0,
        overflown: bits & WHOLE != 0,
        truncated_to,
        blocks: Blocks::default(),
    };
    if !relation.is_whole() {
        let runs = count(cursor, MAX_RUNS.saturating_sub(*weight))?;
        *weight += runs;
        relation.blocks = blocks(cursor, runs)?;
    }
    Ok((file, fork, relation))
}

fn blocks(cursor: &mut Cursor<'_>, runs: usize) -> Outcome<Blocks> {
    let mut blocks = Blocks::default();
    let mut end: u64 = 0;
    for _ in 0..runs {
        let head = cursor.varint()?;
        let more = if head & 1 == 0 { 0 } else { cursor.varint()?.saturating_add(1) };
        let run = end.checked_add(head >> 1).and_then(|first| {
            let last = u32::try_from(first.checked_add(more)?).ok()?;
            Some(Run { first: u32::try_from(first).ok()?, last })
        });
        let pushed = run.and_then(|run| {
            end = u64::from(run.last) + 1;
            blocks.push(run)
        });
        pushed.ok_or_else(|| cursor.damaged("blocks that cannot be"))?;
    }
    Ok(blocks)
}

impl TimeIndex {
    /// The index as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        put_span(&mut out, self.span);
        put_varint(&mut out, self.buckets.len() as u64);
        let (mut end, mut latest) = (self.span.from, 0);
        for bucket in &self.buckets {
            put_varint(&mut out, bucket.start.distance_from(end));
            put_varint(&mut out, bucket.end.distance_from(bucket.start));
            let [from, to] = [bucket.earliest, bucket.latest].map(Timestamp::as_microsecond);
            put_signed(&mut out, from.wrapping_sub(latest));
            put_varint(&mut out, to.abs_diff(from));
            put_varint(&mut out, bucket.ends);
            (end, latest) = (bucket.end, to);
        }
        put_varint(&mut out, self.points.len() as u64);
        let mut former = self.span.from;
        for NamedPoint { lsn, time, name } in &self.points {
            put_varint(&mut out, lsn.distance_from(former));
            put_signed(&mut out, time.as_microsecond());
            let name = name.as_bytes().get(..name.len().min(LONGEST_NAME)).unwrap_or_default();
            put_varint(&mut out, name.len() as u64);
            out.extend_from_slice(name);
            former = *lsn;
        }
        put_varint(&mut out, self.losses.len() as u64);
        put_varint(&mut out, self.more_losses);
        for loss in &self.losses {
            put_loss(&mut out, self.span.from, loss);
        }
        out
    }

    /// Reads what [`TimeIndex::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Outcome<Self> {
        let mut cursor = Cursor::new(bytes, "the time index");
        let span = span(&mut cursor)?;
        let mut index = Self::of(span);
        let (mut end, mut latest) = (span.from, 0_i64);
        for _ in 0..count(&mut cursor, MAX_BUCKETS)? {
            let start = forward(&mut cursor, end)?;
            end = forward(&mut cursor, start)?;
            let from = latest.wrapping_add(signed(&mut cursor)?);
            let to = from.checked_add_unsigned(cursor.varint()?);
            latest = to.ok_or_else(|| cursor.damaged("a time is too late"))?;
            let (earliest, latest) = (moment(&cursor, from)?, moment(&cursor, latest)?);
            index.buckets.push(Bucket { start, end, earliest, latest, ends: cursor.varint()? });
        }
        let mut former = span.from;
        for _ in 0..count(&mut cursor, MAX_POINTS)? {
            let lsn = forward(&mut cursor, former)?;
            let micros = signed(&mut cursor)?;
            let time = moment(&cursor, micros)?;
            let length = count(&mut cursor, LONGEST_NAME)?;
            let name = String::from_utf8_lossy(cursor.take(length)?).into_owned();
            index.points.push(NamedPoint { lsn, time, name });
            former = lsn;
        }
        let losses = count(&mut cursor, MAX_LOSSES)?;
        index.more_losses = cursor.varint()?;
        for _ in 0..losses {
            index.losses.push(loss(&mut cursor, span.from)?);
        }
        cursor.end()?;
        Ok(index)
    }
}

fn put_loss(out: &mut Vec<u8>, from: Lsn, loss: &Loss) {
    out.push(match loss.kind {
        LossKind::Dropped => 1,
        LossKind::Truncated => 2,
        LossKind::Rewritten => 3,
        LossKind::Deleted => 4,
        LossKind::DatabaseDropped => 5,
    });
    put_varint(out, loss.lsn.distance_from(from));
    put_varint(out, loss.end.distance_from(loss.lsn));
    put_varint(out, loss.lsn.distance_from(loss.before));
    put_varint(out, u64::from(loss.xid));
    put_signed(out, loss.time.as_microsecond());
    put_varint(out, loss.rows);
    put_varint(out, loss.files.len() as u64);
    for file in &loss.files {
        for number in [file.tablespace, file.database, file.filenode] {
            put_varint(out, u64::from(number));
        }
    }
    put_varint(out, loss.tables.len() as u64);
    for (database, table) in &loss.tables {
        put_varint(out, u64::from(*database));
        put_varint(out, u64::from(*table));
    }
}

fn loss(cursor: &mut Cursor<'_>, from: Lsn) -> Outcome<Loss> {
    let kind = match cursor.u8()? {
        1 => LossKind::Dropped,
        2 => LossKind::Truncated,
        3 => LossKind::Rewritten,
        4 => LossKind::Deleted,
        5 => LossKind::DatabaseDropped,
        _ => return Err(cursor.damaged("a loss of no known kind")),
    };
    let lsn = forward(cursor, from)?;
    let end = forward(cursor, lsn)?;
    let before = lsn.0.checked_sub(cursor.varint()?);
    let before = Lsn(before.ok_or_else(|| cursor.damaged("a position before the first"))?);
    let xid = cursor.varint32()?;
    let micros = signed(cursor)?;
    let (time, rows) = (moment(cursor, micros)?, cursor.varint()?);
    let mut files = Vec::new();
    for _ in 0..count(cursor, MAX_NAMES)? {
        let (tablespace, database) = (cursor.varint32()?, cursor.varint32()?);
        files.push(RelationFile { tablespace, database, filenode: cursor.varint32()? });
    }
    let mut tables = Vec::new();
    for _ in 0..count(cursor, MAX_NAMES)? {
        tables.push((cursor.varint32()?, cursor.varint32()?));
    }
    Ok(Loss { kind, lsn, end, before, xid, time, rows, files, tables })
}

fn put_span(out: &mut Vec<u8>, span: Span) {
    put_varint(out, span.from.0);
    put_varint(out, span.to.distance_from(span.from));
    put_varint(out, u64::from(span.timeline.0));
}

/// The version, which comes first, and the span.
fn span(cursor: &mut Cursor<'_>) -> Outcome<Span> {
    let version = cursor.u8()?;
    if version != VERSION {
        return Err(cursor.damaged("it is of a version that this Lifeboat does not know"));
    }
    let from = Lsn(cursor.varint()?);
    let to = forward(cursor, from)?;
    Ok(Span { from, to, timeline: Timeline(cursor.varint32()?) })
}

fn count(cursor: &mut Cursor<'_>, limit: usize) -> Outcome<usize> {
    let count = cursor.varint()?;
    usize::try_from(count).ok().filter(|count| *count <= limit).ok_or_else(|| {
        let message = format!("a change object counts {count} entries, its maximum is {limit}");
        Failure::new(Code::LimitExceeded, message)
    })
}

/// A position that is told by its distance.
fn forward(cursor: &mut Cursor<'_>, from: Lsn) -> Outcome<Lsn> {
    let distance = cursor.varint()?;
    from.checked_add(distance).ok_or_else(|| cursor.damaged("a position behind the last"))
}

fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_varint(out, ((value << 1) ^ (value >> 63)).cast_unsigned());
}

fn signed(cursor: &mut Cursor<'_>) -> Outcome<i64> {
    let value = cursor.varint()?;
    Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
}

fn moment(cursor: &Cursor<'_>, micros: i64) -> Outcome<Timestamp> {
    Timestamp::from_microsecond(micros).map_err(|_| cursor.damaged("a time that cannot be"))
}

fn flags(set: bool, bit: u8) -> u8 {
    if set { bit } else { 0 }
}
