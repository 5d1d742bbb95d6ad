//! Exit codes, PostgreSQL's above all (DESIGN F7).

use crate::{lifeboat, run};

fn code(arguments: &[&str], failpoints: &str) -> Option<i32> {
    let mut command = lifeboat(arguments);
    command.env("LIFEBOAT_FAILPOINTS", failpoints);
    command.output().expect("the binary starts").status.code()
}

#[test]
fn wal_fetch_never_ends_a_recovery_by_mistake() {
    for arguments in [
        &["wal", "fetch"][..],
        &["wal", "fetch", "--nonsense"],
        &["wal", "fetch", "a", "b", "c"],
        &["--spec", "/nonexistent", "wal", "fetch", "000000010000000000000001", "x"],
        &["--json", "wal", "--here", "nowhere", "fetch", "000000010000000000000001", "x"],
        &["--unknown", "wal", "fetch"],
        &["wal", "--verbose", "--quiet", "fetch"],
    ] {
        assert_eq!(run(arguments).status.code(), Some(200), "{arguments:?}");
        assert_eq!(code(arguments, "cli.start=panic"), Some(200), "panic: {arguments:?}");
        assert_eq!(code(arguments, "cli.start=error"), Some(200), "failure: {arguments:?}");
    }
}

#[test]
fn wal_push_fails_where_the_archiver_counts_it() {
    for arguments in [
        &["wal", "push"][..],
        &["wal", "push", "--nonsense"],
        &["--spec", "/nonexistent", "wal", "push", "pg_wal/000000010000000000000001"],
    ] {
        for failpoints in ["", "cli.start=panic", "cli.start=error"] {
            let code = code(arguments, failpoints).expect("no signal");
            assert!((1..=125).contains(&code), "{arguments:?} with {failpoints}: {code}");
        }
    }
}

#[test]
fn a_signal_ends_wal_commands_with_a_code_that_postgresql_understands() {
    for (arguments, expected) in
        [(["wal", "push"], 1), (["wal", "fetch"], 200), (["explain", "LB1001"], 130)]
    {
        for signal in ["TERM", "INT"] {
            let mut command = lifeboat(&arguments);
            command.env("LIFEBOAT_FAILPOINTS", "cli.listening=sleep:20000");
            let mut child = command.spawn().expect("the binary starts");
            wait_until_it_listens(child.id());
            // Signals that wait for delivery merge into one; a second one is sent until it counts.
            while child.try_wait().unwrap().is_none() {
                send(signal, child.id());
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            assert_eq!(child.wait().unwrap().code(), Some(expected), "{arguments:?} {signal}");
        }
    }
}

/// The kernel's list of caught signals says when the handlers are in place.
fn wait_until_it_listens(process: u32) {
    const TERM: u64 = 1 << 14;
    loop {
        let status = std::fs::read_to_string(format!("/proc/{process}/status"))
            .expect("the kernel says it so");
        let caught = status
            .lines()
            .find_map(|line| line.strip_prefix("SigCgt:"))
            .expect("the kernel says it so");
        if u64::from_str_radix(caught.trim(), 16).expect("the kernel says it so") & TERM != 0 {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

fn send(signal: &str, process: u32) {
    let status = std::process::Command::new("kill")
        .args(["-s", signal, &process.to_string()])
        .status()
        .expect("kill starts");
    assert!(status.success());
}

#[test]
fn people_and_scripts_get_the_kinds() {
    assert_eq!(run(&["explain", "LB1001"]).status.code(), Some(0));
    assert_eq!(run(&["--version"]).status.code(), Some(0));
    assert_eq!(run(&["explain"]).status.code(), Some(2));
    assert_eq!(run(&["explain", "nothing"]).status.code(), Some(2));
    assert_eq!(code(&["explain", "LB1001"], "cli.start=error"), Some(1));
    assert_eq!(code(&["explain", "LB1001"], "cli.start=panic"), Some(1));
}
