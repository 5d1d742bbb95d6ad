//! The proof must be able to fail.

use std::io;

use super::Counted;

fn count(before: &[&str], after: &[&str]) -> Counted {
    fn notes(rows: &[&str]) -> impl Iterator<Item = io::Result<String>> {
        rows.iter().map(|row| Ok((*row).to_owned())).collect::<Vec<_>>().into_iter()
    }
    Counted::of(notes(before), notes(after)).unwrap()
}

#[test]
fn equal_rows_do_not_differ() {
    assert_eq!(count(&["a", "b"], &["a", "b"]), Counted { before: 2, after: 2, differ: 0 });
}

#[test]
fn a_changed_a_missing_and_an_additional_row_differ() {
    assert_eq!(count(&["a", "b"], &["a", "c"]), Counted { before: 2, after: 2, differ: 1 });
    assert_eq!(count(&["a", "b"], &["a"]), Counted { before: 2, after: 1, differ: 1 });
    assert_eq!(count(&["a"], &["a", "b"]), Counted { before: 1, after: 2, differ: 1 });
    assert_eq!(count(&["a"], &[]), Counted { before: 1, after: 0, differ: 1 });
}
