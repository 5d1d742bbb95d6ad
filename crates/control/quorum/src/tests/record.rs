use jiff::Timestamp;

use crate::record::Beginning;
use crate::{EpochRecord, EpochState, Fence, FenceProof, Nodes, RunId, Synchronous, Transition};

fn nodes(node: &str) -> Nodes {
    Nodes::from([("ledger".parse().unwrap(), node.parse().unwrap())])
}

fn beginning(epoch: u64, region: &str, of: u64, proof: FenceProof) -> Beginning {
    Beginning {
        epoch,
        region: region.parse().unwrap(),
        holders: nodes(&format!("{region}-1")),
        fence: Fence { epoch: of, proof, at: Timestamp::UNIX_EPOCH },
        synchronous: Synchronous::default(),
        degraded: None,
        at: Timestamp::UNIX_EPOCH,
        spec: String::new(),
    }
}

fn begin(epoch: u64, region: &str, of: u64, proof: FenceProof) -> Transition {
    Transition::Begin(Box::new(beginning(epoch, region, of, proof)))
}

fn serving() -> EpochRecord {
    EpochRecord::first(beginning(1, "east", 0, FenceProof::NoHolder))
        .apply(Transition::Serve)
        .unwrap()
}

#[test]
fn a_failover_needs_a_proof_of_the_epoch_that_it_ends() {
    let revoking = serving().apply(Transition::Revoke(RunId(1))).unwrap();
    assert_eq!(revoking.state, EpochState::Revoking);
    let over = FenceProof::LeaseOver { waited_ms: 6000 };
    for (epoch, of, proof) in [
        (1, 1, over.clone()),
        (2, 0, over.clone()),
        (2, 1, FenceProof::NoHolder),
        (2, 1, FenceProof::Confirmed { nodes: nodes("west-1") }),
        (2, 1, FenceProof::Confirmed { nodes: Nodes::new() }),
    ] {
        let refused = revoking.apply(begin(epoch, "west", of, proof.clone()));
        assert!(refused.is_err(), "{epoch} {of} {proof:?}");
    }
    for proof in [over, FenceProof::Confirmed { nodes: nodes("east-1") }] {
        let next = revoking.apply(begin(2, "west", 1, proof)).unwrap();
        assert_eq!((next.epoch, next.state), (2, EpochState::Starting));
        assert_eq!((next.run, next.last_run), (Some(RunId(1)), 1));
        assert!(next.allows(&"ledger".parse().unwrap(), &"west-1".parse().unwrap()));
        assert!(!next.allows(&"ledger".parse().unwrap(), &"east-1".parse().unwrap()));
    }
}

#[test]
fn nobody_may_write_while_an_epoch_is_taken_away() {
    for transition in [Transition::Release(RunId(1)), Transition::Revoke(RunId(1))] {
        let moved = serving().apply(transition).unwrap();
        assert!(!moved.allows(&"ledger".parse().unwrap(), &"east-1".parse().unwrap()));
    }
}

#[test]
fn a_planned_move_can_go_back_and_an_unplanned_one_cannot() {
    let releasing = serving().apply(Transition::Release(RunId(1))).unwrap();
    let resumed = releasing.apply(Transition::Resume).unwrap();
    assert_eq!((resumed.epoch, resumed.state), (1, EpochState::Serving));
    assert_eq!(resumed.apply(Transition::Finish).unwrap().run, None);
    let revoking = releasing.apply(Transition::Revoke(RunId(1))).unwrap();
    for back in [Transition::Resume, Transition::Serve, Transition::Claim(RunId(1))] {
        assert!(revoking.apply(back.clone()).is_err(), "{back:?}");
    }
}

#[test]
fn one_run_a_service_and_numbers_only_grow() {
    let first = serving().apply(Transition::Release(RunId(3))).unwrap();
    assert!(first.apply(Transition::Revoke(RunId(4))).is_err(), "another run is at work");
    assert!(first.apply(Transition::Revoke(RunId(3))).is_ok(), "the same run may go further");
    let given_up = first.apply(Transition::Revoke(RunId(3))).unwrap();
    let given_up = given_up.apply(Transition::Finish).unwrap();
    assert_eq!(given_up.state, EpochState::Revoking, "nobody may write, and a new run may go on");
    assert!(given_up.apply(Transition::Revoke(RunId(4))).is_ok());
    let idle = first.apply(Transition::Resume).and_then(|on| on.apply(Transition::Finish)).unwrap();
    assert!(idle.apply(Transition::Release(RunId(3))).is_err(), "an old number");
    assert!(idle.apply(Transition::Release(RunId(4))).is_ok());
}
