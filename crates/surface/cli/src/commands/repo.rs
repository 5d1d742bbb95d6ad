//! `lifeboat repo`: the repositories of all regions.

pub mod check;
pub mod create;

/// Create and check the repositories
#[derive(Debug, clap::Subcommand)]
pub enum Repo {
    Create(create::Args),
    Check(check::Args),
}
