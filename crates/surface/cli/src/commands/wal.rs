//! `lifeboat wal`: archive_command and restore_command.

pub mod acknowledge;
pub mod fetch;
pub mod locate;
pub mod prefetch;
pub mod push;
pub mod receive;
pub mod seal;
mod standing_plan;
pub mod status;

/// Archive and fetch WAL
#[derive(Debug, clap::Subcommand)]
pub enum Wal {
    Push(push::Args),
    Fetch(fetch::Args),
    Receive(receive::Args),
    Seal(seal::Args),
    Status(status::Args),
    Locate(locate::Args),
    Acknowledge(acknowledge::Args),
    Prefetch(prefetch::Args),
}
