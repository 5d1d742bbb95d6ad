//! pg_rewind: a directory that diverged goes back to where the new primary's history left it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat_cluster::ControlFile;
use lifeboat_cluster::control::{self, State};
use lifeboat_cluster::server::{Running, forget_number, running};
use lifeboat_cluster::settings;
use lifeboat_model::{NodeName, SegmentName};
use lifeboat_telemetry::{Code, Failure, Outcome};

use super::child::{Finished, Work};
use super::settings::Settings;
use super::{archive, configuration, place, session};

/// Outside of the directory, for pg_rewind makes that like the source's.
const MARK: &str = "rewinding";
/// Configuration is of this host; pg_rewind would bring the source's.
const KEPT: &str = "rewind.kept";
const PATIENCE: Duration = Duration::from_secs(5);
const CHECKPOINT: Duration = Duration::from_secs(300);
const RECOVERING: Duration = Duration::from_secs(3600);
const REWINDING: Duration = Duration::from_secs(6 * 3600);
/// So many segments are fetched for pg_rewind, one after the other.
const FETCHED_MAX: usize = 4096;

/// Whether a rewind of the directory was begun and not finished.
pub(crate) fn is_unfinished(settings: &Settings) -> Outcome<bool> {
    Ok(place::aside(settings)?.join(MARK).exists())
}

/// Another directory took the place of the one that was rewound.
pub(crate) fn forget(settings: &Settings) -> Outcome<()> {
    place::remove(&place::aside(settings)?.join(MARK))
}

/// The source's pg_control must know its timeline: without a checkpoint since its promotion,
/// pg_rewind would take it for its own ancestor (V3).
pub(crate) async fn prepare_source(own: &Settings, upstream: &NodeName) -> Outcome<()> {
    let place = place::other(own, upstream)?;
    let connection = session::within(PATIENCE, session::open(&place)).await?;
    let checkpoint = session::rows(&connection, "CHECKPOINT");
    session::within(CHECKPOINT, checkpoint).await?;
    let asked = "SELECT (pg_control_checkpoint()).timeline_id::text,
                        left(pg_walfile_name(pg_current_wal_lsn()), 8)";
    let rows = session::within(PATIENCE, session::rows(&connection, asked)).await?;
    let row = rows.first();
    let control: Option<u32> = row.and_then(|row| session::value(row, 0));
    let current = row.and_then(|row| session::text(row, 1));
    let current = current.and_then(|digits| u32::from_str_radix(digits, 16).ok());
    if control.is_some() && control == current {
        return Ok(());
    }
    Err(failed("the checkpoint of the new primary is not of its timeline")
        .hint("Run the step again: it was promoted a moment ago."))
}

/// Rewinds. Blocks, for hours with a large database.
pub(crate) fn rewind(own: &Settings, upstream: &NodeName) -> Outcome<String> {
    let work = Work::begin(own)?;
    let data = own.data()?;
    let mark = place::aside(own)?.join(MARK);
    if !mark.exists() {
        let control = control::read(data, &own.environment)?;
        require_hints(&control)?;
        recover(own, &work, &control)?;
        keep_configuration(own)?;
    }
    let rehearsed = fetching(own, &work, upstream, true)?;
    if rehearsed.said.contains("no rewind required") {
        place::remove(&mark)?;
        return Ok("nothing had to be rewound".to_owned());
    }
    place::write_new(&mark, upstream.as_str().as_bytes())?;
    own.environment.failpoints().hit("rewind.marked")?;
    let done = fetching(own, &work, upstream, false)?;
    own.environment.failpoints().hit("rewind.done")?;
    restore_configuration(own)?;
    place::remove(&mark)?;
    let diverged = done.said.lines().find(|line| line.contains("diverged at"));
    let diverged = diverged.and_then(|line| line.split_once(": ")).map_or("rewound", |it| it.1);
    Ok(diverged.to_owned())
}

fn require_hints(control: &ControlFile) -> Outcome<()> {
    if control.data_checksums || control.wal_log_hints {
        return Ok(());
    }
    Err(failed("the cluster has neither checksums nor wal_log_hints")
        .hint("Only a new copy can follow: `lifeboat standby create` with --keep-old."))
}

/// pg_rewind wants a clean shutdown and would start the server for that, which the directory
/// refuses to everybody but a guard. So it recovers here, in single-user mode: no socket, no
/// session, no archiving.
fn recover(own: &Settings, work: &Work, control: &ControlFile) -> Outcome<()> {
    match control.state {
        State::ShutDown | State::ShutDownInRecovery => return Ok(()),
        State::ArchiveRecovery | State::StartingUp => {
            return Err(failed("the directory is a standby's that was not shut down cleanly")
                .hint("Let it start and stop once, or take a new copy."));
        }
        State::ShuttingDown | State::CrashRecovery | State::InProduction => {}
    }
    let data = own.data()?;
    if matches!(running(data)?, Running::No) {
        forget_number(data);
    }
    place::remove(&data.join(settings::STANDBY_SIGNAL))?;
    place::remove(&data.join(settings::RECOVERY_SIGNAL))?;
    let config = place::aside(own)?.join("recover.conf");
    let mut lines = Vec::new();
    for (name, value) in configuration::read(own)? {
        if !LEFT_OUT.contains(&name.as_str()) && !name.contains('.') {
            lines.extend_from_slice(format!("{name} = {}\n", settings::quote(&value)).as_bytes());
        }
    }
    place::write(&config, &lines)?;
    let config = format!("config_file={}", config.display());
    let data = data.display().to_string();
    let mut arguments = vec!["--single", "-D", &data, "-c", &config];
    for setting in ["archive_mode=off", "synchronous_standby_names=", "logging_collector=off"] {
        arguments.extend(["-c", setting]);
    }
    arguments.push("template1");
    let finished = work.run(own, &own.server_program("postgres")?, arguments, RECOVERING)?;
    if finished.success() && control::read(own.data()?, &own.environment)?.state == State::ShutDown
    {
        return Ok(());
    }
    Err(failed("the old primary could not be recovered first")
        .details(finished.lines())
        .hint("Nothing was rewound. If its files are damaged, take a new copy."))
}

/// What has no meaning without sessions, or would lead elsewhere.
const LEFT_OUT: [&str; 9] = [
    "config_file",
    "data_directory",
    "hba_file",
    "ident_file",
    "external_pid_file",
    "archive_command",
    "archive_library",
    "restore_command",
    "primary_conninfo",
];

/// Runs pg_rewind; WAL that it misses is fetched from the repository.
fn fetching(
    own: &Settings,
    work: &Work,
    upstream: &NodeName,
    rehearsal: bool,
) -> Outcome<Finished> {
    let passfile = place::aside(own)?.join("rewind.pass");
    let source = place::other(own, upstream)?;
    let conninfo = place::conninfo(&source, "lifeboat rewind", &passfile)?;
    if let Some(line) = &conninfo.passfile_line {
        place::write(&passfile, line.as_bytes())?;
    }
    let database = place::config(&source)?.database.unwrap_or_else(|| "postgres".to_owned());
    let words = format!("{} dbname='{}'", conninfo.words, database.replace('\'', "\\'"));
    let data = own.data()?.display().to_string();
    let source = format!("--source-server={words}");
    let mut arguments = vec!["-D", &data, &source, "--no-ensure-shutdown"];
    if rehearsal {
        arguments.push("--dry-run");
    }
    let program = own.server_program("pg_rewind")?;
    let mut fetched: BTreeMap<SegmentName, ()> = BTreeMap::new();
    let finished = loop {
        let finished = work.run(own, &program, &arguments, REWINDING)?;
        let missing = if finished.success() { None } else { missing(&finished.said) };
        match missing {
            Some(name) if fetched.len() < FETCHED_MAX && fetched.insert(name, ()).is_none() => {
                fetch(own, work, name)?;
            }
            _ => break finished,
        }
    };
    place::remove(&passfile)?;
    if finished.success() {
        return Ok(finished);
    }
    let when = if rehearsal { "in its rehearsal" } else { "half-way" };
    Err(failed(&format!("pg_rewind failed {when}")).details(finished.lines()).hint(
        match rehearsal {
            true => "Nothing was changed. A new copy needs none of what it misses.",
            false => "Nothing starts the directory now. Run the step again, or take a new copy.",
        },
    ))
}

/// The segment that pg_rewind could not open.
fn missing(said: &str) -> Option<SegmentName> {
    let line = said.lines().find(|line| line.contains("could not open file"))?;
    let (_, name) = line.split_once("pg_wal/")?;
    name.get(..24)?.parse().ok()
}

fn fetch(own: &Settings, work: &Work, name: SegmentName) -> Outcome<()> {
    let plan = archive::plan_path(own)?;
    archive::refresh(own)?;
    let file = name.to_string();
    let to = own.data()?.join("pg_wal").join(&file);
    let text = |path: &Path| path.display().to_string();
    let region = own.node()?.region.to_string();
    let arguments = [
        "--spec".to_owned(),
        text(&own.spec_path),
        "--here".to_owned(),
        region,
        "wal".to_owned(),
        "fetch".to_owned(),
        file,
        text(&to),
        "--db".to_owned(),
        own.database.to_string(),
        "--plan".to_owned(),
        text(&plan),
    ];
    let limit = own.database()?.wal.fetch_deadline.duration() * 2;
    let finished = work.run(own, &own.program, arguments, limit)?;
    match finished.success() {
        true => Ok(()),
        false => Err(failed(&format!("WAL {name} is neither here nor in the repository"))
            .details(finished.lines())
            .hint("Take a new copy: it needs none of it.")),
    }
}

/// Copies of what is of this host, kept until the rewind is done.
fn keep_configuration(own: &Settings) -> Outcome<()> {
    let folder = kept(own)?;
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(place::failed(&folder, error));
        }
        _ => {}
    }
    fs::create_dir_all(&folder).map_err(|error| place::failed(&folder, error))?;
    for path in configuration_files(own.data()?)? {
        let to = folder.join(path.file_name().unwrap_or_default());
        let bytes = fs::read(&path).map_err(|error| place::failed(&path, error))?;
        place::write_new(&to, &bytes)?;
    }
    Ok(())
}

fn restore_configuration(own: &Settings) -> Outcome<()> {
    let (folder, data) = (kept(own)?, own.data()?);
    // What only the source has would be included here, too.
    let ours: Vec<PathBuf> = files(&folder)?;
    for path in configuration_files(data)? {
        let name = path.file_name().unwrap_or_default();
        if !ours.iter().any(|own| own.file_name() == Some(name)) {
            place::remove(&path)?;
        }
    }
    for path in ours {
        let bytes = fs::read(&path).map_err(|error| place::failed(&path, error))?;
        place::write_new(&data.join(path.file_name().unwrap_or_default()), &bytes)?;
    }
    Ok(())
}

fn kept(own: &Settings) -> Outcome<PathBuf> {
    Ok(place::aside(own)?.join(KEPT))
}

/// Configuration at the top of the data directory, and the mark of the incarnation.
fn configuration_files(data: &Path) -> Outcome<Vec<PathBuf>> {
    let mut found = files(data)?;
    found.retain(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.ends_with(".conf") || name == lifeboat_wal::incarnation::MARKER
    });
    Ok(found)
}

fn files(folder: &Path) -> Outcome<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).map_err(|error| place::failed(folder, error))?;
    let paths = entries.flatten().map(|entry| entry.path());
    Ok(paths.filter(|path| path.is_file()).collect())
}

fn failed(why: &str) -> Failure {
    Failure::new(Code::RewindFailed, why)
}
