//! The long runs that break things on purpose: `cargo xtask torture`.

mod fuzz;

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

/// What to break, and how often.
#[derive(Debug, Args)]
pub struct Options {
    /// The kind of run; without it they are listed.
    kind: Option<Kind>,
    /// How many rounds of what chance decides [default: 1, `wal`: 200, `quorum`: 20, `simulate`: 10
    /// of 1,000 seeds each]; what can be counted is done once.
    #[arg(long)]
    rounds: Option<u32>,
    /// What chance starts from: the same seed, the same faults.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How long each target of `fuzz` is tried.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

/// The kinds of runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Every command with a fault at each of its calls to stores and to PostgreSQL.
    Faults,
    /// Random kills of server, receivers and store: no acknowledged commit is lost.
    Wal,
    /// Loss of etcd's leader, again and again: no lease ends.
    Quorum,
    /// A service is moved on the whole lab, under every fault; the oracle judges.
    Failover,
    /// Bytes that nobody wrote, to whatever reads bytes of others (`fuzz/`).
    Fuzz,
    /// The control plane under many seeds, then every fault that is known to be found.
    Simulate,
}

impl Kind {
    /// Which tests its runs are, for nextest, if they are tests.
    fn tests(self) -> Option<[&'static str; 4]> {
        match self {
            Self::Faults => {
                Some(["--package", "lifeboat-scenarios", "-E", "test(/^sweep::full_/)"])
            }
            Self::Wal => {
                Some(["--package", "lifeboat-scenarios", "-E", "test(/^torture_wal::full_/)"])
            }
            Self::Quorum => Some(["--package", "lifeboat-quorum", "-E", "test(/^full_/)"]),
            Self::Failover => {
                Some(["--package", "lifeboat-scenarios", "-E", "test(/^failover::/)"])
            }
            Self::Fuzz | Self::Simulate => None,
        }
    }

    fn usual_rounds(self) -> u32 {
        match self {
            Self::Faults => 1,
            Self::Wal => 200,
            Self::Quorum => 20,
            Self::Failover | Self::Fuzz => 1,
            Self::Simulate => 10,
        }
    }
}

/// Runs one kind, or lists all.
pub fn run(root: &Path, options: &Options) -> Result<()> {
    let Some(kind) = options.kind else {
        for kind in Kind::value_variants() {
            let list = ["nextest", "list", "--locked", "--run-ignored=only"];
            match kind.tests() {
                Some(tests) => finish(cargo(root, &list).args(tests))?,
                None if *kind == Kind::Fuzz => println!("{kind:?}: the targets of fuzz/"),
                None => println!("{kind:?}: seeds and mutants of assurance/simulator"),
            }
        }
        return Ok(());
    };
    if kind == Kind::Fuzz {
        return fuzz::run(root, options.seconds);
    }
    let rounds = options.rounds.unwrap_or_else(|| kind.usual_rounds());
    eprintln!("torture: {kind:?}, {rounds} rounds, seed {}", options.seed);
    let Some(tests) = kind.tests() else { return simulate(root, rounds, options.seed) };
    finish(&mut cargo(root, &["build", "--locked"]))?;
    let run = ["nextest", "run", "--locked", "--profile=torture", "--run-ignored=all"];
    let variables = [
        ("LIFEBOAT_TORTURE_ROUNDS", rounds.to_string()),
        ("LIFEBOAT_TORTURE_SEED", options.seed.to_string()),
    ];
    finish(cargo(root, &run).arg("--no-tests=fail").args(tests).envs(variables))
}

/// Seeds without a fault in the product, then each fault until it is found.
fn simulate(root: &Path, rounds: u32, seed: u64) -> Result<()> {
    const ROUND: u64 = 1000;
    const MUTANTS: u64 = 2000;
    let run = ["run", "--locked", "--release", "--package", "lifeboat-simulator"];
    let look = |what: &[&str], seeds: u64| {
        let mut command = cargo(root, &run);
        command.args(["--bin", "simulate", "--", "--from", &seed.to_string()]);
        finish(command.args(["--seeds", &seeds.to_string()]).args(what))
    };
    look(&["--lines", "40"], u64::from(rounds).saturating_mul(ROUND))?;
    look(&["--mutants"], MUTANTS)
}

fn cargo(root: &Path, words: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.args(words).current_dir(root);
    command
}

fn finish(command: &mut Command) -> Result<()> {
    let status = command.status().context("cannot start cargo")?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(())
}
