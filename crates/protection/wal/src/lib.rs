//! WAL archive: push, fetch, gaps, recoverability window.
//!
//! [`push`] is archive_command, [`fetch`] restore_command; [`status`] says what can be recovered,
//! from objects alone. [`incarnation`] keeps copies of a cluster out of its archive.

pub mod acknowledge;
mod archived;
pub mod changes;
pub mod connect;
pub mod coverage;
mod durable;
pub mod fetch;
pub mod from_server;
pub mod incarnation;
pub mod live;
pub mod plan;
pub mod push;
pub mod receive;
mod receiver_name;
pub mod retention;
pub mod salvage;
pub mod search;
pub mod senders;
pub mod status;
pub mod writing_server;

pub use archived::{Needed, bring_to_all, wait_until_archived};
pub use lifeboat_repository::keys::WalReadKey;
pub use receiver_name::{is_receiver_name, receiver_name};

#[cfg(test)]
mod tests;
