//! One question to several members: the first good answer counts.
//!
//! A member that is frozen accepts connections and says nothing; one that is cut off says nothing
//! either; and for as long as followers believe in a leader that is gone, whatever is sent to them
//! is lost without a word. So silence is met by asking the next member, after a part of the time,
//! and then the first one again.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::{Either, LocalBoxFuture, select};
use futures::stream::FuturesUnordered;
use lifeboat_environment::{SystemTimer, Timer};
use serde::de::DeserializeOwned;

use super::member::Trouble;
use super::wire::{Header, Range, Txn};
use super::{EtcdStore, Known};
use crate::{Revision, StoreError};

/// How often a question may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Care {
    /// As often as is useful.
    Repeat,
    /// Never again after it may have reached a member.
    Once,
}

pub(super) trait Answer: DeserializeOwned {
    fn header(&self) -> Header;
}

impl Answer for Range {
    fn header(&self) -> Header {
        self.header
    }
}

impl Answer for Txn {
    fn header(&self) -> Header {
        self.header
    }
}

/// How one attempt ended.
struct Attempt {
    member: usize,
    sent: Duration,
    /// What was known when it was sent: an answer must not be older.
    known: Known,
    result: Result<Bytes, Trouble>,
}

pub(super) struct Race<'a> {
    store: &'a EtcdStore,
    path: &'static str,
    request: Bytes,
    care: Care,
    deadline: Duration,
    closed: bool,
    pending: FuturesUnordered<LocalBoxFuture<'a, Attempt>>,
    /// When to ask one more member.
    next_at: Duration,
    /// Members that did nothing, since the last one that may have.
    undone: usize,
    /// Attempts that ended, but may have done what was asked.
    unknown: usize,
    /// What each member's trouble was.
    troubles: BTreeMap<usize, String>,
    /// Members whose history is not the one that is known, and what they had.
    strange: BTreeMap<usize, Revision>,
}

impl<'a> Race<'a> {
    pub fn new(
        store: &'a EtcdStore,
        path: &'static str,
        request: Bytes,
        care: Care,
        deadline: Duration,
    ) -> Self {
        Self {
            store,
            path,
            request,
            care,
            deadline,
            closed: false,
            pending: FuturesUnordered::new(),
            next_at: Duration::ZERO,
            undone: 0,
            unknown: 0,
            troubles: BTreeMap::new(),
            strange: BTreeMap::new(),
        }
    }

    /// Whether every member that may have done something has given a good answer.
    pub fn is_alone(&self) -> bool {
        self.pending.is_empty() && self.unknown == 0
    }

    /// Asks nobody else any more; what was asked may still answer.
    pub fn ask_no_more(&mut self) {
        self.closed = true;
    }

    /// The next good answer.
    pub async fn next<T: Answer>(&mut self) -> Result<T, StoreError> {
        loop {
            self.store.check()?;
            let now = SystemTimer.elapsed();
            if self.may_ask() && now >= self.next_at && now < self.deadline {
                self.ask(now);
            }
            if self.pending.is_empty() && !self.may_ask() {
                return Err(self.give_up());
            }
            let until =
                if self.may_ask() { self.next_at.min(self.deadline) } else { self.deadline };
            let wait = SystemTimer.sleep(until.saturating_sub(now));
            let attempt = if self.pending.is_empty() {
                wait.await;
                None
            } else {
                // An answer that is there counts, also if this process slept past the deadline.
                match select(self.pending.next(), wait).await {
                    Either::Left((attempt, _)) => attempt,
                    Either::Right(_) => None,
                }
            };
            match attempt {
                Some(attempt) => {
                    if let Some(answer) = self.weigh(attempt)? {
                        return Ok(answer);
                    }
                }
                None if SystemTimer.elapsed() >= self.deadline => return Err(self.give_up()),
                None => {}
            }
        }
    }

    fn may_ask(&self) -> bool {
        !self.closed && (self.care == Care::Repeat || self.is_alone())
    }

    /// Asks one more member.
    fn ask(&mut self, now: Duration) {
        let Some(member) = self.store.next_member() else { return };
        self.next_at = now.saturating_add(self.patience());
        let (store, path, request) = (self.store, self.path, self.request.clone());
        let known = *store.known.borrow();
        self.pending.push(Box::pin(async move {
            let result = store.ask(member, path, request).await;
            Attempt { member, sent: now, known, result }
        }));
    }

    /// How long a member may be silent before the next one is asked. Twice what is usual, so that
    /// a slow link is not answered by more traffic; a part of the whole, so that there is time for
    /// others. After a call without an answer there is nothing to be patient for.
    fn patience(&self) -> Duration {
        let whole = self.store.timeout;
        if self.store.troubled.get() {
            return whole / 10;
        }
        (self.store.usual.get() * 2).clamp(whole / 5, whole / 3)
    }

    /// What an attempt brought; nothing if others must be asked or waited for.
    fn weigh<T: Answer>(&mut self, attempt: Attempt) -> Result<Option<T>, StoreError> {
        let Attempt { member, sent, known, result } = attempt;
        let answer = match result {
            Ok(bytes) => serde_json::from_slice::<T>(&bytes)
                .map_err(|error| Trouble::Unknown(format!("an answer that is none: {error}"))),
            Err(trouble) => Err(trouble),
        };
        match answer {
            Ok(answer) => {
                let header = answer.header();
                if self.store.accept(known, header) {
                    self.store.answered(member, SystemTimer.elapsed().saturating_sub(sent));
                    return Ok(Some(answer));
                }
                self.strange.insert(member, header.revision);
                self.unknown = self.unknown.saturating_add(1);
                // One member may have been restored alone, or have slept; not most of them.
                if self.strange.len() * 2 > self.store.members.len() {
                    return Err(self.store.regress(known, header));
                }
                self.failed(member, "its history is another one".to_owned(), false);
            }
            Err(Trouble::Undone(why)) => self.failed(member, why, true),
            Err(Trouble::Unknown(why)) => {
                self.unknown = self.unknown.saturating_add(1);
                self.failed(member, why, false);
            }
            Err(Trouble::Refused(why) | Trouble::Stranger(why)) if self.is_alone() => {
                return Err(StoreError::Denied(why));
            }
            Err(Trouble::Refused(why) | Trouble::Stranger(why)) => {
                return Err(StoreError::Unavailable(why));
            }
        }
        Ok(None)
    }

    /// Turns to the next member at once; after a full round of members that did nothing, later.
    fn failed(&mut self, member: usize, why: String, undone: bool) {
        self.store.demote(member);
        self.troubles.insert(member, why);
        self.undone = if undone { self.undone.saturating_add(1) } else { 0 };
        let round = self.undone > 0 && self.undone.is_multiple_of(self.store.members.len());
        let pause = if round { self.store.timeout / 10 } else { Duration::ZERO };
        let pause = if undone { pause } else { self.store.timeout / 20 };
        self.next_at = self.next_at.min(SystemTimer.elapsed().saturating_add(pause));
    }

    fn give_up(&self) -> StoreError {
        self.store.troubled.set(true);
        let names = self.store.members.iter().enumerate().map(|(index, member)| {
            let why = self.troubles.get(&index).map_or("no answer", String::as_str);
            format!("{}: {why}", member.name)
        });
        StoreError::Unavailable(names.collect::<Vec<_>>().join("; "))
    }
}

impl EtcdStore {
    /// Takes the member whose turn it is, and puts it behind the others.
    fn next_member(&self) -> Option<usize> {
        let mut order = self.order.borrow_mut();
        let member = *order.first()?;
        order.rotate_left(1);
        Some(member)
    }

    fn demote(&self, member: usize) {
        let mut order = self.order.borrow_mut();
        order.retain(|other| *other != member);
        order.push(member);
    }

    fn answered(&self, member: usize, took: Duration) {
        let mut order = self.order.borrow_mut();
        order.retain(|other| *other != member);
        order.insert(0, member);
        self.usual.set((self.usual.get() * 7 + took) / 8);
        self.troubled.set(false);
    }

    /// Whether an answer belongs to the history that was known when the question was sent.
    fn accept(&self, known: Known, header: Header) -> bool {
        let other = known.cluster != 0 && header.cluster_id != known.cluster;
        if other || header.revision < known.revision {
            return false;
        }
        let mut now = self.known.borrow_mut();
        // Two members may be asked for the first time at once, and be of two clusters.
        if now.cluster != 0 && now.cluster != header.cluster_id {
            return false;
        }
        now.cluster = header.cluster_id;
        now.revision = now.revision.max(header.revision);
        true
    }

    /// Nothing may be decided from this store any more.
    fn regress(&self, known: Known, header: Header) -> StoreError {
        let (known, found) = (known.revision, header.revision);
        self.known.borrow_mut().regressed = Some((known, found));
        StoreError::Regressed { known, found }
    }
}
