use super::*;

#[test]
fn a_seed_draws_the_same_faults_and_in_the_named_share() {
    let draw = |seed| {
        (0..2000).map(|call| Profile::FDB_HEAVY.draw(seed, call, Kind::Get)).collect::<Vec<_>>()
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
    let share = |wanted: fn(&Fault) -> bool| {
        draw(1).iter().flatten().filter(|fault| wanted(fault)).count() / 20
    };
    // Chances are tried in order: 25 %, 30 % of the rest, 15 % of what is left then.
    assert!(
        (23..=27)
            .contains(&share(|fault| { matches!(fault, Fault::Error | Fault::ErrorAfterwards) }))
    );
    assert!((20..=25).contains(&share(|fault| *fault == Fault::Throttle)));
    assert!((6..=10).contains(&share(|fault| matches!(fault, Fault::Delay(_)))));
}

#[test]
fn the_calm_profile_is_calm_and_the_tarpit_is_silent() {
    for call in 0..500 {
        assert_eq!(Profile::CALM.draw(call, call, Kind::Put), None);
        assert_eq!(Profile::TARPIT.draw(call, call, Kind::Put), Some(Fault::Silence));
    }
}
