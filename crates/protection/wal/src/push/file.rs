//! One WAL file on disk: read, and proved to be what its name says.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

use jiff::Timestamp;
use lifeboat_cluster::wal::{
    BackupLabel, CROSSING_BYTES, History, SegmentIdentity, SegmentSummary, Tail, crossing_point,
    identify_segment, scan,
};
use lifeboat_model::{Lsn, SegmentName, SegmentSize, SystemIdentifier, WalFileName};
use lifeboat_repository::keys::StreamKeys;
use lifeboat_repository::object::ObjectType;
use lifeboat_repository::wal_file::{Ancestor, PART_BYTES, RestorePoint, WalFacts};
use lifeboat_telemetry::{Code, Failure, Outcome};

use super::spool::FileIdentity;

/// History and label files are of a few lines.
const SMALL_BYTES_MAX: u64 = 1024 * 1024;

/// The cluster that shall have made a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin {
    pub(crate) system: SystemIdentifier,
    pub(crate) segment_size: SegmentSize,
}

/// A file that may be archived.
pub(crate) struct WalFile {
    pub(crate) name: String,
    pub(crate) identity: FileIdentity,
    /// Keyed digest of the content; of a large segment: of its parts' digests.
    pub(crate) digest: [u8; 32],
    pub(crate) facts: WalFacts,
    pub(crate) body: Body,
}

/// How a file is stored.
pub(crate) enum Body {
    /// As one object of this type.
    Whole { kind: ObjectType, plain: Vec<u8> },
    /// In parts, with the digest of each; they are read again one by one.
    Parts { file: File, digests: Vec<[u8; 32]> },
}

/// Reads the file `name` at `path` and checks it against the cluster that shall have made it.
pub(crate) fn read(
    path: &Path,
    name: WalFileName,
    origin: Origin,
    keys: &StreamKeys,
) -> Outcome<WalFile> {
    let mut file = File::open(path).map_err(|error| unreadable(path, error))?;
    let before = file.metadata().map_err(|error| unreadable(path, error))?;
    let identity = FileIdentity::of(&before);
    let (digest, facts, body) = match name {
        WalFileName::Segment(segment) | WalFileName::Partial(segment) => {
            let found = identify(path, &file, name, segment, origin)?;
            found.check_length(before.len()).map_err(|error| error.at(name))?;
            let end_before = end_before(path, segment, origin.segment_size);
            if before.len() > PART_BYTES as u64 {
                read_parts(path, file, found, keys, end_before)?
            } else {
                let plain = read_all(path, &mut file, before.len())?;
                let mut facts = facts_of(&scan(&plain, &found));
                cross(&mut facts, &end_before, &plain, &found);
                let kind = ObjectType::Segment;
                (keys.content_digest(&plain), facts, Body::Whole { kind, plain })
            }
        }
        WalFileName::History(_) | WalFileName::Backup { .. } => {
            if before.len() > SMALL_BYTES_MAX {
                let message = format!("{name} has {} bytes, which is too many", before.len());
                return Err(Failure::new(Code::WalInvalid, message));
            }
            let plain = read_all(path, &mut file, before.len())?;
            let facts = small_facts(name, &plain)?;
            let kind = ObjectType::History;
            (keys.content_digest(&plain), facts, Body::Whole { kind, plain })
        }
    };
    let after = std::fs::metadata(path).map_err(|error| unreadable(path, error))?;
    if FileIdentity::of(&after) != identity {
        let message = format!("{name} changed while it was read");
        return Err(Failure::new(Code::WalInvalid, message)
            .hint("Nothing may write to a segment that is ready: find out who does."));
    }
    Ok(WalFile { name: name.to_string(), identity, digest, facts, body })
}

/// The end of the segment before, which lies beside this one unless the server has used its file
/// again. A restore point may begin there; nothing else is asked of it.
fn end_before(path: &Path, segment: SegmentName, size: SegmentSize) -> Vec<u8> {
    let mut end = vec![0; CROSSING_BYTES];
    let number = segment.number(size).checked_sub(1);
    let before = number.and_then(|number| SegmentName::new(segment.timeline(), number, size));
    let read = before.map(|before| {
        let file = File::open(path.with_file_name(before.to_string()))?;
        file.read_exact_at(&mut end, size.bytes().saturating_sub(CROSSING_BYTES as u64))
    });
    if !matches!(read, Some(Ok(()))) {
        end.clear();
    }
    end
}

/// Adds a restore point that began in the segment, or the part, before.
fn cross(facts: &mut WalFacts, before: &[u8], content: &[u8], identity: &SegmentIdentity) {
    let point = crossing_point(before, content, identity);
    facts.restore_points.splice(0..0, point.as_ref().map(point_of));
}

/// Compares the first page with the name and with the cluster.
fn identify(
    path: &Path,
    file: &File,
    name: WalFileName,
    segment: SegmentName,
    origin: Origin,
) -> Outcome<SegmentIdentity> {
    let mut first = [0; 64];
    let length = file.read_at(&mut first, 0).map_err(|error| unreadable(path, error))?;
    let found = identify_segment(first.get(..length).unwrap_or_default(), segment)
        .map_err(|error| error.at(name))?;
    check_system(name, found.system, origin.system)?;
    if found.segment_size != origin.segment_size {
        let (is, should) = (found.segment_size.bytes(), origin.segment_size.bytes());
        let message = format!("{name} is of a cluster with segments of {is} bytes, not {should}");
        return Err(Failure::new(Code::WalInvalid, message));
    }
    Ok(found)
}

fn check_system(
    name: WalFileName,
    found: SystemIdentifier,
    expected: SystemIdentifier,
) -> Outcome<()> {
    if found == expected {
        return Ok(());
    }
    let message = format!("{name} was written by cluster {found}, not by {expected}");
    Err(Failure::new(Code::ClusterMismatch, message)
        .hint("Nothing was stored. Find out how another cluster's WAL came here."))
}

fn read_all(path: &Path, file: &mut File, length: u64) -> Outcome<Vec<u8>> {
    let mut plain = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
    let read = file.take(length.saturating_add(1)).read_to_end(&mut plain);
    read.map_err(|error| unreadable(path, error))?;
    if plain.len() as u64 != length {
        return Err(unreadable(path, std::io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(plain)
}

/// A large segment is never whole in memory.
fn read_parts(
    path: &Path,
    file: File,
    identity: SegmentIdentity,
    keys: &StreamKeys,
    mut end_before: Vec<u8>,
) -> Outcome<([u8; 32], WalFacts, Body)> {
    let mut facts = WalFacts::default();
    let mut ended = false;
    let mut digests = Vec::new();
    let mut buffer = Vec::new();
    let parts = identity.segment_size.bytes().div_ceil(PART_BYTES as u64);
    for number in 0..parts {
        read_part(path, &file, number, &mut buffer)?;
        digests.push(keys.content_digest(&buffer));
        let offset = number.saturating_mul(PART_BYTES as u64);
        let (Some(start), Some(segment_size)) =
            (identity.start.checked_add(offset), SegmentSize::new(PART_BYTES as u64))
        else {
            return Err(Failure::new(Code::Internal, "a segment lies outside of the WAL"));
        };
        // To the scan, a part is a segment of its own; behind a valid end there is only padding.
        if !ended {
            let part = SegmentIdentity { start, segment_size, ..identity };
            let summary = scan(&buffer, &part);
            ended = matches!(summary.tail, Tail::Open | Tail::Switched);
            let mut of_part = facts_of(&summary);
            cross(&mut of_part, &end_before, &buffer, &part);
            merge(&mut facts, of_part);
            let end = buffer.len().saturating_sub(CROSSING_BYTES);
            end_before = buffer.get(end..).unwrap_or_default().to_vec();
        }
    }
    let digest = keys.content_digest(&digests.concat());
    Ok((digest, facts, Body::Parts { file, digests }))
}

/// Reads one part of a large segment into `buffer`.
pub(crate) fn read_part(
    path: &Path,
    file: &File,
    number: u64,
    buffer: &mut Vec<u8>,
) -> Outcome<()> {
    buffer.resize(PART_BYTES, 0);
    file.read_exact_at(buffer, number.saturating_mul(PART_BYTES as u64))
        .map_err(|error| unreadable(path, error))
}

fn facts_of(summary: &SegmentSummary) -> WalFacts {
    let micros = |time: Option<Timestamp>| time.map(Timestamp::as_microsecond);
    WalFacts {
        first_commit_us: micros(summary.first_commit),
        last_commit_us: micros(summary.last_commit),
        last_record: summary.last_record,
        restore_points: summary.restore_points.iter().map(point_of).collect(),
        ancestors: Vec::new(),
    }
}

fn point_of(point: &lifeboat_cluster::wal::RestorePoint) -> RestorePoint {
    let (time_us, name) = (point.time.as_microsecond(), point.name.clone());
    RestorePoint { lsn: point.lsn, time_us, name }
}

fn merge(facts: &mut WalFacts, later: WalFacts) {
    facts.first_commit_us =
        [facts.first_commit_us, later.first_commit_us].into_iter().flatten().min();
    facts.last_commit_us = facts.last_commit_us.max(later.last_commit_us);
    facts.last_record = facts.last_record.max(later.last_record);
    facts.restore_points.extend(later.restore_points);
}

fn small_facts(name: WalFileName, plain: &[u8]) -> Outcome<WalFacts> {
    let invalid = |why: &str| {
        Failure::new(Code::WalInvalid, format!("{name} is not what its name says: {why}"))
            .hint("A full disk leaves such files: compare with another server's pg_wal.")
    };
    let mut facts = WalFacts::default();
    match name {
        WalFileName::History(timeline) => {
            let history = History::parse(timeline, plain).map_err(|error| error.at(name))?;
            if history.ancestors.is_empty() {
                return Err(invalid("it names no ancestor"));
            }
            facts.ancestors = history
                .ancestors
                .iter()
                .map(|entry| Ancestor { timeline: entry.timeline, end: entry.switch })
                .collect();
        }
        WalFileName::Backup { segment, .. } => {
            let label = BackupLabel::parse(plain).map_err(|error| error.at(name))?;
            if label.start_segment != segment {
                return Err(invalid("it tells of a backup that starts elsewhere"));
            }
            facts.last_record = label.stop.filter(|stop| *stop != Lsn::ZERO);
        }
        WalFileName::Segment(_) | WalFileName::Partial(_) => {}
    }
    Ok(facts)
}

fn unreadable(path: &Path, error: std::io::Error) -> Failure {
    Failure::new(Code::LocalFile, format!("cannot read {}", path.display())).because(error)
}
