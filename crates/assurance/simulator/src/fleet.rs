//! Many seeds, on all cores.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::mutant::Mutant;
use crate::simulate::{Outcome, simulate};

/// Which seeds to run.
#[derive(Debug, Clone, Copy)]
pub struct Fleet {
    /// The first one.
    pub from: u64,
    /// How many.
    pub seeds: u64,
    /// Whether the first failure is enough.
    pub stop_at_first: bool,
    /// What is wrong on purpose.
    pub mutant: Option<Mutant>,
}

/// What came of them.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// How many seeds were run.
    pub seeds: u64,
    /// Those that failed, in their order.
    pub failed: Vec<Outcome>,
    /// Moves, acknowledged commits, and late ones of paused hosts, over all seeds.
    pub moves: u64,
    /// Acknowledged commits over all seeds.
    pub acknowledged: u64,
    /// Late acknowledgements of paused hosts over all seeds.
    pub not_guaranteed: u64,
}

impl Report {
    /// In one sentence.
    pub fn sentence(&self) -> String {
        let Self { seeds, failed, moves, acknowledged, not_guaranteed } = self;
        format!(
            "{seeds} seeds, {} failed; {moves} moves, {acknowledged} commits acknowledged, \
             {not_guaranteed} of them late by paused hosts",
            failed.len()
        )
    }
}

/// Runs seeds.
pub fn run(fleet: &Fleet) -> Report {
    let next = AtomicU64::new(fleet.from);
    let stop = AtomicBool::new(false);
    let report = Mutex::new(Report::default());
    let end = fleet.from.saturating_add(fleet.seeds);
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return;
            }
            let outcome = run_one(seed, fleet.mutant);
            if outcome.failure.is_some() && fleet.stop_at_first {
                stop.store(true, Ordering::Relaxed);
            }
            if let Ok(mut report) = report.lock() {
                report.seeds += 1;
                report.moves += outcome.counts.moves;
                report.acknowledged += outcome.counts.acknowledged;
                report.not_guaranteed += outcome.counts.not_guaranteed;
                if outcome.failure.is_some() {
                    report.failed.push(outcome);
                }
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let mut report = report.into_inner().unwrap_or_default();
    report.failed.sort_by_key(|outcome| outcome.seed);
    report
}

/// The first of these seeds that finds a mutant. What fails without it too is no find.
pub fn find(mutant: Mutant, from: u64, seeds: u64) -> Option<Outcome> {
    let end = from.saturating_add(seeds);
    let mut from = from;
    loop {
        let seeds = end.saturating_sub(from);
        let fleet = Fleet { from, seeds, stop_at_first: true, mutant: Some(mutant) };
        let found = run(&fleet).failed.into_iter().next()?;
        if run_one(found.seed, None).failure.is_none() {
            return Some(found);
        }
        from = found.seed.saturating_add(1);
    }
}

/// Runs one seed; a panic of any code is a failure of it.
pub fn run_one(seed: u64, mutant: Option<Mutant>) -> Outcome {
    catch_unwind(AssertUnwindSafe(|| simulate(seed, mutant))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("?");
        Outcome {
            seed,
            failure: Some(format!("a panic: {text}")),
            hash: String::new(),
            lines: Vec::new(),
            counts: Default::default(),
            faults: Vec::new(),
        }
    })
}
