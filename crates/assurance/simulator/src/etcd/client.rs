//! The store as one process sees it.

use std::cell::Cell;
use std::time::Duration;

use futures::StreamExt;
use futures::future::{Either, LocalBoxFuture, select};
use futures::stream::FuturesUnordered;
use lifeboat_environment::Timer;
use lifeboat_quorum::{Commit, Revision, Snapshot, Store, StoreError, Transaction};

use super::{Entry, Etcd, Moment, Request};
use crate::executor::{ProcessId, SimTimer};
use crate::message::{Reply, Unanswered};

/// A client of the model of etcd. As the real one does, it meets silence by asking other members
/// too, where that is harmless: a read, and a commit that can have its effect only once.
pub struct SimStore {
    etcd: Etcd,
    process: ProcessId,
    timer: SimTimer,
    timeout: Duration,
    /// The member that answered last.
    leads: Cell<usize>,
    known: Cell<Revision>,
    troubled: Cell<bool>,
    regressed: Cell<Option<(Revision, Revision)>>,
}

/// How an answer comes back.
type Asked<A> = Result<A, StoreError>;

impl SimStore {
    pub(super) fn new(etcd: Etcd, process: ProcessId, timeout: Duration) -> Self {
        let sim = &etcd.inner.sim;
        let host = sim.host_of(process);
        let here = etcd.inner.members.iter().position(|member| sim.host_of(member.process) == host);
        let timer = sim.timer(process);
        let leads = Cell::new(here.unwrap_or_default());
        let (known, troubled) = (Cell::new(0), Cell::new(false));
        let regressed = Cell::new(None);
        Self { etcd, process, timer, timeout, leads, known, troubled, regressed }
    }

    /// Asks one member after the other until one answers.
    async fn race<A: 'static>(
        &self,
        repeat: bool,
        request: impl Fn(Reply<Asked<A>>) -> Request,
    ) -> Asked<A> {
        // The process may be frozen after it has decided and before a byte leaves it.
        self.timer
            .sleep(self.etcd.inner.sim.between(Duration::ZERO, Duration::from_micros(500)))
            .await;
        let end = self.timer.elapsed() + self.timeout;
        let mut pending = FuturesUnordered::new();
        let (mut member, mut next_at, mut unknown) = (self.leads.get(), Duration::ZERO, false);
        loop {
            let now = self.timer.elapsed();
            let may_ask = repeat || (pending.is_empty() && !unknown);
            if now >= end || (pending.is_empty() && !may_ask) {
                self.troubled.set(true);
                let why = "no member answers; a commit may have happened";
                return Err(StoreError::Unavailable(why.to_owned()));
            }
            if may_ask && now >= next_at {
                let address = &self.etcd.inner.members[member].address;
                let asked = member;
                let answer = address.ask(self.process, end.saturating_sub(now), &request);
                pending.push(async move { (asked, answer.await) });
                member = (member + 1) % self.etcd.len();
                let share = if self.troubled.get() { 10 } else { 4 };
                next_at = now + self.timeout / share;
            }
            let soon = repeat || (pending.is_empty() && !unknown);
            let until = if soon { next_at.min(end) } else { end };
            let wait = self.timer.sleep(until.saturating_sub(now));
            if pending.is_empty() {
                wait.await;
                continue;
            }
            match select(pending.next(), wait).await {
                Either::Left((Some((member, Ok(answer))), _)) => {
                    self.leads.set(member);
                    self.troubled.set(false);
                    return answer;
                }
                // It was never sent: somebody else may be asked.
                Either::Left((Some((_, Err(Unanswered::Refused))), _)) => {
                    next_at = self.timer.elapsed() + Duration::from_millis(10);
                }
                Either::Left((Some((_, Err(Unanswered::Timeout))), _)) => unknown = true,
                Either::Left((None, _)) | Either::Right(_) => {}
            }
        }
    }

    /// An answer is never older than what was known when it was asked for.
    fn seen(&self, known: Revision, found: Revision) -> Result<(), StoreError> {
        // What went back once is not trusted again, as in production.
        if let Some((known, found)) = self.regressed.get() {
            return Err(StoreError::Regressed { known, found });
        }
        if found < known {
            self.regressed.set(Some((known, found)));
            return Err(StoreError::Regressed { known, found });
        }
        self.known.set(self.known.get().max(found));
        Ok(())
    }

    async fn read_all(&self, prefix: &str, since: Revision) -> Result<Snapshot, StoreError> {
        let known = self.known.get();
        self.seen(known, known)?;
        let prefix = prefix.to_owned();
        let read = |reply| Request::Read { prefix: prefix.clone(), since, reply };
        let snapshot: Snapshot = self.race(true, read).await?;
        self.seen(known, snapshot.revision)?;
        Ok(snapshot)
    }

    async fn commit_once(&self, transaction: Transaction) -> Result<Commit, StoreError> {
        transaction.check()?;
        let known = self.known.get();
        self.seen(known, known)?;
        let guarded = transaction.compares.iter().any(|compare| {
            compare.revision > 0 && transaction.puts.iter().any(|put| put.key == compare.key)
        });
        let (number, sent) = (self.etcd.inner.truth.number(), self.etcd.inner.sim.now());
        let entry = Entry { number, sent, by: self.process, transaction };
        self.etcd.reached(&entry, Moment::Decided);
        let send = |reply| Request::Commit { entry: entry.clone(), reply };
        let commit = self.race(guarded, send).await?;
        if let Commit::Done(revision) = commit {
            self.seen(known, revision)?;
        }
        Ok(commit)
    }
}

impl Store for SimStore {
    fn read<'a>(
        &'a self,
        prefix: &'a str,
        since: Revision,
    ) -> LocalBoxFuture<'a, Result<Snapshot, StoreError>> {
        Box::pin(self.read_all(prefix, since))
    }

    fn commit(&self, transaction: Transaction) -> LocalBoxFuture<'_, Result<Commit, StoreError>> {
        Box::pin(self.commit_once(transaction))
    }
}
