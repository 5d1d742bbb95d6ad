//! What the writing server says before anything is changed.

use jiff::Timestamp;
use lifeboat_model::Lsn;
use lifeboat_telemetry::{Code, Failure, Outcome};

use crate::connect::Connection;
use crate::senders::{Sender, Slot, flushed_here, rows, senders, slots};

/// The facts that a decision needs.
#[derive(Debug, Clone)]
pub struct Survey {
    /// `system_identifier`.
    pub system_identifier: String,
    /// `synchronous_standby_names` as it holds now.
    pub names: Setting,
    /// `synchronous_commit` of everybody who sets nothing else; `None` if it cannot be seen.
    pub commit: Option<String>,
    /// Lines of the configuration files that keep PostgreSQL from reading them again.
    pub broken: Vec<String>,
    /// Who sets `synchronous_commit` for itself.
    pub overrides: Vec<Override>,
    /// Sessions of clients now.
    pub sessions: i64,
    /// Sessions whose commit waits now.
    pub waiting: i64,
    /// Everybody who receives.
    pub senders: Vec<Sender>,
    /// All physical slots.
    pub slots: Vec<Slot>,
    /// The end of the server's own durable WAL.
    pub flushed: Lsn,
    /// The time, by the server's clock.
    pub now: Timestamp,
}

/// A setting, and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Its value.
    pub value: String,
    /// `default`, `configuration file`, `command line`, …
    pub source: String,
    /// Whether it stands in postgresql.auto.conf, where ALTER SYSTEM puts it.
    pub by_alter_system: bool,
}

impl Setting {
    /// Whether ALTER SYSTEM cannot change it.
    pub fn is_out_of_reach(&self) -> bool {
        !matches!(self.source.as_str(), "default" | "configuration file")
    }
}

/// A role, a database, both or a session that has an own `synchronous_commit`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// As in `role batch` or `database reports`.
    pub who: String,
    /// Its value.
    pub value: String,
    /// Its sessions now. A session keeps what it logged in with.
    pub sessions: i64,
}

impl Override {
    /// What it means for an acknowledged commit; `None` if it waits as it should.
    pub fn means(&self) -> Option<&'static str> {
        weakness(&self.value)
    }
}

/// What a value of `synchronous_commit` means where commits should wait; `None` if they do.
pub fn weakness(value: &str) -> Option<&'static str> {
    match value.to_ascii_lowercase().as_str() {
        "on" | "true" | "yes" | "1" | "remote_apply" => None,
        "remote_write" => Some("commits wait until WAL is received, not until it is durable there"),
        "local" => Some("commits wait for nobody outside the server"),
        _ => Some("commits wait for nobody, not even for the server's own disk"),
    }
}

/// Who may not see the file gets the value back by ALTER SYSTEM, which is right for both.
const NAMES: &str = "
    SELECT setting, source,
           coalesce(sourcefile LIKE '%/postgresql.auto.conf', source = 'configuration file')
    FROM pg_settings WHERE name = 'synchronous_standby_names'";

/// Only a value that no role, database or connection string chose holds for everybody.
const COMMIT: &str = "
    SELECT setting FROM pg_settings
    WHERE name = 'synchronous_commit'
      AND source IN ('default', 'configuration file', 'command line', 'environment variable')";

const COMMIT_IN_FILES: &str = "
    SELECT coalesce((SELECT setting FROM pg_file_settings
                     WHERE name = 'synchronous_commit' AND applied ORDER BY seqno DESC LIMIT 1),
                    'on')";

const BROKEN: &str = "
    SELECT format('%s line %s: %s', sourcefile, sourceline, error)
    FROM pg_file_settings
    WHERE error IS NOT NULL AND error <> 'setting could not be applied'";

const OVERRIDES: &str = "
    SELECT concat_ws(' in ',
             CASE WHEN s.setrole <> 0 THEN format('role %s', r.rolname)
                  WHEN s.setdatabase = 0 THEN 'every role' END,
             CASE WHEN s.setdatabase <> 0 THEN format('database %s', d.datname) END),
           substr(c.setting, strpos(c.setting, '=') + 1),
           (SELECT count(*) FROM pg_stat_activity a
            WHERE a.backend_type = 'client backend' AND a.pid <> pg_backend_pid()
              AND s.setrole IN (0, a.usesysid) AND s.setdatabase IN (0, a.datid))
    FROM pg_db_role_setting s CROSS JOIN LATERAL unnest(s.setconfig) AS c (setting)
         LEFT JOIN pg_roles r ON r.oid = s.setrole
         LEFT JOIN pg_database d ON d.oid = s.setdatabase
    WHERE c.setting LIKE 'synchronous_commit=%'
    ORDER BY 1";

/// What a session set for itself is its own; only its last statement can be seen, which is enough
/// to name it and never proves that there is no other. The statement itself is nobody's business.
const STATEMENTS: &str = "
    SELECT format('role %s in database %s (process %s, by its own statement)', usename, datname,
                  pid),
           lower(substring(query FROM '(?i)synchronous_commit\\s*(?:=|\\sto\\s)\\s*''?(\\w+)')),
           1::int8
    FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND application_name <> 'lifeboat'
      AND query ~* '\\mset\\s+((session|local)\\s+)?synchronous_commit\\s*(=|\\sto\\s)'
    ORDER BY pid";

const SESSIONS: &str = "
    SELECT count(*), count(*) FILTER (WHERE wait_event = 'SyncRep'),
           (extract(epoch FROM clock_timestamp()) * 1000000)::int8
    FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";

const IDENTITY: &str = "SELECT system_identifier::text FROM pg_control_system()";

impl Survey {
    /// Asks for everything.
    pub async fn take(connection: &Connection) -> Outcome<Self> {
        let sessions = one(connection, SESSIONS).await?;
        Ok(Self {
            system_identifier: connection.text(IDENTITY).await?,
            names: names(connection).await?,
            commit: commit(connection).await?,
            // Only superusers may read pg_file_settings; what is broken is then found afterwards.
            broken: texts(connection, BROKEN).await.unwrap_or_default(),
            overrides: overrides(connection).await?,
            sessions: sessions.get(0),
            waiting: sessions.get(1),
            senders: senders(connection).await?,
            slots: slots(connection).await?,
            flushed: flushed_here(connection).await?,
            now: Timestamp::from_microsecond(sessions.get(2)).unwrap_or_default(),
        })
    }
}

async fn overrides(connection: &Connection) -> Outcome<Vec<Override>> {
    let mut found = rows(connection, OVERRIDES).await?;
    found.extend(rows(connection, STATEMENTS).await?);
    let own = |row: &tokio_postgres::Row| {
        Some(Override { who: row.get(0), value: row.get::<_, Option<_>>(1)?, sessions: row.get(2) })
    };
    Ok(found.iter().filter_map(own).collect())
}

/// `synchronous_standby_names` as this session has read it last.
pub(super) async fn names(connection: &Connection) -> Outcome<Setting> {
    let row = one(connection, NAMES).await?;
    Ok(Setting { value: row.get(0), source: row.get(1), by_alter_system: row.get(2) })
}

/// `synchronous_commit` of everybody who sets nothing else.
pub(crate) async fn commit(connection: &Connection) -> Outcome<Option<String>> {
    if let Some(value) = texts(connection, COMMIT).await?.pop() {
        return Ok(Some(value));
    }
    Ok(texts(connection, COMMIT_IN_FILES).await.unwrap_or_default().pop())
}

/// What keeps PostgreSQL from reading its configuration, as far as this role may see it.
pub(super) async fn broken(connection: &Connection) -> Vec<String> {
    texts(connection, BROKEN).await.unwrap_or_default()
}

async fn one(connection: &Connection, query: &str) -> Outcome<tokio_postgres::Row> {
    rows(connection, query).await?.pop().ok_or_else(|| {
        let message = format!("PostgreSQL at {} gave no answer", connection.place());
        Failure::new(Code::ClusterUnreachable, message)
    })
}

async fn texts(connection: &Connection, query: &str) -> Outcome<Vec<String>> {
    Ok(rows(connection, query).await?.iter().map(|row| row.get(0)).collect())
}
