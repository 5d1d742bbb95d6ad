//! The WAL-read key file: what restore_command needs, with an empty environment, to read one
//! stream.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lifeboat_telemetry::{Code, Failure, Outcome};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::ids::StreamId;
use crate::keys::vault::decode_key;
use crate::keys::writer::write_secret_file;
use crate::keys::{ReadKey, StreamKeys, Vault};

/// Keys that read one stream, and write nothing. Where this file lies, "cannot read the past"
/// does not hold: it is removed at promotion, and `status` names the hosts that have one.
#[derive(Debug, Clone)]
pub struct WalReadKey {
    /// The stream's keys.
    pub keys: StreamKeys,
    /// The stream's private WAL key.
    pub read_key: ReadKey,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    lifeboat_wal_read_key: u32,
    vault: Vault,
    stream: StreamId,
    wal_private: Zeroizing<String>,
    id_key: Zeroizing<String>,
    metadata_key: Zeroizing<String>,
}

impl WalReadKey {
    /// Reads a key file; refuses one that others can read.
    pub fn load(path: &Path) -> Outcome<Self> {
        let shown = path.display();
        let unusable = |message: String| {
            Failure::new(Code::KeyUnavailable, message)
                .hint("Run the restore again: it writes this file. It needs a key of the vault.")
        };
        let text = std::fs::read_to_string(path).map(Zeroizing::new).map_err(|error| {
            unusable(format!("cannot read the WAL-read key {shown}")).because(error)
        })?;
        let mode = std::fs::metadata(path).map_or(0o777, |found| found.mode());
        if mode & 0o077 != 0 {
            return Err(unusable(format!("the WAL-read key {shown} is readable by others"))
                .hint(format!("Run `chmod 600 {shown}`, and find out who may have read it.")));
        }
        let damaged = || unusable(format!("the WAL-read key {shown} is damaged"));
        let stored: Stored = serde_json::from_str(&text).map_err(|_| damaged())?;
        if stored.lifeboat_wal_read_key != 1 {
            return Err(unusable(format!("the WAL-read key {shown} is of another version")));
        }
        let read_key = ReadKey::new(decode_key(&stored.wal_private).ok_or_else(damaged)?);
        let keys = StreamKeys::new(
            stored.vault,
            stored.stream,
            read_key.public(),
            (
                decode_key(&stored.id_key).ok_or_else(damaged)?,
                decode_key(&stored.metadata_key).ok_or_else(damaged)?,
            ),
        );
        Ok(Self { keys, read_key })
    }

    /// Writes the key file with mode 0600, durably, replacing an older one in one step.
    pub fn save(&self, path: &Path) -> Outcome<()> {
        let (id_key, metadata_key) = self.keys.secrets();
        let encode = |key: &[u8; 32]| Zeroizing::new(STANDARD.encode(key));
        let stored = Stored {
            lifeboat_wal_read_key: 1,
            vault: self.keys.vault().clone(),
            stream: self.keys.stream(),
            wal_private: encode(self.read_key.private()),
            id_key: encode(id_key),
            metadata_key: encode(metadata_key),
        };
        let text = serde_json::to_vec_pretty(&stored).map(Zeroizing::new).map_err(|error| {
            Failure::new(Code::Internal, "the WAL-read key cannot be encoded").because(error)
        })?;
        write_secret_file(path, &text)
    }
}
