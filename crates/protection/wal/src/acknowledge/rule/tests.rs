use std::collections::BTreeSet;

use proptest::prelude::*;

use super::Rule;

fn rule(text: &str) -> Rule {
    Rule::parse(text).unwrap_or_else(|| panic!("{text}"))
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn every_way_to_write_the_setting_is_understood() {
    for (text, shown) in [
        ("a", "FIRST 1 (\"a\")"),
        (" a , b ", "FIRST 1 (\"a\", \"b\")"),
        ("*", "FIRST 1 (*)"),
        ("2 (a, b, c)", "FIRST 2 (\"a\", \"b\", \"c\")"),
        ("first 2(a,b)", "FIRST 2 (\"a\", \"b\")"),
        ("ANY 1 (\"we\"\"st\", *)", "ANY 1 (\"we\"\"st\", *)"),
        ("any 3 (1, 2, x)", "ANY 3 (\"1\", \"2\", \"x\")"),
        ("any", "FIRST 1 (\"any\")"),
        ("\"any\", first", "FIRST 1 (\"any\", \"first\")"),
    ] {
        assert_eq!(rule(text).to_string(), shown, "{text}");
        assert_eq!(rule(shown).to_string(), shown);
    }
    for text in ["", "  ", "ANY 1 (a", "ANY 1 a)", "a b", "a,", "(a)", "ANY 1 ()", "\"a", "1 (a) b"]
    {
        assert_eq!(Rule::parse(text), None, "{text}");
    }
}

#[test]
fn names_count_as_postgresql_counts_them() {
    assert!(rule("ANY 1 (west)").counts("WEST"));
    assert!(rule("*").counts("anything"));
    assert!(!rule("ANY 1 (west)").counts("western"));
}

#[test]
fn a_guarantee_is_what_no_choice_of_names_can_avoid() {
    let names = ["west".to_owned(), "north".to_owned()];
    assert_eq!(rule("ANY 1 (west)").guarantees(&names), 1);
    assert_eq!(rule("ANY 1 (west, rack)").guarantees(&names), 0);
    assert_eq!(rule("ANY 2 (west, rack)").guarantees(&names), 1);
    assert_eq!(rule("ANY 2 (west, north, rack)").guarantees(&names), 1);
    assert_eq!(rule("*").guarantees(&names), 0);
}

#[test]
fn a_change_of_receivers_goes_through_both() {
    let streaming = set(&["west", "north"]);
    let between = rule("ANY 1 (west)").on_the_way_to(&rule("ANY 1 (north)"), &streaming);
    assert_eq!(between, Some(rule("ANY 2 (north, west)")));
    // One of the two implies the other: nothing lies between.
    let next = rule("ANY 2 (west, north)");
    assert_eq!(rule("ANY 1 (west)").on_the_way_to(&next, &streaming), None);
    assert_eq!(next.on_the_way_to(&rule("ANY 1 (north)"), &streaming), None);
    // The old receiver is lost: nothing is acknowledged meanwhile, and nobody else need wait.
    let alone = set(&["north"]);
    assert_eq!(rule("ANY 1 (west)").on_the_way_to(&rule("ANY 1 (north)"), &alone), None);
}

fn rules() -> impl Strategy<Value = Rule> {
    let names = proptest::sample::subsequence(vec!["a", "b", "c", "d", "e"], 1..=5);
    names.prop_flat_map(|names| {
        let owned = move || names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        (1..=owned().len()).prop_map(move |needed| Rule::any(needed, owned()))
    })
}

proptest! {
    #[test]
    fn what_is_acknowledged_on_the_way_satisfies_both(
        old in rules(),
        new in rules(),
        streaming in proptest::sample::subsequence(vec!["a", "b", "c", "d", "e"], 0..=5),
        acknowledged in proptest::sample::subsequence(vec!["a", "b", "c", "d", "e"], 0..=5),
    ) {
        let (streaming, acknowledged) = (set(&streaming), set(&acknowledged));
        let between = old.on_the_way_to(&new, &streaming);
        if let Some(between) = &between {
            prop_assert!(between.is_met_by(&streaming));
            if between.is_met_by(&acknowledged) {
                prop_assert!(old.is_met_by(&acknowledged) && new.is_met_by(&acknowledged));
            }
        } else if old.is_met_by(&streaming) && new.is_met_by(&streaming) {
            let implies = |one: &Rule, other: &Rule| {
                !one.is_met_by(&acknowledged) || other.is_met_by(&acknowledged)
            };
            prop_assert!(implies(&old, &new) || implies(&new, &old));
        }
    }
}
