//! What can be recovered, from which region, computed from objects alone.
//!
//! A backup can be recovered to any point of its own timeline that contiguous WAL leads to, and
//! on to timelines that branched off along that way. What can be reached is a span; what breaks
//! the way is a gap.

mod inventory;
mod lag;
mod locate;
mod reach;
mod shipped;

use std::collections::BTreeMap;

use jiff::Timestamp;
use lifeboat_model::{Lsn, SegmentName, Timeline};
use lifeboat_objects::Blocking;
use lifeboat_repository::keys::StreamKeys;
use lifeboat_repository::receiver::Durable;
use lifeboat_repository::regions::Regions;
use lifeboat_telemetry::Outcome;
use serde::Serialize;

pub use inventory::{Backup, Inventory};
pub use lag::Lag;
pub use locate::Located;

/// What can be recovered of one database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Window {
    /// `SERVICE/DATABASE`.
    pub database: String,
    /// What each repository that answered can give.
    pub regions: Vec<RegionWindow>,
    /// Repositories that did not answer, and why.
    pub unreachable: BTreeMap<String, String>,
}

/// What can be recovered from one repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RegionWindow {
    /// The region.
    pub region: String,
    /// Where one can go back to.
    pub spans: Vec<Span>,
    /// The WAL that is missing.
    pub gaps: Vec<Gap>,
    /// The backups, oldest first.
    pub backups: Vec<BackupLine>,
    /// The timelines, oldest first.
    pub timelines: Vec<TimelineLine>,
    /// How far the WAL goes that lies here.
    pub shipped: Option<Shipped>,
    /// The receivers that ship into this repository, by epoch.
    pub receivers: Vec<ReceiverLine>,
    /// What another region has and this one lacks.
    pub lag: Lag,
    /// What is wrong besides gaps.
    pub problems: Vec<String>,
}

/// How far the WAL of the newest timeline goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Shipped {
    /// The timeline.
    pub timeline: Timeline,
    /// The position behind the last that lies in the repository.
    pub lsn: Lsn,
    /// The last commit that is known up to there.
    pub last_commit: Option<Timestamp>,
}

/// A run of a receiver, in a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReceiverLine {
    /// Its writer epoch in this repository.
    pub epoch: u32,
    /// The label of its writer key.
    pub writer: String,
    /// The host that it runs on.
    pub host: String,
    /// When it started.
    pub started_at: Timestamp,
    /// The epoch of the service that it works for.
    pub control_epoch: u64,
    /// When it acknowledges.
    pub durable: Durable,
    /// Where its newest fragment ends; `None` if segments have replaced all that it shipped.
    pub newest: Option<Lsn>,
}

/// A span of recovery points on one timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Span {
    /// The timeline.
    pub timeline: Timeline,
    /// The first point.
    pub from: Point,
    /// The last point.
    pub to: Point,
    /// The backups that lead there.
    pub backups: Vec<String>,
}

/// A recovery point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Point {
    /// Where in the WAL.
    pub lsn: Lsn,
    /// When: of a backup its end, else the last commit that is known up to there.
    pub time: Option<Timestamp>,
}

/// Consecutive segments that are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// The timeline.
    pub timeline: Timeline,
    /// The first missing segment.
    pub first: SegmentName,
    /// The last missing segment.
    pub last: SegmentName,
    /// How many are missing.
    pub segments: u64,
}

/// A backup, in a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BackupLine {
    /// Its name.
    pub name: String,
    /// What the person called it.
    pub label: Option<String>,
    /// Its timeline.
    pub timeline: Timeline,
    /// Where its WAL starts.
    pub start: Lsn,
    /// From here on it is consistent.
    pub stop: Lsn,
    /// When it ended.
    pub stopped_at: Timestamp,
    /// Whether this region has all the WAL that it needs to be consistent.
    pub usable: bool,
}

/// A timeline, in a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct TimelineLine {
    /// Its number.
    pub timeline: Timeline,
    /// The timeline that it branched off from, and where; from its history file.
    pub parent: Option<(Timeline, Lsn)>,
    /// Its first segment.
    pub first: Option<SegmentName>,
    /// Its last segment.
    pub last: Option<SegmentName>,
    /// How many segments there are.
    pub segments: u64,
}

impl Window {
    /// Whether any region lacks WAL or has other problems.
    pub fn has_problems(&self) -> bool {
        !self.unreachable.is_empty()
            || self.regions.iter().any(|region| {
                !region.gaps.is_empty() || !region.problems.is_empty() || !region.lag.is_empty()
            })
    }
}

/// Computes the window of a database from every repository that answers.
pub fn recoverability(
    blocking: &Blocking,
    regions: &Regions,
    keys: &StreamKeys,
    database: &str,
) -> Outcome<Window> {
    let mut unreachable: BTreeMap<String, String> = regions
        .skipped()
        .iter()
        .map(|skipped| (skipped.region.clone(), skipped.failure.to_string()))
        .collect();
    let mut inventories = Vec::new();
    for repository in regions.all() {
        match Inventory::read(blocking, repository, keys) {
            Ok(inventory) => inventories.push(inventory),
            Err(failure) => {
                unreachable.insert(repository.region().to_owned(), failure.to_string());
            }
        }
    }
    let mut windows = Vec::new();
    for inventory in &inventories {
        windows.push(region_window(inventory, &inventories)?);
    }
    Ok(Window { database: database.to_owned(), regions: windows, unreachable })
}

fn region_window(inventory: &Inventory<'_>, all: &[Inventory<'_>]) -> Outcome<RegionWindow> {
    let backups = inventory.backups().iter().map(|backup| BackupLine {
        name: backup.name.clone(),
        label: backup.description.label.clone(),
        timeline: backup.description.wal.timeline,
        start: backup.description.wal.start,
        stop: backup.description.wal.stop,
        stopped_at: backup.description.stopped_at,
        usable: inventory.is_usable(backup),
    });
    let timelines = inventory.timelines().map(|timeline| TimelineLine {
        timeline,
        parent: inventory.parent(timeline),
        first: inventory.coverage().first(timeline),
        last: inventory.coverage().last(timeline),
        segments: inventory.count(timeline),
    });
    let mut problems = inventory.problems().to_vec();
    problems.extend(inventory.missing_histories());
    Ok(RegionWindow {
        region: inventory.region().to_owned(),
        backups: backups.collect(),
        timelines: timelines.collect(),
        gaps: inventory.gaps(),
        spans: inventory.spans()?,
        shipped: inventory.shipped()?,
        receivers: inventory.receiver_lines(),
        lag: Lag::of(inventory, all),
        problems,
    })
}
