//! The whole story on a real cluster, with the real commands: `cargo xtask demo`.
//!
//! Act one: back up under load into two regions, lose one of them together with the server, and
//! come back in the other one to the exact state of a chosen moment. Act two: commits wait for the
//! other region, and no acknowledged one is lost with the own region. Act three is the product's own
//! `lab demo`: the service moves, by plan and by itself, and one server writes at a time.

mod figures;
mod ledger;
mod proof;
mod stage;
mod story;
mod streamed;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use lifeboat_environment::Environment;
use lifeboat_testkit::postgres::{DEBIAN_MAJOR, Installation};

use crate::install;
use stage::Stage;
use story::Story;
use streamed::Streamed;

/// How to tell it.
#[derive(Debug, Args)]
pub struct Options {
    /// Install what is missing and build, nothing else.
    #[arg(long)]
    install_only: bool,
    /// Leave everything up at the end, and print how to look at it.
    #[arg(long)]
    keep: bool,
    /// Tell only this act.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=3))]
    act: Option<u8>,
    /// How long pgbench writes: in act one half before the moment to come back to, half after it.
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
    let seconds = Duration::from_secs(options.seconds);
    let told = |act| options.act.is_none_or(|only| only == act);
    let mut first = 1;
    if told(1) {
        println!("\nAct one: back to a moment, in the other region");
        let mut story = Story::new(Stage::new(&binary, options.keep)?, seconds);
        tell(&mut story, first, &story::STEPS, |story| &story.stage)?;
    }
    first += story::STEPS.len();
    if told(2) {
        println!("\nAct two: nothing that was acknowledged is lost");
        let mut story = Streamed::new(Stage::new(&binary, options.keep)?, seconds / 2)?;
        tell(&mut story, first, &streamed::STEPS, |story| &story.stage)?;
    }
    if told(3) {
        println!("\nAct three: the service moves, and one server writes at a time");
        if !install::has_movers() {
            install::run()?;
        }
        lab(&binary, options.keep)?;
    }
    Ok(())
}

/// The lab's own demo, in a directory of its own. It takes away what it has built.
fn lab(binary: &Path, keep: bool) -> Result<()> {
    let directory = format!("/tmp/lifeboat-lab-{}", std::process::id());
    let mut words = vec!["lab", "demo", "--directory", &directory];
    words.extend(keep.then_some("--keep"));
    println!("$ lifeboat {}", words.join(" "));
    let status = Command::new(binary).args(&words).status().context("cannot start lifeboat")?;
    if !status.success() {
        bail!("`lifeboat lab demo` ended with {status}");
    }
    Ok(())
}

/// A step of an act changes the world or the story fails.
type Step<S> = fn(&mut S) -> Result<()>;

/// Tells the steps of an act, numbered from `first`.
fn tell<S>(
    story: &mut S,
    first: usize,
    steps: &[(&str, Step<S>)],
    stage: impl Fn(&S) -> &Stage,
) -> Result<()> {
    for (number, (title, step)) in (first..).zip(steps) {
        stage(story).heading(number, title);
        let done = step(story);
        // After Ctrl-C commands fail in many ways; there is one reason to tell.
        let interrupted = stage(story).check();
        interrupted.and(done).with_context(|| format!("step {number} failed: {title}"))?;
    }
    Ok(())
}

/// The release binary, or the one that `LIFEBOAT_BIN` names.
pub fn build(root: &Path) -> Result<PathBuf> {
    if let Some(binary) = Environment::system().variable("LIFEBOAT_BIN") {
        return Ok(PathBuf::from(binary));
    }
    let words = ["build", "--release", "--locked"];
    eprintln!("xtask: cargo {}", words.join(" "));
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
