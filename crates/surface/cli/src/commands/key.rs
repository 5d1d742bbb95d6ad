//! `lifeboat key`: who can open the vault, and which hosts can write.

pub mod add;
pub mod enroll;
pub mod list;
pub mod remove;

/// Enrol hosts, and add, list and remove the slots that open the vault
#[derive(Debug, clap::Subcommand)]
pub enum Key {
    Enroll(enroll::Args),
    Add(add::Args),
    List(list::Args),
    Remove(remove::Args),
}
