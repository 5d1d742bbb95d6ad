//! Where to go on: what the repository and the spool hold, and how the server's history leads on
//! from there.

use std::collections::BTreeMap;

use lifeboat_cluster::wal::History;
use lifeboat_model::{Lsn, SegmentName, SegmentSize, Timeline};
use lifeboat_objects::Key;
use lifeboat_repository::fragment::FragmentName;
use lifeboat_repository::ids::StreamId;
use lifeboat_repository::layout;
use lifeboat_repository::repository::Repository;
use lifeboat_repository::spans::Spans;
use lifeboat_telemetry::{Code, Failure, Outcome};

use super::reopen::Extent;

/// A position of the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) timeline: Timeline,
    pub(crate) lsn: Lsn,
}

/// What a repository holds from some segment on.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    segments: Vec<SegmentName>,
    fragments: Vec<FragmentName>,
}

impl Stored {
    /// Lists what matters: all from a position on, or enough to know the end.
    pub(crate) async fn read(
        repository: &Repository,
        stream: StreamId,
        size: SegmentSize,
        from: Option<Position>,
    ) -> Outcome<Self> {
        let root = format!("{}wal/", layout::stream(stream));
        let before = from.map(|from| {
            let name = SegmentName::from_lsn(from.timeline, from.lsn, size).to_string();
            // A part of a name sorts before it.
            let part = name.get(..name.len() - 1).unwrap_or_default();
            Key::new(format!("{root}{:08X}/{part}", from.timeline.0))
        });
        let names = list(repository, &root, before.transpose()?).await?;
        let names = names.iter().filter_map(|name| name.rsplit('/').next()?.parse().ok());
        let segments: Vec<SegmentName> = names.collect();
        let last = segments
            .last()
            .and_then(|last| Some(Position { timeline: last.timeline(), lsn: last.start(size)? }));
        let root = layout::all_fragments(stream);
        let before = from
            .or(last)
            .map(|from| Key::new(format!("{root}{:08X}/{:016x}", from.timeline.0, from.lsn.0)));
        let names = list(repository, &root, before.transpose()?).await?;
        let fragments = names.iter().filter_map(|name| name.parse().ok()).collect();
        Ok(Self { segments, fragments })
    }

    /// The end of the newest timeline.
    pub(crate) fn end(&self, size: SegmentSize) -> Option<Position> {
        let spans = self.spans(size);
        let (timeline, spans) = spans.last_key_value()?;
        Some(Position { timeline: *timeline, lsn: spans.last()? })
    }

    /// Up to where an extent of the spool is covered, and up to where by whole segments.
    pub(crate) fn reach(&self, extent: &Extent, size: SegmentSize) -> (Lsn, Lsn) {
        let spans = self.spans(size);
        let covered = spans.get(&extent.timeline).map(|spans| spans.end_from(extent.start));
        let mut stored = extent.start;
        let mut name = SegmentName::from_lsn(extent.timeline, stored, size);
        while self.segments.binary_search(&name).is_ok()
            && let Some(next) = name.next(size)
            && let Some(start) = next.start(size)
        {
            (name, stored) = (next, start);
        }
        (covered.unwrap_or(extent.start), stored)
    }

    fn spans(&self, size: SegmentSize) -> BTreeMap<Timeline, Spans> {
        let mut spans: BTreeMap<Timeline, Spans> = BTreeMap::new();
        for name in &self.segments {
            let end = name.next(size).and_then(|next| next.start(size));
            if let (Some(start), Some(end)) = (name.start(size), end) {
                spans.entry(name.timeline()).or_default().insert(start, end);
            }
        }
        for name in &self.fragments {
            spans.entry(name.timeline).or_default().insert(name.start, name.end);
        }
        spans
    }
}

/// Names below `root`, as keys sort.
async fn list(repository: &Repository, root: &str, after: Option<Key>) -> Outcome<Vec<String>> {
    let listed = match after {
        Some(after) => repository.store().list_after(root, &after).await?,
        None => repository.store().list(root).await?,
    };
    let names = listed.iter().filter_map(|(key, _)| key.as_str().strip_prefix(root));
    Ok(names.map(str::to_owned).collect())
}

/// Where to ask the server to begin, and what is left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Resume {
    /// The start of a segment.
    pub(crate) at: Position,
    /// WAL that is held and that the server's history does not have: from here to there.
    pub(crate) abandoned: Option<(Position, Lsn)>,
}

/// Follows the server's history from the end of what is held.
pub(crate) fn resume(end: Position, history: &History, size: SegmentSize) -> Outcome<Resume> {
    let begin = |lsn: Lsn| Lsn(lsn.0 - size.offset_of(lsn));
    let Position { timeline, lsn } = end;
    if timeline == history.timeline {
        let at = Position { timeline, lsn: begin(lsn) };
        return Ok(Resume { at, abandoned: None });
    }
    let place = history.ancestors.iter().position(|entry| entry.timeline == timeline);
    let Some(place) = place else { return Err(foreign(timeline, history.timeline)) };
    let switch = history.ancestors.get(place).map_or(lsn, |entry| entry.switch);
    if lsn < switch {
        let at = Position { timeline, lsn: begin(lsn) };
        return Ok(Resume { at, abandoned: None });
    }
    // All of the timeline is there: its successor begins with the segment of the branch.
    let next = history.ancestors.get(place + 1).map_or(history.timeline, |entry| entry.timeline);
    let at = Position { timeline: next, lsn: begin(switch) };
    let abandoned = (lsn > switch).then_some((Position { timeline, lsn: switch }, lsn));
    Ok(Resume { at, abandoned })
}

fn foreign(held: Timeline, found: Timeline) -> Failure {
    let message =
        format!("the server is on timeline {found}, and this region holds timeline {held}");
    Failure::new(Code::TimelineForeign, message)
        .hint("An old primary that came back must be stopped; a restored copy must be adopted.")
}
