//! What a restore will do, and what it did.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use lifeboat_restore::{Found, RestorePlan, RestoreReport, TargetAction};
use lifeboat_telemetry::{Failure, Outcome, bytes, duration, rate};
use schemars::JsonSchema;
use serde::Serialize;

use crate::commands::adopt::Adopted;
use crate::output::{Report, moment, strong};

/// A restore.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Restored {
    /// What it will do, or did.
    plan: Plan,
    /// What it came to; null in a dry run.
    done: Option<Done>,
    /// The copy as the source, with `--adopt`.
    adopted: Option<Adopted>,
    #[serde(skip)]
    failure: Option<Failure>,
}

/// What a restore will do.
#[derive(Debug, Serialize, JsonSchema)]
struct Plan {
    /// `SERVICE/DATABASE`.
    database: String,
    /// The directory to fill.
    to: PathBuf,
    /// What is there now: `absent`, `empty`, `interrupted` or `cluster`.
    found: &'static str,
    /// Whether only what differs is replaced.
    delta: bool,
    /// How far recovery goes, as in `time 2026-11-20T14:03:07Z`.
    target: String,
    /// What the server does there: `promote`, `pause` or `shutdown`.
    target_action: &'static str,
    /// The timeline to follow.
    timeline: u32,
    /// Where recovery starts.
    backup: Backup,
    /// Regions to read from, in order.
    regions: Vec<String>,
    /// Where tablespaces go.
    tablespaces: Vec<Tablespace>,
    /// What each disk must take.
    space: Vec<Space>,
    /// Files to write.
    files: u64,
    /// Their bytes.
    bytes: u64,
    /// Stored bytes to read.
    stored_bytes: u64,
    /// WAL from the start of the backup to the target, where that is known.
    wal_bytes: Option<u64>,
    /// How long filling the directory will take; replay comes on top.
    predicted_seconds: f64,
    /// Whether this host measured the rate behind that; else it is assumed.
    rate_measured: bool,
    /// What a person should know before it starts.
    notes: Vec<String>,
}

/// The backup that a restore starts from.
#[derive(Debug, Serialize, JsonSchema)]
struct Backup {
    /// Its name.
    name: String,
    /// What people call it.
    label: Option<String>,
    /// When its last file was read.
    stopped_at: Timestamp,
    /// Replay begins here.
    start_lsn: String,
    /// From here on the copy is consistent.
    stop_lsn: String,
    /// PostgreSQL's major version.
    postgresql: u32,
}

/// Where a tablespace goes.
#[derive(Debug, Serialize, JsonSchema)]
struct Tablespace {
    /// Its OID.
    oid: u32,
    /// Where it was.
    was: String,
    /// Where it will be.
    place: PathBuf,
}

/// What a disk must take.
#[derive(Debug, Serialize, JsonSchema)]
struct Space {
    /// A directory on it.
    place: PathBuf,
    /// Bytes that are written there.
    needed: u64,
    /// Bytes that are free.
    free: u64,
}

/// What a restore came to.
#[derive(Debug, Serialize, JsonSchema)]
struct Done {
    /// Files that were restored.
    files: u64,
    /// Their bytes.
    bytes: u64,
    /// Bytes that were right already, and stayed.
    kept_bytes: u64,
    /// Stored bytes that were read from repositories.
    fetched_bytes: u64,
    /// Files that the old cluster had and the backup has not.
    removed_files: u64,
    /// Which incarnation of the cluster this copy is.
    incarnation: u64,
    /// How long it took.
    elapsed_seconds: f64,
    /// What a person should know or do.
    notes: Vec<String>,
    /// The command that starts the server.
    start_command: String,
}

impl Restored {
    /// A dry run.
    pub fn planned(plan: &RestorePlan) -> Self {
        Self { plan: Plan::new(plan), done: None, adopted: None, failure: None }
    }

    /// A restore that ended well.
    pub fn done(plan: &RestorePlan, report: RestoreReport) -> Self {
        let done = Done {
            files: report.files,
            bytes: report.bytes,
            kept_bytes: report.kept_bytes,
            fetched_bytes: report.fetched_bytes,
            removed_files: report.removed_files,
            incarnation: report.incarnation,
            elapsed_seconds: report.time.as_secs_f64(),
            notes: report.notes,
            start_command: report.start_command,
        };
        Self { done: Some(done), ..Self::planned(plan) }
    }

    /// Adds what became of the adoption; the restore stands in any case.
    pub fn adopted(&mut self, adopted: Outcome<Adopted>) {
        match adopted {
            Ok(mut adopted) => {
                self.failure = adopted.partial();
                self.adopted = Some(adopted);
            }
            Err(failure) => {
                self.failure = Some(failure.within("the copy is restored, and not adopted"));
            }
        }
    }
}

impl Plan {
    fn new(plan: &RestorePlan) -> Self {
        let spaces = plan.space.iter();
        let tablespaces = plan.tablespaces.iter();
        Self {
            database: plan.database.clone(),
            to: plan.to.clone(),
            found: match plan.found {
                Found::Absent => "absent",
                Found::Empty => "empty",
                Found::Interrupted(_) => "interrupted",
                Found::Cluster => "cluster",
            },
            delta: plan.delta,
            target: plan.target.to_string(),
            target_action: match plan.action {
                TargetAction::Promote => "promote",
                TargetAction::Pause => "pause",
                TargetAction::Shutdown => "shutdown",
            },
            timeline: plan.timeline.0,
            backup: Backup {
                name: plan.backup.name.clone(),
                label: plan.backup.label.clone(),
                stopped_at: plan.backup.stopped_at,
                start_lsn: plan.backup.start.to_string(),
                stop_lsn: plan.backup.stop.to_string(),
                postgresql: plan.backup.postgresql,
            },
            regions: plan.regions.clone(),
            tablespaces: tablespaces
                .map(|one| Tablespace {
                    oid: one.oid,
                    was: one.was.clone(),
                    place: one.place.clone(),
                })
                .collect(),
            space: spaces
                .map(|one| Space { place: one.place.clone(), needed: one.needed, free: one.free })
                .collect(),
            files: plan.prediction.files,
            bytes: plan.prediction.bytes,
            stored_bytes: plan.prediction.stored_bytes,
            wal_bytes: plan.prediction.wal_bytes,
            predicted_seconds: plan.prediction.time.as_secs_f64(),
            rate_measured: plan.prediction.measured,
            notes: plan.notes.clone(),
        }
    }

    fn text(&self) -> String {
        let backup = &self.backup;
        let mut text = format!("Restore of {} to {}\n", self.database, self.to.display());
        let mut line = |name: &str, value: String| {
            text.push_str(&format!("  {name:<10} {value}\n"));
        };
        line("target", format!("{}, then {}", self.target, self.target_action));
        let taken = moment(backup.stopped_at);
        line("backup", format!("{} of {taken}, PostgreSQL {}", backup.name, backup.postgresql));
        line("read from", self.regions.join(", then "));
        let stored = bytes(self.stored_bytes);
        line("size", format!("{} in {} files, {stored} stored", bytes(self.bytes), self.files));
        line("timeline", self.timeline.to_string());
        if let Some(wal) = self.wal_bytes {
            line("replay", format!("{} of WAL", bytes(wal)));
        }
        for one in &self.tablespaces {
            line("tablespace", format!("{} from {} to {}", one.oid, one.was, one.place.display()));
        }
        for one in &self.space {
            let (needed, free) = (bytes(one.needed), bytes(one.free));
            line("disk", format!("{needed} needed, {free} free at {}", one.place.display()));
        }
        let how = if self.rate_measured { "as measured on this host" } else { "assumed" };
        line("predicted", format!("{}, {how}; replay on top", seconds(self.predicted_seconds)));
        for note in &self.notes {
            line("note", note.clone());
        }
        text
    }
}

impl Done {
    fn text(&self, plan: &Plan) -> String {
        let elapsed = Duration::try_from_secs_f64(self.elapsed_seconds).unwrap_or_default();
        let mut text = format!(
            "\nRestored in {} ({} predicted): {} in {} files, {}\n",
            strong(&duration(elapsed)),
            seconds(plan.predicted_seconds),
            bytes(self.bytes),
            self.files,
            rate(self.bytes, elapsed),
        );
        if plan.delta {
            let (kept, removed) = (bytes(self.kept_bytes), self.removed_files);
            text.push_str(&format!("  {kept} were right already, {removed} files went\n"));
        }
        for note in &self.notes {
            text.push_str(&format!("  {note}\n"));
        }
        text.push_str(&format!("\nStart it with\n  {}\n", strong(&self.start_command)));
        text
    }
}

impl Report for Restored {
    const COMMAND: &'static str = "restore";

    fn text(&self) -> String {
        let mut text = self.plan.text();
        match &self.done {
            Some(done) => text.push_str(&done.text(&self.plan)),
            None => text.push_str("\nNothing was written: this was a dry run.\n"),
        }
        if let Some(adopted) = &self.adopted {
            text.push_str(&format!("\n{}", adopted.text()));
        }
        text
    }

    fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }
}

/// One line for the log of a restore that begins.
pub fn intent(plan: &RestorePlan) -> String {
    format!(
        "restoring backup {} to {}: {} in {} files, about {}",
        plan.backup.name,
        plan.to.display(),
        bytes(plan.prediction.bytes),
        plan.prediction.files,
        duration(plan.prediction.time)
    )
}

fn seconds(count: f64) -> String {
    duration(Duration::try_from_secs_f64(count).unwrap_or_default())
}
