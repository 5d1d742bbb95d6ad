//! The block of settings that Lifeboat owns, at the end of `postgresql.auto.conf`, where nothing
//! overrides it. Written by file, so that it holds whether a server runs or not.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use lifeboat_cluster::settings;
use lifeboat_cluster::{ControlFile, control};
use lifeboat_model::spec::WalMode;
use lifeboat_telemetry::{Code, Failure, Outcome};
use lifeboat_wal::receive::EPOCH_SETTING;

use super::archive;
use super::place::{self, aside};
use super::settings::Settings;

const AUTO: &str = "postgresql.auto.conf";
/// The title of the block.
const BLOCK: &str = "lifeboat agent";
/// `synchronous_standby_names`.
pub(crate) const NAMES: &str = "synchronous_standby_names";
/// Nobody is connected longer than this without a word (R15).
const SILENCE: &str = "5s";

/// Settings that are left over from earlier recoveries: PostgreSQL refuses two targets, and a
/// trigger file of old would promote.
fn leftovers() -> Vec<&'static str> {
    let mut names = settings::recovery_names().to_vec();
    names.extend(["promote_trigger_file", "trigger_file"]);
    names
}

/// What changes in the block.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// libpq's words for whom to stream from, empty for nobody; `None` leaves it.
    pub(crate) conninfo: Option<String>,
    /// `synchronous_standby_names`; `None` leaves what is configured.
    pub(crate) names: Option<String>,
    /// The epoch that receivers are told; `None` leaves what is configured.
    pub(crate) epoch: Option<u64>,
}

/// The configuration as a server would read it now.
pub(crate) fn read(own: &Settings) -> Outcome<BTreeMap<String, String>> {
    let sources = settings::read_sources(&own.main_config()?, Some(own.data()?));
    Ok(sources?.settings)
}

/// Writes the block; whether that changed anything. A server that runs reads it at its next
/// reload.
pub(crate) fn write(own: &Settings, change: &Change) -> Outcome<bool> {
    let data = own.data()?;
    let auto = data.join(AUTO);
    let before = match std::fs::read(&auto) {
        Ok(before) => before,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(place::failed(&auto, error)),
    };
    let configured = read(own)?;
    let held = held(&before);
    let block = block(own, change, &configured, &held)?;
    let mut names = leftovers();
    names.extend(block.iter().map(|(name, _)| *name));
    let after = settings::append_block(&settings::comment_out(&before, &names), BLOCK, &block);
    place::write(&auto, &after)
}

fn block(
    own: &Settings,
    change: &Change,
    configured: &BTreeMap<String, String>,
    held: &BTreeSet<String>,
) -> Outcome<Vec<(&'static str, String)>> {
    let known = |name: &str| configured.get(name).cloned();
    let conninfo = change.conninfo.clone().or_else(|| known("primary_conninfo"));
    let mut block = vec![
        ("primary_conninfo", conninfo.unwrap_or_default()),
        ("primary_slot_name", own.slot(&own.node)?),
        ("restore_command", archive::restore_command(own)?),
        // From the promotion on nothing here may read the past.
        ("recovery_end_command", archive::end_command(own)?),
        ("recovery_target_timeline", "latest".to_owned()),
        ("hot_standby", "on".to_owned()),
        ("wal_retrieve_retry_interval", "200ms".to_owned()),
        ("wal_receiver_status_interval", "1s".to_owned()),
        ("wal_receiver_timeout", SILENCE.to_owned()),
        ("wal_sender_timeout", SILENCE.to_owned()),
    ];
    if let Some(names) = change.names.clone().or_else(|| known(NAMES)) {
        block.push((NAMES, names));
    }
    let epoch = change.epoch.map(|epoch| epoch.to_string());
    if let Some(epoch) = epoch.or_else(|| known(EPOCH_SETTING)) {
        block.push((EPOCH_SETTING, epoch));
    }
    if let Some(command) = archive_command(own, configured)? {
        block.push(("archive_command", command));
    }
    let data = own.data()?;
    if let Ok(control) = control::read(data, &own.environment) {
        block.extend(raised(configured, held, &control));
    }
    Ok(block)
}

/// The names that the block of an earlier run sets.
fn held(content: &[u8]) -> BTreeSet<String> {
    let text = String::from_utf8_lossy(content);
    let begin = format!("# BEGIN {BLOCK}");
    let inside = text.lines().skip_while(|line| line.trim_end() != begin);
    let inside = inside.take_while(|line| line.trim_end() != format!("# END {BLOCK}"));
    inside.filter_map(|line| Some(line.split_once('=')?.0.trim().to_owned())).collect()
}

/// Whether WAL leaves the server by archive_command, with `wal push`: the line names the region,
/// which is another one on each node.
fn archive_command(
    own: &Settings,
    configured: &BTreeMap<String, String>,
) -> Outcome<Option<String>> {
    let archives = own.database()?.wal.mode == WalMode::Archive;
    let pushes = configured
        .get("archive_command")
        .is_some_and(|command| command.contains("lifeboat") && command.contains("wal push"));
    if !archives && !pushes {
        return Ok(None);
    }
    let words = [
        word(&own.program)?,
        "--spec".to_owned(),
        word(&own.spec_path)?,
        "--here".to_owned(),
        own.node()?.region.to_string(),
        "wal push \"%p\" --db".to_owned(),
        own.database.to_string(),
    ];
    Ok(Some(words.join(" ")))
}

/// The command that fetches WAL by a plan, with nothing taken from the environment.
pub(crate) fn restore_command(own: &Settings, plan: &Path) -> Outcome<String> {
    let words = [
        word(&own.program)?,
        "wal fetch \"%f\" \"%p\" --spec".to_owned(),
        word(&own.spec_path)?,
        "--here".to_owned(),
        own.node()?.region.to_string(),
        "--db".to_owned(),
        own.database.to_string(),
        "--plan".to_owned(),
        word(plan)?,
    ];
    Ok(words.join(" "))
}

/// One word for the shell, with the percent signs that PostgreSQL would replace doubled.
pub(crate) fn word(path: &Path) -> Outcome<String> {
    let Some(text) = path.to_str().filter(|text| !text.contains(['\n', '\r'])) else {
        let message = format!("the path {path:?} cannot stand in a command");
        return Err(Failure::new(Code::LocalFile, message)
            .hint("Use a path of readable characters, without line breaks."));
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-:@+=,".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        return Ok(text.to_owned());
    }
    Ok(format!("'{}'", text.replace('\'', "'\\''").replace('%', "%%")))
}

/// Settings that replay needs at least as high as the primary has them (V10), with PostgreSQL's
/// defaults where the configuration says nothing.
fn raised(
    configured: &BTreeMap<String, String>,
    held: &BTreeSet<String>,
    control: &ControlFile,
) -> Vec<(&'static str, String)> {
    let short = limits(control).into_iter().filter(|(name, least, default)| {
        let value = configured.get(*name).and_then(|value| value.trim().parse().ok());
        // What the last block raised is not what the configuration says without it.
        value.unwrap_or(*default) < *least || held.contains(*name)
    });
    short.map(|(name, least, _)| (name, least.to_string())).collect()
}

/// The settings of V10: name, the primary's value, PostgreSQL's default.
pub(crate) fn limits(control: &ControlFile) -> [(&'static str, u32, u32); 5] {
    let limits = &control.limits;
    [
        ("max_connections", limits.max_connections, 100),
        ("max_worker_processes", limits.max_worker_processes, 8),
        ("max_wal_senders", limits.max_wal_senders, 10),
        ("max_prepared_transactions", limits.max_prepared_transactions, 0),
        ("max_locks_per_transaction", limits.max_locks_per_transaction, 64),
    ]
}

/// Where the password that libpq needs lies.
pub(crate) fn passfile(own: &Settings) -> Outcome<PathBuf> {
    Ok(aside(own)?.join("primary.pass"))
}
