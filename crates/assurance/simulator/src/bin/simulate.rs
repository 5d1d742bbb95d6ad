//! Runs seeds and prints those that fail: `simulate --from 0 --seeds 1000`.

use std::process::ExitCode;

use clap::Parser;
use lifeboat_simulator::fleet::{self, Fleet};
use lifeboat_simulator::mutant::Mutant;
use lifeboat_simulator::simulate::Outcome;

#[derive(Parser)]
struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first one.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// How many lines of a failing seed's history to print.
    #[arg(long, default_value_t = 60)]
    lines: usize,
    /// Prints only lines that contain one of these words.
    #[arg(long)]
    only: Vec<String>,
    /// Runs one seed and prints its history, whether it fails or not.
    #[arg(long)]
    show: bool,
    /// Makes something wrong on purpose, by its name in `mutant.rs`.
    #[arg(long)]
    mutant: Option<String>,
    /// Stops at the first failure.
    #[arg(long)]
    first: bool,
    /// Finds every mutant, each by the first of the seeds that does.
    #[arg(long)]
    mutants: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let Arguments { from, seeds, first, .. } = arguments;
    let named = |name: &String| Mutant::ALL.into_iter().find(|one| format!("{one:?}") == *name);
    let mutant = arguments.mutant.as_ref().and_then(named);
    if mutant.is_none() && arguments.mutant.is_some() {
        eprintln!("simulate: there is no such mutant; there are {:?}", Mutant::ALL);
        return ExitCode::from(2);
    }
    if arguments.mutants {
        return find_all(from, seeds);
    }
    if arguments.show {
        let outcome = fleet::run_one(from, mutant);
        print(&outcome, &arguments);
        return ExitCode::SUCCESS;
    }
    let report = fleet::run(&Fleet { from, seeds, stop_at_first: first, mutant });
    println!("{}", report.sentence());
    for outcome in &report.failed {
        print(outcome, &arguments);
    }
    if report.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints a table of mutants; fails if one of them is not found.
fn find_all(from: u64, seeds: u64) -> ExitCode {
    println!("| mutant | seed | found |\n|---|---|---|");
    let mut all = true;
    for mutant in Mutant::ALL {
        let found = fleet::find(mutant, from, seeds);
        all &= found.is_some();
        let row = found.map(|found| (found.seed, found.failure.unwrap_or_default()));
        match row {
            Some((seed, what)) => println!("| {mutant:?} | {seed} | {what} |"),
            None => println!("| {mutant:?} | none of {seeds} | NOT FOUND |"),
        }
    }
    if all { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print(outcome: &Outcome, arguments: &Arguments) {
    println!("\nseed {}: {}", outcome.seed, outcome.failure.as_deref().unwrap_or("is well"));
    println!("faults: {:?}", outcome.faults);
    let shown = |line: &String| {
        arguments.only.is_empty() || arguments.only.iter().any(|word| line.contains(word))
    };
    let lines: Vec<String> = outcome.lines.iter().map(ToString::to_string).filter(shown).collect();
    let skip = lines.len().saturating_sub(arguments.lines);
    lines.iter().skip(skip).for_each(|line| println!("{line}"));
}
