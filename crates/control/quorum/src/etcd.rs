//! A quorum store in three failure domains: etcd, through its JSON gateway.
//!
//! What must hold while any one member is dead, frozen or cut off, or the leader was just lost:
//! a call ends within its time, and as long as a majority lives, soon a call succeeds. So a call
//! that gets no answer asks other members too ([`race`]). That is harmless for a read. A commit
//! is sent again only if it cannot have its effect twice ([`commit`]).

mod access;
mod admin;
mod commit;
mod member;
mod race;
mod wire;

use std::cell::{Cell, RefCell};
use std::time::Duration;

use bytes::Bytes;
use futures::future::LocalBoxFuture;
use lifeboat_environment::{SystemTimer, Timer};
use lifeboat_telemetry::Outcome;
use serde_json::Value;

pub use access::{EtcdAccess, Login};
pub use admin::EtcdAdmin;
use member::Member;
use race::{Care, Race};

use crate::{Commit, Entry, Revision, Snapshot, Store, StoreError, Transaction};

/// How many keys a page has: with values of a few KiB, some MiB.
const PAGE: u32 = 1000;
/// What a read may bring into memory.
const MAX_READ_BYTES: usize = 64 << 20;

/// An etcd cluster. Belongs to one thread with a tokio runtime.
#[derive(Debug)]
pub struct EtcdStore {
    members: Vec<Member>,
    login: Option<Login>,
    timeout: Duration,
    /// Which member to ask first, second, …: the last one that answered leads.
    order: RefCell<Vec<usize>>,
    known: RefCell<Known>,
    token: RefCell<Option<String>>,
    /// How long an answer usually takes.
    usual: Cell<Duration>,
    /// Whether the last call got no answer.
    troubled: Cell<bool>,
}

/// What the store was seen to be.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    cluster: u64,
    revision: Revision,
    regressed: Option<(Revision, Revision)>,
}

impl EtcdStore {
    /// Of a cluster, with a limit for each call. Asks nobody yet.
    pub fn new(access: &EtcdAccess, timeout: Duration) -> Outcome<Self> {
        let members = access.members(timeout)?;
        Ok(Self {
            order: RefCell::new((0..members.len()).collect()),
            members,
            login: access.login().cloned(),
            timeout,
            known: RefCell::default(),
            token: RefCell::default(),
            usual: Cell::default(),
            troubled: Cell::default(),
        })
    }

    fn deadline(&self) -> Duration {
        SystemTimer.elapsed().saturating_add(self.timeout)
    }

    fn check(&self) -> Result<(), StoreError> {
        match self.known.borrow().regressed {
            Some((known, found)) => Err(StoreError::Regressed { known, found }),
            None => Ok(()),
        }
    }

    /// A page at a time, all at the revision of the first one.
    async fn read_pages(&self, prefix: &str, since: Revision) -> Result<Snapshot, StoreError> {
        self.check()?;
        let deadline = self.deadline();
        let (mut revision, mut start) = (0, prefix.to_owned());
        let (mut entries, mut size): (Vec<Entry>, usize) = (Vec::new(), 0);
        loop {
            let request = wire::range(prefix, &start, since, revision, PAGE);
            let request = body(&request);
            let mut race = Race::new(self, "/v3/kv/range", request, Care::Repeat, deadline);
            let page: wire::Range = race.next().await?;
            let first = revision == 0;
            if first {
                revision = page.header.revision;
            }
            let found = wire::entries(page.kvs)?;
            size = found.iter().fold(size, |size, entry| size.saturating_add(entry.value.len()));
            if size > MAX_READ_BYTES {
                return Err(StoreError::Unavailable(format!(
                    "more than {MAX_READ_BYTES} bytes lie below {prefix}"
                )));
            }
            entries.extend(found);
            match entries.last() {
                Some(last) if page.more => start = format!("{}\0", last.key),
                _ => return Ok(Snapshot { revision, entries }),
            }
        }
    }
}

impl Store for EtcdStore {
    fn read<'a>(
        &'a self,
        prefix: &'a str,
        since: Revision,
    ) -> LocalBoxFuture<'a, Result<Snapshot, StoreError>> {
        Box::pin(self.read_pages(prefix, since))
    }

    fn commit(&self, transaction: Transaction) -> LocalBoxFuture<'_, Result<Commit, StoreError>> {
        Box::pin(commit::commit(self, transaction))
    }
}

fn body(request: &Value) -> Bytes {
    Bytes::from(request.to_string())
}
