//! One pass over a segment's records: when transactions ended, which restore points it holds,
//! and where its valid WAL ends.
//!
//! Records lie on 8-byte boundaries and run on over pages; each page they run on to says how
//! much is still to come. A record is believed for its length and its link to the one before.
//! The CRC is computed for records whose content counts and for the last one, which makes the
//! pass cheap enough for every segment that is archived.

use jiff::{SignedDuration, Timestamp};
use lifeboat_model::Lsn;

use super::header::{PageHeader, SegmentIdentity};
use crate::bytes::{long, take, word};

pub(super) const RECORD_HEADER: usize = 24;
/// Offset of the CRC, which covers all of the header before it.
pub(super) const RECORD_CRC: usize = 20;
/// PostgreSQL makes no longer ones.
const LONGEST_RECORD: u32 = 1020 << 20;
/// Enough for the headers of a record without pages, and the main data that is of interest.
const PREFIX: usize = 128;
const POINT_NAME: usize = 64;
/// The record of a restore point is shorter: its header, a time, a name, and what may stand between.
pub(super) const POINT_BYTES_MAX: usize = PREFIX;
/// 2000-01-01, PostgreSQL's day zero.
const EPOCH: Timestamp = Timestamp::constant(946_684_800, 0);

/// What one segment holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentSummary {
    /// The earliest time of a commit; commits stand in the WAL nearly, not exactly, by time.
    pub first_commit: Option<Timestamp>,
    /// The latest time of a commit.
    pub last_commit: Option<Timestamp>,
    /// The latest time of a commit or an abort. A recovery to a time is over only when it meets
    /// a later one.
    pub last_end: Option<Timestamp>,
    /// How many transactions committed.
    pub commits: u64,
    /// Named restore points.
    pub restore_points: Vec<RestorePoint>,
    /// Where the last whole record begins: recovery stops at a position only when it meets a record
    /// that begins there or behind it.
    pub last_record: Option<Lsn>,
    /// Where the last valid record ends; the segment's end if it is full.
    pub end_of_valid: Lsn,
    /// How it ends.
    pub tail: Tail,
}

/// How a segment ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// The last record ends with the segment.
    Full,
    /// The last record runs on into the next segment. It is in no summary: only the next segment
    /// makes it valid.
    Continues,
    /// The server switched to the next segment; what follows is padding.
    Switched,
    /// Nothing valid follows the last record: WAL that was not yet written, or damage.
    Open,
}

/// A named point, made by `pg_create_restore_point`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestorePoint {
    /// Where its record ends, which is what the function returned.
    pub lsn: Lsn,
    /// When it was made.
    pub time: Timestamp,
    /// Its name.
    pub name: String,
}

impl SegmentSummary {
    /// Whether the segment was closed by a switch.
    pub fn ends_with_switch(&self) -> bool {
        self.tail == Tail::Switched
    }
}

/// Reads a segment, or the beginning of one, that was identified as `identity`.
pub fn scan(segment: &[u8], identity: &SegmentIdentity) -> SegmentSummary {
    let size = usize::try_from(identity.segment_size.bytes()).unwrap_or(usize::MAX);
    let mut scan = Scan {
        segment: segment.get(..size).unwrap_or(segment),
        identity,
        block: identity.block_size as usize,
        size,
        at: 0,
        previous: None,
        unverified: None,
        parts: Vec::new(),
        summary: SegmentSummary {
            first_commit: None,
            last_commit: None,
            last_end: None,
            commits: 0,
            restore_points: Vec::new(),
            last_record: None,
            end_of_valid: identity.start,
            tail: Tail::Open,
        },
    };
    let tail = scan.run();
    scan.finish(tail)
}

struct Scan<'a> {
    segment: &'a [u8],
    identity: &'a SegmentIdentity,
    block: usize,
    size: usize,
    /// Offset behind the last valid record.
    at: usize,
    /// Where the last record starts.
    previous: Option<Lsn>,
    /// The last record, if its CRC was not looked at.
    unverified: Option<(usize, u32)>,
    /// The pieces of a record that runs over pages.
    parts: Vec<&'a [u8]>,
    summary: SegmentSummary,
}

/// Where a record, or the rest of one, leads.
enum Reach {
    /// It ends at this offset.
    Ends(usize),
    /// It runs on into the next segment.
    Continues,
    /// It was cut off by a crash; the record that replaces it starts on the page at this offset.
    Abandoned(usize),
    /// The pages that it should run over are not there.
    Broken,
}

impl<'a> Scan<'a> {
    fn run(&mut self) -> Tail {
        match self.skip_continuation() {
            Reach::Ends(at) => self.at = at,
            Reach::Continues => return Tail::Continues,
            Reach::Abandoned(at) => self.at = at,
            Reach::Broken => return Tail::Open,
        }
        loop {
            self.at = self.at.next_multiple_of(8);
            if self.at >= self.size {
                return Tail::Full;
            }
            if let Some(tail) = self.step() {
                return tail;
            }
        }
    }

    fn finish(mut self, tail: Tail) -> SegmentSummary {
        if let Some((at, total)) = self.unverified
            && !self.verify(at, total)
        {
            self.at = at;
            self.summary.tail = Tail::Open;
            // The record before it is not known any more; too early is safe.
            self.previous = None;
        } else {
            self.summary.tail = tail;
        }
        let end = match self.summary.tail {
            Tail::Open => self.lsn(self.at),
            Tail::Full | Tail::Continues | Tail::Switched => self.identity.end(),
        };
        self.summary.end_of_valid = end;
        self.summary.last_record = self.previous;
        self.summary
    }

    /// The rest of a record that the segment before began.
    fn skip_continuation(&mut self) -> Reach {
        match self.page(0) {
            None => Reach::Broken,
            Some(first) if first.continues_record() => {
                self.follow(first.length(), first.remaining as usize)
            }
            Some(_) => Reach::Ends(0),
        }
    }

    /// Reads one record; says how the segment ends if there is none.
    fn step(&mut self) -> Option<Tail> {
        let mut at = self.at;
        if at.is_multiple_of(self.block) {
            match self.page(at) {
                Some(header) if !header.continues_record() => at += header.length(),
                _ => return Some(Tail::Open),
            }
        }
        let total = word(self.segment, at).unwrap_or_default();
        if total > LONGEST_RECORD || (total as usize) < RECORD_HEADER {
            return Some(Tail::Open);
        }
        // Most records lie within one page.
        let end = at + total as usize;
        let reach = if end <= at.next_multiple_of(self.block) {
            match self.segment.get(at..end) {
                Some(record) => {
                    self.parts.clear();
                    self.parts.push(record);
                    Reach::Ends(end)
                }
                None => Reach::Broken,
            }
        } else {
            self.follow(at, total as usize)
        };
        match reach {
            Reach::Ends(end) => self.record(at, total, end),
            Reach::Continues => Some(Tail::Continues),
            Reach::Abandoned(page) => {
                self.at = page;
                None
            }
            Reach::Broken => Some(Tail::Open),
        }
    }

    /// Follows `length` bytes of a record from `at` over pages and keeps its pieces.
    fn follow(&mut self, mut at: usize, mut length: usize) -> Reach {
        self.parts.clear();
        loop {
            let page_end = (at / self.block + 1) * self.block;
            let piece = length.min(page_end - at);
            let Some(part) = self.segment.get(at..at + piece) else {
                return Reach::Broken;
            };
            self.parts.push(part);
            length -= piece;
            if length == 0 {
                return Reach::Ends(at + piece);
            }
            if page_end >= self.size {
                return Reach::Continues;
            }
            match self.page(page_end) {
                Some(page) if page.overwrites_record() => return Reach::Abandoned(page_end),
                Some(page) if page.continues_record() && page.remaining as usize == length => {
                    at = page_end + page.length();
                }
                _ => return Reach::Broken,
            }
        }
    }

    /// The header of the page at `at`, if it is this segment's.
    fn page(&self, at: usize) -> Option<PageHeader> {
        let header = PageHeader::parse(self.segment.get(at..)?)?;
        let ours = header.magic == self.identity.release.wal_magic
            && header.address == self.lsn(at)
            && header.timeline >= self.identity.timeline
            // A part of a large segment is scanned as a segment of its own.
            && (at == 0 || header.long.is_none());
        ours.then_some(header)
    }

    /// Takes a whole record, whose pieces are in `parts`.
    fn record(&mut self, at: usize, total: u32, end: usize) -> Option<Tail> {
        let mut buffer = [0; PREFIX];
        let prefix = match self.parts.as_slice() {
            [whole] => whole,
            parts => gather(parts, &mut buffer),
        };
        let previous = long(prefix, 8).map(Lsn);
        if self.previous.is_some() && previous != self.previous {
            return Some(Tail::Open);
        }
        let content = content(prefix);
        if content.is_some() && !self.is_intact() {
            return Some(Tail::Open);
        }
        self.previous = Some(self.lsn(at));
        self.unverified = content.is_none().then_some((at, total));
        self.at = end;
        self.note(content?)
    }

    fn note(&mut self, content: Content) -> Option<Tail> {
        let summary = &mut self.summary;
        match content {
            Content::Switch => return Some(Tail::Switched),
            Content::Commit(time) => {
                summary.commits += 1;
                summary.first_commit = Some(summary.first_commit.map_or(time, |it| it.min(time)));
                summary.last_commit = summary.last_commit.max(Some(time));
                summary.last_end = summary.last_end.max(Some(time));
            }
            Content::Abort(time) => summary.last_end = summary.last_end.max(Some(time)),
            Content::Point { time, name } => {
                let lsn = self.lsn(self.at.next_multiple_of(8));
                self.summary.restore_points.push(RestorePoint { lsn, time, name });
            }
        }
        None
    }

    /// Checks the CRC of a record that was passed before.
    fn verify(&mut self, at: usize, total: u32) -> bool {
        matches!(self.follow(at, total as usize), Reach::Ends(_)) && self.is_intact()
    }

    /// Checks the CRC of the record in `parts`: data first, then the header.
    fn is_intact(&self) -> bool {
        let mut header = [0; RECORD_HEADER];
        let length = gather(&self.parts, &mut header).len();
        let mut skip = RECORD_HEADER;
        let mut crc = 0;
        for part in &self.parts {
            let data = part.get(skip..).unwrap_or_default();
            skip = skip.saturating_sub(part.len());
            crc = crc32c::crc32c_append(crc, data);
        }
        let crc = crc32c::crc32c_append(crc, header.get(..RECORD_CRC).unwrap_or_default());
        length == RECORD_HEADER && word(&header, RECORD_CRC) == Some(crc)
    }

    fn lsn(&self, at: usize) -> Lsn {
        self.identity.start.checked_add(at as u64).unwrap_or(Lsn::MAX)
    }
}

/// Copies as much as fits from the pieces of a record.
fn gather<'b, const N: usize>(parts: &[&[u8]], buffer: &'b mut [u8; N]) -> &'b [u8] {
    let mut length = 0;
    for part in parts {
        for (to, from) in buffer.iter_mut().skip(length).zip(*part) {
            *to = *from;
            length += 1;
        }
        if length == N {
            break;
        }
    }
    buffer.get(..length).unwrap_or_default()
}

/// A record that the summary is about.
pub(super) enum Content {
    Commit(Timestamp),
    Abort(Timestamp),
    Point { time: Timestamp, name: String },
    Switch,
}

/// Numbers that no supported version has changed.
mod resource {
    pub(super) const XLOG: u8 = 0;
    pub(super) const TRANSACTION: u8 = 1;
}

/// What the record says, if it counts here.
pub(super) fn content(prefix: &[u8]) -> Option<Content> {
    let [info, resource] = take(prefix, 16)?;
    match (resource, info & 0x70, info & 0xF0) {
        (resource::XLOG, _, 0x40) => Some(Content::Switch),
        (resource::XLOG, _, 0x70) => {
            let data = main_data(prefix)?;
            let name: [u8; POINT_NAME] = take(data, 8)?;
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            let name = String::from_utf8_lossy(name).into_owned();
            Some(Content::Point { time: time(data)?, name })
        }
        // The top bit says only that more follows the time.
        (resource::TRANSACTION, 0x00 | 0x30, _) => Some(Content::Commit(time(main_data(prefix)?)?)),
        (resource::TRANSACTION, 0x20 | 0x40, _) => Some(Content::Abort(time(main_data(prefix)?)?)),
        _ => None,
    }
}

/// The main data, as far as the prefix holds it. These records refer to no pages, so that the
/// main data follows its own header.
fn main_data(prefix: &[u8]) -> Option<&[u8]> {
    let mut at = RECORD_HEADER;
    loop {
        let id = *prefix.get(at)?;
        at += match id {
            // Short and long header of the main data.
            255 => return prefix.get(at + 2..),
            254 => return prefix.get(at + 5..),
            // Replication origin; transaction above a subtransaction.
            253 => 3,
            252 => 5,
            _ => return None,
        };
    }
}

/// The time at the head of the main data.
fn time(data: &[u8]) -> Option<Timestamp> {
    let microseconds = i64::from_le_bytes(take(data, 0)?);
    EPOCH.checked_add(SignedDuration::from_micros(microseconds)).ok()
}
