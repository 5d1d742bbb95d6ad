use std::collections::BTreeMap;

use super::{Memory, Setting};

fn facts(list: &[(&str, &str)]) -> BTreeMap<String, String> {
    list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn found(value: &str) -> Setting {
    Setting {
        value: value.to_owned(),
        source: "configuration file".to_owned(),
        by_alter_system: true,
    }
}

#[test]
fn what_was_there_survives_until_it_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let id = "shop/main".parse().unwrap();
    assert_eq!(Memory::load(folder.path(), &id).unwrap(), None);
    let mut memory = Memory::new("42", &found("rack"));
    memory.set.push("ANY 1 (\"west\")".to_owned());
    memory.save(folder.path(), &id).unwrap();
    assert_eq!(Memory::load(folder.path(), &id).unwrap(), Some(memory.clone()));
    assert!(memory.knows("rack") && memory.knows("ANY 1 (\"west\")"));
    assert!(!memory.knows("") && !memory.knows("ANY 1 (west)"));
    Memory::forget(folder.path(), &id).unwrap();
    Memory::forget(folder.path(), &id).unwrap();
    assert_eq!(Memory::load(folder.path(), &id).unwrap(), None);
}

#[test]
fn the_audit_log_tells_what_was_before_the_first_time() {
    let first = facts(&[
        ("system", "42"),
        ("before", "rack"),
        ("by_alter_system", "true"),
        ("after", "one"),
    ]);
    let second = facts(&[
        ("system", "42"),
        ("before", "one"),
        ("by_alter_system", "true"),
        ("between", "both"),
        ("after", "two"),
    ]);
    let undone = facts(&[("system", "42"), ("before", "two"), ("undone", "true")]);
    let memory = Memory::of_acts([&first, &second].into_iter()).unwrap();
    assert_eq!((memory.before.as_str(), memory.by_alter_system), ("rack", true));
    assert_eq!(memory.set, ["one", "both", "two"]);
    assert_eq!(Memory::of_acts([&first, &undone].into_iter()), None);
    let again = Memory::of_acts([&first, &undone, &second].into_iter()).unwrap();
    assert_eq!(again.before, "one");
}
