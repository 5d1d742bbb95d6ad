//! How an identity gets to its host: sealed in the quorum store, opened once by a token.
//!
//! The token's secret opens what was sealed and is the password of a user who may do nothing but
//! read and take away this one key. Whoever takes it away was the first; anybody else learns that
//! the token was used.

use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use lifeboat_environment::Environment;
use lifeboat_repository::crypt::{Aead, SecretKey, derive, random_bytes, random_key};
use lifeboat_telemetry::{Code, Failure, Outcome};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Identity, Right, Rights};
use crate::{Commit, Keys, Login, Store, Transaction, decode};

const PREFIX: &str = "lifeboat-";
const ID_BYTES: usize = 8;

/// What a token says.
pub struct Invitation {
    id: [u8; ID_BYTES],
    secret: SecretKey,
}

/// An identity that waits for whoever has the token, as it stands in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sealed {
    /// Until when it may be opened.
    pub expires_at: Timestamp,
    sealed: String,
}

impl Invitation {
    /// A new one.
    pub fn new(environment: &Environment) -> Self {
        Self { id: random_bytes(environment), secret: random_key(environment) }
    }

    /// The token, to be told to whoever enrolls the host and to nobody else.
    pub fn token(&self) -> Zeroizing<String> {
        let secret = Zeroizing::new(hex::encode(self.secret.as_slice()));
        Zeroizing::new(format!("{PREFIX}{}-{}", hex::encode(self.id), secret.as_str()))
    }

    /// The user that the token is the password of.
    pub fn login(&self) -> Login {
        let password = derive(self.secret.as_slice(), &self.id, "lifeboat/1/invitation/password");
        let password = Zeroizing::new(hex::encode(password.as_slice()));
        Login { user: format!("invited-{}", hex::encode(self.id)), password }
    }

    /// Where the sealed identity stands.
    pub fn key(&self, keys: &Keys) -> String {
        format!("{}invitations/{}", keys.all(), hex::encode(self.id))
    }

    /// What its user may do.
    pub fn rights(&self, keys: &Keys) -> Rights {
        let key = self.key(keys);
        // etcd keeps one kind a range: the second one is the same key as a range of one.
        let read = Right { key: key.clone(), below: true, write: false };
        Rights(vec![read, Right { key, below: false, write: true }])
    }

    /// Seals an identity.
    pub fn seal(&self, identity: &Identity, expires_at: Timestamp) -> Outcome<Sealed> {
        let mut content = identity.encode()?;
        self.aead()?.seal(0, &self.context(expires_at), &mut content)?;
        Ok(Sealed { expires_at, sealed: STANDARD.encode(content) })
    }

    /// Opens it.
    pub fn open(&self, sealed: &Sealed, now: Timestamp) -> Outcome<Identity> {
        if now > sealed.expires_at {
            return Err(refused("it has expired"));
        }
        let mut content = Zeroizing::new(STANDARD.decode(&sealed.sealed).unwrap_or_default());
        let context = self.context(sealed.expires_at);
        let plain = self.aead()?.open(0, &context, &mut content).map(|plain| plain.to_vec());
        let plain = plain.map(Zeroizing::new).ok_or_else(|| refused("it opens nothing here"))?;
        serde_json::from_slice(&plain).map_err(|_| refused("what it opens is no identity"))
    }

    /// Takes the identity out of the store that its own user entered. Nobody else can take it after
    /// this; if it cannot be kept then, a new invitation is needed.
    pub async fn take(&self, store: &dyn Store, keys: &Keys, now: Timestamp) -> Outcome<Identity> {
        let key = self.key(keys);
        let used = || refused("it was used before");
        let found = store.read(&key, 0).await?;
        let entry = found.get(&key).ok_or_else(used)?;
        let sealed: Sealed = decode(entry)?;
        let identity = self.open(&sealed, now)?;
        match store.commit(Transaction::new().when(&key, entry.revision).delete(&key)).await? {
            Commit::Done(_) => Ok(identity),
            Commit::Conflict => Err(used()),
        }
    }

    /// One key a token, and so one counter.
    fn aead(&self) -> Outcome<Aead> {
        Aead::new(&derive(self.secret.as_slice(), &self.id, "lifeboat/1/invitation/content"))
    }

    fn context(&self, expires_at: Timestamp) -> Vec<u8> {
        [self.id.as_slice(), expires_at.to_string().as_bytes()].concat()
    }
}

impl FromStr for Invitation {
    type Err = Failure;

    fn from_str(text: &str) -> Outcome<Self> {
        let parse = || {
            let (id, secret) = text.trim().strip_prefix(PREFIX)?.split_once('-')?;
            let (mut parsed, mut key) = ([0; ID_BYTES], Zeroizing::new([0; 32]));
            hex::decode_to_slice(id, &mut parsed).ok()?;
            hex::decode_to_slice(secret, key.as_mut_slice()).ok()?;
            Some(Self { id: parsed, secret: key })
        };
        parse().ok_or_else(|| refused("it is not one, or not all of it"))
    }
}

/// A token that does not do.
pub(crate) fn refused(why: &str) -> Failure {
    Failure::new(Code::EnrollmentRefused, format!("the token was not accepted: {why}"))
        .hint("Ask for a new invitation: `lifeboat enroll invite`, where the authority lies.")
}
