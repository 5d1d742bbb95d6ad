//! Everything that must hold before a change is merged: `cargo xtask test`.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use lifeboat_environment::{Clock, SystemClock};

use crate::{install, schema, tidy};

/// Runs every part, also after one has failed, and fails at the end if any did.
pub fn run(root: &Path, nextest: &[String]) -> Result<()> {
    let cargo = |words: &str| cargo(root, words, &[]);
    let mut report = Report::default();
    report.part("install", install::run);
    // Scenarios run the binary itself.
    report.part("build", || cargo("build --locked"));
    report.part("tidy", || tidy::run(root));
    report.part("format", || cargo("fmt --all -- --check -l"));
    report.part("clippy", || {
        cargo("clippy --quiet --locked --workspace --all-targets -- --deny warnings")
    });
    report.part("licences", || {
        cargo("deny --log-level error check --show-stats bans licenses sources")
    });
    report.part("schema", || schema::check(root));
    report.part("doctests", || cargo("test --quiet --locked --workspace --doc"));
    // Last, so that its summary stands at the end.
    report.part("tests", || {
        self::cargo(root, "nextest run --locked --workspace --profile ci", nextest)
    });
    report.finish()
}

#[derive(Default)]
struct Report {
    parts: Vec<(&'static str, Duration, Result<()>)>,
}

impl Report {
    fn part(&mut self, name: &'static str, run: impl FnOnce() -> Result<()>) {
        eprintln!("test: {name}");
        let start = SystemClock.elapsed();
        let result = run();
        if let Err(error) = &result {
            eprintln!("test: {name} failed: {error:#}");
        }
        self.parts.push((name, SystemClock.elapsed().saturating_sub(start), result));
    }

    fn finish(self) -> Result<()> {
        let mut table = Table::new();
        table.load_style(NOTHING).set_header(["part", "minutes", "result"]);
        for (name, time, result) in &self.parts {
            let minutes = format!("{:.1}", time.as_secs_f64() / 60.0);
            let verdict = if result.is_ok() { "ok" } else { "FAILED" };
            table.add_row([name, minutes.as_str(), verdict]);
        }
        eprintln!("{table}");
        let failed: Vec<&str> =
            self.parts.iter().filter(|part| part.2.is_err()).map(|part| part.0).collect();
        if !failed.is_empty() {
            bail!("failed: {}", failed.join(", "));
        }
        Ok(())
    }
}

/// Runs cargo; none of the words holds a blank.
fn cargo(root: &Path, words: &str, more: &[String]) -> Result<()> {
    let mut command = Command::new("cargo");
    command.args(words.split(' ')).args(more).current_dir(root);
    let status = command.status().context("cannot start cargo")?;
    if !status.success() {
        bail!("cargo {words} ended with {status}");
    }
    Ok(())
}
