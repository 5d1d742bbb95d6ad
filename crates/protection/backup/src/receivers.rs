//! A backup in stream mode: receivers bring its WAL, and where none runs it brings its own
//! (FORMAT, "WAL").

use lifeboat_model::Lsn;
use lifeboat_repository::regions::Regions;
use lifeboat_telemetry::{Code, Failure, Outcome};
use lifeboat_wal::Needed;
use lifeboat_wal::connect::{Connection, connect};
use lifeboat_wal::from_server::FromServer;
use lifeboat_wal::senders::slots;

use crate::run::{BackupContext, BackupRequest};
use crate::source::Source;

/// Makes the receivers' slots before the backup starts: whatever is written from now on stays
/// until they have it, so that no gap follows the backup.
pub fn keep_wal(
    request: &BackupRequest,
    context: &BackupContext<'_>,
    source: &Source,
) -> Outcome<()> {
    if request.receivers.is_empty() {
        return Ok(());
    }
    if !source.facts().in_recovery {
        return context.blocking.run(make_slots(request, context, source.connection()));
    }
    // Receivers attach to the primary.
    for other in &request.other_connections {
        let made = context.blocking.run(async {
            let connection = connect(other).await?;
            if connection.text("SELECT pg_is_in_recovery()::text").await? == "true" {
                return Ok(false);
            }
            make_slots(request, context, &connection).await?;
            Ok::<bool, Failure>(true)
        });
        if made? {
            return Ok(());
        }
    }
    context.reporter.warn("the primary could not be asked to keep WAL for the receivers");
    Ok(())
}

async fn make_slots(
    request: &BackupRequest,
    context: &BackupContext<'_>,
    connection: &Connection,
) -> Outcome<()> {
    let known = slots(connection).await?;
    for name in &request.receivers {
        let found = known.iter().find(|slot| slot.name == *name);
        match found {
            Some(slot) if !slot.is_lost() && slot.restart.is_some() => continue,
            Some(slot) if slot.active => continue,
            Some(_) => {
                context.reporter.warn(format!("the slot {name} kept no WAL any more: made anew"));
                run(connection, "SELECT pg_drop_replication_slot($1)::text", name).await?;
            }
            None => context.reporter.note(format!("making the slot {name}")),
        }
        let make = "SELECT (pg_create_physical_replication_slot($1, true)).slot_name::text";
        run(connection, make, name).await?;
    }
    Ok(())
}

async fn run(connection: &Connection, query: &str, slot: &str) -> Outcome<()> {
    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 1] = [&slot];
    let done = connection.client().query(query, &parameters);
    match connection.patiently(done).await? {
        Ok(_) => Ok(()),
        // A receiver that starts at this moment was quicker.
        Err(error) if error.code().is_some_and(|code| code.code() == "42710") => Ok(()),
        Err(error) => Err(connection.failure_as(Code::SlotUnusable, &error)),
    }
}

/// Whether a receiver of the spec gets WAL from this server now.
pub fn is_running(
    request: &BackupRequest,
    context: &BackupContext<'_>,
    source: &Source,
) -> Outcome<bool> {
    let slots = context.blocking.run(slots(source.connection()))?;
    Ok(slots.iter().any(|slot| slot.active && request.receivers.contains(&slot.name)))
}

/// Brings the WAL of the backup into the repositories.
pub fn bring(
    request: &BackupRequest,
    context: &BackupContext<'_>,
    regions: &Regions,
    source: &Source,
    needed: Needed,
) -> Outcome<()> {
    close_last(context, source, needed)?;
    let stored = FromServer {
        environment: context.environment,
        blocking: context.blocking,
        cancel: context.cancel,
        regions,
        stream: context.stream,
        data_directory: &request.data_directory,
        level: request.level,
    }
    .store(needed)?;
    context.reporter.note(format!(
        "no receiver brought the WAL of the backup: it brought its own, {stored} segment(s). The \
         server keeps what comes after until receivers run",
    ));
    Ok(())
}

/// A segment may be read once nobody writes to it: `pg_backup_stop` has ended it, and if not, this
/// does.
fn close_last(context: &BackupContext<'_>, source: &Source, needed: Needed) -> Outcome<()> {
    let position = || -> Outcome<Lsn> {
        let query = "SELECT pg_current_wal_flush_lsn()::text";
        let text = context.blocking.run(source.connection().text(query))?;
        text.parse()
            .map_err(|_| Failure::new(Code::BackupAborted, format!("PostgreSQL answered {text:?}")))
    };
    let size = needed.segment_size;
    let last = size.number_of(Lsn(needed.stop.0.saturating_sub(1)));
    if size.number_of(position()?) <= last {
        context.blocking.run(source.connection().text("SELECT pg_switch_wal()::text"))?;
    }
    if size.number_of(position()?) > last {
        return Ok(());
    }
    Err(Failure::new(Code::BackupAborted, "the server does not end its WAL segment")
        .hint("Take the backup again."))
}
