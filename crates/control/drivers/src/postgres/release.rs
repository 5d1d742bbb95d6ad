//! A planned stop of the primary, after which a standby has everything (R13).

use std::time::Duration;

use lifeboat_cluster::control::{self, State};
use lifeboat_model::Lsn;
use lifeboat_telemetry::{Code, Failure, Outcome, bytes};

use super::life::{self, STOP_LIMIT};
use super::session::{self, text, value};
use super::settings::Settings;
use super::{place, wal_end};
use crate::ShutDown;
use crate::guard::Stop;

/// The shutdown sends so much at most: commits have stopped by then.
const LAG_BYTES_MAX: u64 = 16 << 20;
/// A checkpoint that took longer leaves enough behind for a second one.
const QUICK: Duration = Duration::from_secs(1);
/// For the questions around it.
const PATIENCE: Duration = Duration::from_secs(5);

/// Does as much of the work as it can while sessions still run: a shutdown writes what is dirty,
/// and waits for standbys, while nobody is served.
pub(crate) async fn prepare(settings: &Settings) -> Outcome<()> {
    let place = place::own(settings)?;
    let clock = settings.environment.clock();
    let connection = session::within(PATIENCE, session::open(&place)).await?;
    session::within(PATIENCE, session::verify(&connection, settings.data()?)).await?;
    session::within(PATIENCE, require_standby(settings, &connection)).await?;
    for _ in 0..2 {
        let began = clock.elapsed();
        session::rows(&connection, "CHECKPOINT").await?;
        if clock.elapsed().saturating_sub(began) < QUICK {
            break;
        }
    }
    session::within(PATIENCE, require_standby(settings, &connection)).await
}

/// A node of the database streams and is close. That it is still so at the end is for the caller
/// to see, by positions: no order of questions can promise it (V6b).
async fn require_standby(
    settings: &Settings,
    connection: &lifeboat_wal::connect::Connection,
) -> Outcome<()> {
    let others: Vec<_> = settings.others()?.map(|(name, _)| name.clone()).collect();
    if others.is_empty() {
        return Ok(());
    }
    let asked = "SELECT r.application_name, s.slot_name::text, r.state,
        (pg_current_wal_flush_lsn() - r.flush_lsn)::bigint::text
        FROM pg_stat_replication r LEFT JOIN pg_replication_slots s ON s.active_pid = r.pid";
    let rows = session::rows(connection, asked).await?;
    let mut lines = Vec::new();
    for name in others {
        let slot = settings.slot(&name)?;
        let row = rows
            .iter()
            .find(|row| text(row, 0) == Some(name.as_str()) && text(row, 1) == Some(slot.as_str()));
        let streams = row.filter(|row| text(row, 2) == Some("streaming"));
        match streams.and_then(|row| value::<i64>(row, 3)) {
            Some(lag) if lag.unsigned_abs() <= LAG_BYTES_MAX || lag < 0 => return Ok(()),
            Some(lag) => lines.push(format!("{name} is {} behind", bytes(lag.unsigned_abs()))),
            None => lines.push(format!("{name} does not stream by its slot {slot}")),
        }
    }
    Err(Failure::new(Code::StandbyMissing, format!("no standby of {} is close", settings.database))
        .details(lines)
        .hint("Nothing was stopped. Bring a standby up to date first: `lifeboat status` shows it."))
}

/// Shuts down fast, which ends sessions, refuses new ones, and sends everything to the standbys
/// that stream. Blocks: for a thread of its own.
pub(crate) fn shut_down(settings: &Settings) -> Outcome<ShutDown> {
    let stopped = life::guarded(settings)?.stop(Stop::Fast, STOP_LIMIT)?;
    ended(settings)?.ok_or_else(|| {
        let message = format!("node {} did not shut down cleanly", settings.node);
        Failure::new(Code::InstanceRole, message)
            .detail(format!("{:?}", stopped.end.reason))
            .hint("See the server's log. It is down: the move goes back, and it recovers.")
    })
}

/// Where a clean shutdown of a primary ended; none if it was none.
pub(crate) fn ended(settings: &Settings) -> Outcome<Option<ShutDown>> {
    let data = settings.data()?;
    let control = control::read(data, &settings.environment)?;
    if control.state != State::ShutDown {
        return Ok(None);
    }
    let end: Lsn = wal_end::end_of_record(data, &control, control.checkpoint)?;
    Ok(Some(ShutDown { timeline: control.timeline, end }))
}
