//! The root of one backup: a signed object, and the commit point.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jiff::Timestamp;
use lifeboat_environment::Environment;
use lifeboat_model::{Lsn, Timeline};
use lifeboat_objects::Key;
use lifeboat_telemetry::{Code, Failure, Outcome};
use serde::{Deserialize, Serialize};

use crate::crypt::SigningKey;
use crate::ids::{Digest, Incarnation};
use crate::keys::StreamKeys;
use crate::layout;
use crate::object::{Coding, Header, ObjectType, decode_named, encode_named};

/// Largest manifest.
pub const MANIFEST_BYTES_MAX: usize = 1024 * 1024;

/// The part of a manifest that everybody may read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestBody {
    /// The manifest's own name: writer epoch and sequence.
    pub name: String,
    /// The newest manifest that was known when this one was committed.
    pub predecessor: Option<Predecessor>,
    /// When it was committed, by the writer's wall clock.
    pub committed_at: Timestamp,
    /// Pages of the object table.
    pub object_table: Vec<Digest>,
    /// Names of the first and the last WAL segment that the backup cannot do without.
    pub wal: [String; 2],
    /// The description, sealed, base64.
    pub sealed: String,
}

/// A link of the chain of manifests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Predecessor {
    /// Its name.
    pub name: String,
    /// SHA-256 of its bytes.
    pub digest: Digest,
}

/// What a backup is; only holders of the stream's keys can read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// `SERVICE/DATABASE`.
    pub database: String,
    /// What the person called it.
    pub label: Option<String>,
    /// The region that it was taken in.
    pub region: String,
    /// When the backup began.
    pub started_at: Timestamp,
    /// When the last file was read.
    pub stopped_at: Timestamp,
    /// The cluster.
    pub cluster: ClusterFacts,
    /// The WAL that the backup needs.
    pub wal: WalSpan,
    /// Contents of `backup_label`.
    pub backup_label: String,
    /// Contents of `tablespace_map`; empty without tablespaces.
    pub tablespace_map: String,
    /// Tablespaces outside the data directory.
    pub tablespaces: Vec<Tablespace>,
    /// Configuration files outside the data directory, as the server named them.
    pub outside: Vec<OutsideFile>,
    /// Pages of the file table, in order.
    pub file_table: Vec<Digest>,
    /// Where the boot set lies.
    pub boot_set: Vec<Extent>,
    /// Pages that fail their checksum in the source, too.
    pub damaged_pages: Vec<DamagedPage>,
    /// Sizes.
    pub sizes: Sizes,
    /// The version of lifeboat that took it.
    pub tool: String,
}

/// What the cluster was when the backup began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterFacts {
    /// `system_identifier` of pg_control.
    pub system_identifier: u64,
    /// The incarnation that wrote it.
    pub incarnation: Incarnation,
    /// Major version, as in 15.
    pub major: u32,
    /// `server_version_num`.
    pub version: u32,
    /// `catalog_version_no`.
    pub catalog_version: u32,
    /// Size of a page.
    pub block_bytes: u32,
    /// Size of a WAL segment.
    pub wal_segment_bytes: u32,
    /// Whether pages carry checksums.
    pub data_checksums: bool,
    /// Whether it was taken from a standby.
    pub from_standby: bool,
    /// Where the data directory was.
    pub data_directory: String,
}

/// The WAL between start and stop of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WalSpan {
    /// The timeline.
    pub timeline: Timeline,
    /// Redo begins here.
    pub start: Lsn,
    /// From here on the restored cluster is consistent.
    pub stop: Lsn,
}

/// A tablespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tablespace {
    /// Its OID.
    pub oid: u32,
    /// Where it was.
    pub location: String,
}

/// A configuration file outside the data directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutsideFile {
    /// Its role: `config_file`, `hba_file`, `ident_file` or `include`.
    pub role: String,
    /// Its absolute path.
    pub path: String,
}

/// Consecutive stored bytes of a pack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extent {
    /// The pack.
    pub pack: Digest,
    /// First frame.
    pub first_frame: u32,
    /// Number of frames.
    pub frames: u32,
}

/// A page that was stored as it was, damaged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DamagedPage {
    /// The file below the data directory.
    pub path: String,
    /// The block, counted over all segments of the relation.
    pub block: u32,
}

/// Sizes in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sizes {
    /// Files in the backup.
    pub files: u64,
    /// Bytes of all files.
    pub logical_bytes: u64,
    /// Stored bytes that the backup uses.
    pub stored_bytes: u64,
    /// Stored bytes that were new with this backup.
    pub new_bytes: u64,
}

/// A manifest as read from a repository.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// The open part.
    pub body: ManifestBody,
    /// The public key that signed it.
    pub signer: [u8; 32],
}

impl Manifest {
    /// The bytes of a new manifest.
    pub fn encode(
        keys: &StreamKeys,
        environment: &Environment,
        signer: &SigningKey,
        mut body: ManifestBody,
        description: &Description,
    ) -> Outcome<(Key, Bytes)> {
        let key = layout::manifest(keys.stream(), &body.name)?;
        let internal = |error: serde_json::Error| {
            Failure::new(Code::Internal, "a manifest cannot be encoded").because(error)
        };
        let plain = serde_json::to_vec(description).map_err(internal)?;
        let position = key.as_str().as_bytes();
        let sealed = keys.seal_metadata(environment, ObjectType::Manifest, position, &plain)?;
        body.sealed = STANDARD.encode(sealed);
        let json = serde_json::to_vec(&body).map_err(internal)?;
        if json.len() > MANIFEST_BYTES_MAX {
            let message = format!("a manifest would take {} bytes", json.len());
            return Err(Failure::new(Code::ObjectTooLarge, message)
                .hint("Its maximum is 1 MiB; report how many files and tablespaces there are."));
        }
        let header = Header {
            kind: ObjectType::Manifest,
            vault: keys.vault().id,
            stream: keys.stream(),
            coding: Coding::PLAIN,
            body_bytes: 0,
        };
        let bytes = encode_named(header, &key, &json, Some(signer));
        Ok((key, bytes))
    }

    /// Reads the open part; needs no key. The caller checks that the signer is certified.
    pub fn decode(key: &Key, bytes: &Bytes) -> Outcome<Self> {
        let named = decode_named(ObjectType::Manifest, key, bytes)?;
        let damaged = |why: String| {
            Failure::new(Code::ObjectDamaged, format!("manifest {key} is damaged: {why}"))
        };
        if named.body.len() > MANIFEST_BYTES_MAX {
            return Err(Failure::new(Code::LimitExceeded, format!("manifest {key} is too large")));
        }
        let body: ManifestBody =
            serde_json::from_slice(&named.body).map_err(|error| damaged(error.to_string()))?;
        if !key.as_str().ends_with(&format!("/{}", body.name)) {
            return Err(damaged("it names another manifest".to_owned()));
        }
        let signer = named.signer.ok_or_else(|| damaged("it is not signed".to_owned()))?;
        Ok(Self { digest: Digest::of(bytes), body, signer })
    }

    /// Opens the description.
    pub fn description(&self, keys: &StreamKeys) -> Outcome<Description> {
        let name = &self.body.name;
        let key = layout::manifest(keys.stream(), name)?;
        let damaged =
            || Failure::new(Code::ObjectDamaged, format!("the description of {name} is damaged"));
        let sealed = STANDARD.decode(&self.body.sealed).map_err(|_| damaged())?;
        let plain = keys.open_metadata(ObjectType::Manifest, key.as_str().as_bytes(), &sealed)?;
        serde_json::from_slice(&plain).map_err(|error| damaged().because(error))
    }
}
