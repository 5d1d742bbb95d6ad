//! PostgreSQL's `backup_manifest`, so that `pg_verifybackup` can check the directory.

use std::io::{BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use jiff::Timestamp;
use lifeboat_cluster::manifest::{ManifestFile, ManifestWriter, PATH, WalRange};
use lifeboat_cluster::releases::Release;
use lifeboat_environment::Environment;
use lifeboat_model::SystemIdentifier;
use lifeboat_repository::manifest::Description;
use lifeboat_repository::tree::{FileKind, Root};
use lifeboat_telemetry::Outcome;
use nix::fcntl::OFlag;

use crate::configuration::Changed;
use crate::local;
use crate::survey::Survey;
use crate::table::{CONTROL, FileTable, HELD_CONTROL, destination};
use crate::target::Target;

/// Writes the manifest: the files of the table, those that changed with what they hold now.
pub(crate) fn write(
    environment: &Environment,
    target: &Target,
    table: FileTable<'_>,
    survey: &Survey,
    description: &Description,
    release: &Release,
    changed: &Changed,
) -> Outcome<()> {
    let path = target.shown(PATH.as_bytes());
    let failure = |error| local::failure("write", &path, error);
    let file = target.file(PATH.as_bytes(), OFlag::O_TRUNC)?;
    let out = BufWriter::with_capacity(256 * 1024, &file);
    let system = SystemIdentifier(description.cluster.system_identifier);
    let mut writer = ManifestWriter::new(out, release, system).map_err(failure)?;
    let mut put = |path: &[u8], size, modified, crc32c| {
        // Until it is complete, the control file has another name.
        let path = if path == HELD_CONTROL.as_bytes() { CONTROL.as_bytes() } else { path };
        let path = Path::new(std::ffi::OsStr::from_bytes(path));
        writer.file(&ManifestFile { path, size, modified, crc32c }).map_err(failure)
    };
    table.each(|entry| {
        let Some(path) = destination(&entry).filter(|_| entry.kind == FileKind::File) else {
            return Ok(());
        };
        let superseded = entry.root == Root::Data && survey.is_superseded(&path);
        if superseded || changed.files.contains_key(&path) {
            return Ok(());
        }
        let modified = Timestamp::from_second(entry.modified).unwrap_or_default();
        put(&path, entry.size, modified, entry.crc32c)
    })?;
    for (path, (size, crc32c)) in &changed.files {
        put(path, *size, environment.clock().now(), *crc32c)?;
    }
    let wal = description.wal;
    let range = WalRange { timeline: wal.timeline, start: wal.start, end: wal.stop };
    let mut out = writer.finish(&[range]).map_err(failure)?;
    out.flush().and_then(|()| file.sync_all()).map_err(failure)?;
    target.hand_over(PATH.as_bytes(), &file, 0o600)
}
