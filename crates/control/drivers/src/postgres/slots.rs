//! Replication slots: made where this node writes, and let go where it does not (R19).

use std::collections::BTreeSet;
use std::time::Duration;

use lifeboat_model::NodeName;
use lifeboat_model::spec::WalMode;
use lifeboat_telemetry::Outcome;
use lifeboat_wal::connect::Connection;
use lifeboat_wal::receiver_name;
use tokio_postgres::SimpleQueryRow;

use super::place;
use super::session::{self, literal, text};
use super::settings::{SLOT, Settings};

const PATIENCE: Duration = Duration::from_secs(5);

const SLOTS: &str = "
    SELECT slot_name::text, active::text, wal_status, (SELECT pg_is_in_recovery())::text,
      current_setting('max_slot_wal_keep_size')
    FROM (SELECT 1) one LEFT JOIN pg_replication_slots ON slot_type = 'physical'";

/// Makes the slot of this node on the node that it will stream from.
pub(crate) async fn make_at(settings: &Settings, upstream: &NodeName) -> Outcome<()> {
    let place = place::other(settings, upstream)?;
    let slot = settings.slot(&settings.node)?;
    let made = async {
        let connection = session::open(&place).await?;
        let rows = session::rows(&connection, SLOTS).await?;
        // A standby keeps no WAL for others.
        match recovers(&rows) {
            true => Ok(()),
            false => ready(&connection, &rows, &slot).await,
        }
    };
    session::within(PATIENCE, made).await
}

/// Keeps order among the slots of this node's own server.
pub(crate) async fn keep(settings: &Settings) -> Outcome<()> {
    let place = place::own(settings)?;
    let kept = async {
        let connection = session::open(&place).await?;
        session::verify(&connection, settings.data()?).await?;
        let rows = session::rows(&connection, SLOTS).await?;
        let wanted = wanted(settings)?;
        if recovers(&rows) {
            return drop_idle(&connection, &rows, |name| {
                name.starts_with(SLOT) || wanted.contains(name)
            })
            .await;
        }
        let own = settings.slot(&settings.node)?;
        drop_idle(&connection, &rows, |name| name == own).await?;
        // Without a limit, a slot that nobody reads fills the disk: then only those make one who
        // use it.
        if rows.first().and_then(|row| text(row, 4)) == Some("-1") {
            return Ok(());
        }
        for slot in wanted {
            ready(&connection, &rows, &slot).await?;
        }
        Ok(())
    };
    session::within(PATIENCE, kept).await
}

/// The slots of the other nodes, and of the receivers.
pub(crate) fn wanted(settings: &Settings) -> Outcome<BTreeSet<String>> {
    let mut wanted: BTreeSet<String> =
        settings.others()?.map(|(name, _)| settings.slot(name)).collect::<Outcome<_>>()?;
    let wal = &settings.database()?.wal;
    if wal.mode == WalMode::Stream {
        wanted.extend(wal.receivers.iter().map(|region| receiver_name(&settings.database, region)));
    }
    Ok(wanted)
}

fn recovers(rows: &[SimpleQueryRow]) -> bool {
    rows.first().and_then(|row| text(row, 3)) == Some("true")
}

/// Makes a slot that is missing; one that has lost its WAL is made anew.
async fn ready(connection: &Connection, rows: &[SimpleQueryRow], slot: &str) -> Outcome<()> {
    let name = literal(slot);
    if let Some(row) = rows.iter().find(|row| text(row, 0) == Some(slot)) {
        if text(row, 2) != Some("lost") || text(row, 1) == Some("true") {
            return Ok(());
        }
        session::rows(connection, &format!("SELECT pg_drop_replication_slot({name})")).await?;
    }
    let make = format!("SELECT pg_create_physical_replication_slot({name}, true)");
    match session::rows(connection, &make).await {
        // Somebody else made it meanwhile.
        Err(failure) if session::is_state(&failure, &["42710"]) => Ok(()),
        made => made.map(drop),
    }
}

async fn drop_idle(
    connection: &Connection,
    rows: &[SimpleQueryRow],
    ours: impl Fn(&str) -> bool,
) -> Outcome<()> {
    for row in rows {
        let Some(name) = text(row, 0).filter(|name| ours(name)) else { continue };
        if text(row, 1) == Some("false") {
            let name = literal(name);
            session::rows(connection, &format!("SELECT pg_drop_replication_slot({name})")).await?;
        }
    }
    Ok(())
}
