//! The few cryptographic steps of the format, each with its purpose in its name.
//!
//! Every AEAD key is used for one object only (a fresh random key or salt), so counted nonces
//! never repeat under a key. docs/formats/repository.md, "Cryptography", has the bytes.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use aws_lc_rs::signature::{self, Ed25519KeyPair, KeyPair};
use aws_lc_rs::{digest, hkdf};
use lifeboat_environment::Environment;
use lifeboat_telemetry::{Code, Failure, Outcome};
use zeroize::Zeroizing;

/// Bytes of every symmetric key.
pub const KEY_BYTES: usize = 32;
/// Bytes of an AES-GCM tag.
pub const TAG_BYTES: usize = 16;
/// Bytes of a wrapped key: the key and its tag.
pub const WRAPPED_BYTES: usize = KEY_BYTES + TAG_BYTES;
/// Bytes of an Ed25519 signature.
pub const SIGNATURE_BYTES: usize = 64;

/// A symmetric key or seed that is wiped when dropped and never printed.
pub type SecretKey = Zeroizing<[u8; KEY_BYTES]>;

/// A new random secret.
pub fn random_key(environment: &Environment) -> SecretKey {
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    environment.random().fill(key.as_mut());
    key
}

/// New random bytes that are no secret: salts and ids.
pub fn random_bytes<const N: usize>(environment: &Environment) -> [u8; N] {
    let mut bytes = [0; N];
    environment.random().fill(&mut bytes);
    bytes
}

/// SHA-256.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// HKDF-SHA256 with a salt and a purpose.
pub fn derive(secret: &[u8], salt: &[u8], purpose: &str) -> SecretKey {
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(secret);
    let info = [purpose.as_bytes()];
    let filled = prk.expand(&info, Length(KEY_BYTES)).and_then(|okm| okm.fill(key.as_mut()));
    // HKDF fails only for outputs above 255 hash lengths.
    debug_assert!(filled.is_ok());
    key
}

/// AES-256-GCM under one key; the caller never repeats a counter.
pub struct Aead(LessSafeKey);

impl Aead {
    /// A cipher for `key`.
    pub fn new(key: &SecretKey) -> Outcome<Self> {
        UnboundKey::new(&AES_256_GCM, key.as_ref())
            .map(|unbound| Self(LessSafeKey::new(unbound)))
            .map_err(|_| Failure::new(Code::Internal, "a key has the wrong length"))
    }

    /// Encrypts in place and appends the tag.
    pub fn seal(&self, counter: u32, aad: &[u8], buffer: &mut Vec<u8>) -> Outcome<()> {
        self.0
            .seal_in_place_append_tag(nonce(counter), Aad::from(aad), buffer)
            .map_err(|_| Failure::new(Code::Internal, "encryption failed"))
    }

    /// Encrypts `buffer` in place and returns the tag.
    pub fn seal_slice(&self, counter: u32, aad: &[u8], buffer: &mut [u8]) -> Outcome<[u8; 16]> {
        let tag = self
            .0
            .seal_in_place_separate_tag(nonce(counter), Aad::from(aad), buffer)
            .map_err(|_| Failure::new(Code::Internal, "encryption failed"))?;
        let mut out = [0; 16];
        out.copy_from_slice(tag.as_ref());
        Ok(out)
    }

    /// Decrypts in place; `None` if the bytes, the position or the key are not the right ones.
    pub fn open<'a>(&self, counter: u32, aad: &[u8], buffer: &'a mut [u8]) -> Option<&'a mut [u8]> {
        self.0.open_in_place(nonce(counter), Aad::from(aad), buffer).ok()
    }
}

fn nonce(counter: u32) -> Nonce {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// An X25519 public key.
pub type PublicKey = [u8; 32];

/// The public key of an X25519 private key.
pub fn public_of(private: &SecretKey) -> Outcome<PublicKey> {
    let key = agreement_key(private)?;
    let public =
        key.compute_public_key().map_err(|_| Failure::new(Code::Internal, "X25519 failed"))?;
    public
        .as_ref()
        .try_into()
        .map_err(|_| Failure::new(Code::Internal, "an X25519 key has the wrong length"))
}

fn agreement_key(private: &SecretKey) -> Outcome<PrivateKey> {
    PrivateKey::from_private_key(&X25519, private.as_ref())
        .map_err(|_| Failure::new(Code::Internal, "an X25519 key is not valid"))
}

/// A key wrapped to a public key, so that who wraps cannot unwrap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wrapped {
    /// The sender's one-time public key.
    pub ephemeral: PublicKey,
    /// The encrypted key with its tag.
    pub key: [u8; WRAPPED_BYTES],
}

/// Wraps `key` to `recipient` with a new one-time key pair.
pub fn wrap(environment: &Environment, recipient: &PublicKey, key: &SecretKey) -> Outcome<Wrapped> {
    let one_time = random_key(environment);
    let ephemeral = public_of(&one_time)?;
    let shared = shared_key(&one_time, recipient, &ephemeral, recipient)?;
    let mut sealed = key.to_vec();
    Aead::new(&shared)?.seal(0, b"lifeboat/1/wrapped-key", &mut sealed)?;
    let key = sealed
        .as_slice()
        .try_into()
        .map_err(|_| Failure::new(Code::Internal, "a wrapped key has the wrong length"))?;
    Ok(Wrapped { ephemeral, key })
}

/// Opens a wrapped key with the recipient's private key.
pub fn unwrap(private: &SecretKey, wrapped: &Wrapped) -> Outcome<SecretKey> {
    let recipient = public_of(private)?;
    let shared = shared_key(private, &wrapped.ephemeral, &wrapped.ephemeral, &recipient)?;
    let mut buffer = Zeroizing::new(wrapped.key.to_vec());
    let plain = Aead::new(&shared)?
        .open(0, b"lifeboat/1/wrapped-key", &mut buffer)
        .ok_or_else(|| Failure::new(Code::ObjectDamaged, "a wrapped key does not open"))?;
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    key.copy_from_slice(plain.get(..KEY_BYTES).unwrap_or(&[0; KEY_BYTES]));
    Ok(key)
}

fn shared_key(
    private: &SecretKey,
    peer: &PublicKey,
    ephemeral: &PublicKey,
    recipient: &PublicKey,
) -> Outcome<SecretKey> {
    let failed = Failure::new(Code::ObjectDamaged, "a public key is not valid");
    let salt = [ephemeral.as_slice(), recipient.as_slice()].concat();
    agree(&agreement_key(private)?, UnparsedPublicKey::new(&X25519, peer), failed, |secret| {
        Ok(derive(secret, &salt, "lifeboat/1/wrap"))
    })
}

/// An Ed25519 key pair.
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// The key pair of a seed.
    pub fn from_seed(seed: &SecretKey) -> Outcome<Self> {
        Ed25519KeyPair::from_seed_unchecked(seed.as_ref())
            .map(Self)
            .map_err(|_| Failure::new(Code::Internal, "a signing seed is not valid"))
    }

    /// The public half.
    pub fn public(&self) -> [u8; 32] {
        let mut public = [0; 32];
        public.copy_from_slice(self.0.public_key().as_ref());
        public
    }

    /// Signs a message.
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        let mut out = [0; SIGNATURE_BYTES];
        out.copy_from_slice(self.0.sign(message).as_ref());
        out
    }
}

/// Whether `signature` over `message` was made by the owner of `public`.
pub fn signature_holds(public: &[u8; 32], message: &[u8], signature: &[u8]) -> bool {
    signature::UnparsedPublicKey::new(&signature::ED25519, public)
        .verify(message, signature)
        .is_ok()
}
