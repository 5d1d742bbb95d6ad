use std::collections::BTreeSet;

use super::super::Share;
use super::*;

fn call(kind: Kind, path: &str) -> Call {
    Call { kind, path: path.to_owned(), fault: None }
}

fn recorded() -> [Vec<Call>; 2] {
    let packs = (0..7).map(|number| call(Kind::Put, &format!("/store/packs/0a{number}")));
    let one = [call(Kind::Get, "/store/format"), call(Kind::Head, "/store/vault")];
    let all: Vec<Call> = one.into_iter().chain(packs).collect();
    [all.clone(), all]
}

#[test]
fn every_position_is_hit_and_every_kind_of_call_in_every_way() {
    let calls = recorded();
    for turn in [0, 1, 5, usize::MAX] {
        let cases = every(&calls, turn);
        let (mut positions, mut ways) = (BTreeSet::new(), BTreeSet::new());
        for Case { severity, hits, .. } in &cases {
            let Hit { region, calls: span, fault } = &hits[0];
            let class = Class::of(&calls[*region][*span.start()]);
            positions.insert((*region, *span.start(), format!("{severity:?}")));
            if *region == 0 && *severity != Severity::Lasting {
                ways.insert((class, format!("{fault:?}")));
            }
        }
        assert_eq!(positions.len(), 2 * 9 * 3, "turn {turn}");
        // Two sorts that are read: six and three ways; one that is written: five and three.
        assert_eq!(ways.len(), 9 + 9 + 8, "turn {turn}");
    }
}

#[test]
fn shares_together_are_everything() {
    let all: Vec<usize> = (0..23).collect();
    let mut together: Vec<usize> =
        (1..=4).flat_map(|number| Share { number, of: 4 }.take(all.clone())).collect();
    together.sort_unstable();
    assert_eq!(together, all);
}
