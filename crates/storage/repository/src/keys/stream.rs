//! Keys of one stream: what a database host holds, and what reads the past.

use blake3::Hasher;
use lifeboat_environment::Environment;
use lifeboat_telemetry::{Code, Failure, Outcome};

use crate::crypt::{self, Aead, PublicKey, SecretKey, TAG_BYTES, Wrapped};
use crate::ids::{PageId, StreamId};
use crate::keys::{Encryption, Vault};
use crate::object::{Coding, Header, ObjectType};

/// Bytes of the salt before sealed metadata.
pub const SALT_BYTES: usize = 32;

/// Keys that write a stream and read its metadata, but not its pages.
#[derive(Clone)]
pub struct StreamKeys {
    vault: Vault,
    stream: StreamId,
    wal_public: PublicKey,
    id_key: SecretKey,
    metadata_key: SecretKey,
}

/// Whose private key will open an object's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recipient {
    /// The vault's restore key: pages.
    Restore,
    /// The stream's WAL key, which a restored host may hold: WAL.
    Wal,
}

/// A fresh object key, and how it lies in the object.
pub struct Sealed {
    /// The cipher; `None` where the vault says `encryption: none`.
    pub aead: Option<Aead>,
    /// The wrapped key; zeros where nothing is sealed.
    pub wrapped: Wrapped,
}

impl StreamKeys {
    pub(super) fn new(
        vault: Vault,
        stream: StreamId,
        wal_public: PublicKey,
        (id_key, metadata_key): (SecretKey, SecretKey),
    ) -> Self {
        Self { vault, stream, wal_public, id_key, metadata_key }
    }

    /// The vault.
    pub fn vault(&self) -> &Vault {
        &self.vault
    }

    /// The stream.
    pub fn stream(&self) -> StreamId {
        self.stream
    }

    /// The public half of the stream's WAL key.
    pub(super) fn wal_public(&self) -> &PublicKey {
        &self.wal_public
    }

    pub(super) fn secrets(&self) -> (&SecretKey, &SecretKey) {
        (&self.id_key, &self.metadata_key)
    }

    /// The identity of a page: keyed, so that nobody can confirm content by its name.
    pub fn page_id(&self, page: &[u8]) -> PageId {
        let mut id = [0; 16];
        id.copy_from_slice(&blake3::keyed_hash(&self.id_key, page).as_bytes()[..16]);
        PageId(id)
    }

    /// The keyed digest of a WAL file's plain bytes.
    pub fn content_digest(&self, bytes: &[u8]) -> [u8; 32] {
        *self.content_hasher().update(bytes).finalize().as_bytes()
    }

    /// The same, for bytes that come one after the other.
    pub(crate) fn content_hasher(&self) -> Hasher {
        Hasher::new_keyed(&self.id_key)
    }

    /// A header of this stream; the coding says what the vault asks for.
    pub fn header(&self, kind: ObjectType, codec: u8) -> Header {
        let sealing = u8::from(self.vault.encryption == Encryption::Aes256Gcm);
        let coding = Coding { codec, sealing };
        Header { kind, vault: self.vault.id, stream: self.stream, coding, body_bytes: 0 }
    }

    /// Checks that an object belongs to this vault and stream.
    pub fn check(&self, header: &Header) -> Outcome<()> {
        if header.vault != self.vault.id || header.stream != self.stream {
            let message = "an object belongs to another vault or another database";
            return Err(Failure::new(Code::ObjectDamaged, message));
        }
        let sealed = self.vault.encryption == Encryption::Aes256Gcm;
        if sealed && header.coding.sealing != 1 {
            // Otherwise an attacker could hand in plain objects of his own making.
            let message = "an object is not sealed although its vault seals everything";
            return Err(Failure::new(Code::ObjectDamaged, message));
        }
        Ok(())
    }

    /// A fresh key for one object, wrapped to whoever may read it.
    pub fn new_object_key(
        &self,
        environment: &Environment,
        recipient: Recipient,
    ) -> Outcome<Sealed> {
        if self.vault.encryption == Encryption::None {
            let wrapped = Wrapped { ephemeral: [0; 32], key: [0; crypt::WRAPPED_BYTES] };
            return Ok(Sealed { aead: None, wrapped });
        }
        let key = crypt::random_key(environment);
        let public = match recipient {
            Recipient::Restore => &self.vault.restore_public.0,
            Recipient::Wal => &self.wal_public,
        };
        let wrapped = crypt::wrap(environment, public, &key)?;
        Ok(Sealed { aead: Some(Aead::new(&key)?), wrapped })
    }

    /// Seals metadata under a key derived for this object alone: `salt ciphertext tag`.
    pub fn seal_metadata(
        &self,
        environment: &Environment,
        kind: ObjectType,
        position: &[u8],
        plain: &[u8],
    ) -> Outcome<Vec<u8>> {
        if self.vault.encryption == Encryption::None {
            return Ok(plain.to_vec());
        }
        let salt: [u8; SALT_BYTES] = crypt::random_bytes(environment);
        let mut body = plain.to_vec();
        body.reserve(TAG_BYTES + SALT_BYTES);
        self.metadata_aead(&salt)?.seal(0, &self.aad(kind, position), &mut body)?;
        let mut out = salt.to_vec();
        out.append(&mut body);
        Ok(out)
    }

    /// Opens what [`Self::seal_metadata`] sealed.
    pub fn open_metadata(
        &self,
        kind: ObjectType,
        position: &[u8],
        sealed: &[u8],
    ) -> Outcome<Vec<u8>> {
        if self.vault.encryption == Encryption::None {
            return Ok(sealed.to_vec());
        }
        let damaged = || {
            let message = format!("metadata of a {kind:?} does not open with this stream's key");
            Failure::new(Code::ObjectDamaged, message)
        };
        let (salt, body) = sealed.split_at_checked(SALT_BYTES).ok_or_else(damaged)?;
        let mut body = body.to_vec();
        let length = self
            .metadata_aead(salt)?
            .open(0, &self.aad(kind, position), &mut body)
            .ok_or_else(damaged)?
            .len();
        body.truncate(length);
        Ok(body)
    }

    fn metadata_aead(&self, salt: &[u8]) -> Outcome<Aead> {
        Aead::new(&crypt::derive(self.metadata_key.as_ref(), salt, "lifeboat/1/metadata"))
    }

    /// Associated data: vault, stream, type and position; never the repository.
    pub fn aad(&self, kind: ObjectType, position: &[u8]) -> Vec<u8> {
        let mut aad = Vec::with_capacity(34 + position.len());
        aad.extend_from_slice(&self.vault.id.0);
        aad.extend_from_slice(&self.stream.0);
        aad.extend_from_slice(&(kind as u16).to_le_bytes());
        aad.extend_from_slice(position);
        aad
    }
}

impl std::fmt::Debug for StreamKeys {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("StreamKeys").field("stream", &self.stream).finish_non_exhaustive()
    }
}

/// What reads pages (the vault's private restore key) or the WAL of one stream (derived from it).
#[derive(Clone)]
pub struct ReadKey {
    private: SecretKey,
}

impl ReadKey {
    /// From the private key.
    pub fn new(private: SecretKey) -> Self {
        Self { private }
    }

    /// The key that reads the WAL of one stream, and nothing else.
    #[must_use]
    pub fn for_wal(&self, stream: StreamId) -> Self {
        Self::new(crypt::derive(self.private.as_ref(), &stream.0, "lifeboat/1/stream/wal"))
    }

    /// The public half; zeros, to which nothing can be wrapped, if there is none.
    pub(super) fn public(&self) -> PublicKey {
        crypt::public_of(&self.private).unwrap_or_default()
    }

    /// Opens an object's key.
    pub fn open(&self, vault: &Vault, wrapped: &Wrapped) -> Outcome<Option<Aead>> {
        match vault.encryption {
            Encryption::None => Ok(None),
            Encryption::Aes256Gcm => Ok(Some(Aead::new(&crypt::unwrap(&self.private, wrapped)?)?)),
        }
    }

    /// The private key, for a WAL-read key file.
    pub fn private(&self) -> &SecretKey {
        &self.private
    }
}

impl std::fmt::Debug for ReadKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("ReadKey")
    }
}
