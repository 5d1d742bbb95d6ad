//! Bytes that nobody wrote, for everything that reads bytes of others: the targets of `fuzz/`, by
//! libFuzzer. The compiler's coverage passes are reached by plain flags, so the usual toolchain does;
//! without a sanitizer, as nothing here is unsafe: a finding is a panic, an overflow, endless
//! memory or endless time.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::finish;

const TARGETS: [&str; 4] = ["protocol", "objects", "packs", "spec"];
const FLAGS: [&str; 6] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "--cfg=fuzzing",
];

/// Builds the targets and runs each for so many seconds.
pub fn run(root: &Path, seconds: u32) -> Result<()> {
    let folder = root.join("target/fuzz");
    // Named, so that build scripts and macros are built without the flags.
    let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut build = Command::new("cargo");
    build.args(["build", "--release", "--locked", "--bins", "--target", &host]);
    build.arg("--manifest-path").arg(root.join("fuzz/Cargo.toml"));
    build.arg("--target-dir").arg(&folder).env("RUSTFLAGS", FLAGS.join(" ")).current_dir(root);
    finish(&mut build)?;
    let programs = folder.join(&host).join("release");
    let corpus = folder.join("corpus");
    finish(Command::new(programs.join("seeds")).arg(&corpus))?;
    let artifacts = folder.join("findings");
    fs::create_dir_all(&artifacts)?;
    let mut found = Vec::new();
    for target in TARGETS {
        eprintln!("torture: {target} for {seconds} s");
        let mut command = Command::new(programs.join(target));
        command
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-artifact_prefix={}/{target}-", artifacts.display()));
        command.args(["-timeout=20", "-rss_limit_mb=2048", "-max_len=65536"]);
        command.args(["-print_final_stats=1", "-verbosity=0"]).arg(corpus.join(target));
        let status = command.status().with_context(|| format!("cannot start {target}"))?;
        if !status.success() {
            found.push(target);
        }
    }
    if !found.is_empty() {
        bail!("findings in {}: see {}", found.join(", "), artifacts.display());
    }
    Ok(())
}
