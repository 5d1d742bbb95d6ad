//! `lifeboat backups list`.

use jiff::Timestamp;
use lifeboat_model::DatabaseId;
use lifeboat_objects::Blocking;
use lifeboat_telemetry::{Failure, Outcome, bytes};
use schemars::JsonSchema;
use serde::Serialize;

use super::Stored;
use crate::context::Context;
use crate::output::{Report, moment, table};
use crate::site::Site;

/// List the backups of a database, oldest first
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  lifeboat backups list
  lifeboat backups list payments/ledger --json")]
pub struct Args {
    /// The database, as SERVICE/DATABASE; without it the one whose data directory is the working
    /// directory, else the only one
    #[arg(value_name = "DB")]
    database: Option<DatabaseId>,
}

/// The backups of a database.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Listed {
    /// `SERVICE/DATABASE`.
    database: String,
    /// Its backups, oldest first.
    backups: Vec<Backup>,
    #[serde(skip)]
    failure: Option<Failure>,
}

/// One backup.
#[derive(Debug, Serialize, JsonSchema)]
struct Backup {
    /// Its name.
    name: String,
    /// What people call it.
    label: Option<String>,
    /// When it began.
    started_at: Timestamp,
    /// When the last file was read.
    stopped_at: Timestamp,
    /// From here on a restored copy is consistent.
    stop_lsn: String,
    /// The timeline of its WAL.
    timeline: u32,
    /// Which incarnation of the cluster wrote it.
    incarnation: u64,
    /// Bytes of all files.
    logical_bytes: u64,
    /// Bytes that it uses in each repository.
    stored_bytes: u64,
    /// Bytes that were new with it.
    new_bytes: u64,
    /// Pages that were damaged in the database itself.
    damaged_pages: usize,
    /// Regions that hold it.
    regions: Vec<String>,
}

impl Backup {
    fn new(stored: Stored) -> Self {
        let description = stored.description;
        Self {
            name: stored.manifest.body.name,
            label: description.label,
            started_at: description.started_at,
            stopped_at: description.stopped_at,
            stop_lsn: description.wal.stop.to_string(),
            timeline: description.wal.timeline.0,
            incarnation: description.cluster.incarnation.0,
            logical_bytes: description.sizes.logical_bytes,
            stored_bytes: description.sizes.stored_bytes,
            new_bytes: description.sizes.new_bytes,
            damaged_pages: description.damaged_pages.len(),
            regions: stored.regions,
        }
    }

    fn row(&self) -> [String; 8] {
        [
            self.name.clone(),
            self.incarnation.to_string(),
            moment(self.stopped_at),
            bytes(self.logical_bytes),
            bytes(self.new_bytes),
            self.stop_lsn.clone(),
            self.regions.join(", "),
            self.label.clone().unwrap_or_default(),
        ]
    }
}

impl Report for Listed {
    const COMMAND: &'static str = "backups list";

    fn text(&self) -> String {
        if self.backups.is_empty() {
            return format!("There is no backup of {} yet.\n", self.database);
        }
        table(
            ["Backup", ">Incarnation", "Taken", ">Size", ">New", "Up to LSN", "Regions", "Label"],
            self.backups.iter().map(Backup::row).collect(),
        )
    }

    fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }
}

/// Reads the manifests of all regions.
pub fn run(args: &Args, context: &Context) -> Outcome<Listed> {
    let site = Site::open(context)?;
    let blocking = Blocking::new()?;
    let access = site.access(&blocking);
    let (id, _) = site.database(args.database.as_ref())?;
    let regions = access.regions()?;
    let backups = super::read(&access, &regions, &id)?;
    Ok(Listed {
        database: id.to_string(),
        backups: backups.into_iter().map(Backup::new).collect(),
        failure: regions.partial(),
    })
}
