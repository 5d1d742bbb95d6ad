use std::collections::BTreeMap;
use std::time::Duration;

use crate::{Keys, Observation, Observations, Seen, Transaction};

#[test]
fn the_longest_reasons_of_a_share_are_no_more_than_a_store_takes() {
    // Nothing grows more when it is written as JSON.
    let why = Observation::brief(&"\u{1}".repeat(100_000));
    let observation = Observation {
        epoch: u64::MAX,
        write: Seen::Unknown,
        for_how_long: Duration::MAX,
        worked_ago: Some(Duration::MAX),
        why,
    };
    let services: BTreeMap<_, _> = (0..Observations::SERVICES)
        .map(|number| (format!("s{number:062}").parse().unwrap(), observation.clone()))
        .collect();
    assert_eq!(services.len(), Observations::SERVICES);
    let domain: lifeboat_model::RegionName = "d".repeat(63).parse().unwrap();
    let key = Keys::default().observations(&domain, 15);
    let value = Observations { domain, beat: u64::MAX, services };
    Transaction::new().put(key, &value).check().unwrap();
}

#[test]
fn a_reason_is_cut_between_characters() {
    assert_eq!(Observation::brief("gone"), "gone");
    let long = Observation::brief(&"ä".repeat(500));
    assert!(long.len() <= 400 && long.ends_with("ä…"), "{long}");
}
