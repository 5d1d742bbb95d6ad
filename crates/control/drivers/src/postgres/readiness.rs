//! What keeps a node from becoming a good primary, found before the day (R4, V10).
//!
//! Only what a person must change: where it is in the WAL, and whether it streams at the moment,
//! is told by `inspect`, and a dead primary must not make a standby unfit.

use lifeboat_cluster::control;
use lifeboat_telemetry::Outcome;
use tokio_postgres::SimpleQueryRow;

use super::session::{text, value};
use super::settings::Settings;
use super::{archive, configuration, life, slots, space};
use crate::guard;

/// Settings by name, and what the role of this node may do.
pub(crate) const QUESTION: &str = "
    SELECT 'setting', name, setting FROM pg_settings WHERE name IN ('max_connections',
      'max_worker_processes', 'max_wal_senders', 'max_prepared_transactions',
      'max_locks_per_transaction', 'recovery_min_apply_delay', 'max_replication_slots',
      'wal_level', 'max_slot_wal_keep_size', 'archive_mode')
    UNION ALL
    SELECT 'paused', CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() END::text, ''
    UNION ALL
    SELECT 'role', current_user::text, concat_ws(', ',
      CASE WHEN NOT has_function_privilege('pg_promote(boolean,integer)', 'execute')
        THEN 'EXECUTE ON FUNCTION pg_promote' END,
      CASE WHEN NOT pg_has_role('pg_read_all_stats', 'usage') THEN 'pg_monitor' END,
      CASE WHEN NOT (SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user)
        THEN 'REPLICATION' END,
      CASE WHEN NOT has_database_privilege(current_database(), 'create')
          AND to_regclass('lifeboat.agent') IS NULL
        THEN 'CREATE ON DATABASE ' || current_database() END)";

/// The sentences.
pub(crate) fn sentences(settings: &Settings, rows: &[SimpleQueryRow]) -> Outcome<Vec<String>> {
    let mut lines = Vec::new();
    let row = |kind: &'static str| rows.iter().filter(move |row| text(row, 0) == Some(kind));
    let setting = |name: &str| row("setting").find(|row| text(row, 1) == Some(name));
    let control = control::read(settings.data()?, &settings.environment)?;
    for (name, least, _) in configuration::limits(&control) {
        let found: Option<u32> = setting(name).and_then(|row| value(row, 2));
        if let Some(found) = found.filter(|found| *found < least) {
            lines.push(format!("{name} is {found}, and the primary's is {least}."));
        }
    }
    let delay: Option<u64> = setting("recovery_min_apply_delay").and_then(|row| value(row, 2));
    if delay.is_some_and(|delay| delay > 0) {
        lines.push("It replays with a delay on purpose (recovery_min_apply_delay).".to_owned());
    }
    if row("paused").any(|row| text(row, 1) == Some("true")) {
        lines.push("Its replay is paused: SELECT pg_wal_replay_resume().".to_owned());
    }
    if setting("wal_level").is_some_and(|row| text(row, 2) == Some("minimal")) {
        lines.push("wal_level is minimal: nobody could follow it.".to_owned());
    }
    let slots: Option<usize> = setting("max_replication_slots").and_then(|row| value(row, 2));
    let wanted = slots::wanted(settings)?.len();
    if slots.is_some_and(|slots| slots < wanted) {
        lines.push(format!("max_replication_slots is less than the {wanted} that are needed."));
    }
    for lacks in row("role").filter(|row| text(row, 2).is_some_and(|lacks| !lacks.is_empty())) {
        let (role, lacks) =
            (text(lacks, 1).unwrap_or_default(), text(lacks, 2).unwrap_or_default());
        lines.push(format!("Its role {role} lacks {lacks}."));
    }
    lines.extend(host(settings)?);
    Ok(lines)
}

/// What of the host keeps it, whether a server runs or not.
fn host(settings: &Settings) -> Outcome<Vec<String>> {
    let mut lines = Vec::new();
    let plan = life::plan(settings)?;
    let open = guard::unmanaged(&plan.data_directory, plan.config_file.as_deref())?;
    if let Some(file) = open.first() {
        lines.push(format!("Anybody could start it: {} has no guard's lines.", file.display()));
    }
    if let Err(full) = space::check(settings.data()?) {
        lines.push(format!("It could not write: {full}."));
    }
    Ok(lines)
}

/// What a person should know, and what keeps nobody from being promoted.
pub(crate) fn advice(settings: &Settings, rows: &[SimpleQueryRow]) -> Outcome<Vec<String>> {
    let mut lines = Vec::new();
    let control = control::read(settings.data()?, &settings.environment)?;
    if !control.data_checksums && !control.wal_log_hints {
        lines.push(
            "It has neither checksums nor wal_log_hints: after a failover only a new copy can \
             come back."
                .to_owned(),
        );
    }
    let uncapped = rows
        .iter()
        .any(|row| text(row, 1) == Some("max_slot_wal_keep_size") && text(row, 2) == Some("-1"));
    if uncapped {
        lines.push(
            "max_slot_wal_keep_size has no limit: a node that is away fills the disk.".to_owned(),
        );
    }
    if archive::restore_command(settings)?.is_empty() {
        lines.push(
            "It has no key to read WAL from the repository: let this host open a slot of the \
             vault once."
                .to_owned(),
        );
    }
    Ok(lines)
}
