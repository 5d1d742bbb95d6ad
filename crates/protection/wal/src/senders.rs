//! Who receives WAL from a server, as the server itself says.

use lifeboat_model::Lsn;
use lifeboat_telemetry::{Code, Failure, Outcome};
use tokio_postgres::Row;

use crate::connect::Connection;

/// One row of pg_stat_replication.
#[derive(Debug, Clone, PartialEq)]
pub struct Sender {
    /// The process on the server.
    pub pid: i32,
    /// The role that it logged in as.
    pub role: String,
    /// What it calls itself: what `synchronous_standby_names` looks at.
    pub application_name: String,
    /// Where it connects from; `None` is a socket of the server's own host.
    pub address: Option<String>,
    /// `streaming`, `catchup`, …; `None` if this role may not see it.
    pub state: Option<String>,
    /// `async`, `potential`, `sync` or `quorum`.
    pub sync_state: Option<String>,
    /// Received.
    pub written: Option<Lsn>,
    /// Durable there.
    pub flushed: Option<Lsn>,
    /// Seconds since its last reply, by its clock and the server's.
    pub reply_age_seconds: Option<f64>,
    /// Seconds between the server's own flush and the receiver's, as measured last.
    pub lag_seconds: Option<f64>,
    /// The slot that it uses.
    pub slot: Option<String>,
    /// Whether its connection is encrypted; `None` if this role may not see it.
    pub encrypted: Option<bool>,
}

impl Sender {
    /// Whether it gets WAL as it is written.
    pub fn is_streaming(&self) -> bool {
        self.state.as_deref() == Some("streaming")
    }

    /// Whether the server counts it for commits that wait.
    pub fn is_synchronous(&self) -> bool {
        self.is_streaming() && matches!(self.sync_state.as_deref(), Some("sync" | "quorum"))
    }

    /// Seconds since its last reply; clocks that disagree never make it negative.
    pub fn silence(&self) -> Option<f64> {
        self.reply_age_seconds.map(|age| age.max(0.0))
    }

    /// Whether its WAL leaves the server's host.
    pub fn is_remote(&self) -> bool {
        let address = self.address.as_deref();
        address.is_some_and(|address| address != "::1" && !address.starts_with("127."))
    }

    /// Who it is, for people.
    pub fn describe(&self) -> String {
        let from = self.address.as_deref().unwrap_or("a socket of the server's host");
        let slot = match &self.slot {
            Some(slot) => format!("slot {slot}"),
            None => "no slot".to_owned(),
        };
        format!("{} from {from}, {slot}, process {}", self.role, self.pid)
    }
}

/// A physical replication slot.
#[derive(Debug, Clone, PartialEq)]
pub struct Slot {
    /// Its name.
    pub name: String,
    /// Whether somebody uses it now.
    pub active: bool,
    /// `reserved`, `extended`, `unreserved` or `lost`; `None` if it never reserved WAL.
    pub wal_status: Option<String>,
    /// The oldest WAL that it keeps.
    pub restart: Option<Lsn>,
    /// How much WAL it holds back.
    pub held_bytes: Option<i64>,
    /// How much more may be written before the slot is lost; `None` if there is no limit.
    pub safe_bytes: Option<i64>,
}

impl Slot {
    /// Whether WAL that its receiver needs is gone.
    pub fn is_lost(&self) -> bool {
        self.wal_status.as_deref() == Some("lost")
    }
}

const SENDERS: &str = "
    SELECT r.pid, coalesce(r.usename::text, ''), coalesce(r.application_name, ''),
           host(r.client_addr), r.state, r.sync_state, r.write_lsn::text, r.flush_lsn::text,
           extract(epoch FROM clock_timestamp() - r.reply_time)::float8, s.slot_name::text, t.ssl,
           extract(epoch FROM r.flush_lag)::float8
    FROM pg_stat_replication r LEFT JOIN pg_replication_slots s ON s.active_pid = r.pid
         LEFT JOIN pg_stat_ssl t ON t.pid = r.pid
    ORDER BY r.pid";

/// Everybody who receives now.
pub async fn senders(connection: &Connection) -> Outcome<Vec<Sender>> {
    let rows = rows(connection, SENDERS).await?;
    Ok(rows
        .iter()
        .map(|row| Sender {
            pid: row.get(0),
            role: row.get(1),
            application_name: row.get(2),
            address: row.get(3),
            state: row.get(4),
            sync_state: row.get(5),
            written: lsn(row, 6),
            flushed: lsn(row, 7),
            reply_age_seconds: row.get(8),
            slot: row.get(9),
            encrypted: row.get(10),
            lag_seconds: row.get(11),
        })
        .collect())
}

const SLOTS: &str = "
    SELECT slot_name::text, active, wal_status, restart_lsn::text,
           (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn()
                 ELSE pg_current_wal_insert_lsn() END - restart_lsn)::int8, safe_wal_size::int8
    FROM pg_replication_slots WHERE slot_type = 'physical' ORDER BY slot_name";

/// All physical slots.
pub async fn slots(connection: &Connection) -> Outcome<Vec<Slot>> {
    let rows = rows(connection, SLOTS).await?;
    Ok(rows
        .iter()
        .map(|row| Slot {
            name: row.get(0),
            active: row.get(1),
            wal_status: row.get(2),
            restart: lsn(row, 3),
            held_bytes: row.get(4),
            safe_bytes: row.get(5),
        })
        .collect())
}

/// Runs a query; what the server says against it is a failure.
pub(crate) async fn rows(connection: &Connection, query: &str) -> Outcome<Vec<Row>> {
    let rows = connection.client().query(query, &[]);
    connection
        .patiently(rows)
        .await?
        .map_err(|error| connection.failure_as(Code::ClusterSettings, &error))
}

/// The position up to which the server's own WAL is durable.
pub(crate) async fn flushed_here(connection: &Connection) -> Outcome<Lsn> {
    let rows = rows(connection, "SELECT pg_current_wal_flush_lsn()::text").await?;
    rows.first().and_then(|row| lsn(row, 0)).ok_or_else(|| {
        let message = format!("PostgreSQL at {} answered nonsense", connection.place());
        Failure::new(Code::ClusterUnreachable, message)
    })
}

fn lsn(row: &Row, column: usize) -> Option<Lsn> {
    row.get::<_, Option<String>>(column)?.parse().ok()
}
