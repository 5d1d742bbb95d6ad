//! A store in which orders are signed by who gives them and checked by who reads them.
//!
//! Whoever can write into the quorum store, a member's host included, still cannot give an order.
//! Older orders can be put back, and change nothing: epochs and tokens only grow, and agents
//! remember the highest.

use std::cell::RefCell;
use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::future::LocalBoxFuture;
use lifeboat_repository::crypt::{SigningKey, signature_holds};
use lifeboat_repository::ids::VerifyingKey;
use lifeboat_telemetry::Outcome;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Certificate, Identity, Role};
use crate::{Commit, Keys, Revision, Snapshot, Store, StoreError, Transaction};

const ORDER: &[u8] = b"lifeboat/1/quorum\0";

/// A value and who stands for it. The signature is over the key too: an order to one node is none
/// to another.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    #[serde(borrow)]
    value: &'a RawValue,
    /// None for the authority itself.
    by: Option<Certificate>,
    signature: String,
}

/// A store with signed orders.
pub struct SignedStore {
    inner: Box<dyn Store>,
    keys: Keys,
    root: VerifyingKey,
    by: Option<Certificate>,
    signer: SigningKey,
    /// Signatures of certificates that were checked.
    checked: RefCell<BTreeSet<String>>,
}

impl SignedStore {
    /// Over another store, as a daemon.
    pub fn new(inner: Box<dyn Store>, keys: Keys, identity: &Identity) -> Outcome<Self> {
        Ok(Self {
            inner,
            keys,
            root: identity.root,
            by: Some(identity.certificate.clone()),
            signer: identity.signing()?,
            checked: RefCell::default(),
        })
    }

    /// Over another store, as the authority.
    pub(super) fn of_authority(inner: Box<dyn Store>, keys: Keys, signer: SigningKey) -> Self {
        let root = VerifyingKey(signer.public());
        Self { inner, keys, root, by: None, signer, checked: RefCell::default() }
    }

    /// Who may stand for a key; nothing for what its writer tells of itself.
    fn who(&self, key: &str) -> Option<&'static [Role]> {
        let parts: Vec<&str> = key.strip_prefix(self.keys.all())?.split('/').collect();
        match parts.as_slice() {
            ["services", _, "epoch"] | ["services", _, "runs", ..] => {
                Some(&[Role::Controller, Role::Operator])
            }
            ["services", _, "desired", ..] | ["services", _, "receivers", _, _, "desired"] => {
                Some(&[Role::Controller])
            }
            _ => None,
        }
    }

    fn seal(&self, key: &str, value: &[u8]) -> Result<Vec<u8>, StoreError> {
        let refuse = |why: &str| StoreError::Denied(format!("{key}: {why}"));
        let value: &RawValue =
            serde_json::from_slice(value).map_err(|_| refuse("an order that is no JSON"))?;
        let signature = self.signer.sign(&message(key, value));
        let envelope =
            Envelope { value, by: self.by.clone(), signature: STANDARD.encode(signature) };
        serde_json::to_vec(&envelope).map_err(|_| refuse("an order that has no JSON"))
    }

    fn open(&self, key: &str, value: &[u8], who: &[Role]) -> Result<Vec<u8>, StoreError> {
        let refuse = |why: &str| StoreError::Damaged { key: key.to_owned(), why: why.to_owned() };
        let envelope: Envelope<'_> =
            serde_json::from_slice(value).map_err(|_| refuse("it is not signed"))?;
        let signer = match &envelope.by {
            None => self.root,
            Some(certificate) if !who.contains(&certificate.role) => {
                return Err(refuse("it is signed by who may not give such an order"));
            }
            Some(certificate) if !self.knows(certificate) => {
                return Err(refuse("it is signed by a stranger to the authority"));
            }
            Some(certificate) => certificate.key,
        };
        let signature = STANDARD.decode(&envelope.signature).unwrap_or_default();
        match signature_holds(&signer.0, &message(key, envelope.value), &signature) {
            true => Ok(envelope.value.get().as_bytes().to_vec()),
            false => Err(refuse("its signature does not hold")),
        }
    }

    fn knows(&self, certificate: &Certificate) -> bool {
        let whole = serde_json::to_string(certificate).unwrap_or_default();
        if self.checked.borrow().contains(&whole) {
            return true;
        }
        let holds = certificate.holds(&self.root);
        if holds {
            self.checked.borrow_mut().insert(whole);
        }
        holds
    }

    /// Signs what stands here without a good signature, as the authority: orders from before there
    /// was one. Returns how many; what changes meanwhile is left to the next call.
    pub async fn sign_all(&self) -> Result<usize, StoreError> {
        let found = self.inner.read(self.keys.all(), 0).await?;
        let mut count = 0;
        for entry in found.entries {
            let Some(who) = self.who(&entry.key) else { continue };
            if self.by.is_some() || self.open(&entry.key, &entry.value, who).is_ok() {
                continue;
            }
            let value = self.seal(&entry.key, &entry.value)?;
            let put = crate::Put { key: entry.key.clone(), value: Some(value) };
            let mut transaction = Transaction::new().when(entry.key, entry.revision);
            transaction.puts.push(put);
            if let Commit::Done(_) = self.inner.commit(transaction).await? {
                count += 1;
            }
        }
        Ok(count)
    }

    async fn look(&self, prefix: &str, since: Revision) -> Result<Snapshot, StoreError> {
        let mut snapshot = self.inner.read(prefix, since).await?;
        for entry in &mut snapshot.entries {
            if let Some(who) = self.who(&entry.key) {
                entry.value = self.open(&entry.key, &entry.value, who)?;
            }
        }
        Ok(snapshot)
    }

    async fn change(&self, mut transaction: Transaction) -> Result<Commit, StoreError> {
        transaction.check()?;
        for put in &mut transaction.puts {
            let Some(who) = self.who(&put.key) else { continue };
            if self.by.as_ref().is_some_and(|by| !who.contains(&by.role)) {
                let why = format!("{}: this process may not give such an order", put.key);
                return Err(StoreError::Denied(why));
            }
            if let Some(value) = &put.value {
                put.value = Some(self.seal(&put.key, value)?);
            }
        }
        self.inner.commit(transaction).await
    }
}

impl Store for SignedStore {
    fn read<'a>(
        &'a self,
        prefix: &'a str,
        since: Revision,
    ) -> LocalBoxFuture<'a, Result<Snapshot, StoreError>> {
        Box::pin(self.look(prefix, since))
    }

    fn commit(&self, transaction: Transaction) -> LocalBoxFuture<'_, Result<Commit, StoreError>> {
        Box::pin(self.change(transaction))
    }
}

/// No key contains a zero byte in front of its end: names are words.
fn message(key: &str, value: &RawValue) -> Vec<u8> {
    [ORDER, key.as_bytes(), b"\0", value.get().as_bytes()].concat()
}
