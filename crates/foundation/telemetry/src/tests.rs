use std::collections::BTreeSet;
use std::time::Duration;

use super::*;

#[test]
fn every_code_is_unique_and_has_a_page_with_the_four_parts() {
    let mut seen = BTreeSet::new();
    for code in Code::ALL {
        assert!(seen.insert(code.text()), "{code} stands twice");
        let page = code.page();
        assert!(page.starts_with(&format!("# {code}: {}", code.title())), "{code}: title");
        for part in ["## What happened", "## Why", "## What to do", "## Example"] {
            assert!(page.contains(part), "{code} lacks {part}");
        }
    }
}

#[test]
fn every_page_belongs_to_a_code() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../docs/errors");
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let stem = name.strip_suffix(".md").unwrap();
        assert!(Code::find(stem).is_some(), "{name} explains no code");
    }
}

#[test]
fn a_failure_prints_each_cause_once() {
    let inner = std::io::Error::other("disk on fire");
    let failure = Failure::new(Code::LocalFile, "cannot write x").because(inner);
    assert_eq!(failure.within("spool").to_string(), "spool: cannot write x: disk on fire");
}

#[test]
fn units_read_well() {
    assert_eq!(bytes(1023), "1023 B");
    assert_eq!(bytes(1536), "1.5 KiB");
    assert_eq!(bytes(3_380_000_000), "3.1 GiB");
    assert_eq!(duration(Duration::from_millis(35)), "35 ms");
    assert_eq!(duration(Duration::from_millis(1234)), "1.2 s");
    assert_eq!(duration(Duration::from_secs(250)), "4m 10s");
    assert_eq!(rate(1024, Duration::from_secs(1)), "1.0 KiB/s");
}

#[test]
fn a_cancel_flag_is_shared_and_interrupts() {
    let cancel = Cancel::new();
    assert!(cancel.check().is_ok());
    cancel.clone().request();
    assert_eq!(cancel.check().unwrap_err().kind(), Kind::Interrupted);
}
