//! What the WAL of real servers says changed, and what did.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use lifeboat_cluster::ControlFile;
use lifeboat_cluster::control::read;
use lifeboat_cluster::wal::{Decoder, Record, RelationFile, Source};
use lifeboat_environment::Environment;
use lifeboat_model::{Lsn, SegmentName, Timeline};
use lifeboat_wal::changes::{ChangeMap, Collector};

mod losses;
mod times;
mod truth;

const TIMELINE: Timeline = Timeline::FIRST;

/// The segments of a data directory, in order.
fn segments(data: &Path) -> Vec<(SegmentName, Vec<u8>)> {
    let mut found: Vec<_> = fs::read_dir(data.join("pg_wal"))
        .unwrap()
        .filter_map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().to_str()?.parse::<SegmentName>().ok()?;
            Some((name, fs::read(entry.path()).unwrap()))
        })
        .collect();
    found.sort_by_key(|(name, _)| *name);
    found
}

fn control(data: &Path) -> ControlFile {
    read(data, &Environment::system()).unwrap()
}

/// What WAL of a stopped cluster must agree with.
fn source(data: &Path) -> Source {
    let control = control(data);
    Source {
        release: control.release,
        system: control.system,
        segment_size: control.wal_segment_size,
        block_size: control.wal_block_size,
        timeline: control.timeline,
    }
}

/// The WAL from the segment of `from` on, and where it starts.
fn wal(data: &Path, from: Lsn) -> (Lsn, Vec<Vec<u8>>) {
    let size = control(data).wal_segment_size;
    let mut segments = segments(data);
    segments.retain(|(name, _)| name.number(size) >= size.number_of(from));
    let start = segments[0].0.start(size).unwrap();
    assert!(start <= from, "{from} is not in the WAL any more");
    (start, segments.into_iter().map(|(_, content)| content).collect())
}

/// Gives out the records of a stopped cluster that start at `from` or later and before `to`.
fn records(data: &Path, from: Lsn, to: Lsn, mut each: impl FnMut(&Record<'_>)) {
    let (start, segments) = wal(data, from);
    let mut decoder = Decoder::new(source(data), start);
    for piece in segments.iter().flat_map(|content| content.chunks(100_003)) {
        if decoder.decoded() >= to {
            return;
        }
        let pushed = decoder.push(piece, |record| {
            if record.lsn >= from && record.lsn < to {
                each(record);
            }
        });
        if let Err(error) = pushed {
            assert!(error.at >= to, "{error}");
            return;
        }
    }
}

/// The map of a span of a stopped cluster, merged from those of shorter spans, as a receiver cuts
/// them.
fn map(data: &Path, from: Lsn, to: Lsn) -> ChangeMap {
    let (start, segments) = wal(data, from);
    let mut collector = Collector::new(source(data), start, from);
    let mut maps = Vec::new();
    let bytes: Vec<u8> = segments.concat();
    let end = usize::try_from(to.distance_from(start)).unwrap();
    for piece in bytes[..end].chunks(777_777) {
        collector.push(piece).unwrap();
        maps.push(collector.cut().0);
    }
    let mut map = maps.into_iter().reduce(|one, next| one.merge(next).unwrap()).unwrap();
    // A page header may lie between the end of the last record and the next one.
    map.finish(to, TIMELINE);
    map
}
