//! The whole story on a real cluster, with the real commands: `cargo xtask demo`.
//!
//! Act one: back up under load into two regions, lose one of them together with the server, and
//! come back in the other one to the exact state of a chosen moment.

mod figures;
mod ledger;
mod proof;
mod stage;
mod story;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use lifeboat_environment::Environment;
use lifeboat_testkit::postgres::{DEBIAN_MAJOR, Installation};

use crate::install;
use stage::Stage;
use story::{STEPS, Story};

/// How to tell it.
#[derive(Debug, Args)]
pub struct Options {
    /// Install what is missing and build, nothing else.
    #[arg(long)]
    install_only: bool,
    /// Leave everything up at the end, and print how to look at it.
    #[arg(long)]
    keep: bool,
    /// How long pgbench writes: half before the moment to come back to, half after it.
    #[arg(long, value_name = "N", default_value_t = 20)]
    seconds: u64,
}

/// Tells the story, or names the step at which it went wrong. Leaves nothing behind.
pub fn run(root: &Path, options: &Options) -> Result<()> {
    if options.install_only {
        install::run()?;
        build(root)?;
        return Ok(());
    }
    // The rest of what `install` brings is for tests alone.
    if Installation::find(DEBIAN_MAJOR).is_err() {
        install::run()?;
    }
    let binary = build(root)?;
    let stage = Stage::new(&binary, options.keep)?;
    let mut story = Story::new(stage, Duration::from_secs(options.seconds));
    for (number, (title, step)) in STEPS.iter().enumerate() {
        story.stage.heading(number + 1, title);
        let done = step(&mut story);
        // After Ctrl-C commands fail in many ways; there is one reason to tell.
        story
            .stage
            .check()
            .and(done)
            .with_context(|| format!("step {} failed: {title}", number + 1))?;
    }
    Ok(())
}

/// The release binary, or the one that `LIFEBOAT_BIN` names.
fn build(root: &Path) -> Result<PathBuf> {
    if let Some(binary) = Environment::system().variable("LIFEBOAT_BIN") {
        return Ok(PathBuf::from(binary));
    }
    let words = ["build", "--release", "--locked"];
    eprintln!("demo: cargo {}", words.join(" "));
    let status = Command::new("cargo")
        .args(words)
        .current_dir(root)
        .status()
        .context("cannot start cargo")?;
    if !status.success() {
        bail!("the release build ended with {status}");
    }
    Ok(root.join("target/release/lifeboat"))
}
