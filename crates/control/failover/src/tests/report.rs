use std::time::Duration;

use jiff::Timestamp;
use lifeboat_quorum::RunId;
use lifeboat_workflow::{Change, Facts, Kind, Plan, Run, Step};

use super::world::{ledger, name, service};
use crate::report::{Loss, measure};

fn second(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// A failover whose first observer noticed at second 100; RPO 0 if the seals say so. It served at
/// second 110.
fn failover(rpo_0: &str, newest: i64, answered: Option<i64>) -> Run {
    let mut run = Run::new(Plan {
        run: RunId(1),
        service: name("payments"),
        kind: Kind::Failover,
        from: name("east"),
        to: name("west"),
        old: [(ledger(), name("east-1"))].into(),
        new: [(ledger(), name("west-1"))].into(),
        epoch: 1,
        steps: Kind::Failover.steps().to_vec(),
        by: "test".to_owned(),
        reason: "test".to_owned(),
        failing_since: Some(second(100)),
        newest_commit: None,
        last_worked: None,
        at: second(103),
        spec: String::new(),
    });
    let fact = |name: &str, value: String| Facts::from([(name.to_owned(), value)]);
    for step in Kind::Failover.steps() {
        let (at, facts) = match step {
            Step::Seal => (104, {
                let mut facts = fact("rpo_0", rpo_0.to_owned());
                facts.insert("sealed.ledger".to_owned(), "0/500".to_owned());
                facts
            }),
            Step::Complete => (107, fact("newest_commit.ledger", second(newest).to_string())),
            Step::Serve => (110, Facts::new()),
            Step::Traffic => match answered {
                Some(answered) => (112, fact("answered", second(answered).to_string())),
                None => (112, Facts::new()),
            },
            Step::Report => continue,
            _ => (105, Facts::new()),
        };
        let mut entry = run.entry(Change::Done, "", "test", second(at));
        entry.facts = facts;
        run.journal.push(entry);
    }
    run
}

fn away(run: &Run) -> Option<u64> {
    measure(&service(), run, second(113)).away.map(|away| away.as_secs())
}

#[test]
fn an_outage_lasts_from_the_newest_commit_to_a_write_through_the_endpoint() {
    assert_eq!(away(&failover("yes", 98, Some(111))), Some(13));
    // What is newer than the failure was written by the agent's own probe, which waits for nobody.
    assert_eq!(away(&failover("yes", 103, Some(111))), Some(11));
    // Then the newest commit of when the run began tells.
    let mut known = failover("yes", 103, Some(111));
    known.plan.newest_commit = Some(second(98));
    assert_eq!(away(&known), Some(13));
    known.plan.newest_commit = Some(second(101));
    assert_eq!(away(&known), Some(11));
    // Local clients may be served for longer than those of the endpoint. These were it for the last time
    // between an observer's last write and its first failure.
    known.plan.last_worked = Some(second(96));
    assert_eq!(away(&known), Some(13));
    known.plan.last_worked = Some(second(101));
    assert_eq!(away(&known), Some(11), "it fits nothing");
    // Nobody has seen a write: the declaration is what there is.
    assert_eq!(away(&failover("yes", 98, None)), Some(12));
}

#[test]
fn a_commit_time_that_fits_nothing_is_not_believed() {
    // The wall clock of the old primary was an hour off.
    assert_eq!(away(&failover("yes", 100 - 3600, Some(111))), Some(11));
    assert_eq!(away(&failover("yes", 100 + 3600, Some(111))), Some(11));
    // Where commits may be missing, the newest one that is there was not the last one.
    let run = failover("no", 95, Some(111));
    assert_eq!(away(&run), Some(11));
    let measured = measure(&service(), &run, second(113));
    assert!(matches!(measured.loss, Loss::Unknown { .. }));
    assert_eq!(measured.away, Some(Duration::from_secs(11)));
}
