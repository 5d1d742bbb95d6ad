//! What the server itself has of a segment whose rest is still to come.
//!
//! PostgreSQL takes a file of the archive for the better one: on a standby it takes the place of what
//! was streamed, and a promotion reads the last record again out of the archive. The beginning of a
//! segment would take WAL away there that was flushed and replayed, and the promotion would end in a
//! PANIC. Where `pg_wal` begins with all that the archive has, PostgreSQL is told that the archive has
//! nothing, and reads its own.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use lifeboat_telemetry::{Code, Failure, Outcome};

use super::FetchRequest;

/// PostgreSQL's name for a segment that it restores.
const RESTORED: &str = "RECOVERYXLOG";

const PIECE: usize = 1 << 18;

/// Whether the server's own file begins with all that was staged, the zeros at its end aside. Only
/// PostgreSQL itself falls back on that file: whoever else asks gets what the repository has.
pub(super) fn has_as_much(request: &FetchRequest<'_>, staged: &Path) -> Outcome<bool> {
    if request.destination.file_name().is_none_or(|name| name != RESTORED) {
        return Ok(false);
    }
    let path = request.working_directory.join("pg_wal").join(request.file);
    let unreadable = |path: &Path, error: io::Error| {
        Failure::new(Code::LocalFile, format!("cannot read {}", path.display())).because(error)
    };
    let own = match File::open(&path) {
        Ok(own) => own,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(unreadable(&path, error)),
    };
    let staged_file = File::open(staged).map_err(|error| unreadable(staged, error))?;
    begins_with(own, staged_file).map_err(|error| unreadable(&path, error))
}

/// Whether `own` is as long as `other`, and the same up to the last byte of it that is not zero.
fn begins_with(own: File, other: File) -> io::Result<bool> {
    if own.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut own, mut other) = (own, other);
    let (mut mine, mut theirs) = (vec![0; PIECE], vec![0; PIECE]);
    let mut same = true;
    loop {
        let read = other.read(&mut theirs)?;
        let piece = theirs.get(..read).unwrap_or_default();
        if piece.is_empty() {
            return Ok(true);
        }
        let from = if same {
            let known = mine.get_mut(..read).unwrap_or_default();
            own.read_exact(known)?;
            known.iter().zip(piece).position(|(mine, theirs)| mine != theirs)
        } else {
            Some(0)
        };
        if let Some(from) = from {
            same = false;
            if piece.iter().skip(from).any(|byte| *byte != 0) {
                return Ok(false);
            }
        }
    }
}

#[cfg(test)]
mod tests;
