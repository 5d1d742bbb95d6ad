//! What pg_waldump prints.

use std::time::Duration;

use super::{commit, judged};

#[test]
fn commits_are_read_and_other_records_are_not() {
    let line = "rmgr: Transaction len (rec/tot):     34/    34, tx:        742, lsn: 0/1B0F8DE8, \
                prev 0/1B0F8DA0, desc: COMMIT 2026-11-21 02:19:22.249378 UTC";
    let found = commit(line).unwrap();
    assert_eq!(found.lsn.to_string(), "0/1B0F8DE8");
    assert_eq!(found.time.to_string(), "2026-11-21T02:19:22.249378Z");
    assert!(commit(&line.replace("COMMIT", "ABORT")).is_none());
}

#[test]
fn an_objective_is_met_at_its_limit_and_missed_behind_it() {
    let (limit, more) = (Duration::from_secs(60), Duration::from_millis(60_001));
    assert_eq!(judged("RTO", limit, limit)[3], "met");
    assert_eq!(judged("RTO", more, limit)[3], "MISSED");
}
