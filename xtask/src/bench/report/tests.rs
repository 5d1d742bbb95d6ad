use super::*;

fn rounds(walls: &[(f64, f64)]) -> Vec<Round> {
    let measured = |wall_seconds| Measured {
        wall_seconds,
        cpu_seconds: 1.0,
        peak_bytes: 10,
        stored_bytes: None,
    };
    let round = |(ours, theirs): &(f64, f64)| Round {
        results: BTreeMap::from([
            (OURS.to_owned(), measured(*ours)),
            ("other".to_owned(), measured(*theirs)),
        ]),
    };
    walls.iter().map(round).collect()
}

#[test]
fn the_median_is_the_middle() {
    assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
    assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
    assert_eq!(median(Vec::new()), 0.0);
}

#[test]
fn ratios_are_of_medians_and_of_pairs() {
    let rounds = rounds(&[(1.0, 2.0), (2.0, 8.0), (4.0, 4.0)]);
    let found = ratios(&rounds)["other"]["wall"];
    assert_eq!(found, Ratios { of_medians: 2.0, median_of_pairs: 2.0 });
    // Medians 2 and 4; pairs 2, 4 and 1.
    assert_eq!(medians(&rounds)["other"].wall_seconds, 4.0);
    assert!(!ratios(&rounds)["other"].contains_key("stored"));
}

#[test]
fn one_tool_alone_has_no_ratios() {
    let mut rounds = rounds(&[(1.0, 2.0)]);
    rounds[0].results.remove(OURS);
    assert!(!ratios(&rounds).contains_key("other"));
}
