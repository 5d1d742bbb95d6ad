//! One object into all regions: looked up, encoded once, created once, never overwritten.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use lifeboat_environment::Environment;
use lifeboat_objects::{Blocking, Key};
use lifeboat_repository::ask::ask;
use lifeboat_repository::keys::StreamKeys;
use lifeboat_repository::object::{ObjectType, decode_any};
use lifeboat_repository::regions::Regions;
use lifeboat_repository::repository::Repository;
use lifeboat_repository::wal_file::{decode_digest, digest_end};
use lifeboat_telemetry::{Code, Failure, Outcome};

/// A rival that creates at the same moment is looked at again; it cannot go on for ever.
const ROUNDS: u32 = 4;

/// The regions of one call, of which those that fail are left out from then on.
pub(crate) struct Places<'a> {
    pub(crate) environment: &'a Environment,
    pub(crate) blocking: &'a Blocking,
    pub(crate) keys: &'a StreamKeys,
    pub(crate) regions: &'a Regions,
    /// The moment, as `Clock::elapsed` counts, at which all must be done.
    pub(crate) end: Duration,
    failed: Mutex<BTreeMap<String, Failure>>,
}

/// What one object is to be.
pub(crate) struct Wanted<'a> {
    pub(crate) kind: ObjectType,
    pub(crate) key: &'a Key,
    pub(crate) digest: [u8; 32],
}

/// Where an object is now.
pub(crate) struct Placed {
    /// The regions that hold it durably.
    pub(crate) regions: Vec<String>,
    /// Whether a region lacked it.
    pub(crate) new: bool,
    /// Its stored bytes, if they were at hand.
    pub(crate) bytes: Option<Bytes>,
}

impl<'a> Places<'a> {
    pub(crate) fn new(
        environment: &'a Environment,
        blocking: &'a Blocking,
        keys: &'a StreamKeys,
        regions: &'a Regions,
        end: Duration,
    ) -> Self {
        Self { environment, blocking, keys, regions, end, failed: Mutex::default() }
    }

    /// The regions that do not have everything, and why.
    pub(crate) fn lag(&self) -> BTreeMap<String, String> {
        let skipped = self.regions.skipped().iter();
        let skipped = skipped.map(|skipped| (skipped.region.clone(), skipped.failure.to_string()));
        let failed = self.failed();
        let failed = failed.iter().map(|(region, failure)| (region.clone(), failure.to_string()));
        skipped.chain(failed).collect()
    }

    /// Makes sure that every region that answers has the object: the same bytes everywhere, those
    /// that are there already if any are. Other content under the name is a split brain.
    pub(crate) fn place(
        &self,
        wanted: &Wanted<'_>,
        encode: impl FnOnce() -> Outcome<Bytes>,
    ) -> Outcome<Placed> {
        let mut encode = Some(encode);
        let mut bytes = None;
        for _ in 0..ROUNDS {
            let (have, lack) = self.look(wanted)?;
            let mut regions = names(&have);
            if lack.is_empty() {
                return Ok(Placed { regions, new: bytes.is_some(), bytes });
            }
            // A copy that is there wins over an encoding of our own, so that regions stay alike.
            if let Some(first) = have.first() {
                match self.read(first, wanted) {
                    Ok(stored) => bytes = Some(stored),
                    Err(failure) => {
                        self.leave_out(first, failure);
                        continue;
                    }
                }
            } else if let Some(encode) = encode.take() {
                bytes = Some(encode()?);
                self.environment.failpoints().hit("push.encoded")?;
            }
            let Some(bytes) = bytes.clone() else { break };
            let (created, rival) = self.create(lack, wanted, &bytes);
            regions.extend(created);
            if rival {
                continue;
            }
            if regions.is_empty() {
                return Err(self.nobody(wanted));
            }
            return Ok(Placed { regions, new: true, bytes: Some(bytes) });
        }
        let message = format!("somebody else writes {} at the same time", wanted.key);
        Err(Failure::new(Code::StoreUnavailable, message).hint("The next attempt will tell."))
    }

    /// The whole object from a region that has it, its trailer checked.
    pub(crate) fn read_any(&self, placed: &Placed, wanted: &Wanted<'_>) -> Outcome<Bytes> {
        let mut last = self.nobody(wanted);
        for repository in self.active() {
            if placed.regions.iter().any(|region| region == repository.region()) {
                match self.read(repository, wanted) {
                    Ok(bytes) => return Ok(bytes),
                    Err(failure) => last = failure,
                }
            }
        }
        Err(last)
    }

    /// Which regions have the object and which lack it.
    fn look(&self, wanted: &Wanted<'_>) -> Outcome<(Vec<&Repository>, Vec<&Repository>)> {
        let (mut have, mut lack) = (Vec::new(), Vec::new());
        let end = digest_end(wanted.key);
        let looks = self.ask(self.active(), |repository| async move {
            match repository.store().get_range(wanted.key, 0..end).await {
                Ok(bytes) => Ok(Some(bytes)),
                Err(failure) if failure.code() == Code::ObjectMissing => Ok(None),
                Err(failure) => Err(failure),
            }
        });
        for (repository, bytes) in looks {
            let Some(bytes) = bytes else {
                lack.push(repository);
                continue;
            };
            match decode_digest(self.keys, wanted.key, &bytes) {
                Ok(found) if found == (wanted.kind, wanted.digest) => have.push(repository),
                // One flipped bit must not look like a split brain: what differs is read whole.
                Ok(_) => match self.read(repository, wanted) {
                    Ok(_) => return Err(self.split_brain(wanted, repository)),
                    Err(failure) => self.leave_out(repository, failure),
                },
                Err(failure) => self.leave_out(repository, failure),
            }
        }
        if have.is_empty() && lack.is_empty() {
            return Err(self.nobody(wanted));
        }
        Ok((have, lack))
    }

    fn read(&self, repository: &Repository, wanted: &Wanted<'_>) -> Outcome<Bytes> {
        let bytes = self.within_time(repository.store().get(wanted.key))?;
        decode_any(wanted.key, &bytes).map_err(|failure| failure.within(repository.region()))?;
        Ok(bytes)
    }

    /// Creates the object where it lacks; tells where it is now, and whether a rival was faster.
    fn create(
        &self,
        lack: Vec<&Repository>,
        wanted: &Wanted<'_>,
        bytes: &Bytes,
    ) -> (Vec<String>, bool) {
        let made = self.ask(lack, |repository| async move {
            match repository.store().create_seen(wanted.key, bytes.clone()).await {
                Ok(_) => Ok(true),
                Err(failure) if failure.code() == Code::ObjectConflict => Ok(false),
                Err(failure) => Err(failure),
            }
        });
        let rival = made.iter().any(|(_, made)| !made);
        let done = made.iter().filter(|(_, made)| *made);
        (done.map(|(repository, _)| repository.region().to_owned()).collect(), rival)
    }

    /// Asks regions at the same time. Who fails, or is much slower than another one, is left out
    /// from then on: PostgreSQL waits, and what one region holds is safe.
    pub(crate) fn ask<'r, T, F>(
        &self,
        repositories: Vec<&'r Repository>,
        question: impl Fn(&'r Repository) -> F,
    ) -> Vec<(&'r Repository, T)>
    where
        F: Future<Output = Outcome<T>>,
    {
        let clock = self.environment.clock();
        let left = self.end.saturating_sub(clock.elapsed());
        let questions = repositories.iter().map(|repository| question(repository)).collect();
        let answers = self.blocking.run(ask(clock, left, questions));
        let mut good = Vec::new();
        for (repository, answer) in repositories.into_iter().zip(answers) {
            match answer {
                Ok(answer) => good.push((repository, answer)),
                Err(failure) => self.leave_out(repository, failure),
            }
        }
        good
    }

    fn within_time<T>(&self, work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
        let left = self.end.saturating_sub(self.environment.clock().elapsed());
        let timed = self.blocking.run(async { tokio::time::timeout(left, work).await });
        timed.unwrap_or_else(|_| Err(deadline()))
    }

    /// The regions that have not failed yet.
    pub(crate) fn active(&self) -> Vec<&'a Repository> {
        let failed = self.failed();
        let all = self.regions.all().iter();
        all.filter(|repository| !failed.contains_key(repository.region())).collect()
    }

    fn failed(&self) -> MutexGuard<'_, BTreeMap<String, Failure>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave_out(&self, repository: &Repository, failure: Failure) {
        self.failed().entry(repository.region().to_owned()).or_insert(failure);
    }

    fn nobody(&self, wanted: &Wanted<'_>) -> Failure {
        let nearest = self.regions.nearest().region();
        let (code, hint) = match self.failed().get(nearest) {
            Some(failure) => (failure.code(), failure.hint_text().map(str::to_owned)),
            None => (Code::StoreUnavailable, None),
        };
        let lines = self.lag().into_iter().map(|(region, why)| format!("{region}: {why}"));
        Failure::new(code, format!("no repository holds {} for sure", wanted.key))
            .details(lines)
            .hint(hint.unwrap_or_else(|| "PostgreSQL keeps the file and asks again.".to_owned()))
    }

    fn split_brain(&self, wanted: &Wanted<'_>, repository: &Repository) -> Failure {
        let region = repository.region();
        let message = format!("{region} holds other WAL under the name of {}", wanted.key);
        Failure::new(Code::SplitBrain, message).hint(
            "Two servers have written this part of the history, or a copy of the cluster archives \
             here. Nothing was overwritten. Find the second server and stop one of them.",
        )
    }
}

fn names(repositories: &[&Repository]) -> Vec<String> {
    repositories.iter().map(|repository| repository.region().to_owned()).collect()
}

pub(crate) fn deadline() -> Failure {
    Failure::new(Code::DeadlineExceeded, "no answer in time")
        .hint("See whether the repositories can be reached; `--deadline` allows more time.")
}
