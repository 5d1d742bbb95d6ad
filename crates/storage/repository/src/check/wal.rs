//! Gaps between the WAL objects of a stream. Which backups they hurt is for `wal status` to say,
//! which can open manifests.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use crate::check::{Check, Place, classify};
use crate::ids::StreamId;
use crate::layout;
use crate::wal_file::{self, WAL_HEAD_BYTES};

/// Names every hole between two segments of a timeline behind the first backup, missing parts of large segments, and
/// timelines without their history file.
pub(super) async fn check(check: &mut Check<'_>, stream: StreamId) {
    let mut segments: BTreeMap<String, BTreeSet<(u32, u32)>> = BTreeMap::new();
    let mut histories = BTreeSet::new();
    let mut parts: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
    let files: Vec<String> = check
        .present
        .keys()
        .filter_map(|key| match classify(key) {
            Some(Place::Wal(of, file)) if of == stream => Some(file),
            _ => None,
        })
        .collect();
    for file in &files {
        if let Some((name, part)) = file.split_once(".part-") {
            let number = u32::from_str_radix(part, 16).unwrap_or(u32::MAX);
            parts.entry(name.to_owned()).or_default().insert(number);
        } else if let Some(timeline) = file.strip_suffix(".history") {
            histories.insert(timeline.to_owned());
        } else if let Some(position) = position(file) {
            segments.entry(file[..8].to_owned()).or_default().insert(position);
        }
    }
    let whole = files.iter().find(|file| position(file).is_some() && !parts.contains_key(*file));
    let per_log = match whole {
        Some(file) => segments_per_log(check, stream, file).await,
        None => None,
    };
    // Segments that are stored in parts are above 32 MiB; 64 MiB is what people choose.
    let per_log = per_log.unwrap_or(64);
    for (timeline, found) in &segments {
        if timeline != "00000001" && !histories.contains(timeline) {
            missing(check, stream, &format!("{timeline}.history"), "the history file is missing");
        }
        if let Some(promised) = promised_from(check, stream, timeline) {
            let behind = found.range(promised..).copied().collect();
            name_gaps(check, stream, timeline, &behind, per_log);
        }
    }
    needed_by_backups(check, stream, &segments, per_log);
    for (name, found) in parts {
        let expected: BTreeSet<u32> = (0..=found.last().copied().unwrap_or(0)).collect();
        if found != expected {
            missing(check, stream, &name, "a part of the segment is missing");
        }
    }
}

fn position(file: &str) -> Option<(u32, u32)> {
    if file.len() != 24 {
        return None;
    }
    let log = u32::from_str_radix(&file[8..16], 16).ok()?;
    Some((log, u32::from_str_radix(&file[16..], 16).ok()?))
}

/// Segments in one "log" of 4 GiB, from the size of a stored segment; needs no key.
async fn segments_per_log(check: &Check<'_>, stream: StreamId, file: &str) -> Option<u64> {
    let key = layout::wal(stream, file).ok()?;
    let length = check.present.get(&key)?.size.min(WAL_HEAD_BYTES);
    let head = check.repository.store().get_range(&key, 0..length).await.ok()?;
    let size = wal_file::plain_bytes(&head).filter(|size| size.is_power_of_two())?;
    Some((1 << 32) / size)
}

/// Where the first backup begins on a timeline. Before it nothing was promised: archiving may have
/// begun in the middle. A backup on an older timeline may lead here, which only keys can tell.
fn promised_from(check: &Check<'_>, stream: StreamId, timeline: &str) -> Option<(u32, u32)> {
    let of_stream = check.needed_wal.iter().filter(|needed| needed.stream == stream);
    let firsts = of_stream.filter_map(|needed| {
        let own = needed.first.get(..8)?;
        match own.cmp(timeline) {
            Ordering::Less => Some((0, 0)),
            Ordering::Equal => position(&needed.first),
            Ordering::Greater => None,
        }
    });
    firsts.min()
}

fn name_gaps(
    check: &mut Check<'_>,
    stream: StreamId,
    timeline: &str,
    found: &BTreeSet<(u32, u32)>,
    per_log: u64,
) {
    let number = |(log, low): (u32, u32)| u64::from(log) * per_log + u64::from(low);
    let mut previous: Option<(u32, u32)> = None;
    for position in found {
        if let Some(before) = previous {
            let distance = number(*position) - number(before);
            if distance > 1 {
                let next = if u64::from(before.1) + 1 >= per_log {
                    (before.0 + 1, 0)
                } else {
                    (before.0, before.1 + 1)
                };
                let name = format!("{timeline}{:08X}{:08X}", next.0, next.1);
                let count = distance - 1;
                missing(check, stream, &name, &format!("a gap of {count} segments begins here"));
            }
        }
        previous = Some(*position);
    }
}

/// Names every segment between start and stop of a backup that is not there.
fn needed_by_backups(
    check: &mut Check<'_>,
    stream: StreamId,
    segments: &BTreeMap<String, BTreeSet<(u32, u32)>>,
    per_log: u64,
) {
    let mut lost: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for needed in check.needed_wal.iter().filter(|needed| needed.stream == stream) {
        let (Some(first), Some(last)) = (position(&needed.first), position(&needed.last)) else {
            continue;
        };
        let timeline = &needed.first[..8];
        let found = segments.get(timeline);
        let mut next = first;
        while next <= last {
            if !found.is_some_and(|found| found.contains(&next)) {
                let name = format!("{timeline}{:08X}{:08X}", next.0, next.1);
                lost.entry(name).or_default().insert(needed.backup.clone());
            }
            next = match u64::from(next.1) + 1 >= per_log {
                true => (next.0 + 1, 0),
                false => (next.0, next.1 + 1),
            };
        }
    }
    for (name, backups) in lost {
        if let Ok(key) = layout::wal(stream, &name) {
            check.needed.entry(key.clone()).or_default().extend(backups);
            check.note(&key, "the segment is missing");
        }
    }
}

fn missing(check: &mut Check<'_>, stream: StreamId, file: &str, what: &str) {
    if let Ok(key) = layout::wal(stream, file) {
        check.note(&key, what);
    }
}
