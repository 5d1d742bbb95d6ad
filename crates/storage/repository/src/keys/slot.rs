//! Key slots: each seals the vault's secrets under something that a person or a machine keeps.

use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lifeboat_environment::Environment;
use lifeboat_telemetry::{Code, Failure, Outcome};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::crypt::{self, Aead, SecretKey};
use crate::keys::{Vault, VaultSecrets};

/// Argon2id as RFC 9106 section 4 recommends second: 64 MiB, 3 passes, 4 lanes.
const ARGON_MEMORY_KIB: u32 = 64 * 1024;
const ARGON_PASSES: u32 = 3;
const ARGON_LANES: u32 = 4;
/// A hostile slot may not ask for more.
const ARGON_MEMORY_KIB_MAX: u32 = 1024 * 1024;
const ARGON_PASSES_MAX: u32 = 16;

/// What opens a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SlotKind {
    /// A passphrase, stretched by Argon2id.
    Passphrase,
    /// A random key shown once and kept on paper.
    RecoveryKey,
    /// The bytes of a file.
    KeyFile,
    /// Nothing: only in a vault with `encryption: none`.
    Open,
}

impl SlotKind {
    /// As people and JSON write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Passphrase => "passphrase",
            Self::RecoveryKey => "recovery-key",
            Self::KeyFile => "key-file",
            Self::Open => "open",
        }
    }
}

/// The body of a slot object.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlotBody {
    /// What opens it.
    pub kind: SlotKind,
    /// What people call it.
    pub label: String,
    /// When it was made.
    pub created_at: jiff::Timestamp,
    /// Argon2id memory in KiB; zero where no passphrase is stretched.
    pub argon_memory_kib: u32,
    /// Argon2id passes.
    pub argon_passes: u32,
    /// Argon2id lanes.
    pub argon_lanes: u32,
    /// Salt, base64.
    pub salt: String,
    /// The vault's secrets, sealed, base64.
    pub sealed: String,
}

/// The key on paper: 32 random bytes, printed in groups with a checksum.
pub struct RecoveryKey(SecretKey);

impl RecoveryKey {
    /// A new key.
    pub fn create(environment: &Environment) -> Self {
        Self(crypt::random_key(environment))
    }

    /// `LIFEBOAT-` and nine groups of eight hexadecimal digits; the last is a checksum.
    pub fn print(&self) -> Zeroizing<String> {
        let sum = &crypt::sha256(self.0.as_ref())[..4];
        let digits = Zeroizing::new(hex::encode_upper([self.0.as_ref(), sum].concat()));
        let mut text = Zeroizing::new("LIFEBOAT".to_owned());
        for start in (0..digits.len()).step_by(8) {
            text.push('-');
            text.push_str(&digits[start..start + 8]);
        }
        text
    }

    /// Reads what a person typed: any case, spaces and dashes ignored.
    pub fn parse(text: &str) -> Outcome<Self> {
        let wrong = || {
            Failure::new(Code::KeyUnavailable, "the recovery key is mistyped")
                .hint("It is the word LIFEBOAT and nine groups of eight digits 0-9 A-F.")
        };
        let upper = Zeroizing::new(text.trim().to_ascii_uppercase());
        let digits = upper.strip_prefix("LIFEBOAT").ok_or_else(wrong)?;
        let digits: Zeroizing<String> = Zeroizing::new(
            digits.chars().filter(|digit| !digit.is_whitespace() && *digit != '-').collect(),
        );
        let bytes = Zeroizing::new(hex::decode(digits.as_bytes()).map_err(|_| wrong())?);
        let (key, sum) = bytes.split_at_checked(crypt::KEY_BYTES).ok_or_else(wrong)?;
        if sum != &crypt::sha256(key)[..4] {
            return Err(wrong());
        }
        let mut out = Zeroizing::new([0; crypt::KEY_BYTES]);
        out.copy_from_slice(key);
        Ok(Self(out))
    }
}

/// What a person or a file brings to open a slot.
pub enum OpenWith {
    /// A passphrase.
    Passphrase(Zeroizing<Vec<u8>>),
    /// The recovery key.
    RecoveryKey(RecoveryKey),
    /// The bytes of a key file.
    KeyFile(Zeroizing<Vec<u8>>),
    /// Nothing.
    Open,
}

impl OpenWith {
    /// The kind of slot that this opens.
    pub fn kind(&self) -> SlotKind {
        match self {
            Self::Passphrase(_) => SlotKind::Passphrase,
            Self::RecoveryKey(_) => SlotKind::RecoveryKey,
            Self::KeyFile(_) => SlotKind::KeyFile,
            Self::Open => SlotKind::Open,
        }
    }
}

/// Seals the vault's secrets in a new slot.
pub fn make_slot(
    environment: &Environment,
    secrets: &VaultSecrets,
    with: &OpenWith,
    label: &str,
) -> Outcome<SlotBody> {
    let passphrase = matches!(with, OpenWith::Passphrase(_));
    let salt: [u8; 32] = crypt::random_bytes(environment);
    let mut body = SlotBody {
        kind: with.kind(),
        label: label.to_owned(),
        created_at: environment.clock().now(),
        argon_memory_kib: if passphrase { ARGON_MEMORY_KIB } else { 0 },
        argon_passes: if passphrase { ARGON_PASSES } else { 0 },
        argon_lanes: if passphrase { ARGON_LANES } else { 0 },
        salt: STANDARD.encode(salt),
        sealed: String::new(),
    };
    let plain = secrets.to_bytes()?;
    body.sealed = match slot_key(&body, with, &salt)? {
        None => STANDARD.encode(&plain),
        Some(key) => {
            let mut sealed = plain.to_vec();
            Aead::new(&key)?.seal(0, &aad(secrets.vault(), &body), &mut sealed)?;
            STANDARD.encode(sealed)
        }
    };
    Ok(body)
}

/// Opens a slot; `Ok(None)` if it is of another kind or the secret is not the right one.
pub fn open_slot(vault: &Vault, body: &SlotBody, with: &OpenWith) -> Outcome<Option<VaultSecrets>> {
    if body.kind != with.kind() {
        return Ok(None);
    }
    let damaged = || Failure::new(Code::ObjectDamaged, "a key slot is not well formed");
    let salt = STANDARD.decode(&body.salt).map_err(|_| damaged())?;
    let mut sealed = Zeroizing::new(STANDARD.decode(&body.sealed).map_err(|_| damaged())?);
    let Some(key) = slot_key(body, with, &salt)? else {
        return VaultSecrets::from_bytes(vault, &sealed).map(Some);
    };
    match Aead::new(&key)?.open(0, &aad(vault, body), &mut sealed) {
        None => Ok(None),
        Some(plain) => VaultSecrets::from_bytes(vault, plain).map(Some),
    }
}

fn aad(vault: &Vault, body: &SlotBody) -> Vec<u8> {
    [b"lifeboat/1/slot/".as_slice(), &vault.id.0, format!("{:?}", body.kind).as_bytes()].concat()
}

fn slot_key(body: &SlotBody, with: &OpenWith, salt: &[u8]) -> Outcome<Option<SecretKey>> {
    let secret = match with {
        OpenWith::Open => return Ok(None),
        OpenWith::RecoveryKey(key) => Zeroizing::new(key.0.to_vec()),
        OpenWith::KeyFile(bytes) => bytes.clone(),
        OpenWith::Passphrase(passphrase) => stretch(body, passphrase, salt)?,
    };
    Ok(Some(crypt::derive(&secret, salt, "lifeboat/1/slot")))
}

fn stretch(body: &SlotBody, passphrase: &[u8], salt: &[u8]) -> Outcome<Zeroizing<Vec<u8>>> {
    if body.argon_memory_kib > ARGON_MEMORY_KIB_MAX || body.argon_passes > ARGON_PASSES_MAX {
        let message = "a key slot asks for more memory or time than version 1 allows";
        return Err(Failure::new(Code::LimitExceeded, message));
    }
    let bad = |error: argon2::Error| {
        Failure::new(Code::ObjectDamaged, format!("a key slot has impossible settings: {error}"))
    };
    let params = Params::new(body.argon_memory_kib, body.argon_passes, body.argon_lanes, Some(32))
        .map_err(bad)?;
    let mut out = Zeroizing::new(vec![0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase, salt, &mut out)
        .map_err(bad)?;
    Ok(out)
}
