//! Seeds with everything on, and those that once failed.

use crate::fleet::{Fleet, Report, run, run_one};

/// How many seeds each of the tests below simulates. `cargo xtask torture simulate` has more.
const SEEDS: u64 = 250;

fn story(report: &Report) -> String {
    let mut text = report.sentence();
    for outcome in &report.failed {
        let why = outcome.failure.as_deref().unwrap_or_default();
        text.push_str(&format!("\n\nseed {}: {why}\n{:?}", outcome.seed, outcome.faults));
        let skip = outcome.lines.len().saturating_sub(40);
        outcome.lines.iter().skip(skip).for_each(|line| text.push_str(&format!("\n{line}")));
    }
    text
}

fn are_well(from: u64) {
    let fleet = Fleet { from, seeds: SEEDS, stop_at_first: false, mutant: None };
    let report = run(&fleet);
    println!("{}", report.sentence());
    assert!(report.failed.is_empty(), "{}", story(&report));
    // A run without a move has shown nothing.
    assert!(report.moves > SEEDS / 4, "{}", report.sentence());
}

#[test]
fn nothing_that_must_never_happen_does_from_0_on() {
    are_well(0);
}

#[test]
fn nothing_that_must_never_happen_does_from_250_on() {
    are_well(250);
}

#[test]
fn nothing_that_must_never_happen_does_from_500_on() {
    are_well(500);
}

#[test]
fn nothing_that_must_never_happen_does_from_750_on() {
    are_well(750);
}

#[test]
fn a_seed_gives_one_history() {
    for seed in [3, 7, 40, 132, 191] {
        let (once, again) = (run_one(seed, None), run_one(seed, None));
        assert_eq!(once.hash, again.hash, "seed {seed}");
        assert_eq!(once.lines, again.lines, "seed {seed}");
        assert_ne!(once.hash, run_one(seed + 1000, None).hash);
    }
}

/// Seeds that found something in production code, or in a model of it.
macro_rules! regressions {
    ($($name:ident = $seed:literal;)*) => {$(
        #[test]
        fn $name() {
            let outcome = run_one($seed, None);
            let report = Report { seeds: 1, failed: vec![outcome.clone()], ..Report::default() };
            assert_eq!(outcome.failure, None, "{}", story(&report));
        }
    )*};
}

regressions! {
    a_store_restored_in_mid_run_begins_no_epoch_beside_a_holder = 15;
}
