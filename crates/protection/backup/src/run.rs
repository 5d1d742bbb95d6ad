//! The flow of a backup, from the plan to the one signed manifest.

use std::path::PathBuf;
use std::time::Duration;

use lifeboat_cluster::files::list;
use lifeboat_cluster::{ControlFile, control};
use lifeboat_environment::Environment;
use lifeboat_model::Timeline;
use lifeboat_objects::Blocking;
use lifeboat_repository::keys::{WriterKey, WriterStream};
use lifeboat_repository::manifest::{
    Description, Manifest, ManifestBody, Predecessor, Sizes, WalSpan,
};
use lifeboat_repository::regions::Regions;
use lifeboat_telemetry::{Cancel, Code, Failure, Outcome, Reporter};
use nix::fcntl::{Flock, FlockArg};

use crate::commit::Commit;
use crate::source::Source;
use crate::upload::Stored;
use crate::{contents, describe, session, source};

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
    let BackupContext {
        environment,
        blocking,
        reporter,
        cancel,
        ..
    } = *context;
    let began = environment.clock().elapsed();
    let started_at = environment.clock().now();
    let hit = |name: &str| environment.failpoints().hit(name).map_err(Failure::from);

    let _lock = lock(request)?;
    let control = control::read(&request.data_directory, environment)?;
    let source = blocking.run(Source::open(&request.connection))?;
    source.check_identity(&request.data_directory, control.system.0)?;
    source.check_settings(request.archiving)?;
    check_stream(context, control.system.0)?;

    let name = claim(context, regions)?;
    hit("backup.claimed")?;
    reporter.note(format!("backup {name} begins with a checkpoint"));
    let start = blocking.run(source.start(&format!("lifeboat {name}")))?;
    let timeline = blocking.run(source.timeline())?;
    hit("backup.started")?;

    let listing = list(&request.data_directory, control.release)?;
    for note in &listing.notes {
        reporter.warn(note);
    }
    let (outside, roles) = blocking.run(crate::outside::list(&source, &request.data_directory))?;
    let files = contents::Files::new(&request.data_directory, &listing, outside);
    let (copied, stored) = contents::copy(request, context, regions, &files, &control, start.lsn)?;
    hit("backup.copied")?;

    let stopped = blocking.run(source.stop())?;
    let stopped_at = environment.clock().now();
    check_timeline(context, &source, timeline)?;
    hit("backup.stopped")?;
    let wal = WalSpan {
        timeline,
        start: start.lsn,
        stop: stopped.lsn,
    };
    wait_for_wal(request, context, regions, &source, &control, wal)?;
    cancel.check()?;

    reporter.note("writing the manifest");
    let Stored {
        packs,
        objects,
        boot_set,
    } = stored;
    let new_bytes = objects.iter().map(|object| object.size).sum::<u64>();
    let keys = &context.stream.keys;
    let mut commit = Commit {
        environment,
        blocking,
        keys,
        regions,
        objects,
    };
    let damaged_pages = copied.damaged.clone();
    let table = commit.write_files(files.copied(copied, &packs, control.block_size))?;
    hit("backup.before_manifest")?;
    let object_table = commit.write_objects()?;
    let metadata: u64 = commit.objects.iter().map(|object| object.size).sum();
    let sizes = Sizes {
        files: table.files,
        logical_bytes: table.logical_bytes,
        stored_bytes: metadata,
        new_bytes: new_bytes.max(metadata),
    };
    let description = Description {
        database: request.database.clone(),
        label: request.label.clone(),
        region: request.region.clone(),
        started_at,
        stopped_at,
        cluster: describe::cluster(request, context, &source, &control),
        wal,
        backup_label: stopped.backup_label.clone(),
        tablespace_map: stopped.tablespace_map.clone(),
        tablespaces: describe::tablespaces(&listing)?,
        outside: roles,
        file_table: table.file_table,
        boot_set,
        damaged_pages,
        sizes,
        tool: format!("lifeboat {}", env!("CARGO_PKG_VERSION")),
    };
    write_manifest(context, regions, &name, object_table, &description)?;
    hit("backup.after_manifest")?;
    let elapsed = environment.clock().elapsed().saturating_sub(began);
    let regions = regions
        .all()
        .iter()
        .map(|one| one.region().to_owned())
        .collect();
    Ok(BackupReport {
        name,
        description,
        elapsed,
        regions,
    })
}

/// One backup of a database at a time on one host; the kernel frees the lock of a dead process.
fn lock(request: &BackupRequest) -> Outcome<Flock<std::fs::File>> {
    let path = request.state.join(format!(
        "backup-{}.lock",
        request.database.replace('/', "-")
    ));
    let failure = |error: std::io::Error| {
        Failure::new(Code::LocalState, format!("cannot lock {}", path.display())).because(error)
    };
    std::fs::create_dir_all(&request.state).map_err(failure)?;
    let file = std::fs::File::create(&path).map_err(failure)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| {
        let message = format!(
            "another backup of {} is running on this host",
            request.database
        );
        Failure::new(Code::BackupRunning, message)
            .because(error)
            .hint("Wait for it to end; a backup that was killed holds no lock.")
    })
}

fn check_stream(context: &BackupContext<'_>, system_identifier: u64) -> Outcome<()> {
    let bound = context.stream.system_identifier;
    if bound == system_identifier {
        return Ok(());
    }
    let message = format!(
        "the database is bound to system identifier {bound}, this cluster has {system_identifier}",
    );
    Err(Failure::new(Code::BindingConflict, message)
        .hint("Another cluster was put in its place. Give it a database of its own in the spec."))
}

fn claim(context: &BackupContext<'_>, regions: &mut Regions) -> Outcome<String> {
    let signer = context.writer.signing()?;
    let stream = context.stream.keys.stream();
    let label = context.writer.label();
    context.blocking.run(session::claim(
        context.environment,
        regions,
        stream,
        label,
        &signer,
    ))
}

/// A promotion in the middle makes two histories out of one backup.
fn check_timeline(context: &BackupContext<'_>, source: &Source, began: Timeline) -> Outcome<()> {
    let now = context.blocking.run(source.timeline())?;
    if now == began {
        return Ok(());
    }
    let message = format!("the server moved from timeline {began} to {now} during the backup");
    Err(Failure::new(Code::BackupAborted, message).hint("Take the backup again."))
}

fn wait_for_wal(
    request: &BackupRequest,
    context: &BackupContext<'_>,
    regions: &Regions,
    source: &Source,
    control: &ControlFile,
    wal: WalSpan,
) -> Outcome<()> {
    context
        .reporter
        .note("waiting for the WAL of the backup in the repository");
    if source.facts().in_recovery {
        let switched = request.other_connections.iter().any(|other| {
            context
                .blocking
                .run(source::switch_wal(other))
                .unwrap_or(false)
        });
        if !switched {
            context.reporter.warn(
                "the primary could not be asked to switch WAL: waiting until it does by itself",
            );
        }
    }
    let needed = lifeboat_wal::Needed {
        timeline: wal.timeline,
        start: wal.start,
        stop: wal.stop,
        segment_size: control.wal_segment_size,
    };
    let stream = context.stream.keys.stream();
    let deadline = request.wal_deadline;
    lifeboat_wal::wait_until_archived(
        context.environment,
        context.blocking,
        regions,
        stream,
        needed,
        deadline,
        context.cancel,
    )
}

fn write_manifest(
    context: &BackupContext<'_>,
    regions: &mut Regions,
    name: &str,
    object_table: Vec<lifeboat_repository::ids::Digest>,
    description: &Description,
) -> Outcome<()> {
    let keys = &context.stream.keys;
    let manifests = context
        .blocking
        .run(regions.nearest().manifests(keys.stream()))?;
    let predecessor = manifests.last().map(|last| Predecessor {
        name: last.body.name.clone(),
        digest: last.digest,
    });
    let body = ManifestBody {
        name: name.to_owned(),
        predecessor,
        committed_at: context.environment.clock().now(),
        object_table,
        wal: describe::wal_names(&description.wal, description.cluster.wal_segment_bytes)?,
        sealed: String::new(),
    };
    let signer = context.writer.signing()?;
    let (key, bytes) = Manifest::encode(keys, context.environment, &signer, body, description)?;
    context
        .blocking
        .run(regions.create_verified(&key, &bytes))
        .map_err(|failure| {
            if failure.code() != Code::ObjectConflict {
                return failure.within("committing the backup");
            }
            // The maintainer put a tombstone there after the session had expired.
            Failure::new(
                Code::SessionRevoked,
                format!("the session of backup {name} was ended"),
            )
            .because(failure)
            .hint("It ran longer than 24 hours or was stopped for so long; take it again.")
        })
}
