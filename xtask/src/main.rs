//! Project tasks in Rust instead of shell: `cargo xtask --help`.

mod install;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Tasks of the Lifeboat project")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what tests need and this machine lacks.
    Install,
}

fn main() -> Result<()> {
    match Arguments::parse().task {
        Task::Install => install::run(),
    }
}
