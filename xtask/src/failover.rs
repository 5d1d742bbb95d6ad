//! How long clients are without a service that moves, in the lab: `cargo xtask bench-failover`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::demo::build;

/// How often.
#[derive(Debug, Args)]
pub struct Options {
    /// Rounds; each loses a region, fills the disk of a server, and moves home twice by plan.
    #[arg(long, default_value_t = 10)]
    rounds: u32,
}

/// Measures; the scenario prints its table.
pub fn run(root: &Path, options: &Options) -> Result<()> {
    let binary = build(root)?;
    let words = ["nextest", "run", "--locked", "--profile=torture", "--run-ignored=only"];
    let status = Command::new("cargo")
        .args(words)
        .args(["--no-tests=fail", "--package", "lifeboat-scenarios"])
        .args(["-E", "test(/^failover_speed::/)"])
        .env("LIFEBOAT_BIN", binary)
        .env("LIFEBOAT_BENCH_ROUNDS", options.rounds.to_string())
        .current_dir(root)
        .status()
        .context("cannot start cargo")?;
    if !status.success() {
        bail!("the rounds ended with {status}");
    }
    Ok(())
}
