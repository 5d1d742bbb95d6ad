//! Standard output carries data, standard error the rest.

use std::fs::OpenOptions;
use std::process::Stdio;

use serde_json::Value;

use crate::{lifeboat, run};

fn document(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("exactly one JSON document")
}

#[test]
fn a_result_is_one_document() {
    let output = run(&["explain", "lb4001", "--json"]);
    let document = document(&output.stdout);
    assert_eq!(document["lifeboat"], 1);
    assert_eq!(document["command"], "explain");
    assert_eq!(document["result"]["code"], "LB4001");
    assert!(output.stderr.is_empty());
}

#[test]
fn failures_are_one_document_too() {
    for (arguments, failpoints, code) in [
        (&["explain", "nothing", "--json"][..], "", "LB1001"),
        (&["--json", "--nonsense"], "", "LB1001"),
        (&["--json"], "", "LB1001"),
        (&["explain", "LB1001", "--json"], "cli.start=error", "LB9004"),
        (&["explain", "LB1001", "--json"], "cli.start=panic", "LB1099"),
    ] {
        let output = lifeboat(arguments).env("LIFEBOAT_FAILPOINTS", failpoints).output().unwrap();
        let document = document(&output.stdout);
        assert_eq!(document["lifeboat"], 1);
        assert_eq!(document["error"]["code"], code, "{arguments:?}");
        assert!(document["error"]["message"].is_string());
        assert!(document["error"]["hint"].is_string() || code == "LB9004");
        assert!(document["error"]["details"].is_array());
        for line in output.stderr.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            assert!(serde_json::from_slice::<Value>(line).is_ok(), "{output:?}");
        }
    }
}

#[test]
fn without_json_a_failure_leaves_standard_output_empty() {
    let output = run(&["explain", "nothing"]);
    assert!(output.stdout.is_empty());
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.starts_with("error[LB1001]: "), "{text}");
    assert!(text.ends_with("  explain: lifeboat explain LB1001\n"), "{text}");
}

#[test]
fn a_reader_that_leaves_early_is_no_failure() {
    for flags in [&["completions", "bash"][..], &["completions", "bash", "--json"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = lifeboat(flags).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(output.stderr.is_empty(), "{output:?}");
    }
}

#[test]
fn a_full_disk_below_standard_output_is_a_failure() {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = lifeboat(&["completions", "bash"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("error[LB9003]"));
}

#[test]
fn colours_are_for_terminals() {
    let output = run(&["explain", "LB1001"]);
    assert!(!output.stdout.contains(&b'\x1b'));
    let output = lifeboat(&["explain", "LB1001"]).env("CLICOLOR_FORCE", "1").output().unwrap();
    assert!(output.stdout.contains(&b'\x1b'));
    let output = lifeboat(&["explain", "LB1001"])
        .env("CLICOLOR_FORCE", "1")
        .env("NO_COLOR", "1")
        .output()
        .unwrap();
    assert!(!output.stdout.contains(&b'\x1b'), "NO_COLOR wins");
}
