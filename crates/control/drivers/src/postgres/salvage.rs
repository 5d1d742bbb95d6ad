//! What an old primary wrote and nobody has is set apart before its directory changes (R20).
//!
//! WAL from the fork on goes to the repositories. The rows are found by comparing two servers in a
//! sandbox: a copy of the old directory, and the same database as it was at the fork, restored
//! from the repository. The old directory itself is only read.

mod compare;
mod csv;
mod sandbox;
mod table;

use std::fs;
use std::path::{Path, PathBuf};

use lifeboat_cluster::control;
use lifeboat_model::{Lsn, Timeline};
use lifeboat_repository::access::Access;
use lifeboat_repository::regions::Regions;
use lifeboat_telemetry::{Cancel, Code, Failure, Outcome, Reporter};
use lifeboat_wal::salvage::{Tail, store};

use super::child::Work;
use super::life::{self, Life};
use super::settings::Settings;
use super::{place, wal_end};
use sandbox::Sandbox;

pub use table::{Kind, SalvagedTable};

const SUMMARY: &str = "summary.txt";
const LIMIT: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

/// Whom a salvage works with.
pub struct Salvaging<'a> {
    /// The node of the old primary.
    pub settings: &'a Settings,
    /// The way to repositories and keys.
    pub access: &'a Access<'a>,
    /// The repositories.
    pub regions: &'a Regions,
    /// Who listens.
    pub reporter: &'a Reporter,
    /// Who may stop it.
    pub cancel: &'a Cancel,
    /// Where the timelines part.
    pub fork: Lsn,
}

/// What was set apart.
#[derive(Debug)]
pub struct Salvaged {
    /// Where the files lie.
    pub folder: PathBuf,
    /// The old primary's timeline.
    pub timeline: Timeline,
    /// Where its WAL ends.
    pub end: Lsn,
    /// The regions whose repositories have its WAL now.
    pub regions: Vec<String>,
    /// Tables with rows that differ, and tables that could not be compared.
    pub tables: Vec<SalvagedTable>,
    /// How many tables are the same.
    pub same: usize,
}

impl Salvaged {
    /// In words.
    pub fn text(&self) -> String {
        let Self { folder, timeline, end, regions, tables, same } = self;
        let mut text = format!(
            "The old primary went to {end} of timeline {timeline}. Its WAL is in the repositories of \
             {}.\nFiles lie in {}.\n",
            regions.join(", "),
            folder.display()
        );
        for table in tables {
            text.push_str(&format!("  {}\n", table.text()));
        }
        let (differ, all) = (tables.len(), tables.len().saturating_add(*same));
        text.push_str(&format!("{differ} of {all} tables differ or could not be compared.\n"));
        text
    }
}

/// Runs it in a process of its own; what it found, in words. Blocks.
pub(crate) fn in_child(own: &Settings, fork: Lsn) -> Outcome<String> {
    let summary = folder(own, fork)?.join(SUMMARY);
    if let Ok(text) = fs::read_to_string(&summary) {
        return Ok(text);
    }
    let work = Work::begin(own)?;
    let arguments = [
        "--spec".to_owned(),
        own.spec_path.display().to_string(),
        "--here".to_owned(),
        own.node()?.region.to_string(),
        "standby".to_owned(),
        "salvage".to_owned(),
        own.database.to_string(),
        "--node".to_owned(),
        own.node.to_string(),
        "--fork".to_owned(),
        fork.to_string(),
    ];
    let finished = work.lifeboat(own, arguments, LIMIT)?;
    // 5 is partial: the summary names what could not be compared.
    let done = matches!(finished.code, Some(0 | 5));
    match fs::read_to_string(&summary) {
        Ok(text) if done => Ok(text),
        _ => Err(Failure::new(Code::SalvageFailed, "what the old primary wrote is not set apart")
            .details(finished.lines())
            .hint("Its directory is as it was. Run the step again once the cause is gone.")),
    }
}

/// Sets apart. Repeated, it says the same; interrupted, it begins anew.
pub fn salvage(salvaging: &Salvaging<'_>) -> Outcome<Salvaged> {
    let own = salvaging.settings;
    if !matches!(life::look(own)?, Life::None) {
        let message = format!("node {} still runs", own.node);
        return Err(Failure::new(Code::InstanceRole, message)
            .hint("It is stopped or fenced before its directory is read."));
    }
    let data = own.data()?;
    let control = control::read(data, &own.environment)?;
    let (timeline, end) = wal_end::end(data, &control)?;
    let folder = folder(own, salvaging.fork)?;
    let mut salvaged =
        Salvaged { folder, timeline, end, regions: Vec::new(), tables: Vec::new(), same: 0 };
    if end <= salvaging.fork {
        return finish(salvaged);
    }
    salvaging.reporter.note("storing WAL behind the fork".to_owned());
    salvaged.regions = wal(salvaging, (timeline, end), control.wal_segment_size)?;
    own.environment.failpoints().hit("salvage.wal")?;

    // What an interrupted attempt left must not be taken for a result.
    empty(own, &salvaged.folder)?;
    let mut before = Sandbox::at_fork(salvaging, &salvaged.folder, timeline)?;
    let mut after = Sandbox::of_directory(salvaging, &salvaged.folder)?;
    salvaging.cancel.check()?;
    let compared = compare::all(salvaging, &mut before, &mut after, &salvaged.folder);
    before.remove()?;
    after.remove()?;
    (salvaged.tables, salvaged.same) = compared?;
    finish(salvaged)
}

fn finish(salvaged: Salvaged) -> Outcome<Salvaged> {
    place::write_new(&salvaged.folder.join(SUMMARY), salvaged.text().as_bytes())?;
    Ok(salvaged)
}

fn wal(
    salvaging: &Salvaging<'_>,
    (timeline, end): (Timeline, Lsn),
    segment_size: lifeboat_model::SegmentSize,
) -> Outcome<Vec<String>> {
    let (own, access) = (salvaging.settings, salvaging.access);
    let database = own.database.to_string();
    let writer = access.writer(salvaging.regions)?;
    let Some(stream) = writer.stream(&database).cloned() else {
        let message = format!("{database} is not bound in this host's writer key");
        return Err(Failure::new(Code::WriterKeyIncomplete, message)
            .hint("Run `lifeboat key enroll` here, then the step again."));
    };
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    store(
        &Tail {
            environment: &own.environment,
            blocking: access.blocking,
            writer: &writer,
            stream: &stream,
            host: host.trim(),
            region: own.node()?.region.as_str(),
            folder: &own.data()?.join("pg_wal"),
            segment_size,
            timeline,
            from: salvaging.fork,
            to: end,
            level: 1,
        },
        salvaging.regions,
    )
}

/// Where the files of one fork lie: beside the data directory, for its owner alone.
fn folder(own: &Settings, fork: Lsn) -> Outcome<PathBuf> {
    let folder = place::aside(own)?.join(format!("salvaged-{:016X}", fork.0));
    if !folder.is_dir() {
        fs::create_dir(&folder).map_err(|error| place::failed(&folder, error))?;
        place::give(own, &folder)?;
    }
    Ok(folder)
}

fn empty(own: &Settings, folder: &Path) -> Outcome<()> {
    for entry in fs::read_dir(folder).map_err(|error| place::failed(folder, error))?.flatten() {
        let path = entry.path();
        let removed = match path.is_dir() && !path.is_symlink() {
            true => {
                life::kill_all_in(own, &path)?;
                fs::remove_dir_all(&path)
            }
            false => fs::remove_file(&path),
        };
        removed.map_err(|error| place::failed(&path, error))?;
    }
    Ok(())
}
