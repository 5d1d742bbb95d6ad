//! The writer key file: all that a database host holds, and all that it needs.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lifeboat_environment::Environment;
use lifeboat_telemetry::{Code, Failure, Outcome};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::crypt::{self, SecretKey, SigningKey};
use crate::ids::{Incarnation, StreamId, VerifyingKey};
use crate::keys::vault::decode_key;
use crate::keys::{StreamKeys, Vault};

/// The body of a certificate object: the root says that this key may write.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateBody {
    /// The writer's public key.
    pub public_key: VerifyingKey,
    /// What people call the writer: region and host.
    pub label: String,
    /// When it was issued.
    pub issued_at: jiff::Timestamp,
}

/// A writer's own key, and the keys of the streams that it writes.
pub struct WriterKey {
    vault: Vault,
    label: String,
    seed: SecretKey,
    streams: BTreeMap<String, WriterStream>,
}

/// One database that the writer is bound to.
#[derive(Debug, Clone)]
pub struct WriterStream {
    /// PostgreSQL's system identifier.
    pub system_identifier: u64,
    /// The incarnation that was granted.
    pub incarnation: Incarnation,
    /// Number of the binding object that granted it.
    pub binding: u32,
    /// The stream's keys.
    pub keys: StreamKeys,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    lifeboat_writer_key: u32,
    label: String,
    vault: Vault,
    seed: Zeroizing<String>,
    streams: BTreeMap<String, StoredStream>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredStream {
    system_identifier: u64,
    incarnation: Incarnation,
    binding: u32,
    stream: StreamId,
    wal_public: VerifyingKey,
    id_key: Zeroizing<String>,
    metadata_key: Zeroizing<String>,
}

impl WriterKey {
    /// A new key that is not yet certified nor bound.
    pub fn create(environment: &Environment, vault: &Vault, label: &str) -> Self {
        let seed = crypt::random_key(environment);
        Self { vault: vault.clone(), label: label.to_owned(), seed, streams: BTreeMap::new() }
    }

    /// The vault that it writes to.
    pub fn vault(&self) -> &Vault {
        &self.vault
    }

    /// What people call the writer.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The key that signs manifests.
    pub fn signing(&self) -> Outcome<SigningKey> {
        SigningKey::from_seed(&self.seed)
    }

    /// The public half.
    pub fn public(&self) -> Outcome<VerifyingKey> {
        Ok(VerifyingKey(self.signing()?.public()))
    }

    /// The stream of a database (`SERVICE/DATABASE`).
    pub fn stream(&self, database: &str) -> Option<&WriterStream> {
        self.streams.get(database)
    }

    /// Binds the writer to a database's stream.
    pub fn bind(&mut self, database: &str, stream: WriterStream) {
        self.streams.insert(database.to_owned(), stream);
    }

    /// Reads a key file; refuses one that others can read.
    pub fn load(path: &Path) -> Outcome<Self> {
        let shown = path.display();
        let text = std::fs::read_to_string(path).map(Zeroizing::new).map_err(|error| {
            Failure::new(Code::WriterKeyMissing, format!("cannot read the writer key {shown}"))
                .because(error)
                .hint("Run `lifeboat key enroll` on this host with a passphrase at hand.")
        })?;
        let mode = std::fs::metadata(path).map(|found| found.mode()).unwrap_or(0o777);
        if mode & 0o077 != 0 {
            let message = format!("the writer key {shown} is readable by others");
            return Err(Failure::new(Code::WriterKeyMissing, message)
                .hint(format!("Run `chmod 600 {shown}`; enroll anew if it may have been read.")));
        }
        let stored: Stored = serde_json::from_str(&text).map_err(|error| {
            let place = format!("line {}, column {}", error.line(), error.column());
            let message = format!("the writer key {shown} is not well formed at {place}");
            Failure::new(Code::WriterKeyMissing, message)
                .hint("Run `lifeboat key enroll` again; the old file stays as it is until then.")
        })?;
        let damaged = || {
            Failure::new(Code::WriterKeyMissing, format!("the writer key {shown} is damaged"))
                .hint("Run `lifeboat key enroll` again.")
        };
        let mut streams = BTreeMap::new();
        for (database, stream) in stored.streams {
            let keys = StreamKeys::new(
                stored.vault.clone(),
                stream.stream,
                stream.wal_public.0,
                (
                    decode_key(&stream.id_key).ok_or_else(damaged)?,
                    decode_key(&stream.metadata_key).ok_or_else(damaged)?,
                ),
            );
            let bound = WriterStream {
                system_identifier: stream.system_identifier,
                incarnation: stream.incarnation,
                binding: stream.binding,
                keys,
            };
            streams.insert(database, bound);
        }
        let seed = decode_key(&stored.seed).ok_or_else(damaged)?;
        Ok(Self { vault: stored.vault, label: stored.label, seed, streams })
    }

    /// Writes the key file with mode 0600, durably, replacing an older one in one step.
    pub fn save(&self, path: &Path) -> Outcome<()> {
        let streams = self.streams.iter().map(|(database, stream)| {
            let (id_key, metadata_key) = stream.keys.secrets();
            let stored = StoredStream {
                system_identifier: stream.system_identifier,
                incarnation: stream.incarnation,
                binding: stream.binding,
                stream: stream.keys.stream(),
                wal_public: VerifyingKey(*stream.keys.wal_public()),
                id_key: Zeroizing::new(STANDARD.encode(id_key.as_ref())),
                metadata_key: Zeroizing::new(STANDARD.encode(metadata_key.as_ref())),
            };
            (database.clone(), stored)
        });
        let stored = Stored {
            lifeboat_writer_key: 1,
            label: self.label.clone(),
            vault: self.vault.clone(),
            seed: Zeroizing::new(STANDARD.encode(self.seed.as_ref())),
            streams: streams.collect(),
        };
        let text = serde_json::to_vec_pretty(&stored).map(Zeroizing::new).map_err(|error| {
            Failure::new(Code::Internal, "the writer key cannot be encoded").because(error)
        })?;
        write_secret_file(path, &text)
    }
}

impl std::fmt::Debug for WriterKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("WriterKey").field("label", &self.label).finish_non_exhaustive()
    }
}

/// Writes a file that only its owner can read: beside its place, synced, renamed, synced.
pub fn write_secret_file(path: &Path, bytes: &[u8]) -> Outcome<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or_else(|| Path::new("."));
    let mut staged = path.as_os_str().to_owned();
    staged.push(format!(".{}.new", std::process::id()));
    let staged = Path::new(&staged);
    let attempt = || -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(staged)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(staged, path)?;
        std::fs::File::open(folder)?.sync_all()
    };
    attempt().map_err(|error| {
        // Half a secret is nobody's business.
        let _ = std::fs::remove_file(staged);
        let (code, hint) = match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                (Code::StoreFull, "Make room on that disk, then run the same command again.")
            }
            _ => (Code::LocalFile, "See that this user can write there."),
        };
        Failure::new(code, format!("cannot write {}", path.display())).because(error).hint(hint)
    })
}
