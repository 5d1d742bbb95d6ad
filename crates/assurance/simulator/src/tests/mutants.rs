//! Each fault in the product is found, within the seeds that it may take.

use crate::fleet::{Fleet, run};
use crate::mutant::Mutant;

/// As many seeds as pass without a mutant: a find behind them would prove nothing. The mutants that
/// are not here are not found within these.
const WITHIN: u64 = 150;

fn is_found(mutant: Mutant) {
    let fleet = Fleet { from: 0, seeds: WITHIN, stop_at_first: true, mutant: Some(mutant) };
    let report = run(&fleet);
    let found = report.failed.first().and_then(|outcome| outcome.failure.clone());
    println!("{mutant:?}: {} seeds, {found:?}", report.seeds);
    assert!(found.is_some(), "{mutant:?} is not found within {} seeds", report.seeds);
}

macro_rules! mutants {
    ($($name:ident => $mutant:ident;)*) => {$(
        #[test]
        fn $name() {
            is_found(Mutant::$mutant);
        }
    )*
    };
}

mutants! {
    a_waiter_ignores_renewals => WaiterIgnoresRenewals;
    a_guard_without_a_deadline => NoDeadline;
    a_kill_that_takes_too_long => SlowKill;
    a_journal_is_written_blindly => BlindJournal;
    two_runs_at_once => TwoRuns;
    commits_that_wait_for_nobody => NoSynchronousNames;
    traffic_that_compares_no_epoch => BlindTraffic;
    what_only_the_loser_has_is_thrown_away => NoSalvage;
}
