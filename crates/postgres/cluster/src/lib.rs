//! A PostgreSQL data directory: control file, pages, WAL, file list, settings.
//!
//! Parsers take bytes and give values; nothing here talks to a server. What differs between
//! major versions stands in [`releases`].

mod bytes;
pub mod control;
pub mod crc;
pub mod files;
pub mod manifest;
pub mod page;
pub mod releases;
pub mod server;
pub mod settings;
pub mod wal;

pub use control::ControlFile;
pub use releases::{RELEASES, Release};

#[cfg(test)]
mod tests;
