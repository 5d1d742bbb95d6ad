use proptest::prelude::*;

use super::*;

fn region(east: bool) -> RegionName {
    if east { "east" } else { "west" }.parse().unwrap()
}

fn stamp(epoch: u64, east: bool) -> Stamp {
    Stamp { service: "ledger".parse().unwrap(), epoch, region: region(east) }
}

fn places() -> impl Strategy<Value = LeadsTo> {
    prop_oneof![
        Just(LeadsTo::Nowhere),
        any::<bool>().prop_map(|east| LeadsTo::Region(region(east))),
        Just(LeadsTo::Elsewhere("203.0.113.9".to_owned())),
        Just(LeadsTo::Taken("it is an alias".to_owned())),
    ]
}

fn founds() -> impl Strategy<Value = Found> {
    let stamps = proptest::option::of((0..4_u64, any::<bool>(), prop::bool::weighted(0.2)));
    (stamps, places(), any::<bool>()).prop_map(|(found, leads_to, flawed)| {
        let stamp = found.map(|(epoch, east, other)| {
            let service = if other { "shop" } else { "ledger" }.parse().unwrap();
            Stamp { service, ..stamp(epoch, east) }
        });
        let flaw = flawed.then(|| "may be remembered for long".to_owned());
        Found { stamp, leads_to, flaw }
    })
}

proptest! {
    /// What a change leaves behind is kept, and refused to whoever comes later with less.
    #[test]
    fn stamps_only_grow(found in founds(), epoch in 0..4_u64, east: bool) {
        let wanted = stamp(epoch, east);
        let verdict = judge(&found, &wanted);
        if verdict == Verdict::Set {
            let before = found.stamp.as_ref();
            prop_assert!(before.is_none_or(|stamp| stamp.epoch <= epoch));
            prop_assert!(before.is_none_or(|stamp| stamp.epoch < epoch || stamp.region == wanted.region));
            prop_assert!(before.is_none_or(|stamp| stamp.service == wanted.service));
        }
        if matches!(verdict, Verdict::Set | Verdict::Keep) {
            let leads_to = LeadsTo::Region(wanted.region.clone());
            let after = Found { stamp: Some(wanted.clone()), leads_to, flaw: None };
            prop_assert_eq!(judge(&after, &wanted), Verdict::Keep);
        }
    }

    /// Where nothing says that it is ours, other people's addresses stay.
    #[test]
    fn what_is_not_ours_stays(found in founds(), epoch in 0..4_u64, east: bool) {
        let verdict = judge(&found, &stamp(epoch, east));
        let strange = matches!(found.leads_to, LeadsTo::Elsewhere(_)) && found.stamp.is_none();
        let taken = matches!(found.leads_to, LeadsTo::Taken(_));
        let of_another = found.stamp.is_some_and(|stamp| stamp.service.as_str() == "shop");
        let foreign = matches!(verdict, Verdict::Foreign(_));
        prop_assert_eq!(foreign, strange || taken || of_another);
    }
}

#[test]
fn what_is_as_it_shall_be_is_kept_and_what_drifted_is_repaired() {
    let wanted = stamp(3, false);
    let found = |leads_to| Found { stamp: Some(wanted.clone()), leads_to, flaw: None };
    let there = found(LeadsTo::Region(region(false)));
    assert_eq!(judge(&there, &wanted), Verdict::Keep);
    let flawed = Found { flaw: Some("ttl".to_owned()), ..there };
    assert_eq!(judge(&flawed, &wanted), Verdict::Set);
    for drifted in [
        LeadsTo::Nowhere,
        LeadsTo::Region(region(true)),
        LeadsTo::Elsewhere("203.0.113.9".to_owned()),
    ] {
        assert_eq!(judge(&found(drifted), &wanted), Verdict::Set);
    }
}
