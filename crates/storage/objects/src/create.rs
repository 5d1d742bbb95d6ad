//! Create once: afterwards it is known whose bytes the name holds.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use lifeboat_telemetry::{Code, Failure, Outcome};

use crate::fault::Fault;
use crate::retry::Ended;
use crate::store::{MAX_OBJECT, too_large};
use crate::{Key, Store};

/// What a create found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// The object is new, or an attempt of ours had made it although its answer got lost.
    New,
    /// An object with the same bytes was there already.
    Identical,
}

/// How much of an object that is in place has to agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Agreement {
    Bytes,
    /// The name is the digest of the content: a length suffices to tell a torn object.
    Size,
}

/// What lies under a name.
enum Found {
    Nothing,
    Same,
    Other,
}

impl Store {
    /// Creates an object with one PUT; the store checks its SHA-256 where it can. Where the name
    /// is taken, or an answer got lost, the object is read: the same bytes are success, other ones
    /// are [`Code::ObjectConflict`].
    pub async fn create(&self, key: &Key, bytes: Bytes) -> Outcome<Created> {
        self.create_with(key, bytes, Agreement::Bytes).await
    }

    /// Creates an object whose name is the digest of its content. An object that is in place is
    /// compared by size only; whoever reads it checks the digest.
    pub async fn create_by_digest(&self, key: &Key, bytes: Bytes) -> Outcome<Created> {
        self.create_with(key, bytes, Agreement::Size).await
    }

    /// Creates an object and reads it back, for objects on whose presence others rely, such as
    /// manifests: a store that acknowledges what it does not keep is found out here.
    pub async fn create_verified(&self, key: &Key, bytes: Bytes) -> Outcome<Created> {
        let created = self.create(key, bytes.clone()).await?;
        let read = self.read(key, bytes.len() as u64, None).await;
        let what = match read {
            Ok((_, found)) if found == bytes => return Ok(created),
            Ok((size, _)) => format!("returns {size} other bytes"),
            Err(Ended::Absent) => "does not have it".to_owned(),
            Err(Ended::Failed(failure)) => return Err(failure.within("reading back")),
        };
        Err(self.lied(key, bytes.len(), &what))
    }

    /// Creates an object and looks whether it is there in its size: what acknowledges and keeps
    /// nothing must not count as a copy. A directory has synced it, and is believed.
    pub async fn create_seen(&self, key: &Key, bytes: Bytes) -> Outcome<Created> {
        let length = bytes.len();
        let created = self.create(key, bytes).await?;
        if created == Created::Identical || self.location().directory().is_some() {
            return Ok(created);
        }
        match self.stat(key).await? {
            Some(found) if found.size == length as u64 => Ok(created),
            Some(found) => Err(self.lied(key, length, &format!("holds {} bytes", found.size))),
            None => Err(self.lied(key, length, "does not have it")),
        }
    }

    fn lied(&self, key: &Key, length: usize, what: &str) -> Failure {
        let message = format!("{} acknowledged {key}, {length} bytes, but {what}", self.name());
        Failure::new(Code::ObjectDamaged, message)
            .hint("Do not trust this store: run `lifeboat repo check --read-data`.")
    }

    async fn create_with(&self, key: &Key, bytes: Bytes, agreement: Agreement) -> Outcome<Created> {
        if bytes.len() as u64 > MAX_OBJECT {
            return Err(too_large(&format!("{key} has {} bytes, more", bytes.len())));
        }
        // Whether an earlier attempt may have created the object. Set before each PUT, for a
        // timeout drops the attempt where it stands.
        let unsure = AtomicBool::new(false);
        let attempt = || async {
            let before = unsure.swap(true, Ordering::Relaxed);
            if before {
                match self.found(key, &bytes, agreement).await? {
                    Found::Same => return self.settled(key, Created::New).await,
                    Found::Other => return Ok(None),
                    Found::Nothing => {}
                }
            }
            match self.backend().put(key, bytes.clone()).await {
                Ok(()) => Ok(Some(Created::New)),
                Err(Fault::Exists) => {
                    // Refused: this attempt has made nothing.
                    unsure.store(before, Ordering::Relaxed);
                    match self.found(key, &bytes, agreement).await? {
                        Found::Same if before => self.settled(key, Created::New).await,
                        Found::Same => self.settled(key, Created::Identical).await,
                        Found::Other => Ok(None),
                        // S3 answers 409 where a rival was faster and then failed.
                        Found::Nothing => Err(Fault::Exists),
                    }
                }
                Err(fault @ Fault::Transient { landed: false, .. }) => {
                    unsure.store(before, Ordering::Relaxed);
                    Err(fault)
                }
                // A write never proves absence.
                Err(Fault::Absent) => Err(Fault::unknown("the store says: not found")),
                Err(other) => Err(other),
            }
        };
        let created = self.attempts().run(&format!("create {key}"), bytes.len(), attempt).await;
        match created.map_err(|ended| self.missing(key, ended))? {
            Some(created) => Ok(created),
            None => {
                let message = format!("{key} in {} holds other content", self.name());
                Err(Failure::new(Code::ObjectConflict, message)
                    .hint("Find out who else writes there; nothing was overwritten."))
            }
        }
    }

    async fn settled(&self, key: &Key, created: Created) -> Result<Option<Created>, Fault> {
        self.backend().settle(key).await?;
        Ok(Some(created))
    }

    async fn found(&self, key: &Key, bytes: &Bytes, agreement: Agreement) -> Result<Found, Fault> {
        if agreement == Agreement::Size {
            return match self.backend().stat(key).await {
                Ok(stat) if stat.size == bytes.len() as u64 => Ok(Found::Same),
                Ok(_) => Ok(Found::Other),
                Err(Fault::Absent) => Ok(Found::Nothing),
                Err(other) => Err(other),
            };
        }
        let first = match self.fetch(key, None).await {
            Ok((_, first)) if first == bytes => return Ok(Found::Same),
            Ok((_, first)) => first,
            Err(Fault::Absent) => return Ok(Found::Nothing),
            Err(other) => return Err(other),
        };
        // A conflict raises an alarm: one damaged answer must not.
        match self.fetch(key, None).await? {
            (_, second) if second == bytes => Ok(Found::Same),
            (_, second) if second == first => Ok(Found::Other),
            _ => Err(Fault::unknown("two reads gave different bytes")),
        }
    }
}
