//! How far contiguous WAL leads, from backups and across timelines.

use std::collections::BTreeMap;

use jiff::Timestamp;
use lifeboat_model::{Lsn, Timeline};
use lifeboat_telemetry::Outcome;

use super::inventory::{Backup, Inventory};
use super::{Gap, Point, Span};

/// So many segments are looked at for a commit; an idle database may have more without any.
const COMMIT_SEARCH: u64 = 64;
/// A chain of timelines is never this long.
const TIMELINES_MAX: usize = 10_000;

/// A contiguous run of segments, reached from some backups.
struct Reached {
    from: Point,
    last: u64,
    backups: Vec<String>,
}

impl Inventory<'_> {
    /// Whether the WAL between start and stop of a backup is complete.
    pub fn is_usable(&self, backup: &Backup) -> bool {
        let wal = &backup.description.wal;
        let first = self.size.number_of(wal.start);
        let needed = self.size.number_of(Lsn(wal.stop.0.saturating_sub(1).max(wal.start.0)));
        self.end_of_run(wal.timeline, first).is_some_and(|last| last >= needed)
    }

    /// Where one can go back to, by timeline and position.
    pub fn spans(&self) -> Outcome<Vec<Span>> {
        // Runs by timeline and their last segment: different backups may lead to one.
        let mut reached: BTreeMap<(Timeline, u64), Reached> = BTreeMap::new();
        for backup in self.backups().iter().filter(|backup| self.is_usable(backup)) {
            let wal = &backup.description.wal;
            let from = Point { lsn: wal.stop, time: Some(backup.description.stopped_at) };
            let first = self.size.number_of(wal.start);
            self.follow(wal.timeline, first, from, &backup.name, &mut reached);
        }
        let mut spans = Vec::new();
        for ((timeline, _), run) in reached {
            let to = self.end_point(timeline, run.last, run.from)?;
            spans.push(Span { timeline, from: run.from, to, backups: run.backups });
        }
        Ok(spans)
    }

    /// Notes the run that begins at `first`, and those of timelines that branch off along it.
    fn follow(
        &self,
        timeline: Timeline,
        first: u64,
        from: Point,
        backup: &str,
        reached: &mut BTreeMap<(Timeline, u64), Reached>,
    ) {
        let mut ways = vec![(timeline, first, from)];
        while let Some((timeline, first, from)) = ways.pop() {
            let Some(last) = self.end_of_run(timeline, first) else {
                continue;
            };
            let run = reached.entry((timeline, last)).or_insert_with(|| Reached {
                from,
                last,
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
                let branch = self.size.number_of(switch);
                // The child's first segment repeats the parent's up to the switch.
                let within = switch >= from.lsn && branch <= last.saturating_add(1);
                if parent == timeline && within {
                    ways.push((child, branch, Point { lsn: switch, time: None }));
                }
            }
        }
    }

    /// Where the last record of a run begins, and the last commit before it.
    fn end_point(&self, timeline: Timeline, last: u64, from: Point) -> Outcome<Point> {
        let facts = self.facts(timeline, last)?;
        let lsn = facts.last_record.unwrap_or(Lsn::ZERO).max(from.lsn);
        let mut time = facts.last_commit_us;
        let mut number = last;
        while time.is_none() && number > 0 && last - number < COMMIT_SEARCH {
            number -= 1;
            let stored = self
                .timelines
                .get(&timeline)
                .is_some_and(|segments| segments.contains_key(&number));
            if !stored || number < self.size.number_of(from.lsn) {
                break;
            }
            time = self.facts(timeline, number)?.last_commit_us;
        }
        let time = time.and_then(|micros| Timestamp::from_microsecond(micros).ok());
        Ok(Point { lsn, time: time.max(from.time) })
    }

    /// Where the first backup of the way to a timeline begins, on that timeline; before it no
    /// segment was ever promised, and what is missing there takes nothing from anybody.
    fn promised_from(&self, timeline: Timeline) -> Option<u64> {
        let ancestors = self.ancestors(timeline).unwrap_or_default();
        let leads_here = |backup: &&Backup| {
            let wal = &backup.description.wal;
            ancestors.iter().any(|one| one.timeline == wal.timeline && wal.stop <= one.end)
        };
        if self.backups().iter().any(|backup| leads_here(&backup)) {
            return Some(0);
        }
        let own = self.backups().iter().map(|backup| &backup.description.wal);
        let own = own.filter(|wal| wal.timeline == timeline);
        own.map(|wal| self.size.number_of(wal.start)).min()
    }

    /// The segments that are missing behind the first backup: between the first and the last of a
    /// timeline, before its first where its history says that it branched off earlier, and behind
    /// the last of its parent where that ends before the branch.
    pub fn gaps(&self) -> Vec<Gap> {
        let mut gaps = Vec::new();
        for (timeline, segments) in &self.timelines {
            let Some(promised) = self.promised_from(*timeline) else {
                continue;
            };
            let branch = self.parent(*timeline).map(|(_, switch)| self.size.number_of(switch));
            let mut next = branch;
            for number in segments.keys() {
                let first = next.map(|next| next.max(promised));
                if let Some(first) = first.filter(|first| first < number) {
                    gaps.extend(self.gap(*timeline, first, *number - 1));
                }
                next = Some(number.saturating_add(1));
            }
            let Some(end) = segments.keys().next_back() else {
                continue;
            };
            // Where a child branched off, its parent must lead; the last child decides.
            let needed = self
                .timelines()
                .filter(|child| self.count(*child) > 0)
                .filter_map(|child| self.parent(child))
                .filter(|(parent, _)| parent == timeline)
                .filter_map(|(_, switch)| self.size.number_of(switch).checked_sub(1))
                .max();
            if let Some(needed) = needed.filter(|needed| needed > end) {
                gaps.extend(self.gap(*timeline, end.saturating_add(1).max(promised), needed));
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
