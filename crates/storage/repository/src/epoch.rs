//! Epochs of services: who was given which, once (ADR 0012). What survives the quorum store.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use jiff::Timestamp;
use lifeboat_objects::Key;
use lifeboat_telemetry::{Code, Failure, Outcome};
use serde::{Deserialize, Serialize};

use crate::crypt::SigningKey;
use crate::keys::Vault;
use crate::layout;
use crate::object::{ObjectType, decode_named};
use crate::repository::{Repository, encode_body, number_after, parse};

/// What an epoch's object says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochBody {
    /// The service.
    pub service: String,
    /// The epoch's number.
    pub epoch: u32,
    /// The region that it was created for.
    pub region: String,
    /// The node of each database that may write.
    pub holders: BTreeMap<String, String>,
    /// The run that began it; none where a person did without a quorum store.
    pub run: Option<u64>,
    /// Label of the writer key that signs.
    pub writer: String,
    /// When, by the writer's wall clock.
    pub created_at: Timestamp,
    /// The record as the quorum store had it, for people and for setting one up anew.
    pub record: serde_json::Value,
}

/// An epoch as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Epoch {
    /// What it says.
    pub body: EpochBody,
    /// The key that signed.
    pub signer: [u8; 32],
}

impl EpochBody {
    /// The object.
    pub fn encode(&self, vault: &Vault, signer: &SigningKey) -> Outcome<(Key, Bytes)> {
        let key = layout::epoch(&self.service, self.epoch)?;
        let bytes = encode_body(vault, &key, ObjectType::Epoch, self, Some(signer))?;
        Ok((key, bytes))
    }

    /// Whether both were given to the same by the same run, though by two controllers.
    pub fn is_same_grant(&self, other: &Self) -> bool {
        let grant = |body: &Self| {
            let Self { service, epoch, region, holders, run, .. } = body.clone();
            (service, epoch, region, holders, run)
        };
        grant(self) == grant(other)
    }
}

impl Epoch {
    /// Reads the object. Whether the writer was certified is for the caller to check.
    pub fn decode(service: &str, epoch: u32, bytes: &Bytes) -> Outcome<Self> {
        let key = layout::epoch(service, epoch)?;
        let named = decode_named(ObjectType::Epoch, &key, bytes)?;
        let Some(signer) = named.signer else {
            return Err(Failure::new(Code::SignatureInvalid, format!("{key} is not signed")));
        };
        let body: EpochBody = parse(&key, &named.body)?;
        if body.service != service || body.epoch != epoch {
            let message = format!("{key} is damaged: it says that it is another epoch");
            return Err(Failure::new(Code::ObjectDamaged, message));
        }
        Ok(Self { body, signer })
    }

    /// Refuses one whose writer the root never certified.
    pub fn certified(self, writers: &BTreeSet<[u8; 32]>) -> Outcome<Self> {
        if writers.contains(&self.signer) {
            return Ok(self);
        }
        let EpochBody { service, epoch, .. } = &self.body;
        let message = format!("epoch {epoch} of {service} is signed by an uncertified writer");
        Err(Failure::new(Code::SignatureInvalid, message))
    }
}

/// The highest epoch of a service that a repository has a name for, whatever lies below it: a
/// number that was used once is used.
pub async fn highest(repository: &Repository, service: &str) -> Outcome<Option<u32>> {
    let prefix = layout::epochs(service);
    let listed = repository.store().list(&prefix).await?;
    Ok(listed.iter().filter_map(|(key, _)| number_after(key.as_str(), &prefix)).max())
}
