//! Which backup leads to the target, and along which timeline; or why none does, and what can be
//! reached instead.
//!
//! PostgreSQL ends a recovery with an error if the target does not come. So a time is reachable
//! only if a later commit is archived, and an LSN only if a record begins there or behind it.

use jiff::{SignedDuration, Timestamp};
use lifeboat_model::{Lsn, RecoveryTarget, SegmentSize, Timeline};
use lifeboat_repository::spans::Spans;
use lifeboat_telemetry::{Code, Failure, Outcome};
use lifeboat_wal::status::{Backup, Inventory, Span};

use crate::request::RestoreRequest;

/// PostgreSQL keeps time in microseconds.
const TICK: SignedDuration = SignedDuration::from_micros(1);

/// What a restore starts from, and how far its WAL leads.
#[derive(Debug, Clone)]
pub(crate) struct Choice {
    pub backup: Backup,
    pub timeline: Timeline,
    /// About where recovery ends, where that is known.
    pub end: Option<Lsn>,
}

/// What recovery must come to.
enum Goal {
    /// The end of the backup.
    Consistency,
    /// The end of the WAL.
    End,
    /// Somewhere: only replay can tell.
    Unknown,
    /// A position, which lies on the way.
    Position(Lsn),
    /// A commit in the WAL that ends here is the first that is not wanted any more.
    Moment { at: Timestamp, end: Lsn },
}

/// One repository's backups and WAL along one timeline.
struct Way<'a> {
    inventory: &'a Inventory<'a>,
    size: SegmentSize,
    timeline: Timeline,
    /// The WAL that leads to the end of the timeline.
    along: Spans,
    spans: Vec<Span>,
    /// Backups on this way, complete with their WAL; oldest first.
    backups: Vec<Backup>,
}

/// Chooses the newest backup from which the target can be reached.
pub(crate) fn choose(
    inventory: &Inventory<'_>,
    request: &RestoreRequest,
    now: Timestamp,
) -> Outcome<Choice> {
    let way = Way::find(inventory, request)?;
    let goal = way.goal(&request.target, now)?;
    let mut failure = None;
    for backup in way.backups.iter().rev() {
        match way.leads(backup, &goal) {
            Ok(end) => {
                let (backup, timeline) = (backup.clone(), way.timeline_for(backup, &goal));
                return Ok(Choice { backup, timeline, end });
            }
            // The newest backup's reason says most.
            Err(reason) => failure = failure.or(Some(reason)),
        }
    }
    Err(failure.unwrap_or_else(|| way.no_backup(request)))
}

impl<'a> Way<'a> {
    fn find(inventory: &'a Inventory<'a>, request: &RestoreRequest) -> Outcome<Self> {
        let wanted = named_backup(request);
        let known = |name: &str| inventory.backups().iter().find(|backup| backup.name == name);
        let named = wanted.map(|name| {
            known(name).ok_or_else(|| {
                let message = format!("there is no backup {name} of {}", request.database);
                Failure::new(Code::BackupMissing, message)
                    .hint(format!("`lifeboat backups list {}` names them.", request.database))
            })
        });
        let named = named.transpose()?;
        if inventory.backups().is_empty() {
            let message = format!("there is no backup of {}", request.database);
            return Err(Failure::new(Code::NoBackup, message)
                .hint("Take one with `lifeboat backup`, or read another region with --here."));
        }
        let newest_backup =
            inventory.backups().iter().map(|backup| backup.description.wal.timeline);
        let newest = inventory.timelines().chain(newest_backup).max();
        let own = named.map(|backup| backup.description.wal.timeline);
        let ends_at_backup =
            matches!(request.target, RecoveryTarget::Immediate | RecoveryTarget::Backup(_));
        let timeline = match (request.timeline, own) {
            (Some(timeline), _) => timeline,
            (None, Some(own)) if ends_at_backup => own,
            (None, _) => newest.unwrap_or(Timeline::FIRST),
        };
        let mut way = Self {
            inventory,
            size: inventory.segment_size_of_stream(),
            timeline,
            along: inventory.coverage().along(timeline),
            spans: inventory.spans()?,
            backups: Vec::new(),
        };
        let on_the_way = inventory.backups().iter().filter(|backup| {
            way.contains(backup)
                && inventory.is_usable(backup)
                && wanted.is_none_or(|name| backup.name == name)
        });
        way.backups = on_the_way.cloned().collect();
        way.backups.sort_by_key(|backup| backup.description.wal.stop);
        match named.filter(|_| way.backups.is_empty()) {
            Some(backup) => Err(way.unusable(backup)),
            None => Ok(way),
        }
    }

    /// Whether the timeline goes through the end of a backup.
    fn contains(&self, backup: &Backup) -> bool {
        let wal = backup.description.wal;
        let mut ancestors = self.inventory.ancestors(self.timeline).unwrap_or_default().iter();
        wal.timeline == self.timeline
            || ancestors.any(|one| one.timeline == wal.timeline && wal.stop <= one.end)
    }

    fn goal(&self, target: &RecoveryTarget, now: Timestamp) -> Outcome<Goal> {
        Ok(match target {
            RecoveryTarget::Latest => Goal::End,
            RecoveryTarget::Immediate | RecoveryTarget::Backup(_) => Goal::Consistency,
            RecoveryTarget::Xid(_) => Goal::Unknown,
            RecoveryTarget::Lsn(lsn) => Goal::Position(*lsn),
            RecoveryTarget::Name(name) => Goal::Position(self.named_point(name)?),
            RecoveryTarget::Time { at, inclusive } => self.moment(*at, *inclusive, now)?,
        })
    }

    fn moment(&self, at: Timestamp, inclusive: bool, now: Timestamp) -> Outcome<Goal> {
        if at > now {
            let message = format!("{at} is in the future; now it is {}", seconds(now));
            return Err(self.unreachable(message, Place::Time(at)));
        }
        let first = self.backups.iter().map(|backup| backup.description.stopped_at).min();
        if let Some(first) = first.filter(|first| *first >= at) {
            let message = format!("{at} is before the end of the first backup, {}", seconds(first));
            return Err(self.unreachable(message, Place::Time(at)));
        }
        // The first commit that is not wanted any more is what ends the recovery.
        let unwanted = if inclusive { at.saturating_add(TICK).unwrap_or(at) } else { at };
        match self.inventory.locate(self.timeline, unwanted)? {
            Some(located) => Ok(Goal::Moment { at, end: located.end }),
            None => {
                let message = format!("no commit after {at} is archived");
                Err(self.unreachable(message, Place::Time(at)))
            }
        }
    }

    fn named_point(&self, name: &str) -> Outcome<Lsn> {
        let since = self.backups.first().map_or(Lsn::ZERO, |backup| backup.description.wal.stop);
        let points = self.inventory.restore_points(self.timeline, name, since)?;
        match points.as_slice() {
            [point] => Ok(point.lsn),
            [] => Err(Failure::new(
                Code::TargetUnreachable,
                format!("no restore point {name:?} can be reached"),
            )
            .hint("Names are those given to pg_create_restore_point, after the first backup.")),
            several => {
                let lines = several.iter().map(|point| {
                    let time = Timestamp::from_microsecond(point.time_us).unwrap_or_default();
                    format!("--lsn {} ({time})", point.lsn)
                });
                let message = format!("there are {} restore points {name:?}", several.len());
                Err(Failure::new(Code::TargetAmbiguous, message)
                    .details(lines)
                    .hint("Name the one that you mean by its LSN or time."))
            }
        }
    }

    /// Whether recovery from a backup comes to the goal; gives about where.
    fn leads(&self, backup: &Backup, goal: &Goal) -> Outcome<Option<Lsn>> {
        let wal = backup.description.wal;
        match goal {
            Goal::Consistency => Ok(Some(wal.stop)),
            Goal::Unknown => Ok(None),
            Goal::End => self.leads_to_end(backup).map(Some),
            Goal::Position(lsn) => self.leads_to(backup, *lsn).map(|()| Some(*lsn)),
            Goal::Moment { at, end } => {
                let stopped_at = backup.description.stopped_at;
                if stopped_at >= *at || wal.stop >= *end {
                    let message =
                        format!("{at} is before the end of the backup, {}", seconds(stopped_at));
                    return Err(self.unreachable(message, Place::Time(*at)));
                }
                if self.reach(backup) < *end {
                    return Err(self.unreachable(format!("{at} lies in a gap"), Place::Time(*at)));
                }
                Ok(Some(*end))
            }
        }
    }

    fn leads_to_end(&self, backup: &Backup) -> Outcome<Lsn> {
        let reach = self.reach(backup);
        if self.along.last().is_none_or(|last| reach == last) {
            return Ok(reach);
        }
        let message = format!("a gap lies between backup {} and the end", backup.name);
        Err(self.unreachable(message, Place::Lsn(Lsn::MAX)))
    }

    fn leads_to(&self, backup: &Backup, lsn: Lsn) -> Outcome<()> {
        let place = Place::Lsn(lsn);
        if lsn < backup.description.wal.stop {
            let stop = backup.description.wal.stop;
            return Err(
                self.unreachable(format!("{lsn} is before the backup's end, {stop}"), place)
            );
        }
        if self.along.last().is_none_or(|last| lsn >= last) || self.is_behind_the_end(lsn) {
            let message = format!("{lsn} is behind the end of the archived WAL");
            return Err(self.unreachable(message, place));
        }
        if lsn < self.reach(backup) {
            return Ok(());
        }
        Err(self.unreachable(format!("{lsn} lies in or behind a gap"), place))
    }

    /// Whether no record begins at `lsn` or later, although its segment is there.
    fn is_behind_the_end(&self, lsn: Lsn) -> bool {
        let coverage = self.inventory.coverage();
        let way = coverage.way(self.timeline);
        let last = way.iter().rev().find_map(|leg| coverage.last(leg.timeline));
        last.filter(|last| last.start(self.size) <= Some(lsn)).is_some_and(|last| {
            self.spans
                .iter()
                .filter(|span| span.timeline == last.timeline())
                .all(|span| span.to.lsn < lsn)
        })
    }

    /// Where the WAL ends that leads on from a backup without a gap.
    fn reach(&self, backup: &Backup) -> Lsn {
        let start = backup.description.wal.start;
        self.along.end_from(Lsn(start.0 - self.size.offset_of(start)))
    }

    /// A recovery that ends on an ancestor need not know what came after it.
    fn timeline_for(&self, backup: &Backup, goal: &Goal) -> Timeline {
        match goal {
            Goal::Consistency => backup.description.wal.timeline,
            _ => self.timeline,
        }
    }

    /// Refuses, and names the nearest points that can be reached.
    fn unreachable(&self, message: String, place: Place) -> Failure {
        let mut nearest = Vec::new();
        let on_the_way = self.spans.iter().filter(|span| self.goes_through(span));
        let before = on_the_way.filter(|span| place.is_behind(span)).max_by_key(|span| span.to.lsn);
        if let Some(span) = before {
            let last = self.along.last().map(|end| Lsn(end.0.saturating_sub(1)));
            match span.to.time {
                _ if last.map(|last| self.size.number_of(last))
                    <= Some(self.size.number_of(span.to.lsn)) =>
                {
                    nearest.push("--latest".to_owned());
                }
                // The last commit itself has nothing behind it that would end the recovery.
                Some(time) => {
                    nearest.push(format!("--time {}", time.saturating_sub(TICK).unwrap_or(time)));
                }
                None => nearest.extend(span.backups.last().map(|name| format!("--backup {name}"))),
            }
        }
        let after = self.backups.iter().find(|backup| place.is_before(backup));
        if let Some(backup) = after {
            let stopped_at = seconds(backup.description.stopped_at);
            nearest.push(format!("--backup {} (it ended at {stopped_at})", backup.name));
        }
        let failure = Failure::new(Code::TargetUnreachable, message);
        if nearest.is_empty() {
            return failure.hint("`lifeboat wal status` prints what can be reached.");
        }
        failure.hint(format!("Nearest: {}.", nearest.join(", or ")))
    }

    /// Whether the end of a span is a point of this way, reached from one of its backups.
    fn goes_through(&self, span: &Span) -> bool {
        let mut ancestors = self.inventory.ancestors(self.timeline).unwrap_or_default().iter();
        let shared = span.timeline == self.timeline
            || ancestors.any(|one| one.timeline == span.timeline && span.to.lsn <= one.end);
        shared && self.backups.iter().any(|backup| span.backups.contains(&backup.name))
    }

    fn unusable(&self, backup: &Backup) -> Failure {
        let wal = backup.description.wal;
        let name = &backup.name;
        let message = if self.contains(backup) {
            format!(
                "the WAL that backup {name} needs, {} to {}, is not complete",
                wal.start, wal.stop
            )
        } else {
            format!(
                "backup {name} is on timeline {}, which timeline {} left before it ended",
                wal.timeline, self.timeline
            )
        };
        Failure::new(Code::TargetUnreachable, message)
            .hint("Choose another backup, or follow its own timeline with --timeline.")
    }

    fn no_backup(&self, request: &RestoreRequest) -> Failure {
        let message = format!(
            "no usable backup of {} lies on the way to timeline {}",
            request.database, self.timeline
        );
        Failure::new(Code::NoBackup, message)
            .hint("`lifeboat wal status` says what is missing; --timeline follows another one.")
    }
}

/// Where a target lies, to find its neighbours.
#[derive(Clone, Copy)]
enum Place {
    Time(Timestamp),
    Lsn(Lsn),
}

impl Place {
    fn is_behind(self, span: &Span) -> bool {
        match self {
            Self::Time(at) => span.to.time.is_some_and(|end| end <= at),
            Self::Lsn(lsn) => span.to.lsn <= lsn,
        }
    }

    fn is_before(self, backup: &Backup) -> bool {
        match self {
            Self::Time(at) => at <= backup.description.stopped_at,
            Self::Lsn(lsn) => lsn < backup.description.wal.stop,
        }
    }
}

/// Without the fraction, which nobody reads.
fn seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

fn named_backup(request: &RestoreRequest) -> Option<&str> {
    match &request.target {
        RecoveryTarget::Backup(name) => Some(name),
        _ => request.backup.as_deref(),
    }
}
