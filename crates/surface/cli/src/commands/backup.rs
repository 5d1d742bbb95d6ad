//! `lifeboat backup`: one backup of one database into all regions.

use std::path::PathBuf;
use std::thread::available_parallelism;
use std::time::Duration;

use jiff::Timestamp;
use lifeboat_backup::{BackupContext, BackupReport, BackupRequest};
use lifeboat_cluster::control;
use lifeboat_model::spec::{Database, PostgresNode, WalMode};
use lifeboat_model::{Compression, DatabaseId};
use lifeboat_objects::Blocking;
use lifeboat_telemetry::{Code, Failure, Outcome, bytes, duration, rate};
use lifeboat_wal::receiver_name;
use schemars::JsonSchema;
use serde::Serialize;

use crate::context::Context;
use crate::output::{Report, strong};
use crate::site::Site;

/// How long the archive may lag behind the end of a backup.
const WAL_DEADLINE: Duration = Duration::from_secs(180);

/// Back up a database into every region
///
/// Reads the data directory of the node on this host once, while the database is in use, and
/// writes the same bytes to every region's repository. Waits until the WAL that the backup needs
/// is archived, then commits by one signed manifest. A region that does not answer is skipped and
/// named, with exit code 5; the backup is valid. Ctrl-C leaves no half backup. Run it as the user
/// that runs PostgreSQL.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  lifeboat backup
  lifeboat backup payments/ledger --here east --label 'before the release'")]
pub struct Args {
    /// The database, as SERVICE/DATABASE; without it the one whose data directory is the working
    /// directory, else the only one
    #[arg(value_name = "DB")]
    database: Option<DatabaseId>,
    /// Read every page; in this version every backup does
    #[arg(long)]
    full: bool,
    /// What people call the backup
    #[arg(long, value_name = "TEXT")]
    label: Option<String>,
}

/// A backup that was taken.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Taken {
    /// Its name.
    name: String,
    /// `SERVICE/DATABASE`.
    database: String,
    /// What people call it.
    label: Option<String>,
    /// Regions that hold it.
    regions: Vec<String>,
    /// Regions that were skipped.
    skipped: Vec<String>,
    /// When it began.
    started_at: Timestamp,
    /// When the last file was read.
    stopped_at: Timestamp,
    /// From the first step to the commit, in seconds.
    elapsed_seconds: f64,
    /// The timeline of its WAL.
    timeline: u32,
    /// Replay begins here.
    start_lsn: String,
    /// From here on a restored copy is consistent.
    stop_lsn: String,
    /// Files in it.
    files: u64,
    /// Bytes of all files.
    logical_bytes: u64,
    /// Bytes that it uses in each repository.
    stored_bytes: u64,
    /// Bytes that were new with it.
    new_bytes: u64,
    /// Pages that fail their checksum, stored as they are.
    damaged_pages: Vec<DamagedPage>,
    #[serde(skip)]
    failure: Option<Failure>,
}

/// A page that fails its checksum in the database itself.
#[derive(Debug, Serialize, JsonSchema)]
struct DamagedPage {
    /// The file below the data directory.
    path: String,
    /// The block, counted over all segments of the relation.
    block: u32,
}

impl Report for Taken {
    const COMMAND: &'static str = "backup";

    fn text(&self) -> String {
        let elapsed = Duration::try_from_secs_f64(self.elapsed_seconds).unwrap_or_default();
        format!(
            "Backup {} of {} is complete in {}.\n  {} in {} files, {} stored, {} new\n  \
             {} ({}), WAL {} to {} on timeline {}\n",
            strong(&self.name),
            self.database,
            self.regions.join(", "),
            bytes(self.logical_bytes),
            self.files,
            bytes(self.stored_bytes),
            bytes(self.new_bytes),
            duration(elapsed),
            rate(self.logical_bytes, elapsed),
            self.start_lsn,
            self.stop_lsn,
            self.timeline,
        )
    }

    fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }
}

/// Takes the backup.
pub fn run(args: &Args, context: &Context) -> Outcome<Taken> {
    let site = Site::open(context)?;
    let blocking = Blocking::new()?;
    let access = site.access(&blocking);
    let (id, database) = site.database(args.database.as_ref())?;
    let (_, node) = site.node(&id, database)?;
    let request = request(args, context, &site, (&id, database, node))?;
    let control = control::read(&node.data_directory, &context.environment)?;
    let mut regions = access.regions()?;
    for skipped in regions.skipped() {
        context.reporter.warn(format!("region {}: {}", skipped.region, skipped.failure));
    }
    let (writer, stream) = access.writer_stream(&mut regions, &id.to_string(), control.system.0)?;
    let report = lifeboat_backup::run(
        &request,
        &BackupContext {
            environment: &context.environment,
            blocking: &blocking,
            writer: &writer,
            stream: &stream,
            reporter: &context.reporter,
            cancel: &context.cancel,
        },
        &mut regions,
    )?;
    let skipped = regions.skipped().iter().map(|skipped| skipped.region.clone()).collect();
    Ok(Taken::new(report, skipped, regions.partial()))
}

fn request(
    args: &Args,
    context: &Context,
    site: &Site<'_>,
    (id, database, node): (&DatabaseId, &Database, &PostgresNode),
) -> Outcome<BackupRequest> {
    let settings = &database.backup;
    let others = database.nodes.values().filter(|other| *other != node);
    // Another node may be named by variables that only its own host has.
    let others = others.filter_map(|other| other.connection.resolve(&context.environment).ok());
    let processors = || available_parallelism().map_or(1, usize::from);
    Ok(BackupRequest {
        database: id.to_string(),
        region: node.region.to_string(),
        data_directory: PathBuf::from(&node.data_directory),
        connection: node.connection.resolve(&context.environment)?,
        other_connections: others.collect(),
        label: args.label.clone(),
        level: match settings.compression {
            Compression::None => 0,
            Compression::Zstd(level) => i32::from(level),
        },
        workers: settings.workers.map_or_else(processors, usize::from),
        rate_limit: settings.rate_limit.map(|limit| limit.0),
        archiving: database.wal.mode == WalMode::Archive,
        receivers: match database.wal.mode {
            WalMode::Archive => Vec::new(),
            WalMode::Stream => {
                let regions = database.wal.receivers.iter();
                regions.map(|region| receiver_name(id, region)).collect()
            }
        },
        wal_deadline: WAL_DEADLINE,
        state: site.state.clone(),
    })
}

impl Taken {
    fn new(report: BackupReport, skipped: Vec<String>, partial: Option<Failure>) -> Self {
        let description = report.description;
        let damaged = description
            .damaged_pages
            .into_iter()
            .map(|page| DamagedPage { path: page.path, block: page.block });
        let damaged_pages: Vec<DamagedPage> = damaged.collect();
        let failure = damage(&report.name, &damaged_pages).or(partial);
        Self {
            name: report.name,
            database: description.database,
            label: description.label,
            regions: report.regions,
            skipped,
            started_at: description.started_at,
            stopped_at: description.stopped_at,
            elapsed_seconds: report.elapsed.as_secs_f64(),
            timeline: description.wal.timeline.0,
            start_lsn: description.wal.start.to_string(),
            stop_lsn: description.wal.stop.to_string(),
            files: description.sizes.files,
            logical_bytes: description.sizes.logical_bytes,
            stored_bytes: description.sizes.stored_bytes,
            new_bytes: description.sizes.new_bytes,
            damaged_pages,
            failure,
        }
    }
}

fn damage(name: &str, pages: &[DamagedPage]) -> Option<Failure> {
    (!pages.is_empty()).then(|| {
        let count = pages.len();
        let message = format!("backup {name} is complete and holds {count} damaged page(s)");
        Failure::new(Code::PageDamageStored, message)
            .details(pages.iter().map(|page| format!("{} block {}", page.path, page.block)))
            .hint("The database itself is damaged there: check its disk, restore what it hit.")
    })
}
