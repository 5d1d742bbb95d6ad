use std::time::Duration;

use proptest::prelude::*;

use crate::{Holder, Timing, Waiter};

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// R8's values for a lease of 6 s.
fn timing() -> Timing {
    Timing {
        lease: ms(6000),
        renew: ms(500),
        probe_timeout: ms(500),
        store_timeout: ms(750),
        fence_deadline: ms(1500),
        margin: ms(500),
    }
}

#[test]
fn the_defaults_hold_and_a_longer_kill_does_not() {
    assert!(timing().holds());
    assert!(!Timing { fence_deadline: ms(2100), ..timing() }.holds());
    assert!(!Timing { margin: ms(299), ..timing() }.holds());
}

#[test]
fn a_holder_counts_from_sending_and_never_backwards() {
    let mut holder = Holder::new(timing());
    assert!(!holder.is_live(ms(0)));
    assert_eq!(holder.confirmed(ms(1000)), ms(5000));
    // An answer that came late says nothing about a later renewal.
    assert_eq!(holder.confirmed(ms(400)), ms(5000));
    assert!(holder.is_live(ms(4999)));
    assert!(!holder.is_live(ms(5000)));
    holder.forget();
    assert!(!holder.is_live(ms(1)));
}

#[test]
fn a_waiter_begins_again_with_each_change() {
    let mut waiter = Waiter::new();
    assert!(!waiter.is_over(&timing(), ms(60_000)), "what was never looked at is not over");
    waiter.observe(7, ms(1000));
    waiter.observe(7, ms(3000));
    assert!(!waiter.is_over(&timing(), ms(6999)));
    assert!(waiter.is_over(&timing(), ms(7000)));
    waiter.observe(8, ms(6999));
    assert!(!waiter.is_over(&timing(), ms(7000)));
}

proptest! {
    /// Whatever the delays, with clocks that differ by the margin at the most, the last process
    /// is dead before the waiter is done.
    #[test]
    fn dead_before_over(
        sent in 0_u64..100_000,
        to_store in 0_u64..750,
        seen_after in 0_u64..100_000,
        slower_permille in 0_u64..80,
    ) {
        let timing = timing();
        let mut holder = Holder::new(timing);
        let begins_to_kill = holder.confirmed(ms(sent));
        // The holder's clock runs slower than the waiter's: its interval takes longer in truth.
        let interval = (begins_to_kill - ms(sent)) + timing.fence_deadline;
        let true_interval = interval * (1000 + u32::try_from(slower_permille).unwrap()) / 1000;
        let dead = ms(sent) + true_interval;
        let mut waiter = Waiter::new();
        waiter.observe(1, ms(sent + to_store + seen_after));
        prop_assert!(waiter.over_at(&timing).unwrap() >= dead);
    }
}
