//! A kept session with a server: whoever asks waits so long and no longer.
//!
//! What does not answer in time is given up together with its session: a commit that waits for a
//! dead receiver, or a frozen process, cannot be asked to stop.

use std::cell::RefCell;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat_cluster::{ControlFile, control};
use lifeboat_telemetry::{Code, Failure, Outcome, duration};
use lifeboat_wal::connect::{Connection, connect, connect_at};
use tokio_postgres::{SimpleQueryMessage, SimpleQueryRow};

/// Where a session leads.
#[derive(Clone)]
pub(crate) struct Place {
    /// The connection string, resolved. It may hold a password.
    pub(crate) settings: String,
    /// HOST:PORT instead of what the string says.
    pub(crate) address: Option<String>,
}

/// A session that is opened when it is needed, and anew when it broke.
pub(crate) struct Session {
    /// Said at the start of each session.
    prepare: String,
    /// The data directory that the server must have.
    data: Option<PathBuf>,
    kept: RefCell<Option<Connection>>,
}

impl Session {
    /// A session that says `prepare` first.
    pub(crate) fn new(prepare: impl Into<String>) -> Self {
        Self { prepare: prepare.into(), data: None, kept: RefCell::new(None) }
    }

    /// The same, to the server of this data directory and no other.
    pub(crate) fn of(self, data: &Path) -> Self {
        Self { data: Some(data.to_owned()), ..self }
    }

    /// Runs statements and returns the rows of all of them, within `limit`.
    pub(crate) async fn ask(
        &self,
        place: &Place,
        limit: Duration,
        sql: &str,
    ) -> Outcome<Vec<SimpleQueryRow>> {
        within(limit, Box::pin(self.ask_patiently(place, sql))).await
    }

    /// Ends the session.
    pub(crate) fn forget(&self) {
        self.kept.borrow_mut().take();
    }

    async fn ask_patiently(&self, place: &Place, sql: &str) -> Outcome<Vec<SimpleQueryRow>> {
        // Taken out: if this is given up half-way, the session goes with it.
        let kept = self.kept.borrow_mut().take();
        if let Some(connection) = kept.filter(|kept| !kept.client().is_closed()) {
            match run(&connection, sql).await {
                // It broke before or while we asked: what is asked here may be asked again.
                Err(error) if error.as_db_error().is_none() => {}
                answer => return self.keep(connection, answer),
            }
        }
        let connection = open(place).await?;
        if let Some(data) = &self.data {
            verify(&connection, data).await?;
        }
        if !self.prepare.is_empty() {
            run(&connection, &self.prepare).await.map_err(|error| said(&connection, &error))?;
        }
        let answer = run(&connection, sql).await;
        self.keep(connection, answer)
    }

    fn keep(
        &self,
        connection: Connection,
        answer: Result<Vec<SimpleQueryRow>, tokio_postgres::Error>,
    ) -> Outcome<Vec<SimpleQueryRow>> {
        let answer = answer.map_err(|error| said(&connection, &error));
        // What the server refuses with words does not end the session.
        if !connection.client().is_closed() {
            *self.kept.borrow_mut() = Some(connection);
        }
        answer
    }
}

/// A session of its own for one thing that takes longer.
pub(crate) async fn open(place: &Place) -> Outcome<Connection> {
    match &place.address {
        Some(address) => connect_at(&place.settings, address).await,
        None => connect(&place.settings).await,
    }
}

/// Makes sure that a session leads to the server of this data directory: another one of the same
/// cluster may listen on the next port.
pub(crate) async fn verify(connection: &Connection, data: &Path) -> Outcome<()> {
    // Both are hidden from roles that may not see them: then the other one tells.
    let asked = "SELECT (SELECT setting FROM pg_settings WHERE name = 'data_directory'),
                        (SELECT system_identifier::text FROM pg_control_system())";
    let rows = rows(connection, asked).await?;
    let directory = rows.first().and_then(|row| text(row, 0)).map(PathBuf::from);
    let system = rows.first().and_then(|row| text(row, 1));
    let canonical = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let bytes = std::fs::read(data.join(control::PATH)).unwrap_or_default();
    let own = ControlFile::parse(&bytes).ok().map(|control| control.system.to_string());
    let found = match (&directory, system, &own) {
        (Some(found), _, _) if canonical(found) != canonical(data) => found.display().to_string(),
        (_, Some(found), Some(own)) if found != own => format!("cluster {found}"),
        _ => return Ok(()),
    };
    let message =
        format!("PostgreSQL at {} serves {found}, not {}", connection.place(), data.display());
    Err(Failure::new(Code::InstanceOther, message)
        .hint("Correct `connection` or `data_directory` of this node in the spec."))
}

/// Runs statements in a session.
pub(crate) async fn rows(connection: &Connection, sql: &str) -> Outcome<Vec<SimpleQueryRow>> {
    run(connection, sql).await.map_err(|error| said(connection, &error))
}

async fn run(
    connection: &Connection,
    sql: &str,
) -> Result<Vec<SimpleQueryRow>, tokio_postgres::Error> {
    let messages = connection.client().simple_query(sql).await?;
    Ok(messages
        .into_iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        })
        .collect())
}

/// Gives up after `limit`.
pub(crate) async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Outcome<T>>,
) -> Outcome<T> {
    match tokio::time::timeout(limit, work).await {
        Ok(answer) => answer,
        Err(_) => Err(Failure::new(
            Code::DeadlineExceeded,
            format!("PostgreSQL did not answer within {}", duration(limit)),
        )
        .hint("See the server's log and its disk: it is frozen, overloaded, or unreachable.")),
    }
}

/// The SQLSTATE of what a server said, if it said something.
pub(crate) fn said(connection: &Connection, error: &tokio_postgres::Error) -> Failure {
    let failure = connection.failure_as(Code::ClusterSettings, error);
    match error.as_db_error() {
        // Callers look at it: some refusals say what is missing.
        Some(said) => failure.detail(format!("SQLSTATE {}", said.code().code())),
        None => failure,
    }
}

/// Whether a failure carries one of these SQLSTATEs.
pub(crate) fn is_state(failure: &Failure, states: &[&str]) -> bool {
    failure
        .detail_lines()
        .iter()
        .any(|line| line.strip_prefix("SQLSTATE ").is_some_and(|state| states.contains(&state)))
}

/// A text of a row; none for NULL.
pub(crate) fn text(row: &SimpleQueryRow, column: usize) -> Option<&str> {
    row.try_get(column).ok().flatten()
}

/// A value of a row that can be read from text.
pub(crate) fn value<T: std::str::FromStr>(row: &SimpleQueryRow, column: usize) -> Option<T> {
    text(row, column)?.parse().ok()
}

/// A literal.
pub(crate) fn literal(value: &str) -> String {
    // standard_conforming_strings may be off.
    if value.contains('\\') {
        return format!("E'{}'", value.replace('\\', "\\\\").replace('\'', "''"));
    }
    format!("'{}'", value.replace('\'', "''"))
}
