//! Writer sessions: one object names the manifest that a writer will create, and until when.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use lifeboat_objects::Key;
use lifeboat_telemetry::{Code, Failure, Outcome};
use serde::{Deserialize, Serialize};

use crate::crypt::SigningKey;
use crate::ids::{StreamId, VaultId};
use crate::layout;
use crate::object::{Coding, Header, ObjectType, decode_named, encode_named};

/// How long a session lives.
pub const SESSION_LIFE: Duration = Duration::from_secs(24 * 3600);

/// The body of a session object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionBody {
    /// The manifest that the writer will create.
    pub manifest: String,
    /// Who writes.
    pub writer: String,
    /// When it began, by the writer's clock.
    pub started_at: Timestamp,
    /// When the maintainer may end it, by the store's clock.
    pub expires_at: Timestamp,
}

impl SessionBody {
    /// The object; its name is the manifest's name, so that an epoch is taken only once.
    pub fn encode(
        &self,
        vault: VaultId,
        stream: StreamId,
        signer: &SigningKey,
    ) -> Outcome<(Key, Bytes)> {
        let key = layout::session(stream, &self.manifest)?;
        let json = serde_json::to_vec(self).map_err(|error| {
            Failure::new(Code::Internal, "a session cannot be encoded").because(error)
        })?;
        let kind = ObjectType::Session;
        let header = Header { kind, vault, stream, coding: Coding::PLAIN, body_bytes: 0 };
        let bytes = encode_named(header, &key, &json, Some(signer));
        Ok((key, bytes))
    }

    /// Reads a session.
    pub fn decode(key: &Key, bytes: &Bytes) -> Outcome<Self> {
        let named = decode_named(ObjectType::Session, key, bytes)?;
        serde_json::from_slice(&named.body).map_err(|error| {
            Failure::new(Code::ObjectDamaged, format!("{key} is damaged")).because(error)
        })
    }
}

/// The name of the first manifest of a writer epoch.
pub fn manifest_name(epoch: u32) -> String {
    format!("{epoch:08x}-00000001")
}

/// The writer epoch of a session or manifest name.
pub fn epoch_of(name: &str) -> Option<u32> {
    let (epoch, sequence) = name.split_once('-')?;
    let well_formed = epoch.len() == 8 && sequence.len() == 8;
    u32::from_str_radix(epoch, 16).ok().filter(|_| well_formed)
}
