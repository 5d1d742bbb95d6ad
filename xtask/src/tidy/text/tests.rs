use super::*;

#[test]
fn markers_are_found_as_words() {
    for marker in [["TO", "DO"], ["FIX", "ME"], ["XX", "X"]].map(|parts| parts.concat()) {
        assert!(unfinished(&format!("// {marker}: later")).is_some());
        assert!(unfinished(&format!("mktemp -t a.{marker}{marker}")).is_none());
    }
}

#[test]
fn characters_that_cannot_be_seen_are_found() {
    for text in ["a\u{1b}[0m", "a\r", "a\u{85}", "a\u{202e}b", "\u{feff}a", "a\u{200b}b", "\u{7f}"]
    {
        assert!(invisible(text).is_some(), "{text:?}");
    }
    assert!(invisible("\tplain text, naïve or not").is_none());
}
