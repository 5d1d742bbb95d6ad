//! How far contiguous WAL leads, from backups and across timelines.

use std::collections::BTreeMap;

use jiff::Timestamp;
use lifeboat_model::{Lsn, Timeline};
use lifeboat_telemetry::Outcome;

use super::inventory::{Backup, Inventory};
use super::locate::Piece;
use super::{Gap, Point, Span};
use crate::coverage::segment_start;

/// So many objects are looked at for a commit; an idle database may have more without any.
const COMMIT_SEARCH: usize = 64;
/// A chain of timelines is never this long.
const TIMELINES_MAX: usize = 10_000;

/// A contiguous run of WAL, reached from some backups.
struct Reached {
    from: Point,
    end: Lsn,
    backups: Vec<String>,
}

impl Inventory<'_> {
    /// Whether the WAL between start and stop of a backup is complete.
    pub fn is_usable(&self, backup: &Backup) -> bool {
        let wal = &backup.description.wal;
        let end = self.coverage.end_of_run(wal.timeline, wal.start);
        end.is_some_and(|end| end > wal.start && end >= wal.stop)
    }

    /// Where one can go back to, by timeline and position.
    pub fn spans(&self) -> Outcome<Vec<Span>> {
        // Runs by timeline and their end: different backups may lead to one.
        let mut reached: BTreeMap<(Timeline, Lsn), Reached> = BTreeMap::new();
        for backup in self.backups().iter().filter(|backup| self.is_usable(backup)) {
            let wal = &backup.description.wal;
            let from = Point { lsn: wal.stop, time: Some(backup.description.stopped_at) };
            self.follow(wal.timeline, wal.start, from, &backup.name, &mut reached);
        }
        let mut spans = Vec::new();
        for ((timeline, _), run) in reached {
            let to = self.end_point(timeline, run.end, run.from)?;
            spans.push(Span { timeline, from: run.from, to, backups: run.backups });
        }
        Ok(spans)
    }

    /// Notes the run that holds `start`, and those of timelines that branch off along it.
    fn follow(
        &self,
        timeline: Timeline,
        start: Lsn,
        from: Point,
        backup: &str,
        reached: &mut BTreeMap<(Timeline, Lsn), Reached>,
    ) {
        let mut ways = vec![(timeline, start, from)];
        while let Some((timeline, start, from)) = ways.pop() {
            let end = self.coverage.end_of_run(timeline, start);
            let Some(end) = end.filter(|end| *end >= from.lsn) else {
                continue;
            };
            let run = reached.entry((timeline, end)).or_insert_with(|| Reached {
                from,
                end,
                backups: Vec::new(),
            });
            if from.lsn < run.from.lsn {
                run.from = from;
            }
            if !run.backups.iter().any(|known| known == backup) {
                run.backups.push(backup.to_owned());
            }
            if reached.len() > TIMELINES_MAX {
                return;
            }
            for child in self.timelines().filter(|child| *child > timeline) {
                let Some((parent, switch)) = self.parent(child) else {
                    continue;
                };
                // The child's first segment repeats the parent's up to the switch.
                let within = switch >= from.lsn && segment_start(switch, self.size) <= end;
                if parent == timeline && within {
                    ways.push((child, switch, Point { lsn: switch, time: None }));
                }
            }
        }
    }

    /// Where the last whole record of a run begins, and the last commit before it.
    fn end_point(&self, timeline: Timeline, end: Lsn, from: Point) -> Outcome<Point> {
        let last = self.last_facts(timeline, end, from.lsn)?;
        Ok(Point { lsn: last.lsn.max(from.lsn), time: last.time.max(from.time) })
    }

    /// The last record and the last commit that the objects before `end` tell of, down to the
    /// segment of `from`.
    pub(super) fn last_facts(&self, timeline: Timeline, end: Lsn, from: Lsn) -> Outcome<Point> {
        let (mut record, mut commit) = (None, None);
        for piece in self.pieces_before(timeline, end, from).take(COMMIT_SEARCH) {
            let facts = self.piece_facts(&piece)?;
            record = record.or(facts.last_record);
            commit = commit.or(facts.last_commit_us);
            if record.is_some() && commit.is_some() {
                break;
            }
        }
        let time = commit.and_then(|micros| Timestamp::from_microsecond(micros).ok());
        Ok(Point { lsn: record.unwrap_or_default(), time })
    }

    /// What a run consists of, from its end back to the segment of `from`.
    fn pieces_before(
        &self,
        timeline: Timeline,
        end: Lsn,
        from: Lsn,
    ) -> impl Iterator<Item = Piece> {
        let first = self.size.number_of(from);
        let last = self.size.number_of(Lsn(end.0.saturating_sub(1)));
        let numbers = (first..=last).rev();
        numbers.flat_map(move |number| self.pieces(timeline, number).into_iter().rev())
    }

    /// Where the first backup of the way to a timeline begins, on that timeline; before it no
    /// segment was ever promised, and what is missing there takes nothing from anybody.
    fn promised_from(&self, timeline: Timeline) -> Option<Lsn> {
        let ancestors = self.ancestors(timeline).unwrap_or_default();
        let leads_here = |backup: &&Backup| {
            let wal = &backup.description.wal;
            ancestors.iter().any(|one| one.timeline == wal.timeline && wal.stop <= one.end)
        };
        if self.backups().iter().any(|backup| leads_here(&backup)) {
            return Some(Lsn::ZERO);
        }
        let own = self.backups().iter().map(|backup| &backup.description.wal);
        let own = own.filter(|wal| wal.timeline == timeline);
        own.map(|wal| segment_start(wal.start, self.size)).min()
    }

    /// The segments that are missing behind the first backup, wholly or in part: between the first
    /// and the last position of a timeline, before its first where its history says that it
    /// branched off earlier, and behind the last of its parent where that ends before the branch.
    pub fn gaps(&self) -> Vec<Gap> {
        let mut gaps = Vec::new();
        for timeline in self.coverage.timelines() {
            let (Some(promised), Some(spans)) =
                (self.promised_from(timeline), self.coverage.spans(timeline))
            else {
                continue;
            };
            let (Some((first, _)), Some(last)) = (spans.iter().next(), spans.last()) else {
                continue;
            };
            let branch = self.parent(timeline).map(|(_, switch)| segment_start(switch, self.size));
            let mut holes = spans.holes_from(branch.unwrap_or(first));
            // Where a child branched off, its parent must lead; the last child decides.
            let children = self.coverage.timelines().filter_map(|child| self.parent(child));
            let branches = children.filter(|(parent, _)| *parent == timeline);
            let needed = branches.map(|(_, switch)| segment_start(switch, self.size)).max();
            holes.extend(needed.filter(|needed| *needed > last).map(|needed| (last, needed)));
            for (from, to) in holes {
                let from = from.max(promised);
                if from < to {
                    let last = self.size.number_of(Lsn(to.0 - 1));
                    gaps.extend(self.gap(timeline, self.size.number_of(from), last));
                }
            }
        }
        gaps
    }

    pub(super) fn gap(&self, timeline: Timeline, first: u64, last: u64) -> Option<Gap> {
        Some(Gap {
            timeline,
            first: self.name(timeline, first).ok()?,
            last: self.name(timeline, last).ok()?,
            segments: last.checked_sub(first)?.saturating_add(1),
        })
    }
}
