use std::collections::BTreeMap;
use std::time::Duration;

use lifeboat_model::RegionName;
use lifeboat_quorum::{Instance, Observation, Seen};

use super::world::{World, name, primary, standby};
use crate::{Evidence, Verdict, Voice, judge};

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn voice(write: Seen, lasting: Duration, age: Duration, epoch: u64) -> Voice {
    let why = "it was looked at".to_owned();
    let said = Observation { epoch, write, for_how_long: lasting, worked_ago: None, why };
    Voice { said, age }
}

fn verdict(world: &mut World, voices: &[(&str, Voice)], since_move: Duration) -> Verdict {
    let voices: BTreeMap<RegionName, Voice> =
        voices.iter().map(|(domain, voice)| (name(domain), voice.clone())).collect();
    let view = world.view();
    let evidence = Evidence {
        service: &world.service,
        view: &view,
        voices: &voices,
        since_move,
        now: world.now,
    };
    let judgement = judge(&evidence);
    assert!(!judgement.reasons.is_empty(), "every verdict has its reasons");
    judgement.verdict
}

fn to_west() -> Verdict {
    Verdict::Move { to: name("west") }
}

#[test]
fn a_majority_that_sees_it_fail_for_long_enough_moves_it() {
    let fails = |lasting| voice(Seen::Fails, secs(lasting), secs(0), 1);
    let works = voice(Seen::Works, secs(9), secs(0), 1);
    let mut world = World::serving();
    let voices = [("east", works.clone()), ("west", fails(9)), ("north", works)];
    assert_eq!(verdict(&mut world, &voices, secs(900)), Verdict::Stay, "one of three");
    let voices = [("west", fails(9)), ("north", fails(1))];
    assert_eq!(verdict(&mut world, &voices, secs(900)), Verdict::Watch, "not long enough");
    let voices = [("west", fails(9)), ("north", fails(2))];
    assert_eq!(verdict(&mut world, &voices, secs(900)), to_west(), "the east says nothing");
}

#[test]
fn silence_old_epochs_and_stalled_commits_are_no_votes() {
    let mut world = World::serving();
    let fails = voice(Seen::Fails, secs(9), secs(0), 1);
    for other in [
        voice(Seen::Fails, secs(9), secs(60), 1),
        voice(Seen::Fails, secs(9), secs(0), 0),
        voice(Seen::Stalled, secs(9), secs(0), 1),
        voice(Seen::Unknown, secs(9), secs(0), 1),
    ] {
        let voices = [("west", fails.clone()), ("north", other.clone())];
        assert_eq!(verdict(&mut world, &voices, secs(900)), Verdict::Stay, "{other:?}");
    }
}

#[test]
fn what_failed_before_the_epoch_served_does_not_move_it() {
    let mut world = World::serving();
    let fails = |age| voice(Seen::Fails, secs(30), age, 1);
    let both = |age| [("west", fails(age)), ("north", fails(age))];
    let now = both(secs(0));
    assert_eq!(verdict(&mut world, &now, secs(0)), Verdict::Watch, "it serves from now on");
    assert_eq!(verdict(&mut world, &now, secs(1)), Verdict::Watch, "`unhealthy_for` is 2 s");
    assert_eq!(verdict(&mut world, &now, secs(2)), to_west());
    let before = both(secs(4));
    assert_eq!(verdict(&mut world, &before, secs(3)), Verdict::Stay, "nobody has looked since");
    assert_eq!(verdict(&mut world, &before, secs(4)), to_west());
}

#[test]
fn what_failed_before_its_primary_was_started_again_does_not_move_it() {
    let fails = voice(Seen::Fails, secs(30), secs(0), 1);
    let voices = [("west", fails.clone()), ("north", fails)];
    let mut world = World::serving();
    world.writes = secs(0);
    world.say("east-1", primary(100), 1);
    assert_eq!(verdict(&mut world, &voices, secs(900)), Verdict::Watch, "it writes again");
    world.pass(secs(2));
    assert_eq!(verdict(&mut world, &voices, secs(900)), to_west(), "and nobody is served by it");
    // It does not write any more: then it has failed all the time.
    world.say("east-1", Instance::Unclear, 1);
    assert_eq!(verdict(&mut world, &voices, secs(900)), to_west());
}

#[test]
fn it_does_not_move_without_a_candidate_or_soon_after_a_move() {
    let fails = voice(Seen::Fails, secs(9), secs(0), 1);
    let voices = [("west", fails.clone()), ("north", fails)];
    let mut world = World::serving();
    world.say("west-1", primary(1), 0);
    assert_eq!(verdict(&mut world, &voices, secs(900)), Verdict::Stuck);
    world.say("west-1", Instance::Absent, 0);
    assert_eq!(verdict(&mut world, &voices, secs(900)), Verdict::Ask { to: name("west") });
    world.say("west-1", standby(1), 0);
    assert_eq!(verdict(&mut world, &voices, secs(900)), to_west());
    world.pass(secs(60));
    assert_eq!(verdict(&mut world, &voices, secs(900)), Verdict::Stuck, "its agent is silent");
    world.say("west-1", standby(1), 0);
    world.service.policy.automatic = false;
    assert_eq!(verdict(&mut world, &voices, secs(900)), Verdict::Ask { to: name("west") });
}

#[test]
fn commits_that_wait_for_receivers_ask_a_person_while_the_primary_is_well() {
    let fails = voice(Seen::Fails, secs(9), secs(0), 1);
    let voices = [("east", fails.clone()), ("west", fails.clone()), ("north", fails)];
    let mut world = World::serving();
    let stalled = |waits| {
        let mut instance = primary(100);
        if let Instance::Primary { stalled, .. } = &mut instance {
            *stalled = waits;
        }
        instance
    };
    world.say("east-1", stalled(true), 1);
    assert_eq!(verdict(&mut world, &voices, secs(900)), Verdict::Ask { to: name("west") });
    // It is not so any more, or it has no lease: what clients see is the database's failure.
    world.say("east-1", stalled(false), 1);
    assert_eq!(verdict(&mut world, &voices, secs(900)), to_west());
    world.say("east-1", stalled(true), 0);
    assert_eq!(verdict(&mut world, &voices, secs(900)), to_west());
    // Nobody has heard from it for a while: it may be lost with its region.
    world.say("east-1", stalled(true), 1);
    world.view();
    world.pass(secs(6));
    world.say("west-1", standby(100), 0);
    assert_eq!(verdict(&mut world, &voices, secs(900)), to_west());
}
