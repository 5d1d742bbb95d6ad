//! What makes the restored server recover: label, signal, settings, the plan and key of
//! `lifeboat wal fetch`, and the mark that keeps the copy out of its source's archive. A standby
//! is no copy: it has the signal of one, and the mark of its source.

use std::collections::BTreeMap;
use std::path::Path;

use lifeboat_cluster::ControlFile;
use lifeboat_cluster::settings::{self, RECOVERY_SIGNAL, STANDBY_SIGNAL};
use lifeboat_environment::Environment;
use lifeboat_telemetry::{Code, Failure, Outcome};
use lifeboat_wal::acknowledge::Rule;
use lifeboat_wal::incarnation::INCARNATION_SETTING;
use lifeboat_wal::is_receiver_name;

use crate::aside::Aside;
use crate::configuration::{Changed, FILE_BYTES_MAX, leftovers};
use crate::request::{RestorePlan, TargetAction};
use crate::table::HELD_CONTROL;
use crate::target::Target;

const AUTO: &str = "postgresql.auto.conf";
/// The title of the block in `postgresql.auto.conf`.
const BLOCK: &str = "lifeboat restore";

/// Reads the control file that waits for its name, and checks that it is this cluster's.
pub(crate) fn control(target: &Target, plan: &RestorePlan) -> Outcome<ControlFile> {
    let path = HELD_CONTROL.as_bytes();
    let bytes = target.read(path, FILE_BYTES_MAX)?.unwrap_or_default();
    let control = ControlFile::parse(&bytes).map_err(|error| error.at(&target.shown(path)))?;
    let cluster = &plan.description.cluster;
    if control.system.0 == cluster.system_identifier && control.release.major == cluster.major {
        return Ok(control);
    }
    let message = format!("backup {} holds the control file of another cluster", plan.backup.name);
    Err(Failure::new(Code::ObjectDamaged, message).hint("Choose another backup with --backup."))
}

/// Writes label, signal and settings.
pub(crate) fn write(
    target: &Target,
    plan: &RestorePlan,
    control: &ControlFile,
    aside: &Aside,
    incarnation: u64,
    changed: &mut Changed,
) -> Outcome<()> {
    changed.write(target, "backup_label", plan.description.backup_label.as_bytes())?;
    changed.write(target, RECOVERY_SIGNAL, b"")?;
    let before = target.read(AUTO.as_bytes(), FILE_BYTES_MAX)?.unwrap_or_default();
    let cleaned = settings::comment_out(&before, &leftovers());
    let mut block = recovery_settings(plan, restore_command(plan, &aside.plan)?);
    // From the promotion on nothing here may read the past.
    block.push(("recovery_end_command", end_command(aside)?));
    if !plan.adopt {
        // A copy that archives would write into its source's archive. `wal push` refuses that,
        // too, but then WAL would pile up here.
        block.push(("archive_mode", "off".to_owned()));
    }
    // Receivers on other hosts cannot see the mark in the directory; they ask for this.
    block.push((INCARNATION_SETTING, incarnation.to_string()));
    let configured = configured(target, changed);
    block.extend(waits_for_nobody(&configured, plan, changed));
    block.extend(raised(&configured, control));
    let after = settings::append_block(&cleaned, BLOCK, &block);
    changed.write(target, AUTO, &after)
}

/// Writes label, signal and settings of a standby. It archives nothing before it is promoted, and
/// from then on what its source would have.
pub(crate) fn write_standby(
    target: &Target,
    plan: &RestorePlan,
    control: &ControlFile,
    aside: &Aside,
    changed: &mut Changed,
) -> Outcome<()> {
    changed.write(target, "backup_label", plan.description.backup_label.as_bytes())?;
    changed.write(target, STANDBY_SIGNAL, b"")?;
    let before = target.read(AUTO.as_bytes(), FILE_BYTES_MAX)?.unwrap_or_default();
    let cleaned = settings::comment_out(&before, &leftovers());
    let mut block = vec![
        ("restore_command", restore_command(plan, &aside.plan)?),
        ("recovery_end_command", end_command(aside)?),
        ("recovery_target_timeline", "latest".to_owned()),
        ("hot_standby", "on".to_owned()),
    ];
    block.extend(raised(&configured(target, changed), control));
    changed.write(target, AUTO, &settings::append_block(&cleaned, BLOCK, &block))
}

fn recovery_settings(plan: &RestorePlan, restore_command: String) -> Vec<(&'static str, String)> {
    let action = match plan.action {
        TargetAction::Promote => settings::TargetAction::Promote,
        TargetAction::Pause => settings::TargetAction::Pause,
        TargetAction::Shutdown => settings::TargetAction::Shutdown,
    };
    let mut settings = settings::RecoveryPlan {
        target: plan.target.clone(),
        timeline: Some(plan.timeline),
        action,
        restore_command,
    }
    .settings();
    // By its number PostgreSQL accepts a timeline only if it finds a history file, and a cluster
    // that was promoted before Lifeboat came has none in the archive.
    if plan.timeline == plan.backup.timeline {
        let own = settings.iter_mut().find(|(name, _)| *name == "recovery_target_timeline");
        if let Some((_, value)) = own {
            "current".clone_into(value);
        }
    }
    settings
}

fn configured(target: &Target, changed: &mut Changed) -> BTreeMap<String, String> {
    let main = target.path().join("postgresql.conf");
    match settings::read_sources(&main, Some(target.path())) {
        Ok(sources) => sources.settings,
        Err(failure) => {
            changed.notes.push(format!("the configuration cannot be read: {failure}"));
            BTreeMap::new()
        }
    }
}

/// The source's commits waited for receivers that do not stream from a copy: it would come up
/// frozen. What is not Lifeboat's own is left, and told.
fn waits_for_nobody(
    configured: &BTreeMap<String, String>,
    plan: &RestorePlan,
    changed: &mut Changed,
) -> Option<(&'static str, String)> {
    const NAMES: &str = "synchronous_standby_names";
    let value = configured.get(NAMES).filter(|value| !value.is_empty())?;
    let rule = Rule::parse(value);
    if rule.is_some_and(|rule| rule.names().iter().all(|name| is_receiver_name(name))) {
        changed.notes.push(format!(
            "commits of the source waited for {value}; here they wait for nobody until receivers \
             stream and `lifeboat wal acknowledge {}` is run",
            plan.database
        ));
        return Some((NAMES, String::new()));
    }
    changed.notes.push(format!("{NAMES} is {value}: commits wait for these standbys"));
    None
}

/// Settings that replay needs at least as high as the source had them, where the configuration
/// says less.
fn raised(
    configured: &BTreeMap<String, String>,
    control: &ControlFile,
) -> Vec<(&'static str, String)> {
    let limits = &control.limits;
    // With PostgreSQL's defaults, which hold where the configuration says nothing.
    let needed = [
        ("max_connections", limits.max_connections, 100),
        ("max_worker_processes", limits.max_worker_processes, 8),
        ("max_wal_senders", limits.max_wal_senders, 10),
        ("max_prepared_transactions", limits.max_prepared_transactions, 0),
        ("max_locks_per_transaction", limits.max_locks_per_transaction, 64),
    ];
    let short = needed.into_iter().filter(|(name, least, default)| {
        let value = configured.get(*name).and_then(|value| value.trim().parse().ok());
        value.unwrap_or(*default) < *least
    });
    short.map(|(name, least, _)| (name, least.to_string())).collect()
}

/// Removes the WAL-read key and what was fetched ahead.
fn end_command(aside: &Aside) -> Outcome<String> {
    Ok(format!("rm -rf {} {}", word(&aside.read_key)?, word(&aside.prefetch)?))
}

/// The command that fetches WAL, with nothing taken from the environment.
fn restore_command(plan: &RestorePlan, plan_file: &Path) -> Outcome<String> {
    let fetch = &plan.request.fetch;
    let words = [
        word(&fetch.binary)?,
        "wal fetch \"%f\" \"%p\" --spec".to_owned(),
        word(&fetch.spec)?,
        "--here".to_owned(),
        shell_word(&fetch.here),
        "--db".to_owned(),
        shell_word(&plan.database),
        "--plan".to_owned(),
        word(plan_file)?,
    ];
    Ok(words.join(" "))
}

fn word(path: &Path) -> Outcome<String> {
    match path.to_str().filter(|text| !text.contains(['\n', '\r'])) {
        Some(text) => Ok(shell_word(text)),
        None => {
            let message = format!("the path {path:?} cannot stand in restore_command");
            Err(Failure::new(Code::LocalFile, message)
                .hint("Use a path of readable characters, without line breaks."))
        }
    }
}

/// One word for the shell, with the percent signs that PostgreSQL would replace doubled.
fn shell_word(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-:@+=,".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''").replace('%', "%%"))
}

/// A number for the new incarnation of the cluster; nobody else has it.
pub(crate) fn new_incarnation(environment: &Environment) -> u64 {
    // Numbers up to 2^53 survive every reader of JSON. 1 is the one that was never restored.
    (environment.random().next_u64() >> 11).max(2)
}

#[cfg(test)]
mod tests;
