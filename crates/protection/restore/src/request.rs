//! What a person asks for, and the plan that answers it.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use lifeboat_model::{Lsn, RecoveryTarget, SegmentName, Timeline};
use lifeboat_repository::manifest::Description;
use lifeboat_wal::plan::PlanRepository;
use serde::Serialize;

use crate::claim::Found;

/// What to restore, how far, and to where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreRequest {
    /// `SERVICE/DATABASE`.
    pub database: String,
    /// The directory to fill; absolute.
    pub to: PathBuf,
    /// How far recovery goes.
    pub target: RecoveryTarget,
    /// The backup to start from, where the person names one.
    pub backup: Option<String>,
    /// The timeline to follow, where the person names one.
    pub timeline: Option<Timeline>,
    /// What the server does when it is there.
    pub action: TargetAction,
    /// Whether a stopped cluster may be overwritten.
    pub delta: bool,
    /// Whether the copy becomes the source, and archives.
    pub adopt: bool,
    /// Whether the copy becomes a standby of its source: of the same incarnation, streaming once
    /// it is told from whom, and never a primary by itself (ADR 0014).
    pub standby: bool,
    /// New places of tablespaces, by old place or by OID.
    pub tablespaces: Vec<(String, PathBuf)>,
    /// Who shall own the files, where root restores.
    pub owner: Option<String>,
    /// Working threads; 0 for as many as the machine can use.
    pub workers: usize,
    /// The programs of the PostgreSQL to start, for the advice at the end.
    pub bin_directory: Option<PathBuf>,
    /// What restore_command needs.
    pub fetch: FetchCommand,
    /// Where this host keeps its state.
    pub state: PathBuf,
}

/// The parts of restore_command that only the command line knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchCommand {
    /// The lifeboat binary; absolute.
    pub binary: PathBuf,
    /// The spec; absolute.
    pub spec: PathBuf,
    /// The region of the host that restores.
    pub here: String,
    /// All repositories of the spec, with every reference resolved.
    pub repositories: Vec<PlanRepository>,
    /// How long one call may try.
    pub deadline: Duration,
}

/// What the server does at the target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetAction {
    /// Accept connections for writing.
    #[default]
    Promote,
    /// Wait, readable, for a person to decide.
    Pause,
    /// Shut down.
    Shutdown,
}

/// What a restore will do, checked against repository and disk.
#[derive(Debug, Clone, Serialize)]
pub struct RestorePlan {
    /// `SERVICE/DATABASE`.
    pub database: String,
    /// The directory to fill.
    pub to: PathBuf,
    /// What is there now.
    pub found: Found,
    /// Whether a stopped cluster may be overwritten.
    pub delta: bool,
    /// Whether the copy becomes the source.
    pub adopt: bool,
    /// How far recovery goes.
    pub target: RecoveryTarget,
    /// What the server does there.
    pub action: TargetAction,
    /// The timeline to follow.
    pub timeline: Timeline,
    /// The last segment of each timeline that the archive has.
    pub frontier: Vec<SegmentName>,
    /// Where recovery starts.
    pub backup: PlannedBackup,
    /// Regions to read from, in order.
    pub regions: Vec<String>,
    /// New places of tablespaces.
    pub tablespaces: Vec<PlannedTablespace>,
    /// What each disk must take.
    pub space: Vec<Space>,
    /// What it will cost.
    pub prediction: Prediction,
    /// What a person should know before it starts.
    pub notes: Vec<String>,
    /// What the backup's manifest says.
    #[serde(skip)]
    pub description: Description,
    /// What was asked for.
    #[serde(skip)]
    pub request: RestoreRequest,
}

/// The backup that a restore starts from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedBackup {
    /// Its name.
    pub name: String,
    /// What the person called it.
    pub label: Option<String>,
    /// When it ended.
    pub stopped_at: Timestamp,
    /// Its timeline.
    pub timeline: Timeline,
    /// Redo begins here.
    pub start: Lsn,
    /// From here on the cluster is consistent.
    pub stop: Lsn,
    /// PostgreSQL's major version.
    pub postgresql: u32,
}

/// Where a tablespace goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedTablespace {
    /// Its OID.
    pub oid: u32,
    /// Where it was.
    pub was: String,
    /// Where it will be.
    pub place: PathBuf,
}

/// What a restore writes to one disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Space {
    /// A directory on that disk.
    pub place: PathBuf,
    /// Bytes that the restore writes there.
    pub needed: u64,
    /// Bytes that are free.
    pub free: u64,
}

/// What a restore will cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Prediction {
    /// Files to write.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Stored bytes to read.
    pub stored_bytes: u64,
    /// WAL from the start of the backup to the target, where that is known.
    pub wal_bytes: Option<u64>,
    /// Bytes a second that the time is computed with.
    pub rate: u64,
    /// Whether this host measured that rate; else it is assumed.
    pub measured: bool,
    /// Time to fill the directory; replay comes on top.
    pub time: Duration,
}

/// What a restore did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RestoreReport {
    /// The directory.
    pub to: PathBuf,
    /// The backup's name.
    pub backup: String,
    /// Files that were restored.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that were right already, and stayed.
    pub kept_bytes: u64,
    /// Stored bytes that were read from repositories.
    pub fetched_bytes: u64,
    /// Files that an old cluster had and the backup has not.
    pub removed_files: u64,
    /// The incarnation of the cluster that this copy is.
    pub incarnation: u64,
    /// How long it took.
    pub time: Duration,
    /// How long it should have taken.
    pub predicted: Duration,
    /// What a person should know or do.
    pub notes: Vec<String>,
    /// The command that starts the server.
    pub start_command: String,
}
