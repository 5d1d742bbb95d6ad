use std::process::Command;

use super::*;

#[test]
fn a_name_may_hold_anything() {
    let line = b"77 (a) S 1 (b)) R 12 77 77 0 -1 4194304";
    let expected = Process { pid: Pid::from_raw(77), parent: Pid::from_raw(12), ended: false };
    assert_eq!(parse(77, line), Some(expected));
    assert!(parse(77, b"77 (a) Z 12 0").unwrap().ended);
    for broken in
        [&b""[..], b"77", b"77 (a", b"77 (a)", b"77 (a) S", b"77 (a) S x", b"\xff) S \xff"]
    {
        assert_eq!(parse(77, broken), None);
    }
}

#[test]
fn grandchildren_are_found_and_the_ended_are_not() {
    let own = Pid::this();
    let mut shell = Command::new("sh").args(["-c", "sleep 600 & wait"]).spawn().unwrap();
    let shell_pid = Pid::from_raw(shell.id().cast_signed());
    let mut below = Vec::new();
    while below.is_empty() {
        below = living_below(shell_pid).unwrap();
    }
    assert_eq!(below.len(), 1, "{below:?}");
    assert!(living_below(own).unwrap().contains(&below[0]));
    assert!(living_below(own).unwrap().contains(&shell_pid));
    nix::sys::signal::kill(below[0], nix::sys::signal::Signal::SIGKILL).unwrap();
    shell.kill().unwrap();
    // Not asked for its exit code yet, it is a zombie.
    while living_below(own).unwrap().contains(&shell_pid) {}
    assert!(table().unwrap().iter().any(|process| process.pid == shell_pid && process.ended));
    shell.wait().unwrap();
}
