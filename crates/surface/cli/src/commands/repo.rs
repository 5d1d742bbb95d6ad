//! `lifeboat repo`: the repositories of all regions.

pub mod check;
pub mod create;
pub mod prune;
pub mod stats;

/// Create, check, measure and prune the repositories
#[derive(Debug, clap::Subcommand)]
pub enum Repo {
    Create(create::Args),
    Check(check::Args),
    Stats(stats::Args),
    Prune(prune::Args),
}
