//! Small local files, written in one step.

use std::ffi::OsString;
use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use lifeboat_telemetry::{Code, Failure, Outcome};

/// Writes a file beside its place, syncs it, renames it and syncs the folder. It has mode 0600
/// and belongs to the owner of the folder, whoever runs this.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Outcome<()> {
    let attempt = || -> std::io::Result<()> {
        let folder = path.parent().unwrap_or_else(|| Path::new("/"));
        let owner = std::fs::metadata(folder)?;
        let staged = beside(path, ".new");
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&staged)?;
        file.write_all(bytes)?;
        if file.metadata()?.uid() != owner.uid() {
            std::os::unix::fs::fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
        }
        file.sync_all()?;
        std::fs::rename(&staged, path)?;
        File::open(folder)?.sync_all()
    };
    attempt().map_err(|error| unwritable(path.display(), error))
}

/// The failure to write a local file; a full disk is said as such, for it may be cured.
pub(crate) fn unwritable(what: impl Display, error: std::io::Error) -> Failure {
    let message = format!("cannot write {what}");
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Failure::new(Code::StoreFull, message)
            .because(error)
            .hint("Make room on that disk: nothing else is wrong, and the next attempt goes on."),
        _ => Failure::new(Code::LocalFile, message)
            .because(error)
            .hint("See that this user can write there."),
    }
}

/// The path with something appended to its last part.
pub(crate) fn beside(path: &Path, suffix: &str) -> std::path::PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
