//! What can go wrong on a connection, sorted for the caller who must decide what to do.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::time::Duration;

use fallible_iterator::FallibleIterator;
use lifeboat_model::Lsn;
use lifeboat_telemetry::{Code, Failure};
use postgres_protocol::message::backend::ErrorResponseBody;

/// A failure on a connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration cannot be used.
    #[error("{0}")]
    Config(Cow<'static, str>),
    /// The server said no; see [`ServerError::condition`].
    #[error(transparent)]
    Server(Box<ServerError>),
    /// The operating system said no.
    #[error("{step}: {source}")]
    Io {
        /// What was tried.
        step: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The server closed the connection without a word.
    #[error("the server closed the connection")]
    Closed,
    /// Nobody answered in time while connecting.
    #[error("no session within {0:?}")]
    Timeout(Duration),
    /// There is no TLS, or the certificate is not the one that was asked for.
    #[error("{0}")]
    Tls(Cow<'static, str>),
    /// The server asks for a proof that is not allowed, or did not give its own.
    #[error("{0}")]
    Authentication(Cow<'static, str>),
    /// What came is not what PostgreSQL sends.
    #[error("the server breaks the protocol: {0}")]
    Protocol(Cow<'static, str>),
    /// This server is too old.
    #[error("PostgreSQL {major} does not know {what}")]
    Unsupported {
        /// What it does not know.
        what: &'static str,
        /// Its major version.
        major: u32,
    },
    /// The stream was asked to begin where the server has not yet written.
    #[error("the position {asked} is ahead of what the server has flushed ({flushed})")]
    Ahead {
        /// Where the stream should have begun.
        asked: Lsn,
        /// How far the server is.
        flushed: Lsn,
    },
    /// An earlier command was dropped before its answer came, or the connection failed before.
    #[error("the connection cannot take another command")]
    Busy,
}

impl Error {
    pub(crate) fn protocol(what: impl Into<Cow<'static, str>>) -> Self {
        Self::Protocol(what.into())
    }

    pub(crate) fn io(step: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { step, source }
    }

    /// What the server's refusal means; `None` if it was not the server that refused.
    pub fn condition(&self) -> Option<Condition> {
        match self {
            Self::Server(error) => Some(error.condition()),
            _ => None,
        }
    }

    /// The failure for people; `place` names the server, as in `db.east:5432`.
    pub fn at(self, place: impl fmt::Display) -> Failure {
        let (code, hint) = self.advice();
        let failure = Failure::new(code, format!("PostgreSQL at {place}: {self}"));
        match &self {
            Self::Server(error) => match &error.hint {
                Some(said) => failure.hint(format!("{hint} PostgreSQL's own hint: {said}")),
                None => failure.hint(hint),
            },
            _ => failure.hint(hint),
        }
    }

    fn advice(&self) -> (Code, &'static str) {
        match self {
            Self::Config(_) => {
                (Code::SpecInvalid, "Correct `connection` of this node in the spec.")
            }
            Self::Server(error) => error.condition().advice(),
            Self::Tls(_) | Self::Authentication(_) => (
                Code::ServerUntrusted,
                "Correct the certificate, the password or the TLS settings; do not switch the \
                 check off.",
            ),
            Self::Protocol(_) => (
                Code::ClusterUnreachable,
                "Look whether a PostgreSQL listens there, and not a proxy or something else.",
            ),
            Self::Unsupported { .. } => (Code::ClusterUnsupported, "Use a newer PostgreSQL."),
            Self::Ahead { .. } => (
                Code::ClusterMismatch,
                "This server lacks WAL that was received before: look whether it is the right \
                 primary, and whether it was restored or promoted.",
            ),
            Self::Io { .. } | Self::Closed | Self::Timeout(_) | Self::Busy => (
                Code::ClusterUnreachable,
                "Start the server, or correct `connection` of this node in the spec.",
            ),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        error.at("the other end")
    }
}

impl From<ServerError> for Error {
    fn from(error: ServerError) -> Self {
        Self::Server(Box::new(error))
    }
}

/// What the server said when it refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerError {
    /// `ERROR`, `FATAL` or `PANIC`, never translated.
    pub severity: String,
    /// The five characters of PostgreSQL's error codes.
    pub sqlstate: String,
    /// The message, in the server's language.
    pub message: String,
    /// More of it.
    pub detail: Option<String>,
    /// What PostgreSQL advises.
    pub hint: Option<String>,
}

impl ServerError {
    pub(crate) fn parse(body: &ErrorResponseBody) -> Result<Self, Error> {
        let mut error = Self {
            severity: String::new(),
            sqlstate: String::new(),
            message: String::new(),
            detail: None,
            hint: None,
        };
        let mut fields = body.fields();
        let malformed = |_| Error::protocol("an error response cannot be read");
        while let Some(field) = fields.next().map_err(malformed)? {
            let text = printable(field.value_bytes());
            match field.type_() {
                b'V' => error.severity = text,
                b'C' => error.sqlstate = text,
                b'M' => error.message = text,
                b'D' => error.detail = Some(text),
                b'H' => error.hint = Some(text),
                _ => {}
            }
        }
        Ok(error)
    }

    /// Whether the server ends the session with it.
    pub(crate) fn is_fatal(&self) -> bool {
        self.severity != "ERROR"
    }

    /// What the refusal means.
    pub fn condition(&self) -> Condition {
        match self.sqlstate.as_str() {
            "28P01" => Condition::PasswordWrong,
            "28000" | "42501" => Condition::NotPermitted,
            "55006" => Condition::SlotInUse,
            "42704" => Condition::SlotMissing,
            "42710" => Condition::SlotExists,
            "55000" => Condition::SlotInvalid,
            "53400" => Condition::SlotsExhausted,
            "53300" => Condition::SendersExhausted,
            "58P01" => Condition::WalRemoved,
            "57P01" | "57P02" => Condition::ShuttingDown,
            "57P03" => Condition::NotReady,
            _ => Condition::Other,
        }
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { severity, sqlstate, message, detail, .. } = self;
        write!(formatter, "{severity} {sqlstate}: {message}")?;
        match detail {
            Some(detail) => write!(formatter, " ({detail})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ServerError {}

/// What a refusal of the server means to a receiver of WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Condition {
    /// The password is wrong, or the role does not exist (28P01).
    PasswordWrong,
    /// pg_hba.conf has no line for this, or the role lacks REPLICATION (28000, 42501).
    NotPermitted,
    /// Another session streams from the slot (55006).
    SlotInUse,
    /// There is no such slot (42704).
    SlotMissing,
    /// A slot of that name exists (42710).
    SlotExists,
    /// The slot was invalidated, or the server is not set up for it (55000).
    SlotInvalid,
    /// All slots are taken (53400, max_replication_slots).
    SlotsExhausted,
    /// All connections are taken (53300, max_wal_senders or max_connections).
    SendersExhausted,
    /// The server no longer has that WAL (58P01).
    WalRemoved,
    /// The server is being stopped, or somebody ended the session (57P01, 57P02).
    ShuttingDown,
    /// The server starts, or is in recovery and serves nobody (57P03).
    NotReady,
    /// Anything else; the SQLSTATE says what.
    Other,
}

impl Condition {
    fn advice(self) -> (Code, &'static str) {
        match self {
            Self::PasswordWrong => {
                (Code::ClusterPermission, "Correct the password or the role's name.")
            }
            Self::NotPermitted => (
                Code::ClusterPermission,
                "Give the role REPLICATION, and pg_hba.conf a line for database `replication`.",
            ),
            Self::SlotInUse => (
                Code::SlotUnusable,
                "Look in pg_stat_replication who streams from it; two receivers need two slots.",
            ),
            Self::SlotMissing | Self::SlotInvalid | Self::SlotExists => {
                (Code::SlotUnusable, "pg_replication_slots shows the slots of the server.")
            }
            Self::SlotsExhausted => {
                (Code::ClusterSettings, "Raise max_replication_slots, or drop a slot.")
            }
            Self::SendersExhausted => {
                (Code::ClusterSettings, "Raise max_wal_senders (and max_connections).")
            }
            Self::WalRemoved => (
                Code::WalGap,
                "The server has recycled this WAL: take a backup now; with a slot the server keeps \
                 what is needed.",
            ),
            Self::ShuttingDown | Self::NotReady => {
                (Code::ClusterUnreachable, "Wait until the server accepts connections.")
            }
            Self::Other => (Code::ClusterUnreachable, "The server's log says more."),
        }
    }
}

/// The text without what would move a terminal's cursor.
fn printable(bytes: &[u8]) -> String {
    let shown = |letter: char| if letter.is_control() { ' ' } else { letter };
    String::from_utf8_lossy(bytes).chars().map(shown).collect()
}
