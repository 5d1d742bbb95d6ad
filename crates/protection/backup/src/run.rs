//! The flow of a backup, from the plan to the one signed manifest.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use lifeboat_cluster::files::{Listing, list};
use lifeboat_environment::Environment;
use lifeboat_objects::Blocking;
use lifeboat_repository::keys::{WriterKey, WriterStream};
use lifeboat_repository::manifest::{Description, OutsideFile, Sizes, WalSpan};
use lifeboat_repository::regions::Regions;
use lifeboat_telemetry::{Cancel, Failure, Outcome, Reporter};

use crate::commit::Commit;
use crate::contents::{Contents, Files};
use crate::open::Opened;
use crate::source::Stopped;
use crate::upload::Stored;
use crate::{archive, contents, describe, finish, open, receivers, session};

/// What to back up, and how.
#[derive(Debug, Clone)]
pub struct BackupRequest {
    /// `SERVICE/DATABASE`.
    pub database: String,
    /// The region that this process runs in.
    pub region: String,
    /// The data directory.
    pub data_directory: PathBuf,
    /// How to reach its server.
    pub connection: String,
    /// How to reach the other nodes: one of them may be the primary of this standby.
    pub other_connections: Vec<String>,
    /// What the person calls the backup.
    pub label: Option<String>,
    /// zstd level.
    pub level: i32,
    /// Reading and compressing threads.
    pub workers: usize,
    /// Bytes read a second, over all workers.
    pub rate_limit: Option<u64>,
    /// Whether WAL comes by `archive_command`.
    pub archiving: bool,
    /// The slots of the receivers that bring it else.
    pub receivers: Vec<String>,
    /// How long to wait for the WAL of the backup.
    pub wal_deadline: Duration,
    /// Where the lock of this database lies.
    pub state: PathBuf,
}

/// Whom a backup works with.
pub struct BackupContext<'a> {
    /// Time, chance, failpoints.
    pub environment: &'a Environment,
    /// Runs store operations.
    pub blocking: &'a Blocking,
    /// The writer.
    pub writer: &'a WriterKey,
    /// Its stream.
    pub stream: &'a WriterStream,
    /// Who listens.
    pub reporter: &'a Reporter,
    /// Who may stop it.
    pub cancel: &'a Cancel,
}

impl BackupContext<'_> {
    /// A failpoint.
    pub fn hit(&self, name: &str) -> Outcome<()> {
        self.environment.failpoints().hit(name).map_err(Failure::from)
    }
}

/// What a backup came to.
#[derive(Debug, Clone)]
pub struct BackupReport {
    /// The manifest's name, which is the backup's.
    pub name: String,
    /// What it is.
    pub description: Description,
    /// From the first step to the commit.
    pub elapsed: Duration,
    /// Regions that hold it.
    pub regions: Vec<String>,
}

/// Takes a backup into all regions that answer; those that do not are named by
/// [`Regions::partial`] afterwards.
pub fn run(
    request: &BackupRequest,
    context: &BackupContext<'_>,
    regions: &mut Regions,
) -> Outcome<BackupReport> {
    let began = context.environment.clock().elapsed();
    let _lock = open::lock(request)?;
    let opened = open::source(request, context, regions)?;
    receivers::keep_wal(request, context, &opened.source)?;
    let name = claim(request, context, regions)?;
    context.hit("backup.claimed")?;

    let taken = take(request, context, regions, &opened, &name)?;
    context.hit("backup.stopped")?;
    archive::wait_for_wal(request, context, regions, &opened, taken.wal)?;
    context.cancel.check()?;

    let description = commit(request, context, regions, &opened, taken, &name)?;
    context.hit("backup.after_manifest")?;
    finish::record(context, regions, &name, &description);
    let elapsed = context.environment.clock().elapsed().saturating_sub(began);
    let regions = regions.all().iter().map(|one| one.region().to_owned()).collect();
    Ok(BackupReport { name, description, elapsed, regions })
}

/// What was taken between start and stop.
struct Taken {
    started_at: Timestamp,
    stopped_at: Timestamp,
    wal: WalSpan,
    stopped: Stopped,
    listing: Listing,
    outside: Vec<OutsideFile>,
    files: Files,
    contents: Contents,
    stored: Stored,
}

/// From `pg_backup_start` to `pg_backup_stop`: every file is read while the server writes.
fn take(
    request: &BackupRequest,
    context: &BackupContext<'_>,
    regions: &mut Regions,
    opened: &Opened,
    name: &str,
) -> Outcome<Taken> {
    let BackupContext { blocking, reporter, .. } = *context;
    let Opened { control, source } = opened;
    let started_at = context.environment.clock().now();
    reporter.note(format!("backup {name} begins with a checkpoint"));
    let start = blocking.run(source.start(&format!("lifeboat {name}")))?;
    let timeline = blocking.run(source.timeline())?;
    context.hit("backup.started")?;

    let listing = list(&request.data_directory, control.release)?;
    for note in &listing.notes {
        reporter.warn(note);
    }
    let (entries, outside) = blocking.run(crate::outside::list(source, &request.data_directory))?;
    let files = Files::new(&request.data_directory, &listing, entries);
    let (contents, stored) = contents::copy(request, context, regions, &files, control, start.lsn)?;
    context.hit("backup.copied")?;

    let stopped = blocking.run(source.stop())?;
    let stopped_at = context.environment.clock().now();
    open::check_timeline(context, source, timeline)?;
    let wal = WalSpan { timeline, start: start.lsn, stop: stopped.lsn };
    Ok(Taken { started_at, stopped_at, wal, stopped, listing, outside, files, contents, stored })
}

/// Maps, tables, then the one signed manifest: from here on the backup exists.
fn commit(
    request: &BackupRequest,
    context: &BackupContext<'_>,
    regions: &mut Regions,
    opened: &Opened,
    taken: Taken,
    name: &str,
) -> Outcome<Description> {
    context.reporter.note("writing the manifest");
    let Opened { control, source } = opened;
    let Stored { packs, objects, boot_set } = taken.stored;
    let BackupContext { environment, blocking, .. } = *context;
    let keys = &context.stream.keys;
    let mut commit = Commit { environment, blocking, keys, regions, objects };
    let damaged_pages = taken.contents.damaged.clone();
    let copied = taken.files.copied(taken.contents, &packs, control.block_size);
    let table = commit.write_files(copied)?;
    context.hit("backup.before_manifest")?;
    let object_table = commit.write_objects()?;
    let stored_bytes: u64 = commit.objects.iter().map(|object| object.size).sum();
    let description = Description {
        database: request.database.clone(),
        label: request.label.clone(),
        region: request.region.clone(),
        started_at: taken.started_at,
        stopped_at: taken.stopped_at,
        cluster: describe::cluster(request, context, source, control),
        wal: taken.wal,
        backup_label: taken.stopped.backup_label,
        tablespace_map: taken.stopped.tablespace_map,
        tablespaces: describe::tablespaces(&taken.listing)?,
        outside: taken.outside,
        file_table: table.file_table,
        boot_set,
        damaged_pages,
        sizes: Sizes {
            files: table.files,
            logical_bytes: table.logical_bytes,
            stored_bytes,
            // Version 1 of the writer stores every page anew.
            new_bytes: stored_bytes,
        },
        tool: format!("lifeboat {}", env!("CARGO_PKG_VERSION")),
    };
    finish::write_manifest(context, regions, name, object_table, &description)?;
    Ok(description)
}

fn claim(
    request: &BackupRequest,
    context: &BackupContext<'_>,
    regions: &mut Regions,
) -> Outcome<String> {
    let signer = context.writer.signing()?;
    let stream = context.stream.keys.stream();
    let (database, label) = (&request.database, context.writer.label());
    let environment = context.environment;
    let claimed = session::claim(environment, regions, database, stream, label, &signer);
    context.blocking.run(claimed)
}
