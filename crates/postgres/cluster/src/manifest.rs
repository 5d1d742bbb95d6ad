//! PostgreSQL's `backup_manifest`, written file by file, so that `pg_verifybackup` can check a
//! restored directory.

use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256};
use jiff::Timestamp;
use lifeboat_model::{Lsn, SystemIdentifier, Timeline};

use crate::Release;

/// The name of the file in a data directory.
pub const PATH: &str = "backup_manifest";

/// One file of the backup.
#[derive(Debug, Clone, Copy)]
pub struct ManifestFile<'a> {
    /// Path below the data directory.
    pub path: &'a Path,
    /// Length in bytes.
    pub size: u64,
    /// Last modification.
    pub modified: Timestamp,
    /// CRC32C of the content.
    pub crc32c: u32,
}

/// WAL that a restore of the backup needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalRange {
    /// Its timeline.
    pub timeline: Timeline,
    /// Where it starts.
    pub start: Lsn,
    /// Where it ends.
    pub end: Lsn,
}

/// Writes a manifest; nothing of it is kept in memory.
pub struct ManifestWriter<W> {
    out: W,
    digest: Context,
    files: u64,
}

impl<W: Write> ManifestWriter<W> {
    /// Begins the manifest of a backup of that version and cluster.
    pub fn new(out: W, release: &Release, system: SystemIdentifier) -> io::Result<Self> {
        let mut writer = Self { out, digest: Context::new(&SHA256), files: 0 };
        let version = release.manifest;
        writer.put(&format!("{{ \"PostgreSQL-Backup-Manifest-Version\": {version},\n"))?;
        if version >= 2 {
            writer.put(&format!("\"System-Identifier\": {system},\n"))?;
        }
        writer.put("\"Files\": [")?;
        Ok(writer)
    }

    /// Adds a file. Directories and links have no entry.
    pub fn file(&mut self, file: &ManifestFile<'_>) -> io::Result<()> {
        let separator = if self.files == 0 { "\n" } else { ",\n" };
        self.files += 1;
        let bytes = file.path.as_os_str().as_bytes();
        let path = match std::str::from_utf8(bytes) {
            Ok(text) => format!("\"Path\": {}", serde_json::to_string(text)?),
            Err(_) => format!("\"Encoded-Path\": \"{}\"", hex::encode(bytes)),
        };
        let (size, modified) = (file.size, file.modified.strftime("%Y-%m-%d %H:%M:%S GMT"));
        // PostgreSQL prints the number's bytes as they lie in memory.
        let sum = hex::encode(file.crc32c.to_le_bytes());
        self.put(&format!(
            "{separator}{{ {path}, \"Size\": {size}, \"Last-Modified\": \"{modified}\", \
             \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"{sum}\" }}"
        ))
    }

    /// Ends the manifest and gives back where it was written to.
    pub fn finish(mut self, ranges: &[WalRange]) -> io::Result<W> {
        self.put("\n],\n\"WAL-Ranges\": [")?;
        for (index, WalRange { timeline, start, end }) in ranges.iter().enumerate() {
            let separator = if index == 0 { "\n" } else { ",\n" };
            self.put(&format!(
                "{separator}{{ \"Timeline\": {timeline}, \"Start-LSN\": \"{start}\", \
                 \"End-LSN\": \"{end}\" }}"
            ))?;
        }
        self.put("\n],\n")?;
        // The checksum covers all lines before its own.
        let sum = hex::encode(self.digest.finish());
        writeln!(self.out, "\"Manifest-Checksum\": \"{sum}\"}}")?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn put(&mut self, text: &str) -> io::Result<()> {
        self.digest.update(text.as_bytes());
        self.out.write_all(text.as_bytes())
    }
}

#[cfg(test)]
mod tests;
