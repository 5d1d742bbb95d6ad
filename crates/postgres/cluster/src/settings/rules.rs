//! `pg_hba.conf` and `pg_ident.conf`: which other files their lines name with `@`.

use std::ops::Range;
use std::path::{Component, Path, PathBuf};

/// A file of names that a line reads in, as `@admins`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedList {
    /// The file; a relative name starts where the line's own file lies.
    pub file: String,
    /// Where the word stands in the line, with its `@` and its quotes.
    pub place: Range<usize>,
}

/// The lists that a line names, in its order.
pub fn named_lists(line: &[u8]) -> Vec<NamedList> {
    let mut lists = Vec::new();
    let mut at = 0;
    while let Some(byte) = line.get(at) {
        match byte {
            b'#' => break,
            b',' => at += 1,
            byte if byte.is_ascii_whitespace() => at += 1,
            _ => {
                let (word, end) = word(line, at);
                // A quote before the sign makes it a name like any other.
                let file = word.strip_prefix(b"@").filter(|file| !file.is_empty());
                if let Some(file) = file.filter(|_| line.get(at) == Some(&b'@')) {
                    let file = String::from_utf8_lossy(file).into_owned();
                    lists.push(NamedList { file, place: at..end });
                }
                at = end;
            }
        }
    }
    lists
}

/// A path without `.` and `..`, as PostgreSQL and a backup write it.
pub fn plain_path(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

/// The word that begins at `start`, without its quotes, and where it ends.
fn word(line: &[u8], start: usize) -> (Vec<u8>, usize) {
    let mut word = Vec::new();
    let mut quoted = false;
    let mut at = start;
    while let Some(byte) = line.get(at) {
        match byte {
            b'"' if quoted && line.get(at + 1) == Some(&b'"') => {
                word.push(b'"');
                at += 1;
            }
            b'"' => quoted = !quoted,
            b',' | b'#' if !quoted => break,
            byte if byte.is_ascii_whitespace() && !quoted => break,
            byte => word.push(*byte),
        }
        at += 1;
    }
    (word, at)
}
