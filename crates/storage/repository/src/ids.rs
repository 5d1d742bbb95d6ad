//! Names of things in a repository: vaults, streams, digests.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::crypt;

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub [u8; $bytes]);

        impl $name {
            /// Reads lower-case hexadecimal of the exact length.
            pub fn parse(text: &str) -> Option<Self> {
                let mut out = [0; $bytes];
                let lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
                (lower && hex::decode_to_slice(text, &mut out).is_ok()).then_some(Self(out))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "{}({self})", stringify!($name))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::parse(&text).ok_or_else(|| {
                    serde::de::Error::custom(concat!("expected hexadecimal ", stringify!($name)))
                })
            }
        }
    };
}

hex_id!(
    /// One key domain for all regions of a spec.
    VaultId, 16
);
hex_id!(
    /// One incarnation of one PostgreSQL cluster.
    StreamId, 16
);
hex_id!(
    /// SHA-256 of an object's bytes: its name.
    Digest, 32
);
hex_id!(
    /// Keyed BLAKE3 of a page, cut to 128 bits: its identity inside a stream.
    PageId, 16
);
hex_id!(
    /// An Ed25519 public key.
    VerifyingKey, 32
);

/// Counts a cluster's terms as a source: a restore makes a new one, `adopt` grants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Incarnation(pub u64);

impl Incarnation {
    /// The one that `initdb` or whoever came before Lifeboat began.
    pub const FIRST: Self = Self(1);
}

impl StreamId {
    /// The stream of (vault, system identifier, incarnation).
    pub fn of(vault: VaultId, system_identifier: u64, incarnation: Incarnation) -> Self {
        let mut input = b"lifeboat/1/stream".to_vec();
        input.extend_from_slice(&vault.0);
        input.extend_from_slice(&system_identifier.to_le_bytes());
        input.extend_from_slice(&incarnation.0.to_le_bytes());
        let mut id = [0; 16];
        id.copy_from_slice(&crypt::sha256(&input)[..16]);
        Self(id)
    }
}

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(crypt::sha256(bytes))
    }
}
