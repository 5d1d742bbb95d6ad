//! PostgreSQL's physical replication protocol.
//!
//! [`Protocol`] is the core: bytes in, steps out; it knows no socket and no clock. [`Connection`]
//! and [`Stream`] are the shell over tokio: they dial, encrypt, log in, and move bytes.
//!
//! ```no_run
//! # async fn receive() -> Result<(), lifeboat_wire::Error> {
//! use lifeboat_environment::Environment;
//! use lifeboat_wire::{Config, Connection, Event, SlotOptions, Start, Status};
//!
//! let mut config = Config::parse("host=db.east port=5432 user=lifeboat sslmode=verify-full")?;
//! config.application_name = "lifeboat-east".to_owned();
//! let mut connection = Connection::open(&config, &Environment::system()).await?;
//! let system = connection.identify().await?;
//! let slot = "lifeboat_east".parse()?;
//! connection.create_slot(&slot, SlotOptions { reserve_wal: true, temporary: false }).await?;
//! let start = Start { slot: Some(slot), lsn: system.flushed, timeline: system.timeline };
//! let mut stream = connection.start(start).await?;
//! loop {
//!     match stream.next().await? {
//!         Event::Data(data) => {
//!             // Make `data.bytes` durable, then say so.
//!             stream.status(Status::durable(data.end())).await?;
//!         }
//!         Event::Keepalive(_) => {}
//!         Event::EndOfTimeline(end) => {
//!             let mut connection = stream.finish().await?;
//!             let _history = connection.timeline_history(end.next).await?;
//!             let start = Start { slot: None, lsn: end.switch, timeline: end.next };
//!             stream = connection.start(start).await?;
//!         }
//!         Event::Shutdown => return Ok(()),
//!     }
//! }
//! # }
//! ```
//!
//! **Waiting.** Only [`Connection::open`] has a timeout of its own. A server that stops answering
//! without closing is for the caller to notice: every future here may be dropped, as by
//! `tokio::time::timeout` or `tokio::select!`. [`Stream::next`] loses nothing by that; a command
//! that was dropped leaves a connection that answers [`Error::Busy`] and can only be closed.
//!
//! **What is promised.** Data of a stream is contiguous from the position that was asked for, else
//! the stream fails. A message longer than [`MESSAGE_BYTES_MAX`] is refused before memory is
//! taken for it. A status never says applied beyond flushed, nor flushed beyond written.
//!
//! **Errors.** Those that the server sends keep their SQLSTATE; [`ServerError::condition`] sorts
//! them. [`Error::at`] makes a `Failure` for people.

mod command;
mod config;
mod connection;
mod dial;
mod error;
mod link;
mod protocol;
mod stream;
mod tls;

pub use command::{HistoryFile, Slot, SlotName, SlotOptions, Start, System};
pub use config::{
    ChannelBinding, Config, Host, Identity, Keepalive, Methods, Password, Tls, TlsMode,
};
pub use connection::Connection;
pub use error::{Condition, Error, ServerError};
pub use protocol::{
    Data, EndOfTimeline, Event, KeepaliveMessage, Login, MESSAGE_BYTES_MAX, Protocol, Row,
    Security, Status, StatusError, Step,
};
pub use stream::Stream;

#[cfg(test)]
mod tests;
