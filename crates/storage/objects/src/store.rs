//! The store: what every other crate sees of a repository's bytes.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use jiff::Timestamp;
use lifeboat_environment::Environment;
use lifeboat_telemetry::{Code, Failure, Outcome};
use object_store::GetRange;

use crate::backend::Backend;
use crate::fault::Fault;
use crate::retry::{Attempts, Ended};
use crate::{Key, Location, Options};

/// No object is larger: each is one PUT (FORMAT, Objects).
pub const MAX_OBJECT: u64 = 64 << 20;

/// What a store tells of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stat {
    /// Length in bytes.
    pub size: u64,
    /// When it was made, by the store's clock.
    pub modified: Timestamp,
}

/// A repository's bytes; clones share everything. Wants a tokio runtime around its futures, and
/// the same one always, for connections live in it: see [`crate::Blocking`].
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    backend: Backend,
    location: Location,
    name: String,
    environment: Environment,
    options: Options,
}

impl Store {
    /// Prepares access; nothing is asked of the store yet.
    pub fn open(location: &Location, environment: &Environment, options: Options) -> Outcome<Self> {
        let inner = Inner {
            backend: Backend::open(location, environment)?,
            location: location.clone(),
            name: location.display(),
            environment: environment.clone(),
            options,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Where the store is.
    pub fn location(&self) -> &Location {
        &self.inner.location
    }

    /// Makes the root directory of a file repository, mode 0750. Buckets are made by people.
    pub async fn create_root(&self) -> Outcome<()> {
        let made = self.attempts().run("make the root", 0, || self.backend().create_root()).await;
        made.map_err(|ended| ended.or_missing("the root", self.name()))
    }

    /// A whole object. Stores do not check what they send: whoever reads checks the digest.
    pub async fn get(&self, key: &Key) -> Outcome<Bytes> {
        let read = self.read(key, MAX_OBJECT, None).await;
        read.map(|(_, bytes)| bytes).map_err(|ended| self.missing(key, ended))
    }

    /// Exactly the bytes of `range`. An object that is too short for them is damaged.
    pub async fn get_range(&self, key: &Key, range: Range<u64>) -> Outcome<Bytes> {
        let length = self.length(key, &range)?;
        if length == 0 {
            return Ok(Bytes::new());
        }
        let wanted = Some(GetRange::Bounded(range.clone()));
        let read = self.read(key, length, wanted).await;
        let (size, bytes) = read.map_err(|ended| self.missing(key, ended))?;
        if size < range.end || bytes.len() as u64 != length {
            let message = format!(
                "{key} in {} has {size} bytes, but byte {} is needed",
                self.name(),
                range.end
            );
            return Err(Failure::new(Code::ObjectDamaged, message)
                .hint("Run `lifeboat repo check --read-data` to learn what else is damaged."));
        }
        Ok(bytes)
    }

    /// The object's size and its last `length` bytes, or all of them.
    pub async fn get_tail(&self, key: &Key, length: u64) -> Outcome<(u64, Bytes)> {
        // Not every store knows suffix ranges, and none has one for an empty object.
        let Some(stat) = self.stat(key).await? else {
            return Err(self.missing(key, Ended::Absent));
        };
        let start = stat.size.saturating_sub(length);
        Ok((stat.size, self.get_range(key, start..stat.size).await?))
    }

    /// What the store tells of an object; `None` only if two looks by different means found none.
    pub async fn stat(&self, key: &Key) -> Outcome<Option<Stat>> {
        let denied = AtomicBool::new(false);
        let look = || async {
            if !denied.load(Ordering::Relaxed) {
                match self.backend().stat(key).await {
                    Err(Fault::Absent) => denied.store(true, Ordering::Relaxed),
                    other => return other.map(Some),
                }
            }
            // A HEAD has no body that could say that it is the bucket that is missing, and another
            // path to the answer is better proof than the same one again.
            match self.fetch(key, Some(GetRange::Bounded(0..1))).await {
                Err(Fault::Absent) => Ok(None),
                Err(Fault::Final { code: Code::ObjectDamaged, .. }) | Ok(_) => {
                    denied.store(false, Ordering::Relaxed);
                    Err(Fault::unknown("HEAD found nothing, but GET did"))
                }
                Err(other) => Err(other),
            }
        };
        let found = self.attempts().run(&format!("find {key}"), 0, look).await;
        found.map_err(|ended| self.missing(key, ended))
    }

    /// Deletes an object; one that is gone already is fine.
    pub async fn delete(&self, key: &Key) -> Outcome<()> {
        let delete = || self.backend().delete(key);
        match self.attempts().run(&format!("delete {key}"), 0, delete).await {
            Ok(()) | Err(Ended::Absent) => Ok(()),
            Err(Ended::Failed(failure)) => Err(failure),
        }
    }

    /// Whether a failure says that an object is absent: proved, not assumed.
    pub fn failure_is_absence(failure: &Failure) -> bool {
        failure.code() == Code::ObjectMissing
    }

    pub(crate) async fn read(
        &self,
        key: &Key,
        length: u64,
        range: Option<GetRange>,
    ) -> Result<(u64, Bytes), Ended> {
        let read = || self.fetch(key, range.clone());
        let size = usize::try_from(length).unwrap_or_default();
        self.attempts().run(&format!("read {key}"), size, read).await
    }

    /// One attempt to read.
    pub(crate) async fn fetch(
        &self,
        key: &Key,
        range: Option<GetRange>,
    ) -> Result<(u64, Bytes), Fault> {
        self.backend().read(key, range, self.inner.options.attempt_timeout).await
    }

    pub(crate) fn backend(&self) -> &Backend {
        &self.inner.backend
    }

    pub(crate) fn name(&self) -> &str {
        &self.inner.name
    }

    pub(crate) fn environment(&self) -> &Environment {
        &self.inner.environment
    }

    pub(crate) fn attempts(&self) -> Attempts<'_> {
        Attempts {
            environment: &self.inner.environment,
            options: &self.inner.options,
            location: &self.inner.name,
        }
    }

    pub(crate) fn missing(&self, key: &Key, ended: Ended) -> Failure {
        ended.or_missing(key.as_str(), self.name())
    }

    fn length(&self, key: &Key, range: &Range<u64>) -> Outcome<u64> {
        match range.end.checked_sub(range.start) {
            Some(length) if length <= MAX_OBJECT => Ok(length),
            _ => Err(too_large(&format!("bytes {range:?} of {key} are more"))),
        }
    }
}

impl std::fmt::Debug for Store {
    /// Neither the environment nor the back end is shown: they know credentials.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Store").field(&self.inner.name).finish()
    }
}

pub(crate) fn too_large(what: &str) -> Failure {
    Failure::new(Code::ObjectTooLarge, format!("{what} than the 64 MiB of one object"))
}
