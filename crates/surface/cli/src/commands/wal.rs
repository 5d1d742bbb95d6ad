//! `lifeboat wal`: archive_command and restore_command.

pub mod fetch;
pub mod prefetch;
pub mod push;
mod standing_plan;

/// Archive and fetch WAL
#[derive(Debug, clap::Subcommand)]
pub enum Wal {
    Push(push::Args),
    Fetch(fetch::Args),
    Prefetch(prefetch::Args),
}
