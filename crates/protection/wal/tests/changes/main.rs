//! What the WAL of real servers says changed, and what did.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use lifeboat_cluster::ControlFile;
use lifeboat_cluster::control::read;
use lifeboat_cluster::wal::{Decoder, Record, RelationFile, Source};
use lifeboat_environment::Environment;
use lifeboat_model::{Lsn, SegmentName, Timeline};
use lifeboat_wal::changes::ChangeMap;

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

/// Gives out the records of a stopped cluster that start at `from` or later and before `to`.
fn records(data: &Path, from: Lsn, to: Lsn, mut each: impl FnMut(&Record<'_>)) {
    let control = control(data);
    let source = Source {
        release: control.release,
        system: control.system,
        segment_size: control.wal_segment_size,
        block_size: control.wal_block_size,
        timeline: control.timeline,
    };
    let first = source.segment_size.number_of(from);
    let mut segments = segments(data);
    segments.retain(|(name, _)| name.number(source.segment_size) >= first);
    let start = segments[0].0.start(source.segment_size).unwrap();
    assert!(start <= from, "{from} is not in the WAL any more");
    let mut decoder = Decoder::new(source, start);
    for (_, content) in segments {
        for piece in content.chunks(100_003) {
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
}

/// The map of a span of a stopped cluster.
fn map(data: &Path, from: Lsn, to: Lsn) -> ChangeMap {
    let mut map = ChangeMap::starting(from, TIMELINE);
    records(data, from, to, |record| map.note(record));
    map.finish(to, TIMELINE);
    map
}
