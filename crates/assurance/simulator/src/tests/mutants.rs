//! Each fault in the product is found.
//!
//! Each mutant has a few seeds around one that finds it: more would only take time here.
//! `cargo xtask torture simulate` looks for all of them from the first seed on.

use crate::fleet::find;
use crate::mutant::Mutant;

/// Looked at before the seed that finds it.
const BEFORE: u64 = 3;

fn is_found(mutant: Mutant, by: u64) {
    let found = find(mutant, by.saturating_sub(BEFORE), BEFORE + 3);
    println!("{mutant:?}: {:?}", found.as_ref().map(|found| (found.seed, &found.failure)));
    assert!(found.is_some(), "{mutant:?} is not found by seed {by} any more");
}

macro_rules! mutants {
    ($($name:ident => $mutant:ident by $seed:literal;)*) => {$(
        #[test]
        fn $name() {
            is_found(Mutant::$mutant, $seed);
        }
    )*
    };
}

mutants! {
    a_holder_counts_from_the_answer => HolderFromResponse by 236;
    a_waiter_waits_half_a_lease => ShortWait by 32;
    a_lease_without_a_write => NoProbe by 32;
    a_waiter_ignores_renewals => WaiterIgnoresRenewals by 32;
    a_controller_that_has_not_watched_the_lease => ResumeWithoutWatching by 5;
    a_guard_without_a_deadline => NoDeadline by 5;
    a_kill_that_takes_longer_than_it_may => SlowKill by 15;
    a_fence_that_nobody_confirmed => PromoteOnUnknownFence by 32;
    a_postmasters_death_that_is_taken_for_that_of_all => FenceBeforeDeath by 87;
    a_record_is_written_blindly => BlindRecord by 0;
    a_journal_is_written_blindly => BlindJournal by 0;
    two_runs_at_once => TwoRuns by 5;
    a_seal_that_is_none => NoSeal by 5;
    a_receiver_that_acknowledges_behind_its_seal => AcknowledgeAfterSeal by 5;
    a_receiver_that_acknowledges_before_its_flush => AcknowledgeBeforeFlush by 0;
    a_receiver_takes_an_old_epochs_primary => OldEpochReceived by 50;
    a_standby_that_says_it_has_everything => PromoteTooEarly by 238;
    commits_that_wait_for_nobody => NoSynchronousNames by 3;
    a_name_that_is_changed_without_a_look_at_its_epoch => BlindTraffic by 73;
    a_token_that_is_not_persisted => TokenNotPersisted by 15;
    a_lower_token_after_a_restart => LowerTokenAccepted by 15;
    what_only_the_loser_has_is_thrown_away => NoSalvage by 3;
    clocks_that_differ_by_more_than_the_margin => Drift by 202;
}
