//! Gaps in the WAL of a stream, whether it lies there as segments or as fragments. Which backups
//! they hurt is for `wal status` to say, which can open manifests.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use lifeboat_model::{Lsn, SegmentName, SegmentSize, Timeline, WalFileName};
use lifeboat_telemetry::Code;

use crate::check::{Check, Place, classify};
use crate::fragment::FragmentName;
use crate::ids::StreamId;
use crate::layout;
use crate::receiver::Receiver;
use crate::spans::Spans;
use crate::wal_file::{self, PART_BYTES, WAL_HEAD_BYTES};

/// What a stream has of WAL, by name.
#[derive(Default)]
struct Found {
    segments: BTreeSet<SegmentName>,
    fragments: BTreeSet<FragmentName>,
    histories: BTreeSet<Timeline>,
    parts: BTreeMap<String, BTreeSet<u32>>,
    receivers: BTreeSet<u32>,
}

/// Names every hole in a timeline behind the first backup, missing parts of large segments,
/// timelines without their history file, and fragments of unknown receivers.
pub(super) async fn check(check: &mut Check<'_>, stream: StreamId) {
    let found = Found::of(check, stream);
    let size = segment_size(check, stream, &found).await;
    let covered = found.covered(size);
    for (timeline, spans) in &covered {
        if *timeline != Timeline::FIRST && !found.histories.contains(timeline) {
            let history = WalFileName::History(*timeline).to_string();
            missing(check, stream, &history, "the history file is missing");
        }
        if let Some(promised) = promised_from(check, stream, *timeline, size) {
            name_gaps(check, stream, *timeline, spans, promised, size);
        }
    }
    needed_by_backups(check, stream, &covered, size);
    for (name, found) in &found.parts {
        let expected: BTreeSet<u32> = (0..=found.last().copied().unwrap_or(0)).collect();
        if *found != expected {
            missing(check, stream, name, "a part of the segment is missing");
        }
    }
    check_receivers(check, stream, &found).await;
}

impl Found {
    fn of(check: &Check<'_>, stream: StreamId) -> Self {
        let mut found = Self::default();
        for place in check.present.keys().filter_map(classify) {
            match place {
                Place::Wal(of, file) if of == stream => found.add(&file),
                Place::Fragment(of, name) if of == stream => drop(found.fragments.insert(name)),
                Place::Receiver(of, epoch) if of == stream => drop(found.receivers.insert(epoch)),
                _ => {}
            }
        }
        found
    }

    fn add(&mut self, file: &str) {
        if let Some((name, part)) = file.split_once(".part-") {
            let number = u32::from_str_radix(part, 16).unwrap_or(u32::MAX);
            self.parts.entry(name.to_owned()).or_default().insert(number);
            return;
        }
        match file.parse() {
            Ok(WalFileName::Segment(name)) => drop(self.segments.insert(name)),
            Ok(WalFileName::History(timeline)) => drop(self.histories.insert(timeline)),
            _ => {}
        }
    }

    /// Which positions of each timeline are there.
    fn covered(&self, size: SegmentSize) -> BTreeMap<Timeline, Spans> {
        let mut covered: BTreeMap<Timeline, Spans> = BTreeMap::new();
        for name in &self.segments {
            if let Some((start, end)) = span(*name, size) {
                covered.entry(name.timeline()).or_default().insert(start, end);
            }
        }
        for name in &self.fragments {
            covered.entry(name.timeline).or_default().insert(name.start, name.end);
        }
        covered
    }
}

fn span(name: SegmentName, size: SegmentSize) -> Option<(Lsn, Lsn)> {
    let start = name.start(size)?;
    Some((start, Lsn(start.0.saturating_add(size.bytes()))))
}

/// From a stored segment; needs no key.
async fn segment_size(check: &Check<'_>, stream: StreamId, found: &Found) -> SegmentSize {
    let whole = found.segments.iter().find(|name| !found.parts.contains_key(&name.to_string()));
    let read = match whole {
        Some(name) => read_segment_size(check, stream, *name).await,
        None => None,
    };
    // Segments that are stored in parts are above 32 MiB; 64 MiB is what people choose.
    let likely = SegmentSize::new(2 * PART_BYTES as u64).filter(|_| !found.parts.is_empty());
    read.or(likely).unwrap_or(SegmentSize::DEFAULT)
}

async fn read_segment_size(
    check: &Check<'_>,
    stream: StreamId,
    name: SegmentName,
) -> Option<SegmentSize> {
    let key = layout::wal(stream, &name.to_string()).ok()?;
    let length = check.present.get(&key)?.size.min(WAL_HEAD_BYTES);
    let head = check.repository.store().get_range(&key, 0..length).await.ok()?;
    SegmentSize::new(wal_file::plain_bytes(&head)?)
}

/// Where the first backup begins on a timeline. Before it nothing was promised: archiving may have
/// begun in the middle. A backup on an older timeline may lead here, which only keys can tell.
fn promised_from(
    check: &Check<'_>,
    stream: StreamId,
    timeline: Timeline,
    size: SegmentSize,
) -> Option<Lsn> {
    let of_stream = check.needed_wal.iter().filter(|needed| needed.stream == stream);
    let firsts = of_stream.filter_map(|needed| {
        let first: SegmentName = needed.first.parse().ok()?;
        match first.timeline().cmp(&timeline) {
            Ordering::Less => Some(Lsn::ZERO),
            Ordering::Equal => first.start(size),
            Ordering::Greater => None,
        }
    });
    firsts.min()
}

fn name_gaps(
    check: &mut Check<'_>,
    stream: StreamId,
    timeline: Timeline,
    spans: &Spans,
    promised: Lsn,
    size: SegmentSize,
) {
    // What is missing in front of all is for `needed_by_backups` to name.
    let Some((first, _)) = spans.iter().find(|(_, end)| *end > promised) else {
        return;
    };
    for (from, to) in spans.holes_from(first) {
        let whole = size.offset_of(from) == 0 && size.offset_of(to) == 0;
        let what = if whole {
            let count = size.number_of(to) - size.number_of(from);
            format!("a gap of {count} segments begins here")
        } else {
            format!("a gap of {} bytes begins at {from}", to.distance_from(from))
        };
        let name = SegmentName::from_lsn(timeline, from, size);
        missing(check, stream, &name.to_string(), &what);
    }
}

/// Names every segment between start and stop of a backup that is not there.
fn needed_by_backups(
    check: &mut Check<'_>,
    stream: StreamId,
    covered: &BTreeMap<Timeline, Spans>,
    size: SegmentSize,
) {
    let nothing = Spans::default();
    let mut lost: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for needed in check.needed_wal.iter().filter(|needed| needed.stream == stream) {
        let (Ok(first), Ok(last)) =
            (needed.first.parse::<SegmentName>(), needed.last.parse::<SegmentName>())
        else {
            continue;
        };
        let spans = covered.get(&first.timeline()).unwrap_or(&nothing);
        for number in first.number(size)..=last.number(size) {
            let Some(name) = SegmentName::new(first.timeline(), number, size) else {
                continue;
            };
            let Some((start, end)) = span(name, size) else { continue };
            // Of the last one a backup needs the beginning; how much, only its description says.
            let there = match name == last {
                true => spans.end_from(start) > start,
                false => spans.covers(start, end),
            };
            if !there {
                lost.entry(name.to_string()).or_default().insert(needed.backup.clone());
            }
        }
    }
    for (name, backups) in lost {
        if let Ok(key) = layout::wal(stream, &name) {
            check.needed.entry(key.clone()).or_default().extend(backups);
            check.note(&key, "the segment is missing");
        }
    }
}

/// Every run of a receiver holds, and every fragment is of one that is there.
async fn check_receivers(check: &mut Check<'_>, stream: StreamId, found: &Found) {
    let shipped: BTreeSet<u32> = found.fragments.iter().map(|name| name.epoch).collect();
    // A damaged certificate is named by check_keys.
    let writers = check.repository.certified_writers().await.ok();
    for epoch in shipped.union(&found.receivers) {
        let Ok(key) = layout::receiver(stream, *epoch) else { continue };
        let read = check.repository.store().get(&key).await;
        match read.and_then(|bytes| Receiver::decode(stream, *epoch, &bytes)) {
            Err(failure) if failure.code() == Code::ObjectMissing => {
                check.note(&key, "the receiver is missing; fragments name it");
            }
            Err(failure) => check.note(&key, failure.to_string()),
            Ok(receiver) if writers.as_ref().is_some_and(|all| !all.contains(&receiver.signer)) => {
                check.note(&key, "it is signed by a writer that was never certified");
            }
            Ok(_) => {}
        }
    }
}

fn missing(check: &mut Check<'_>, stream: StreamId, file: &str, what: &str) {
    if let Ok(key) = layout::wal(stream, file) {
        check.note(&key, what);
    }
}
