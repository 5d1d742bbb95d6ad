//! What a spool holds after its process died: found by content, for nothing else can be believed.
//!
//! A segment with a next one was flushed before the next one was begun. Of the last one only whole
//! records count: page headers, links and checksums tell where they end.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use lifeboat_cluster::wal::{Decoder, PageHeader, SegmentIdentity, Source, identify_segment};
use lifeboat_model::{Lsn, SegmentName, SegmentSize, SystemIdentifier, Timeline};
use lifeboat_telemetry::{Code, Failure, Outcome};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use super::folder::{Folder, failed};

const PIECE: usize = 1 << 20;

/// WAL of one timeline without holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    /// The timeline.
    pub(crate) timeline: Timeline,
    /// Its first byte, the start of a segment.
    pub(crate) start: Lsn,
    /// The byte after its last one.
    pub(crate) end: Lsn,
}

/// What a spool holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// The cluster's segment size, if there is any segment.
    pub(crate) size: Option<SegmentSize>,
    /// Oldest timeline first, in the order of the WAL.
    pub(crate) extents: Vec<Extent>,
}

/// Reads the spool of a cluster. Files in which nothing counts are removed.
pub(crate) fn reopen(folder: &Folder, system: SystemIdentifier) -> Outcome<Held> {
    let mut held = Held::default();
    for timeline in folder.timelines()? {
        let mut names = folder.segments(timeline)?;
        // Only the last one can be without content: it was about to be written.
        while let Some(last) = names.last() {
            forget_memory(&folder.segment(*last));
            if identify(folder, *last, system)?.is_some() {
                break;
            }
            folder.retire(*last)?;
            names.pop();
        }
        for run in runs(&names, folder, system, &mut held.size)? {
            let end = end_of(folder, timeline, &run)?;
            let Some(first) = run.first() else { continue };
            if end > first.start {
                held.extents.push(Extent { timeline, start: first.start, end });
            }
        }
    }
    Ok(held)
}

/// What a failed flush left in memory is not what the disk holds. If this fails, reading will.
fn forget_memory(path: &Path) {
    if let Ok(file) = File::open(path) {
        let _ = file.sync_all();
        let _ = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    }
}

/// Groups segments that follow each other.
fn runs(
    names: &[SegmentName],
    folder: &Folder,
    system: SystemIdentifier,
    size: &mut Option<SegmentSize>,
) -> Outcome<Vec<Vec<SegmentIdentity>>> {
    let mut runs: Vec<Vec<SegmentIdentity>> = Vec::new();
    for name in names {
        let Some(found) = identify(folder, *name, system)? else {
            let message =
                format!("{} does not start like a segment", folder.segment(*name).display());
            return Err(Failure::new(Code::SpoolFailed, message).hint(
                "The disk lost what was flushed. Move the spool away: the server's slot and \
                       the repository have the rest.",
            ));
        };
        size.get_or_insert(found.segment_size);
        match runs.last_mut() {
            Some(run) if run.last().is_some_and(|last| last.end() == found.start) => {
                run.push(found)
            }
            _ => runs.push(vec![found]),
        }
    }
    Ok(runs)
}

/// The first page of a segment; `None` if nothing was ever written there.
fn identify(
    folder: &Folder,
    name: SegmentName,
    system: SystemIdentifier,
) -> Outcome<Option<SegmentIdentity>> {
    let path = folder.segment(name);
    let mut first = [0; 64];
    let file = File::open(&path).map_err(|error| failed("cannot open", &path, error))?;
    let length =
        file.read_at(&mut first, 0).map_err(|error| failed("cannot read", &path, error))?;
    match identify_segment(first.get(..length).unwrap_or_default(), name) {
        Ok(found) if found.system != system => {
            let message = format!("{} is of cluster {}", path.display(), found.system);
            Err(Failure::new(Code::ClusterMismatch, message).hint("Move the spool away."))
        }
        Ok(found) => Ok(Some(found)),
        Err(_) => Ok(None),
    }
}

/// Where the records of a run of segments end.
fn end_of(folder: &Folder, timeline: Timeline, run: &[SegmentIdentity]) -> Outcome<Lsn> {
    let Some(last) = run.last() else { return Ok(Lsn::ZERO) };
    let found = last_record(folder, timeline, run, last.end())?;
    // Segments before the last one are whole, whatever runs on from them.
    Ok(found.end.unwrap_or(last.start).max(last.start).min(last.end()))
}

/// Where the last whole record ends of what was flushed up to `flushed`. PostgreSQL flushes by pages
/// too: what lies behind is the beginning of a record that nobody was told of, and that nobody can
/// replay. Where that cannot be said, all of it counts.
pub(crate) fn whole_records(
    folder: &Folder,
    system: SystemIdentifier,
    size: SegmentSize,
    (timeline, flushed): (Timeline, Lsn),
) -> Outcome<Lsn> {
    let mut names = folder.segments(timeline)?;
    names.retain(|name| name.start(size).is_some_and(|start| start < flushed));
    let runs = runs(&names, folder, system, &mut Some(size))?;
    let Some(run) = runs.last() else { return Ok(flushed) };
    let found = last_record(folder, timeline, run, flushed)?;
    Ok(found.end.filter(|_| found.readable).map_or(flushed, |end| end.min(flushed)))
}

/// What was found by reading records.
struct LastRecord {
    /// Where the last whole one ends, if there is one.
    end: Option<Lsn>,
    /// Whether everything looked like WAL.
    readable: bool,
}

/// Reads the records of a run of segments that reach into its last one, up to a position.
fn last_record(
    folder: &Folder,
    timeline: Timeline,
    run: &[SegmentIdentity],
    until: Lsn,
) -> Outcome<LastRecord> {
    let mut found = LastRecord { end: None, readable: true };
    let Some(last) = run.last() else { return Ok(found) };
    // A record that runs on into the last segment is judged from where it begins.
    let mut first = last;
    for identity in run.iter().rev() {
        first = identity;
        let header = header_of(folder, timeline, identity)?;
        let fits =
            u64::from(header.map_or(0, |header| header.remaining)) < last.segment_size.bytes();
        let begins = header.is_none_or(|header| !header.continues_record());
        if begins || (fits && identity.start != last.start) {
            break;
        }
    }
    let mut decoder = Decoder::new(Source::of(first, timeline), first.start);
    let mut buffer = Vec::new();
    let mut at = first.start;
    while at < until && found.readable {
        buffer.resize(PIECE.min(usize::try_from(until.distance_from(at)).unwrap_or(PIECE)), 0);
        folder.read(timeline, last.segment_size, at, &mut buffer)?;
        // Behind a switch lies padding that may not have come, and that nothing tells from what
        // lay in the file before.
        let decoded = decoder.push(&buffer, |record| {
            found.end = Some(if record.is_switch() { record.lsn } else { record.end });
        });
        found.readable = decoded.is_ok();
        at = Lsn(at.0.saturating_add(buffer.len() as u64));
    }
    Ok(found)
}

fn header_of(
    folder: &Folder,
    timeline: Timeline,
    identity: &SegmentIdentity,
) -> Outcome<Option<PageHeader>> {
    let mut first = [0; 64];
    folder.read(timeline, identity.segment_size, identity.start, &mut first)?;
    Ok(PageHeader::parse(&first))
}
