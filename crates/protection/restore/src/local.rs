//! Failures of the machine's own files.

use std::io::ErrorKind;
use std::path::Path;

use lifeboat_telemetry::{Code, Failure};

/// A failure about `path`; a full disk has a code of its own.
pub(crate) fn failure(doing: &str, path: &Path, error: impl Into<std::io::Error>) -> Failure {
    let error = error.into();
    let message = format!("cannot {doing} {}", path.display());
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Failure::new(Code::StoreFull, message)
            .because(error)
            .hint("Free space on that disk, then run the same command again: it goes on."),
        ErrorKind::PermissionDenied => Failure::new(Code::LocalFile, message)
            .because(error)
            .hint("Run as the user that owns the directory, or as root with --owner."),
        _ => Failure::new(Code::LocalFile, message).because(error),
    }
}

/// Something is a link, or no directory, where a restore made a directory itself.
pub(crate) fn link_in_the_way(path: &Path) -> Failure {
    let message = format!("{} leads through a link, which a restore never makes", path.display());
    Failure::new(Code::PathUnsafe, message)
        .hint("Find out who put it there, then restore into a new directory.")
}
