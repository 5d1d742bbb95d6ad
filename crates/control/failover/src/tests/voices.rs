use std::collections::BTreeMap;
use std::time::Duration;

use lifeboat_quorum::{Observation, Observations, Seen as Sight};

use super::world::name;
use crate::{Seen, Voices};

fn said(domain: &str, service: &str, write: Sight, revision: u64) -> Seen<Observations> {
    let (for_how_long, why) = (Duration::ZERO, String::new());
    let observation = Observation { epoch: 1, write, for_how_long, worked_ago: None, why };
    let services = BTreeMap::from([(name(service), observation)]);
    let value = Observations { domain: name(domain), beat: revision, services };
    Seen { value, revision, observed: Duration::from_secs(revision) }
}

#[test]
fn each_observer_has_one_voice_on_a_service_the_last_one() {
    let mut voices = Voices::default();
    voices.hear(said("east", "payments", Sight::Works, 3));
    voices.hear(said("west", "payments", Sight::Works, 4));
    voices.hear(said("west", "search", Sight::Fails, 5));
    // A share that was left behind when the services were others is read after all others.
    voices.hear(said("east", "payments", Sight::Fails, 2));
    let heard = voices.on(&name("payments"), Duration::from_secs(10));
    let heard: Vec<_> = heard.iter().map(|(of, one)| (of.as_str(), one.said.write)).collect();
    assert_eq!(heard, [("east", Sight::Works), ("west", Sight::Works)]);
    assert_eq!(voices.beat_of(&name("west")), 5);
    assert_eq!(voices.beat_of(&name("north")), 0);
}

#[test]
fn a_voice_is_as_old_as_the_value_that_it_was_read_in() {
    let mut voices = Voices::default();
    voices.hear(said("east", "payments", Sight::Works, 3));
    voices.hear(said("east", "search", Sight::Works, 8));
    let age = |service| voices.on(&name(service), Duration::from_secs(10))["east"].age;
    assert_eq!((age("payments"), age("search")), (Duration::from_secs(7), Duration::from_secs(2)));
}
