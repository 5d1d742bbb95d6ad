//! `lifeboat wal push`: archive_command.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lifeboat_cluster::control;
use lifeboat_model::spec::Database;
use lifeboat_model::{Compression, DatabaseId, TimeSpan};
use lifeboat_objects::Blocking;
use lifeboat_repository::access::writer_path;
use lifeboat_repository::keys::{WriterKey, WriterStream};
use lifeboat_telemetry::{Code, Failure, Outcome};
use lifeboat_wal::push::{Ahead, How, PushRequest};
use schemars::JsonSchema;
use serde::Serialize;

use crate::context::Context;
use crate::output::Report;
use crate::site::Site;

/// Archive one WAL file into every region: PostgreSQL's archive_command
///
/// Exits 0 once at least one repository holds the file durably; otherwise with a code from 1 to
/// 125, and PostgreSQL keeps the file and tries again. The same file again is a success, other
/// content under the same name is refused. Files that are ready besides are sent along.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  archive_command = '/usr/bin/lifeboat --spec /etc/lifeboat/lifeboat.yaml --here east wal push \"%p\"'
  lifeboat wal push pg_wal/000000010000000000000007 --db payments/ledger")]
pub struct Args {
    /// The file; a relative path is relative to the data directory, as %p is
    file: PathBuf,
    /// The database, as SERVICE/DATABASE; without it the one whose data directory is the working
    /// directory, else the only one
    #[arg(long, value_name = "DB")]
    db: Option<DatabaseId>,
    /// How long the call may take, as in 30s [default: the spec's wal.fetch_deadline]
    #[arg(long, value_name = "DURATION")]
    deadline: Option<TimeSpan>,
}

/// What became of the file.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Pushed {
    /// The file.
    file: String,
    /// `stored`, `identical` (it was there already) or `ahead` (an earlier call sent it along).
    how: &'static str,
    /// Regions that hold it; empty if an earlier call sent it along.
    regions: Vec<String>,
    /// Regions that lack something, and why.
    lag: BTreeMap<String, String>,
    /// Files that were sent along.
    ahead: Vec<String>,
}

impl Report for Pushed {
    const COMMAND: &'static str = "wal push";

    /// Nothing: PostgreSQL would write it into its log for every segment.
    fn text(&self) -> String {
        String::new()
    }
}

/// Archives the file.
pub fn run(args: &Args, context: &Context) -> Outcome<Pushed> {
    let site = Site::open(context)?;
    let (id, database) = site.database(args.db.as_ref())?;
    let working_directory = working_directory()?;
    let stream = stream(&site, &id, &working_directory)?;
    let deadline = args.deadline.unwrap_or(database.wal.fetch_deadline).duration();
    let pushed = lifeboat_wal::push::push(&PushRequest {
        environment: &context.environment,
        cancel: &context.cancel,
        reporter: &context.reporter,
        database: &id.to_string(),
        stream: &stream,
        data_directories: &data_directories(&site, database),
        working_directory: &working_directory,
        path: &args.file,
        state: &site.state,
        level: match database.backup.compression {
            Compression::None => 0,
            Compression::Zstd(level) => i32::from(level),
        },
        deadline,
        ahead: Ahead::default(),
        open: &|blocking, left_out| {
            let access = site.access_within(blocking, deadline);
            access.regions_for_push(left_out)
        },
    })?;
    for (region, why) in &pushed.lag {
        context.reporter.warn(format!("{} is not in {region}: {why}", pushed.file));
    }
    Ok(Pushed {
        file: pushed.file,
        how: match pushed.how {
            How::Stored => "stored",
            How::Identical => "identical",
            How::Ahead => "ahead",
        },
        regions: pushed.regions,
        lag: pushed.lag,
        ahead: pushed.ahead,
    })
}

/// Where PostgreSQL started the command: its data directory.
pub fn working_directory() -> Outcome<PathBuf> {
    std::env::current_dir().map_err(|error| {
        Failure::new(Code::LocalFile, "the working directory cannot be found").because(error)
    })
}

/// The stream of this host's writer key; one that is not bound yet is bound now, if a slot opens.
fn stream(site: &Site<'_>, id: &DatabaseId, working_directory: &Path) -> Outcome<WriterStream> {
    let database = id.to_string();
    let writer = WriterKey::load(&writer_path(&site.spec, &site.state))?;
    if let Some(stream) = writer.stream(&database) {
        return Ok(stream.clone());
    }
    let control = control::read(working_directory, &site.context().environment)?;
    let blocking = Blocking::new()?;
    let access = site.access(&blocking);
    let mut regions = access.regions()?;
    let (_, stream) = access.writer_stream(&mut regions, &database, control.system.0)?;
    Ok(stream)
}

/// Data directories that may push: those of the database's nodes in this region.
fn data_directories(site: &Site<'_>, database: &Database) -> Vec<PathBuf> {
    let nodes = database.nodes.values();
    let here = nodes.filter(|node| site.here.as_ref().is_none_or(|here| *here == node.region));
    here.map(|node| node.data_directory.clone()).collect()
}
