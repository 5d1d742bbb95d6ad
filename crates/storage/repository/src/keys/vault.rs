//! The vault: one key domain for every region of a spec.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lifeboat_environment::Environment;
use lifeboat_telemetry::{Code, Failure, Outcome};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::crypt::{self, SecretKey, SigningKey};
use crate::ids::{Incarnation, StreamId, VaultId, VerifyingKey};
use crate::keys::{ReadKey, StreamKeys};

/// Whether bodies are sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Encryption {
    /// AES-256-GCM, the default.
    #[serde(rename = "aes-256-gcm")]
    Aes256Gcm,
    /// Nothing is secret (`encryption: none`).
    #[serde(rename = "none")]
    None,
}

/// What everybody may know of a vault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vault {
    /// Its id.
    pub id: VaultId,
    /// Whether bodies are sealed.
    pub encryption: Encryption,
    /// Pack keys are wrapped to this X25519 key.
    pub restore_public: VerifyingKey,
    /// Certificates, bindings and `format` are signed by this Ed25519 key.
    pub root_public: VerifyingKey,
}

/// What opens and signs everything; only in memory, and sealed in slots.
pub struct VaultSecrets {
    vault: Vault,
    restore_private: SecretKey,
    root_seed: SecretKey,
    id_key: SecretKey,
    metadata_key: SecretKey,
}

#[derive(Serialize, Deserialize, zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
struct Stored {
    restore_private: String,
    root_seed: String,
    id_key: String,
    metadata_key: String,
}

impl VaultSecrets {
    /// A new vault.
    pub fn create(environment: &Environment, encryption: Encryption) -> Outcome<Self> {
        let restore_private = crypt::random_key(environment);
        let root_seed = crypt::random_key(environment);
        let vault = Vault {
            id: VaultId(crypt::random_bytes(environment)),
            encryption,
            restore_public: VerifyingKey(crypt::public_of(&restore_private)?),
            root_public: VerifyingKey(SigningKey::from_seed(&root_seed)?.public()),
        };
        let id_key = crypt::random_key(environment);
        let metadata_key = crypt::random_key(environment);
        Ok(Self { vault, restore_private, root_seed, id_key, metadata_key })
    }

    /// The public half.
    pub fn vault(&self) -> &Vault {
        &self.vault
    }

    /// The key that signs certificates and bindings.
    pub fn root(&self) -> Outcome<SigningKey> {
        SigningKey::from_seed(&self.root_seed)
    }

    /// The keys of one stream, for writing and for metadata.
    pub fn stream(&self, system_identifier: u64, incarnation: Incarnation) -> StreamKeys {
        self.stream_keys(StreamId::of(self.vault.id, system_identifier, incarnation))
    }

    /// As [`Self::stream`], from the stream's id.
    pub fn stream_keys(&self, stream: StreamId) -> StreamKeys {
        StreamKeys::new(
            self.vault.clone(),
            stream,
            self.read_key().for_wal(stream).public(),
            (
                crypt::derive(self.id_key.as_ref(), &stream.0, "lifeboat/1/stream/id"),
                crypt::derive(self.metadata_key.as_ref(), &stream.0, "lifeboat/1/stream/metadata"),
            ),
        )
    }

    /// What reads the pages of every stream, and from which every WAL key is derived.
    pub fn read_key(&self) -> ReadKey {
        ReadKey::new(self.restore_private.clone())
    }

    /// The bytes that a slot seals.
    pub(super) fn to_bytes(&self) -> Outcome<Zeroizing<Vec<u8>>> {
        let stored = Stored {
            restore_private: STANDARD.encode(self.restore_private.as_ref()),
            root_seed: STANDARD.encode(self.root_seed.as_ref()),
            id_key: STANDARD.encode(self.id_key.as_ref()),
            metadata_key: STANDARD.encode(self.metadata_key.as_ref()),
        };
        serde_json::to_vec(&stored).map(Zeroizing::new).map_err(|error| {
            Failure::new(Code::Internal, "the vault's secrets cannot be encoded").because(error)
        })
    }

    /// Reads what a slot sealed and checks it against the public half.
    pub(super) fn from_bytes(vault: &Vault, bytes: &[u8]) -> Outcome<Self> {
        let damaged = || Failure::new(Code::ObjectDamaged, "a key slot holds no vault secrets");
        let stored: Stored = serde_json::from_slice(bytes).map_err(|_| damaged())?;
        let secrets = Self {
            vault: vault.clone(),
            restore_private: decode_key(&stored.restore_private).ok_or_else(damaged)?,
            root_seed: decode_key(&stored.root_seed).ok_or_else(damaged)?,
            id_key: decode_key(&stored.id_key).ok_or_else(damaged)?,
            metadata_key: decode_key(&stored.metadata_key).ok_or_else(damaged)?,
        };
        let same = crypt::public_of(&secrets.restore_private)? == vault.restore_public.0
            && secrets.root()?.public() == vault.root_public.0;
        if !same {
            let message = "the slot's secrets do not belong to the vault that `format` names";
            return Err(Failure::new(Code::VaultMismatch, message)
                .hint("Somebody replaced `format` or the slot: compare with another region."));
        }
        Ok(secrets)
    }
}

impl std::fmt::Debug for VaultSecrets {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("VaultSecrets")
            .field("vault", &self.vault.id)
            .finish_non_exhaustive()
    }
}

/// Base64 to a 32-byte key.
pub(super) fn decode_key(text: &str) -> Option<SecretKey> {
    let bytes = Zeroizing::new(STANDARD.decode(text).ok()?);
    let mut key = Zeroizing::new([0; crypt::KEY_BYTES]);
    (bytes.len() == key.len()).then(|| key.copy_from_slice(&bytes))?;
    Some(key)
}
