use jiff::Timestamp;
use lifeboat_drivers::KnownEpoch;
use lifeboat_quorum::{EpochState, FenceProof, Nodes, RunId};

use super::world::{World, ledger, name};
use crate::{Adoption, Elsewhere, adopt, adoption, withdraw};

/// A repository has an epoch of the west that the store does not know.
fn elsewhere(epoch: u64) -> Elsewhere {
    let archived = KnownEpoch {
        epoch,
        region: Some(name("west")),
        holders: Nodes::from([(ledger(), name("west-1"))]),
        run: Some(RunId(9)),
        repositories: vec![name("west")],
    };
    Elsewhere { archived: Some(archived), remembered: 0 }
}

#[test]
fn what_goes_on_is_above_all_and_belongs_to_whoever_held_the_highest() {
    let mut world = World::serving();
    let elsewhere = elsewhere(7);
    let view = world.view();
    let record = view.record.as_ref().unwrap();
    let refuse = |elsewhere: &Elsewhere| {
        elsewhere.refuse(&world.service, &world.keys, &world.mirror, &record.value).unwrap()
    };
    let said = refuse(&elsewhere).unwrap().full_message();
    assert!(said.contains("epoch 1 of payments") && said.contains("epoch 7, for west"), "{said}");
    let whom = adoption(&world.service, &elsewhere, record.value.epoch, None).unwrap();
    let west = Nodes::from([(ledger(), name("west-1"))]);
    let region = name("west");
    assert_eq!(whom, Adoption { epoch: 8, region, holders: west, moves: false });

    let transaction = withdraw(&world.service, &world.keys, record).unwrap();
    world.commit(transaction);
    let view = world.view();
    let record = view.record.as_ref().unwrap();
    assert_eq!((record.value.state, record.value.run), (EpochState::Revoking, None));
    let proof = FenceProof::LeaseOver { waited_ms: 6000 };
    let at = Timestamp::UNIX_EPOCH;
    let adopted = adopt(&world.service, &world.keys, record, &whom, proof, at);
    let (next, transaction) = adopted.unwrap();
    world.commit(transaction);
    assert_eq!((next.epoch, next.state), (8, EpochState::Starting));
    assert!(next.degraded.is_some() && next.synchronous.needed == 0, "nothing is promised yet");
    assert_eq!(world.record(), next);
}

#[test]
fn somebody_else_is_named_and_nobody_is_guessed() {
    let world = World::serving();
    let to = name("east");
    let whom = adoption(&world.service, &elsewhere(7), 1, Some(&to)).unwrap();
    assert_eq!((whom.epoch, whom.moves), (8, true));
    // An agent remembers more than any repository has: whose that was is not known.
    let remembers = Elsewhere { remembered: 11, ..elsewhere(7) };
    assert!(adoption(&world.service, &remembers, 1, None).is_err());
    let whom = adoption(&world.service, &remembers, 1, Some(&to)).unwrap();
    assert_eq!((whom.epoch, whom.moves), (12, true));
}

#[test]
fn what_is_not_higher_is_no_reason_to_refuse() {
    let mut world = World::serving();
    let record = world.record();
    for known in [Elsewhere::default(), elsewhere(1)] {
        let refusal = known.refuse(&world.service, &world.keys, &world.mirror, &record);
        assert!(refusal.unwrap().is_none());
    }
}
