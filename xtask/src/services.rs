//! One controller over a thousand services: `cargo xtask bench-services`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

/// How many services, and for how long.
#[derive(Debug, Args)]
pub struct Options {
    /// Services; three observers look at each.
    #[arg(long, default_value_t = 1000)]
    services: usize,
    /// For how long the controller is measured while nothing fails.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

/// Builds and runs the world, which starts the controller and prints the table. Fails if a bar is
/// missed.
pub fn run(root: &Path, options: &Options) -> Result<()> {
    let words = ["run", "--locked", "--release", "--package", "lifeboat-simulator"];
    let status = Command::new("cargo")
        .args(words)
        .args(["--bin", "services", "--"])
        .args(["--services", &options.services.to_string()])
        .args(["--seconds", &options.seconds.to_string()])
        .current_dir(root)
        .status()
        .context("cannot start cargo")?;
    if !status.success() {
        bail!("the bench ended with {status}");
    }
    Ok(())
}
