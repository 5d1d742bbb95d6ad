//! Runs of receivers: each takes a writer epoch of its own in a repository, once.

use bytes::Bytes;
use jiff::Timestamp;
use lifeboat_model::spec;
use lifeboat_objects::{Created, Key};
use lifeboat_telemetry::{Code, Failure, Kind, Outcome};
use serde::{Deserialize, Serialize};

use crate::crypt::SigningKey;
use crate::ids::{StreamId, VaultId};
use crate::layout;
use crate::object::{Coding, Header, ObjectType, decode_named, encode_named};
use crate::repository::{Repository, number_after, parse};

/// So many rivals may be faster before something is wrong.
const RIVALS_MAX: u32 = 1000;

/// What a receiver says of itself when it starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiverBody {
    /// Label of the writer key that signs.
    pub writer: String,
    /// The region that it runs in.
    pub region: String,
    /// Name of its host.
    pub host: String,
    /// The epoch of the service that it works for; 0 without a control plane.
    pub control_epoch: u64,
    /// When it started, by its own clock.
    pub started_at: Timestamp,
    /// When it acknowledges.
    pub durable: Durable,
}

/// Where WAL lies when a receiver acknowledges it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Durable {
    /// On its own disk.
    Spool,
    /// In the repository.
    Repository,
}

impl From<spec::Durable> for Durable {
    fn from(durable: spec::Durable) -> Self {
        match durable {
            spec::Durable::Spool => Self::Spool,
            spec::Durable::Repository => Self::Repository,
        }
    }
}

/// A run of a receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receiver {
    /// Its writer epoch.
    pub epoch: u32,
    /// What it said of itself.
    pub body: ReceiverBody,
    /// The key that signed.
    pub signer: [u8; 32],
}

/// The runs of receivers that a repository knows of.
#[derive(Debug, Default)]
pub struct Receivers {
    /// Those that hold, by epoch.
    pub sound: Vec<Receiver>,
    /// Epochs of those that do not, and why.
    pub damaged: Vec<(u32, Failure)>,
}

impl ReceiverBody {
    /// The object for an epoch.
    pub fn encode(
        &self,
        vault: VaultId,
        stream: StreamId,
        epoch: u32,
        signer: &SigningKey,
    ) -> Outcome<(Key, Bytes)> {
        let key = layout::receiver(stream, epoch)?;
        let json = serde_json::to_vec(self).map_err(|error| {
            Failure::new(Code::Internal, "a receiver cannot be encoded").because(error)
        })?;
        let kind = ObjectType::Receiver;
        let header = Header { kind, vault, stream, coding: Coding::PLAIN, body_bytes: 0 };
        let bytes = encode_named(header, &key, &json, Some(signer));
        Ok((key, bytes))
    }
}

impl Receiver {
    /// Reads the object of an epoch. Whether the writer was certified is for the caller to check.
    pub fn decode(stream: StreamId, epoch: u32, bytes: &Bytes) -> Outcome<Self> {
        let key = layout::receiver(stream, epoch)?;
        let named = decode_named(ObjectType::Receiver, &key, bytes)?;
        let Some(signer) = named.signer else {
            let message = format!("{key} is not signed");
            return Err(Failure::new(Code::SignatureInvalid, message));
        };
        Ok(Self { epoch, body: parse(&key, &named.body)?, signer })
    }
}

/// Takes the next writer epoch of a stream in a repository. Whoever creates the object has it; a
/// rival takes the one after.
pub async fn claim_epoch(
    repository: &Repository,
    stream: StreamId,
    signer: &SigningKey,
    body: &ReceiverBody,
) -> Outcome<u32> {
    let taken = epochs(repository, stream).await?;
    let first = taken.last().map_or(Some(1), |last| last.checked_add(1));
    let epochs = first.map_or(0..0, |first| first..first.saturating_add(RIVALS_MAX));
    for epoch in epochs {
        let (key, bytes) = body.encode(repository.vault().id, stream, epoch, signer)?;
        match repository.store().create_verified(&key, bytes).await {
            Ok(Created::New) => return Ok(epoch),
            // The same bytes from another process: that one has the epoch.
            Ok(Created::Identical) => {}
            Err(failure) if failure.code() == Code::ObjectConflict => {}
            Err(failure) => return Err(failure),
        }
    }
    let region = repository.region();
    Err(Failure::new(Code::Internal, format!("no writer epoch of {region} could be taken")))
}

/// The epochs that were taken, in order.
async fn epochs(repository: &Repository, stream: StreamId) -> Outcome<Vec<u32>> {
    let prefix = layout::receivers(stream);
    let listed = repository.store().list(&prefix).await?;
    Ok(listed.iter().filter_map(|(key, _)| number_after(key.as_str(), &prefix)).collect())
}

/// All runs of receivers of a stream; one that is damaged does not hide the others.
pub async fn receivers(repository: &Repository, stream: StreamId) -> Outcome<Receivers> {
    let epochs = epochs(repository, stream).await?;
    let mut receivers = Receivers::default();
    if epochs.is_empty() {
        return Ok(receivers);
    }
    let writers = repository.certified_writers().await?;
    for epoch in epochs {
        let key = layout::receiver(stream, epoch)?;
        let read = repository.store().get(&key).await.and_then(|bytes| {
            let receiver = Receiver::decode(stream, epoch, &bytes)?;
            if writers.contains(&receiver.signer) {
                return Ok(receiver);
            }
            let message = format!("{key} is signed by a writer that was never certified");
            Err(Failure::new(Code::SignatureInvalid, message))
        });
        match read {
            Ok(receiver) => receivers.sound.push(receiver),
            Err(failure) if failure.kind() == Kind::Damage => {
                receivers.damaged.push((epoch, failure));
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(receivers)
}
