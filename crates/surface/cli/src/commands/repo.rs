//! `lifeboat repo`: the repositories of all regions.

pub mod check;
pub mod create;
pub mod stats;

/// Create, check and measure the repositories
#[derive(Debug, clap::Subcommand)]
pub enum Repo {
    Create(create::Args),
    Check(check::Args),
    Stats(stats::Args),
}
