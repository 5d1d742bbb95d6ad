//! `lifeboat wal status`: what can be recovered, computed from the repositories alone; of a database
//! in stream mode also who receives at this moment.

mod live;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use lifeboat_model::DatabaseId;
use lifeboat_model::spec::WalMode;
use lifeboat_objects::Blocking;
use lifeboat_telemetry::{Code, Failure, Outcome};
use lifeboat_wal::status::{
    self, Gap, Lag, RegionWindow, Span, TimelineLine, Window, recoverability,
};
use schemars::JsonSchema;
use serde::Serialize;

use crate::commands::incarnations;
use crate::context::Context;
use crate::keyring::Keyring;
use crate::output::{Mark, Report, emphasis, moment, strong};
use crate::site::Site;
use live::Live;

/// Show to which moments a database can be restored, and what is missing
///
/// Computed from the objects in the repositories, never from what was noted elsewhere: spans of
/// recovery points, gaps in the WAL, and what one region has and another lacks. Of a database in
/// stream mode also what the server that writes says now: each receiver, and what would be lost if
/// its region were lost. Exit code 3 if WAL is missing everywhere, 5 if a region lacks what another
/// one has or does not answer.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  lifeboat wal status
  lifeboat wal status payments/ledger --json")]
pub struct Args {
    /// The database, as SERVICE/DATABASE; without it the one whose data directory is the working
    /// directory, else the only one
    #[arg(value_name = "DB")]
    database: Option<DatabaseId>,
}

/// What can be recovered of a database.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Status {
    /// `SERVICE/DATABASE`.
    database: String,
    /// The incarnations of its cluster, oldest first; the last one may write.
    incarnations: Vec<Incarnation>,
    /// Regions that did not answer, and why.
    unreachable: BTreeMap<String, String>,
    /// Who receives at this moment; null if WAL is not streamed.
    live: Option<Live>,
    #[serde(skip)]
    failure: Option<Failure>,
}

/// One incarnation of a cluster.
#[derive(Debug, Serialize, JsonSchema)]
struct Incarnation {
    /// Its number.
    incarnation: u64,
    /// The cluster's system identifier.
    system_identifier: String,
    /// When it was allowed to write.
    granted_at: Timestamp,
    /// What each region can give.
    regions: Vec<Region>,
}

/// What one region's repository can give.
#[derive(Debug, Serialize, JsonSchema)]
struct Region {
    /// The region.
    region: String,
    /// Spans of recovery points.
    window: Vec<Reach>,
    /// WAL that is here, by timeline: its first and its last segment, and how many there are.
    archived: Vec<Segments>,
    /// How far the WAL of the newest timeline goes, fragments included.
    shipped: Option<Shipped>,
    /// The receivers that have shipped into this repository.
    receivers: Vec<ReceiverRun>,
    /// WAL behind the first backup that is missing here.
    gaps: Vec<Segments>,
    /// WAL that is here missing and in another region there.
    lag: Vec<Segments>,
    /// Backups and history files that another region has and this one lacks.
    lacks: Vec<String>,
    /// What else is wrong.
    problems: Vec<String>,
    /// Backups that lack WAL to be consistent.
    unusable_backups: Vec<String>,
}

/// A span of recovery points.
#[derive(Debug, Serialize, JsonSchema)]
struct Reach {
    /// The timeline.
    timeline: u32,
    /// The first point in the WAL.
    from_lsn: String,
    /// Its time.
    from_time: Option<Timestamp>,
    /// The last point in the WAL.
    to_lsn: String,
    /// The time of the last commit that is known up to there.
    to_time: Option<Timestamp>,
    /// The backups that lead there.
    backups: Vec<String>,
}

/// How far WAL goes.
#[derive(Debug, Serialize, JsonSchema)]
struct Shipped {
    /// The timeline.
    timeline: u32,
    /// The position behind the last.
    lsn: String,
    /// The last commit that is known up to there.
    last_commit: Option<Timestamp>,
}

/// A run of a receiver.
#[derive(Debug, Serialize, JsonSchema)]
struct ReceiverRun {
    /// Its writer epoch in this repository.
    epoch: u32,
    /// The label of its writer key.
    writer: String,
    /// Its host.
    host: String,
    /// When it started.
    started_at: Timestamp,
    /// The epoch of the service that it works for; 0 without a control plane.
    control_epoch: u64,
    /// Where its newest fragment ends; null if segments have replaced all that it shipped.
    newest_lsn: Option<String>,
}

/// Segments of a timeline.
#[derive(Debug, Serialize, JsonSchema)]
// The name that the published schema has.
#[schemars(rename = "Missing")]
struct Segments {
    /// The first one.
    first: String,
    /// The last one.
    last: String,
    /// How many.
    segments: u64,
}

impl Segments {
    fn missing(gap: &Gap) -> Self {
        Self { first: gap.first.to_string(), last: gap.last.to_string(), segments: gap.segments }
    }

    fn archived(line: TimelineLine) -> Option<Self> {
        let (first, last) = (line.first?.to_string(), line.last?.to_string());
        Some(Self { first, last, segments: line.segments })
    }

    fn shown(&self) -> String {
        match self.segments {
            // Fragments alone, of the last segment at least.
            0 => format!("fragments of {}", self.last),
            1 => self.first.clone(),
            count => format!("{} to {} ({count} segments)", self.first, self.last),
        }
    }
}

impl Shipped {
    fn new(shipped: status::Shipped) -> Self {
        let (timeline, lsn) = (shipped.timeline.0, shipped.lsn.to_string());
        Self { timeline, lsn, last_commit: shipped.last_commit }
    }

    fn shown(&self) -> String {
        let commit = self.last_commit.map(|time| format!(", last commit {}", moment(time)));
        format!("{} on timeline {}{}", self.lsn, self.timeline, commit.unwrap_or_default())
    }
}

impl ReceiverRun {
    fn new(line: status::ReceiverLine) -> Self {
        Self {
            epoch: line.epoch,
            writer: line.writer,
            host: line.host,
            started_at: line.started_at,
            control_epoch: line.control_epoch,
            newest_lsn: line.newest.map(|lsn| lsn.to_string()),
        }
    }

    fn shown(&self) -> String {
        let Self { epoch, host, writer, started_at, .. } = self;
        let newest = self.newest_lsn.as_ref().map(|lsn| format!(", newest fragment up to {lsn}"));
        let newest = newest.unwrap_or_default();
        format!("receiver {epoch} on {host} ({writer}) since {}{newest}", moment(*started_at))
    }
}

impl Reach {
    fn new(span: Span) -> Self {
        Self {
            timeline: span.timeline.0,
            from_lsn: span.from.lsn.to_string(),
            from_time: span.from.time,
            to_lsn: span.to.lsn.to_string(),
            to_time: span.to.time,
            backups: span.backups,
        }
    }

    fn shown(&self) -> String {
        let point = |lsn: &String, time: Option<Timestamp>| match time {
            Some(time) => format!("{} ({lsn})", moment(time)),
            None => lsn.clone(),
        };
        format!(
            "{} to {} on timeline {}, from {} backup(s)",
            point(&self.from_lsn, self.from_time),
            point(&self.to_lsn, self.to_time),
            self.timeline,
            self.backups.len()
        )
    }
}

impl Region {
    fn new(window: RegionWindow) -> Self {
        let Lag { ranges, histories, backups, .. } = window.lag;
        let lacks =
            histories.into_iter().chain(backups.into_iter().map(|name| format!("backup {name}")));
        let unusable = window.backups.into_iter().filter(|backup| !backup.usable);
        Self {
            region: window.region,
            window: window.spans.into_iter().map(Reach::new).collect(),
            archived: window.timelines.into_iter().filter_map(Segments::archived).collect(),
            shipped: window.shipped.map(Shipped::new),
            receivers: window.receivers.into_iter().map(ReceiverRun::new).collect(),
            gaps: window.gaps.iter().map(Segments::missing).collect(),
            lag: ranges.iter().map(Segments::missing).collect(),
            lacks: lacks.collect(),
            problems: window.problems,
            unusable_backups: unusable.map(|backup| backup.name).collect(),
        }
    }

    fn text(&self) -> String {
        let mut text = format!("  {}\n", strong(&self.region));
        let mut line = |label: String, value: String| {
            text.push_str(&format!("    {label}  {value}\n"));
        };
        if self.window.is_empty() {
            line(Mark::Bad.paint("nothing"), "no recovery point: take a backup".to_owned());
        }
        for reach in &self.window {
            line(emphasis("window "), reach.shown());
        }
        for archived in &self.archived {
            line(emphasis("WAL    "), archived.shown());
        }
        if let Some(shipped) = self.shipped.as_ref().filter(|_| !self.receivers.is_empty()) {
            line(emphasis("shipped"), shipped.shown());
        }
        // Older runs are in the JSON.
        if let Some(receiver) = self.receivers.last() {
            line(emphasis("from   "), receiver.shown());
        }
        for gap in &self.gaps {
            line(Mark::Bad.paint("gap    "), gap.shown());
        }
        for lag in &self.lag {
            line(
                Mark::Doubtful.paint("lacks  "),
                format!("{}, another region has it", lag.shown()),
            );
        }
        for name in &self.lacks {
            line(Mark::Doubtful.paint("lacks  "), format!("{name}, another region has it"));
        }
        for name in &self.unusable_backups {
            line(Mark::Bad.paint("backup "), format!("{name} lacks WAL to be consistent"));
        }
        for problem in &self.problems {
            line(Mark::Bad.paint("problem"), problem.clone());
        }
        text
    }
}

impl Report for Status {
    const COMMAND: &'static str = "wal status";

    fn text(&self) -> String {
        let mut text = format!("{}\n", strong(&self.database));
        for incarnation in &self.incarnations {
            if self.incarnations.len() > 1 {
                let since = moment(incarnation.granted_at);
                let number = incarnation.incarnation;
                text.push_str(&format!("Incarnation {number}, since {since}\n"));
            }
            for region in &incarnation.regions {
                text.push_str(&region.text());
            }
        }
        text.extend(self.live.as_ref().map(Live::text));
        for (region, why) in &self.unreachable {
            text.push_str(&format!("  {}: {} {why}\n", region, Mark::Unknown.paint("NOT TESTED")));
        }
        text
    }

    fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }
}

/// Reads every repository that answers.
pub fn run(args: &Args, context: &Context) -> Outcome<Status> {
    let site = Site::open(context)?;
    let blocking = Blocking::new()?;
    let access = site.access(&blocking);
    let (id, database) = site.database(args.database.as_ref())?;
    let regions = access.regions()?;
    let mut keys = Keyring::new(&access, &regions, &id);
    let mut found = Vec::new();
    let mut newest = Vec::new();
    let mut unreachable = BTreeMap::new();
    let mut failure = None;
    for binding in incarnations::of(&access, &regions, &id.to_string())? {
        context.cancel.check()?;
        let keys = keys.of(binding.body.stream)?;
        let window = recoverability(&blocking, &regions, &keys, &id.to_string())?;
        // What the incarnation that writes lacks matters most.
        failure = judge(&window);
        unreachable.extend(window.unreachable);
        newest.clone_from(&window.regions);
        found.push(Incarnation {
            incarnation: binding.body.incarnation.0,
            system_identifier: binding.body.system_identifier.to_string(),
            granted_at: binding.body.granted_at,
            regions: window.regions.into_iter().map(Region::new).collect(),
        });
    }
    if found.is_empty() {
        return Err(Failure::new(Code::NoBackup, format!("nothing was ever stored of {id}"))
            .hint(format!("Take a backup: `lifeboat backup {id}`.")));
    }
    let streams = database.wal.mode == WalMode::Stream;
    let live = streams.then(|| live::ask(&site, &access, (&id, database), &newest));
    let failure = failure.or_else(|| regions.partial());
    Ok(Status { database: id.to_string(), incarnations: found, unreachable, live, failure })
}

/// WAL that no region has is damage; what only some have is a matter of copying.
fn judge(window: &Window) -> Option<Failure> {
    let mut lost = Vec::new();
    let mut problems = Vec::new();
    let mut behind = Vec::new();
    for region in &window.regions {
        let elsewhere = |gap: &Gap| {
            region.lag.ranges.iter().any(|range| range.first <= gap.first && gap.last <= range.last)
        };
        let gaps = region.gaps.iter().filter(|gap| !elsewhere(gap));
        lost.extend(
            gaps.map(|gap| format!("{}: {}", region.region, Segments::missing(gap).shown())),
        );
        problems.extend(region.problems.iter().map(|one| format!("{}: {one}", region.region)));
        if !region.lag.is_empty() {
            behind.push(region.region.clone());
        }
    }
    let backups = || window.regions.iter().flat_map(|region| &region.backups);
    let saved: BTreeSet<&String> =
        backups().filter(|backup| backup.usable).map(|backup| &backup.name).collect();
    let unusable = backups().map(|backup| &backup.name).filter(|name| !saved.contains(name));
    let unusable: BTreeSet<&String> = unusable.collect();
    lost.extend(unusable.into_iter().map(|name| format!("backup {name}: to be consistent")));
    if !lost.is_empty() {
        return Some(
            Failure::new(Code::WalGap, "WAL is missing")
                .details(lost)
                .hint("Points behind a gap are reached only from a later backup: take one now."),
        );
    }
    if !problems.is_empty() {
        return Some(
            Failure::new(Code::RepositoryDamaged, "a repository has problems")
                .details(problems)
                .hint("`lifeboat repo check --read-data` says more."),
        );
    }
    (!behind.is_empty()).then(|| {
        let message = format!("{} lacks what another region has", behind.join(", "));
        Failure::new(Code::RegionSkipped, message)
            .hint("Do not count on that region alone until it has caught up.")
    })
}

#[cfg(test)]
mod tests;
