use std::process::Command;

use super::*;

fn sleeper() -> (std::process::Child, Identity) {
    let child = Command::new("sleep").arg("60").spawn().unwrap();
    let identity = Identity::of(child.id().cast_signed()).unwrap();
    (child, identity)
}

#[test]
fn a_process_is_up_frozen_and_down() {
    let (_child, one) = sleeper();
    assert_eq!(one.life(), Life::Up);
    one.signal(Signal::SIGSTOP);
    while one.life() == Life::Up {}
    assert_eq!(one.life(), Life::Frozen);
    one.signal(Signal::SIGKILL);
    while one.life() != Life::Down {}
    assert_eq!(Identity::of(one.pid), None);
}

#[test]
fn a_later_process_with_the_same_id_is_another_one_and_is_left_alone() {
    let (mut child, one) = sleeper();
    let earlier = Identity { started: one.started - 1, ..one };
    assert_eq!(earlier.life(), Life::Down);
    earlier.signal(Signal::SIGKILL);
    assert_eq!(one.life(), Life::Up);
    assert!(child.try_wait().unwrap().is_none());
    one.signal(Signal::SIGKILL);
    while one.life() != Life::Down {}
}

#[test]
fn a_tree_has_those_below_and_its_root() {
    let command = "sleep 60 & sleep 60 & wait";
    let mut child = Command::new("sh").args(["-c", command]).spawn().unwrap();
    let root = Identity::of(child.id().cast_signed()).unwrap();
    while tree(root).len() < 3 {}
    let all: BTreeSet<Identity> = tree(root).into_iter().collect();
    assert_eq!(roots(&all), BTreeSet::from([root]));
    kill_all(|| all.iter().copied().filter(|one| one.life() != Life::Down).collect()).unwrap();
    assert_eq!(tree(root), []);
    assert!(child.wait().is_err(), "it was collected when it was looked at");
}
