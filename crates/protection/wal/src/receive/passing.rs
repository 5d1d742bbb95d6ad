//! Change map and time index of each whole segment, noted while it passes.
//!
//! A span begins where the one before ended, which lies in the segment before: its file is still in
//! the spool. Where it is not, where a timeline begins, or where a record cannot be understood,
//! there is a gap between two spans, which readers see; the WAL itself is shipped all the same.

use lifeboat_model::{Lsn, SegmentName, SegmentSize, SystemIdentifier, Timeline};
use lifeboat_objects::Blocking;
use lifeboat_repository::changes::{
    Changes, ChangesName, decode_changes, encode_changes, list_changes,
};
use lifeboat_repository::layout;
use lifeboat_repository::repository::Repository;
use lifeboat_telemetry::{Code, Failure, Outcome};

use super::ReceiveRequest;
use super::facts::source;
use super::folder::Folder;
use crate::changes::{ChangeMap, Collector};

const PIECE: u64 = 1 << 20;

/// Notes what passes.
#[derive(Default)]
pub(crate) struct Passing {
    collector: Option<Collecting>,
    /// Noted and not stored yet: a store may take more than one attempt.
    pending: Option<(SegmentName, Changes)>,
    /// Where the last span ended, once that was looked up.
    last: Option<Ended>,
}

struct Collecting {
    collector: Collector,
    timeline: Timeline,
    /// The position that its next byte must have.
    next: Lsn,
}

#[derive(Clone, Copy)]
struct Ended {
    timeline: Timeline,
    at: Lsn,
}

impl Passing {
    /// Stores what a whole segment of the spool changed.
    pub(crate) fn store(
        &mut self,
        request: &ReceiveRequest<'_>,
        folder: &Folder,
        repository: &Repository,
        name: ChangesName,
        size: SegmentSize,
    ) -> Outcome<()> {
        if self.last.is_none() {
            self.last = last_stored(request, repository, name.segment.timeline())?;
        }
        let known = self.pending.take().filter(|(segment, _)| *segment == name.segment);
        let changes = match known {
            Some((_, changes)) => changes,
            None => match self.collect(request, folder, name.segment, size) {
                Ok(changes) => changes,
                Err(failure) => {
                    self.collector = None;
                    request.reporter.warn(format!(
                        "what {} changed is not noted, the next incremental backup reads more: \
                         {failure}",
                        name.segment
                    ));
                    return Ok(());
                }
            },
        };
        let keys = &request.stream.keys;
        let (key, bytes) = encode_changes(keys, request.environment, &name, &changes)?;
        let stored = request.blocking.run(repository.store().create_seen(&key, bytes));
        if stored.is_err() {
            self.pending = Some((name.segment, changes));
        }
        stored.map(drop)
    }

    fn collect(
        &mut self,
        request: &ReceiveRequest<'_>,
        folder: &Folder,
        segment: SegmentName,
        size: SegmentSize,
    ) -> Outcome<Changes> {
        let start = segment.start(size).unwrap_or_default();
        let timeline = segment.timeline();
        let goes_on = |one: &Collecting| one.timeline == timeline && one.next == start;
        let mut collecting = match self.collector.take().filter(goes_on) {
            Some(collecting) => collecting,
            None => {
                let system = SystemIdentifier(request.stream.system_identifier);
                begin(folder, system, segment, size, self.last)?
            }
        };
        feed(&mut collecting, folder, timeline, size)?;
        let (map, times) = collecting.collector.cut();
        self.last = Some(Ended { timeline, at: map.span().to });
        self.collector = Some(collecting);
        Ok(Changes { map: map.encode(), times: times.encode() })
    }
}

/// Begins where the last span ended, if the spool still reaches back to it.
fn begin(
    folder: &Folder,
    system: SystemIdentifier,
    segment: SegmentName,
    size: SegmentSize,
    last: Option<Ended>,
) -> Outcome<Collecting> {
    let source = source(folder, system, segment)?;
    let timeline = segment.timeline();
    let start = segment.start(size).unwrap_or_default();
    let before = last.filter(|last| {
        let file = SegmentName::from_lsn(timeline, last.at, size);
        last.timeline == timeline
            && file.next(size) == Some(segment)
            && folder.segment(file).exists()
    });
    let Some(last) = before else {
        let collector = Collector::new(source, start, start);
        return Ok(Collecting { collector, timeline, next: start });
    };
    let next = Lsn(last.at.0 - size.offset_of(last.at));
    let collector = Collector::new(source, next, last.at);
    let mut collecting = Collecting { collector, timeline, next };
    feed(&mut collecting, folder, timeline, size)?;
    Ok(collecting)
}

/// Takes the rest of the segment of this timeline that begins at the next position.
fn feed(
    collecting: &mut Collecting,
    folder: &Folder,
    timeline: Timeline,
    size: SegmentSize,
) -> Outcome<()> {
    let end = Lsn(collecting.next.0.saturating_add(size.bytes()));
    let mut buffer = Vec::new();
    while collecting.next < end {
        let length = end.distance_from(collecting.next).min(PIECE);
        buffer.resize(usize::try_from(length).unwrap_or_default(), 0);
        folder.read(timeline, size, collecting.next, &mut buffer)?;
        collecting.collector.push(&buffer).map_err(|error| {
            Failure::new(Code::WalInvalid, "a record cannot be understood").because(error)
        })?;
        collecting.next = Lsn(collecting.next.0.saturating_add(length));
    }
    Ok(())
}

/// Where the newest span of a timeline in the repository ends. One that cannot be read only makes
/// a gap.
fn last_stored(
    request: &ReceiveRequest<'_>,
    repository: &Repository,
    timeline: Timeline,
) -> Outcome<Option<Ended>> {
    let keys = &request.stream.keys;
    let blocking: &Blocking = request.blocking;
    let names = blocking.run(list_changes(repository.store(), keys.stream(), timeline))?;
    let Some(newest) = names.last() else { return Ok(None) };
    let bytes = blocking.run(repository.store().get(&layout::changes(keys.stream(), newest)?))?;
    let read = decode_changes(keys, newest, &bytes).and_then(|found| ChangeMap::decode(&found.map));
    Ok(read.ok().map(|map| Ended { timeline, at: map.span().to }))
}
