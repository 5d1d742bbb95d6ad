//! Rules over every text file, line by line.

use super::{Finding, Tree};

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &tree.files {
        for (number, line) in file.text.split('\n').enumerate() {
            for message in [unfinished(line), invisible(line)].into_iter().flatten() {
                findings.push(Finding::new(file.path.clone(), number + 1, message));
            }
        }
    }
    findings
}

/// Markers of unfinished work; a known gap belongs into an issue.
fn unfinished(line: &str) -> Option<String> {
    // Put together here, so that this file does not find itself.
    let markers = [["TO", "DO"], ["FIX", "ME"], ["XX", "X"]].map(|parts| parts.concat());
    let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
    let found = words.find(|word| markers.iter().any(|marker| marker == word))?;
    Some(format!("{found} must not be committed"))
}

/// Characters that a reader cannot see: control characters, and those that reorder or hide text.
fn invisible(line: &str) -> Option<String> {
    let hidden = |c: char| {
        let format = matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}');
        let isolate = matches!(c, '\u{2060}'..='\u{2069}' | '\u{feff}');
        (c.is_control() && c != '\t') || format || isolate
    };
    let found = line.chars().find(|c| hidden(*c))?;
    Some(format!("invisible character U+{:04X}", u32::from(found)))
}

#[cfg(test)]
mod tests;
