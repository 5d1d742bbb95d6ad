//! Specs that nobody wrote.
#![no_main]

use std::path::Path;

use lifeboat_model::Spec;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let loaded = Spec::load(text, Path::new("lifeboat.yaml"));
    // What is no spec says why.
    assert!(loaded.spec.is_some() || !loaded.findings.is_empty());
    for finding in &loaded.findings {
        let _ = finding.to_string();
    }
});
