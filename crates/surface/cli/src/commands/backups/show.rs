//! `lifeboat backups show`.

use jiff::Timestamp;
use lifeboat_model::DatabaseId;
use lifeboat_objects::Blocking;
use lifeboat_telemetry::{Code, Failure, Outcome, bytes};
use schemars::JsonSchema;
use serde::Serialize;

use super::Stored;
use crate::context::Context;
use crate::output::{Report, moment, strong};
use crate::site::Site;

/// Show everything about one backup
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  lifeboat backups show 00000003-00000001
  lifeboat backups show latest payments/ledger")]
pub struct Args {
    /// The name that `backups list` shows, or `latest`
    name: String,
    /// The database, as SERVICE/DATABASE; without it the one whose data directory is the working
    /// directory, else the only one
    #[arg(value_name = "DB")]
    database: Option<DatabaseId>,
}

/// Everything about a backup.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Shown {
    /// Its name.
    name: String,
    /// `SERVICE/DATABASE`.
    database: String,
    /// What people call it.
    label: Option<String>,
    /// The region that it was taken in.
    taken_in: String,
    /// Regions that hold it.
    regions: Vec<String>,
    /// When it began.
    started_at: Timestamp,
    /// When the last file was read.
    stopped_at: Timestamp,
    /// The backup that came before it.
    predecessor: Option<String>,
    /// The cluster's system identifier.
    system_identifier: String,
    /// Which incarnation of the cluster wrote it.
    incarnation: u64,
    /// `server_version_num`, as in 150014.
    server_version: u32,
    /// Whether it was taken from a standby.
    from_standby: bool,
    /// Whether the cluster's pages carry checksums.
    data_checksums: bool,
    /// Where the data directory was.
    data_directory: String,
    /// The timeline of its WAL.
    timeline: u32,
    /// Replay begins here.
    start_lsn: String,
    /// From here on a restored copy is consistent.
    stop_lsn: String,
    /// Tablespaces outside the data directory.
    tablespaces: Vec<Tablespace>,
    /// Configuration files outside the data directory that are in the backup.
    configuration: Vec<String>,
    /// Files in it.
    files: u64,
    /// Bytes of all files.
    logical_bytes: u64,
    /// Bytes that it uses in each repository.
    stored_bytes: u64,
    /// Bytes that were new with it.
    new_bytes: u64,
    /// Pages that were damaged in the database itself, as `PATH block NUMBER`.
    damaged_pages: Vec<String>,
    /// The version of lifeboat that took it.
    tool: String,
    #[serde(skip)]
    failure: Option<Failure>,
}

/// A tablespace.
#[derive(Debug, Serialize, JsonSchema)]
struct Tablespace {
    /// Its OID.
    oid: u32,
    /// Where it was.
    location: String,
}

impl Shown {
    fn new(stored: Stored, failure: Option<Failure>) -> Self {
        let description = stored.description;
        let cluster = description.cluster;
        let tablespaces = description.tablespaces.into_iter();
        let damaged = description.damaged_pages.into_iter();
        Self {
            name: stored.manifest.body.name,
            database: description.database,
            label: description.label,
            taken_in: description.region,
            regions: stored.regions,
            started_at: description.started_at,
            stopped_at: description.stopped_at,
            predecessor: stored.manifest.body.predecessor.map(|previous| previous.name),
            system_identifier: cluster.system_identifier.to_string(),
            incarnation: cluster.incarnation.0,
            server_version: cluster.version,
            from_standby: cluster.from_standby,
            data_checksums: cluster.data_checksums,
            data_directory: cluster.data_directory,
            timeline: description.wal.timeline.0,
            start_lsn: description.wal.start.to_string(),
            stop_lsn: description.wal.stop.to_string(),
            tablespaces: tablespaces
                .map(|one| Tablespace { oid: one.oid, location: one.location })
                .collect(),
            configuration: description.outside.into_iter().map(|file| file.path).collect(),
            files: description.sizes.files,
            logical_bytes: description.sizes.logical_bytes,
            stored_bytes: description.sizes.stored_bytes,
            new_bytes: description.sizes.new_bytes,
            damaged_pages: damaged
                .map(|page| format!("{} block {}", page.path, page.block))
                .collect(),
            tool: description.tool,
            failure,
        }
    }
}

impl Report for Shown {
    const COMMAND: &'static str = "backups show";

    fn text(&self) -> String {
        let source = if self.from_standby { "a standby" } else { "the primary" };
        let mut text = format!("Backup {} of {}\n", strong(&self.name), self.database);
        let mut line = |name: &str, value: String| {
            if !value.is_empty() {
                text.push_str(&format!("  {name:<14} {value}\n"));
            }
        };
        line("label", self.label.clone().unwrap_or_default());
        let (began, ended) = (moment(self.started_at), moment(self.stopped_at));
        line("taken", format!("{began} to {ended} in {}", self.taken_in));
        line("regions", self.regions.join(", "));
        line("source", format!("{source}, PostgreSQL {}", self.server_version / 10_000));
        line("directory", self.data_directory.clone());
        line("cluster", format!("{}, incarnation {}", self.system_identifier, self.incarnation));
        let (start, stop) = (&self.start_lsn, &self.stop_lsn);
        line("WAL", format!("{start} to {stop} on timeline {}", self.timeline));
        line("size", format!("{} in {} files", bytes(self.logical_bytes), self.files));
        let (stored, new) = (bytes(self.stored_bytes), bytes(self.new_bytes));
        line("stored", format!("{stored}, {new} of it new"));
        for tablespace in &self.tablespaces {
            line("tablespace", format!("{} at {}", tablespace.oid, tablespace.location));
        }
        line("configuration", self.configuration.join(", "));
        line("damaged pages", self.damaged_pages.join(", "));
        line("before it", self.predecessor.clone().unwrap_or_default());
        line("taken by", self.tool.clone());
        text
    }

    fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }
}

/// Finds the backup.
pub fn run(args: &Args, context: &Context) -> Outcome<Shown> {
    let site = Site::open(context)?;
    let blocking = Blocking::new()?;
    let access = site.access(&blocking);
    let (id, _) = site.database(args.database.as_ref())?;
    let regions = access.regions()?;
    let mut backups = super::read(&access, &regions, &id)?;
    if backups.is_empty() {
        return Err(super::none(&id));
    }
    // Each incarnation of a cluster counts its backups anew; the newest one is meant.
    let position = match args.name.as_str() {
        "latest" => backups.len().checked_sub(1),
        name => backups.iter().rposition(|backup| backup.manifest.body.name == name),
    };
    let Some(position) = position else {
        let message = format!("{id} has no backup {}", args.name);
        return Err(Failure::new(Code::BackupMissing, message)
            .hint(format!("`lifeboat backups list {id}` names them.")));
    };
    Ok(Shown::new(backups.swap_remove(position), regions.partial()))
}
