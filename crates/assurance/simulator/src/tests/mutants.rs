//! Each fault in the product is found, within the seeds that it may take.

use crate::fleet::{Fleet, run};
use crate::mutant::Mutant;

/// What the issue asks for.
const WITHIN: u64 = 2000;

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

        #[test]
        fn every_mutant_has_its_test() {
            let tested = [$(Mutant::$mutant),*];
            for mutant in Mutant::ALL {
                assert!(tested.contains(&mutant), "{mutant:?}");
            }
        }
    };
}

mutants! {
    a_holder_counts_from_the_answer => HolderFromResponse;
    a_waiter_waits_too_short => ShortWait;
    a_waiter_ignores_renewals => WaiterIgnoresRenewals;
    a_controller_resumes_without_watching => ResumeWithoutWatching;
    a_guard_without_a_deadline => NoDeadline;
    a_kill_that_takes_too_long => SlowKill;
    a_fence_without_an_answer_counts => PromoteOnUnknownFence;
    a_fence_counts_before_it_is_done => FenceBeforeDeath;
    a_lease_is_renewed_without_a_write => NoProbe;
    a_record_is_written_blindly => BlindRecord;
    a_journal_is_written_blindly => BlindJournal;
    two_runs_at_once => TwoRuns;
    a_receiver_that_is_not_sealed => NoSeal;
    a_receiver_acknowledges_after_its_seal => AcknowledgeAfterSeal;
    a_receiver_acknowledges_before_it_flushes => AcknowledgeBeforeFlush;
    a_promotion_before_everything_is_there => PromoteTooEarly;
    commits_that_wait_for_nobody => NoSynchronousNames;
    traffic_that_compares_no_epoch => BlindTraffic;
    a_token_in_memory_alone => TokenNotPersisted;
    a_lower_token_after_a_restart => LowerTokenAccepted;
    what_only_the_loser_has_is_thrown_away => NoSalvage;
}
