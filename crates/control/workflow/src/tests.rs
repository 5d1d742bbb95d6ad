use jiff::Timestamp;
use lifeboat_quorum::{Nodes, RunId};
use proptest::prelude::*;

use crate::{Change, Kind, Plan, Run, Step, StepState};

fn run(kind: Kind) -> Run {
    Run::new(Plan {
        run: RunId(7),
        service: "payments".parse().unwrap(),
        kind,
        from: "east".parse().unwrap(),
        to: "west".parse().unwrap(),
        old: Nodes::new(),
        new: Nodes::new(),
        epoch: 3,
        steps: kind.steps().to_vec(),
        by: "test".to_owned(),
        reason: String::new(),
        failing_since: None,
        newest_commit: None,
        last_worked: None,
        at: Timestamp::UNIX_EPOCH,
        spec: String::new(),
    })
}

fn write(run: &mut Run, change: Change) {
    let entry = run.entry(change, "", "test", Timestamp::UNIX_EPOCH);
    run.journal.push(entry);
}

#[test]
fn steps_follow_each_other_and_attempts_make_tokens_grow() {
    let mut run = run(Kind::Switchover);
    assert_eq!((run.step(), run.state()), (Some(Step::Precheck), StepState::Ready));
    write(&mut run, Change::Started);
    let first = run.token(3);
    write(&mut run, Change::Failed);
    assert_eq!(run.state(), StepState::Failed);
    write(&mut run, Change::Retried);
    write(&mut run, Change::Started);
    let second = run.token(3);
    assert!(second > first);
    write(&mut run, Change::Done);
    assert_eq!((run.step(), run.state()), (Some(Step::Release), StepState::Ready));
    write(&mut run, Change::Started);
    assert!(run.token(3) > second);
    assert!(run.was_done(Step::Precheck) && !run.was_done(Step::Release));
}

#[test]
fn a_switchover_goes_back_until_the_next_epoch_begins() {
    let mut run = run(Kind::Switchover);
    while run.step() != Some(Step::Begin) {
        write(&mut run, Change::Started);
        assert!(run.can_go_back());
        write(&mut run, Change::Done);
    }
    assert!(run.can_go_back());
    write(&mut run, Change::Done);
    assert!(!run.can_go_back());
}

#[test]
fn a_run_that_went_back_stays_there() {
    let mut run = run(Kind::Switchover);
    for change in [Change::Started, Change::Aborting, Change::Aborted] {
        write(&mut run, change);
    }
    assert_eq!(run.state(), StepState::Aborted);
    assert!(run.is_over());
}

proptest! {
    /// Whatever was written, tokens of later transitions are never lower.
    #[test]
    fn tokens_never_fall(changes in prop::collection::vec(0_u8..5, 0..60)) {
        let mut run = run(Kind::Failover);
        let mut last = run.token(1);
        for change in changes {
            write(&mut run, match change {
                0 => Change::Started,
                1 => Change::Done,
                2 => Change::Failed,
                3 => Change::Skipped,
                _ => Change::Retried,
            });
            prop_assert!(run.token(1) >= last);
            last = run.token(1);
        }
    }
}
