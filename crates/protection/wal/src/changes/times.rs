//! The time index of a span: when transactions ended, thinly sampled.
//!
//! Ends of transactions stand in the WAL nearly, not exactly, by time: each takes its time before
//! it takes its place. PostgreSQL recovers to a time by stopping at the first end of a transaction
//! that is later. The index tells in which bucket that one lies, and so between which positions;
//! decoding that bucket with a [`Seeker`] tells exactly.

use jiff::{SignedDuration, Timestamp};
use lifeboat_cluster::wal::{Fact, Record};
use lifeboat_model::{Lsn, Timeline};

use super::losses::{Loss, LossScan};
use super::{NotAdjacent, Span};

/// A bucket is at least so long, in WAL and in time: whichever makes fewer.
const BUCKET_BYTES: u64 = 64 << 10;
const BUCKET_TIME: SignedDuration = SignedDuration::from_secs(1);
/// Buckets that an index keeps. Then two and two become one.
pub(super) const MAX_BUCKETS: usize = 1 << 18;
/// Restore points that an index keeps, the first ones.
pub(super) const MAX_POINTS: usize = 1 << 16;
/// Losses that an index keeps, the first ones; the rest is counted.
pub(super) const MAX_LOSSES: usize = 1 << 16;
/// Fewer rows deleted at once are everyday life.
const FEWEST_ROWS: u64 = 100;

/// When transactions ended within a span, restore points, and losses.
#[derive(Debug)]
pub struct TimeIndex {
    pub(super) span: Span,
    pub(super) buckets: Vec<Bucket>,
    pub(super) points: Vec<NamedPoint>,
    pub(super) losses: Vec<Loss>,
    /// Losses that found no room.
    pub(super) more_losses: u64,
    scan: LossScan,
}

/// Consecutive ends of transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bucket {
    /// The start of the first one's record.
    pub(super) start: Lsn,
    /// The end of the last one's record.
    pub(super) end: Lsn,
    /// The earliest time.
    pub(super) earliest: Timestamp,
    /// The latest time.
    pub(super) latest: Timestamp,
    /// How many.
    pub(super) ends: u64,
}

/// A restore point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedPoint {
    /// Where its record ends, which is what `pg_create_restore_point` returned.
    pub lsn: Lsn,
    /// When it was made.
    pub time: Timestamp,
    /// Its name.
    pub name: String,
}

/// Where a recovery to a moment ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Transactions that ended later lie in the span. The first of them lies in this stretch;
    /// all that ended before the stretch is kept.
    Within {
        /// The start of the stretch.
        from: Lsn,
        /// Its end.
        to: Lsn,
    },
    /// Nothing in the span ended later; all of it is kept.
    Behind,
}

impl TimeIndex {
    /// An empty index that starts at `from`.
    pub fn starting(from: Lsn, timeline: Timeline) -> Self {
        Self::of(Span::empty(from, timeline))
    }

    pub(super) fn of(span: Span) -> Self {
        Self {
            span,
            buckets: Vec::new(),
            points: Vec::new(),
            losses: Vec::new(),
            more_losses: 0,
            scan: LossScan::new(FEWEST_ROWS),
        }
    }

    /// What it covers.
    pub fn span(&self) -> Span {
        self.span
    }

    /// Restore points, in order.
    pub fn restore_points(&self) -> &[NamedPoint] {
        &self.points
    }

    /// Where data was lost, in order. Of transactions that began before the first span of a
    /// collector only a part is known.
    pub fn losses(&self) -> &[Loss] {
        &self.losses
    }

    /// How many losses there were besides.
    pub fn more_losses(&self) -> u64 {
        self.more_losses
    }

    /// How many transactions ended.
    pub fn ends(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.ends).sum()
    }

    /// The earliest and the latest end of a transaction.
    pub fn times(&self) -> Option<(Timestamp, Timestamp)> {
        let earliest = self.buckets.iter().map(|bucket| bucket.earliest).min()?;
        Some((earliest, self.buckets.iter().map(|bucket| bucket.latest).max()?))
    }

    /// Takes in the next record. One before the span is left out.
    pub fn note(&mut self, record: &Record<'_>) {
        if !self.span.reach(record.lsn, record.end) {
            return;
        }
        match &record.fact {
            Some(Fact::End(end)) => self.note_end(record.lsn, record.end, end.time),
            Some(Fact::RestorePoint { time, name }) if self.points.len() < MAX_POINTS => {
                let (lsn, time, name) = (record.end, *time, name.clone());
                self.points.push(NamedPoint { lsn, time, name });
            }
            _ => {}
        }
        let (losses, more) = (&mut self.losses, &mut self.more_losses);
        self.scan.note(record, |loss| {
            if losses.len() < MAX_LOSSES {
                losses.push(loss);
            } else {
                *more = more.saturating_add(1);
            }
        });
    }

    pub(super) fn note_end(&mut self, lsn: Lsn, end: Lsn, time: Timestamp) {
        if let Some(bucket) = self.buckets.last_mut()
            && (lsn.distance_from(bucket.start) < BUCKET_BYTES
                || time.duration_since(bucket.earliest) < BUCKET_TIME)
        {
            bucket.end = end;
            bucket.earliest = bucket.earliest.min(time);
            bucket.latest = bucket.latest.max(time);
            bucket.ends += 1;
            return;
        }
        if self.buckets.len() >= MAX_BUCKETS {
            self.halve();
        }
        let bucket = Bucket { start: lsn, end, earliest: time, latest: time, ends: 1 };
        self.buckets.push(bucket);
    }

    /// Ends the span: all records before `to` were taken in.
    pub fn finish(&mut self, to: Lsn, timeline: Timeline) {
        self.span.to = self.span.to.max(to);
        self.span.timeline = timeline;
    }

    /// The index of the span that follows, which knows of transactions at work.
    pub(super) fn next(&mut self, from: Lsn, timeline: Timeline) -> Self {
        let scan = std::mem::replace(&mut self.scan, LossScan::new(FEWEST_ROWS));
        Self { scan, ..Self::starting(from, timeline) }
    }

    /// This index and that of the span that follows.
    pub fn merge(mut self, later: Self) -> Result<Self, NotAdjacent> {
        self.span = self.span.and(later.span)?;
        self.buckets.extend(later.buckets);
        while self.buckets.len() > MAX_BUCKETS {
            self.halve();
        }
        self.points.extend(later.points);
        self.points.truncate(MAX_POINTS);
        self.losses.extend(later.losses);
        let over = self.losses.len().saturating_sub(MAX_LOSSES) as u64;
        self.losses.truncate(MAX_LOSSES);
        self.more_losses = self.more_losses.saturating_add(later.more_losses).saturating_add(over);
        self.scan = later.scan;
        Ok(self)
    }

    /// Where a recovery to `time` ends: before the first transaction that ended later.
    pub fn locate(&self, time: Timestamp) -> Moment {
        // The first bucket with a later end holds the first later end.
        let bucket = self.buckets.iter().find(|bucket| bucket.latest > time);
        match bucket {
            Some(bucket) => Moment::Within { from: bucket.start, to: bucket.end },
            None => Moment::Behind,
        }
    }

    /// Two and two buckets become one.
    fn halve(&mut self) {
        let pairs = self.buckets.chunks(2).filter_map(|pair| {
            let (first, last) = (pair.first()?, pair.last()?);
            Some(Bucket {
                start: first.start,
                end: last.end,
                earliest: first.earliest.min(last.earliest),
                latest: first.latest.max(last.latest),
                ends: pair.iter().map(|bucket| bucket.ends).sum(),
            })
        });
        self.buckets = pairs.collect();
    }
}

impl PartialEq for TimeIndex {
    /// What is stored, and not what the scan has in mind.
    fn eq(&self, other: &Self) -> bool {
        (self.span, &self.buckets, &self.points, &self.losses, self.more_losses)
            == (other.span, &other.buckets, &other.points, &other.losses, other.more_losses)
    }
}

/// Finds in a stretch of WAL where exactly a recovery to a moment ends.
#[derive(Debug)]
pub struct Seeker {
    time: Timestamp,
    last: Option<Lsn>,
    stop: Option<Lsn>,
}

impl Seeker {
    /// Looks for `time`.
    pub fn new(time: Timestamp) -> Self {
        Self { time, last: None, stop: None }
    }

    /// Takes in the next record.
    pub fn note(&mut self, record: &Record<'_>) {
        if let (None, Some(Fact::End(end))) = (self.stop, &record.fact) {
            if end.time > self.time {
                self.stop = Some(record.lsn);
            } else {
                self.last = Some(record.end);
            }
        }
    }

    /// The end of the last transaction that is kept, if any was seen.
    pub fn last(&self) -> Option<Lsn> {
        self.last
    }

    /// The start of the record that a recovery does not replay any more, once it was seen.
    pub fn stop(&self) -> Option<Lsn> {
        self.stop
    }
}
