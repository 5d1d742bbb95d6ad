//! One member: what it does with what it is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lifeboat_environment::Timer;
use lifeboat_quorum::{Commit, Snapshot, StoreError};

use super::{Entry, Etcd, Request};
use crate::executor::SimTimer;
use crate::message::Reply;

/// What a member has on its disk.
#[derive(Debug, Default)]
pub(super) struct Durable {
    pub term: u64,
    pub voted: bool,
    /// Changes that it was sent and that may not have been made.
    pub tail: Vec<Entry>,
}

/// What a member has in memory.
pub(super) struct Volatile {
    pub etcd: Etcd,
    pub me: usize,
    pub timer: SimTimer,
    pub role: Role,
    pub leader: Option<usize>,
    /// The highest term that anybody stood for.
    pub stood: u64,
    /// When it last heard from a leader, or stood for election.
    pub heard: Duration,
    pub patience: Duration,
}

pub(super) enum Role {
    Follower,
    /// Its term is written down by whoever votes for it, and by itself once it leads: a member that
    /// was cut off comes back without disturbing anyone.
    Candidate {
        term: u64,
        votes: BTreeSet<usize>,
    },
    Leader {
        seen: BTreeMap<usize, Duration>,
        pending: BTreeMap<u64, Pending>,
    },
}

pub(super) struct Pending {
    entry: Entry,
    by: BTreeSet<usize>,
    replies: Vec<Reply<Result<Commit, StoreError>>>,
}

pub(super) fn start(etcd: &Etcd, me: usize) {
    let member = &etcd.inner.members[me];
    let sim = &etcd.inner.sim;
    let mut listener = member.address.listen();
    let timer = sim.timer(member.process);
    let heard = timer.elapsed();
    let mut state = Volatile {
        etcd: etcd.clone(),
        me,
        timer: timer.clone(),
        role: Role::Follower,
        leader: None,
        stood: 0,
        heard,
        patience: Duration::ZERO,
    };
    state.new_patience();
    sim.spawn(member.process, async move {
        let mut tick = timer.sleep(state.etcd.inner.timing.heartbeat);
        loop {
            let next = std::pin::pin!(listener.next());
            match futures::future::select(next, tick).await {
                futures::future::Either::Left((request, rest)) => {
                    tick = rest;
                    state.handle(request);
                }
                futures::future::Either::Right(((), _)) => {
                    state.tick();
                    tick = timer.sleep(state.etcd.inner.timing.heartbeat);
                }
            }
        }
    });
}

impl Volatile {
    fn handle(&mut self, request: Request) {
        match request {
            Request::Read { prefix, since, reply } => self.read(prefix, since, reply),
            Request::Commit { entry, reply } => {
                if matches!(self.role, Role::Leader { .. }) {
                    self.propose(entry, Some(reply));
                } else {
                    self.forward(reply, move |reply| Request::Commit { entry, reply });
                }
            }
            Request::Heartbeat { term, leader } => {
                if self.follow(term, leader) {
                    self.tell(leader, Request::HeartbeatSeen { term, by: self.me });
                }
            }
            Request::HeartbeatSeen { term, by } => self.seen(term, by),
            Request::Append { term, leader, entry } => self.append(term, leader, entry),
            Request::Appended { term, number, by } => {
                self.seen(term, by);
                self.appended(term, number, by);
            }
            Request::Vote { term, candidate, newest } => self.vote(term, candidate, newest),
            Request::Voted { term, by } => self.voted(term, by),
        }
    }

    fn read(&self, prefix: String, since: u64, reply: Reply<Result<Snapshot, StoreError>>) {
        if !matches!(self.role, Role::Leader { .. }) {
            self.forward(reply, move |reply| Request::Read { prefix, since, reply });
        } else if self.has_majority() {
            // The truth is read between question and answer: that is what linearizable means.
            reply.send(Ok(self.etcd.inner.truth.read(&prefix, since)));
        }
    }

    /// Hands a request on to the leader; without one there is no answer.
    fn forward<A: 'static>(
        &self,
        reply: Reply<Result<A, StoreError>>,
        request: impl FnOnce(Reply<Result<A, StoreError>>) -> Request + 'static,
    ) {
        let Some(leader) = self.leader.filter(|leader| *leader != self.me) else { return };
        let process = self.etcd.process(self.me);
        let address = self.etcd.inner.members[leader].address.clone();
        let limit = self.etcd.inner.timing.election * 2;
        self.etcd.inner.sim.spawn(process, async move {
            if let Ok(answer) = address.ask(process, limit, request).await {
                reply.send(answer);
            }
        });
    }

    pub fn tell(&self, member: usize, request: Request) {
        let host = self.etcd.inner.sim.host_of(self.etcd.process(self.me));
        self.etcd.inner.members[member].address.send(host, request);
    }

    fn propose(&mut self, entry: Entry, reply: Option<Reply<Result<Commit, StoreError>>>) {
        let Role::Leader { pending, .. } = &mut self.role else { return };
        let number = entry.number;
        let change = Pending { entry: entry.clone(), by: BTreeSet::new(), replies: Vec::new() };
        pending.entry(number).or_insert(change).replies.extend(reply);
        let term = self.term();
        for member in self.others() {
            self.tell(member, Request::Append { term, leader: self.me, entry: entry.clone() });
        }
        self.write(entry, Request::Appended { term, number, by: self.me }, self.me);
    }

    /// Writes an entry to the own disk and then tells a member so.
    fn write(&self, entry: Entry, then: Request, tell: usize) {
        let (etcd, me, timer) = (self.etcd.clone(), self.me, self.timer.clone());
        let (least, most) = etcd.inner.members[me].disk.get();
        let takes = etcd.inner.sim.between(least, most);
        let process = etcd.process(me);
        self.etcd.inner.sim.spawn(process, async move {
            timer.sleep(takes).await;
            etcd.inner.members[me].durable.borrow_mut().tail.push(entry);
            let host = etcd.inner.sim.host_of(process);
            etcd.inner.members[tell].address.send(host, then);
        });
    }

    fn append(&mut self, term: u64, leader: usize, entry: Entry) {
        if self.follow(term, leader) {
            let number = entry.number;
            self.write(entry, Request::Appended { term, number, by: self.me }, leader);
        }
    }

    fn appended(&mut self, term: u64, number: u64, by: usize) {
        if term != self.term() {
            return;
        }
        let majority = self.majority();
        let Role::Leader { pending, .. } = &mut self.role else { return };
        let Some(change) = pending.get_mut(&number) else { return };
        change.by.insert(by);
        if change.by.len() < majority {
            return;
        }
        let Some(change) = pending.remove(&number) else { return };
        let outcome = self.etcd.apply(term, &change.entry);
        if let Some(outcome) = outcome {
            change.replies.iter().for_each(|reply| reply.send(Ok(outcome)));
        }
        self.prune();
    }

    /// Forgets what was made.
    fn prune(&self) {
        let truth = &self.etcd.inner.truth;
        for member in &self.etcd.inner.members {
            member.durable.borrow_mut().tail.retain(|entry| !truth.is_applied(entry.number));
        }
    }

    /// A new leader makes the changes that it finds on its own disk.
    pub fn land(&mut self) {
        let tail = self.durable(|durable| durable.tail.clone());
        for entry in tail {
            self.etcd.apply(self.term(), &entry);
        }
        self.prune();
    }

    pub fn durable<R>(&self, with: impl FnOnce(&mut Durable) -> R) -> R {
        with(&mut self.etcd.inner.members[self.me].durable.borrow_mut())
    }

    pub fn term(&self) -> u64 {
        self.durable(|durable| durable.term)
    }

    pub fn majority(&self) -> usize {
        self.etcd.len() / 2 + 1
    }

    pub fn others(&self) -> Vec<usize> {
        (0..self.etcd.len()).filter(|member| *member != self.me).collect()
    }
}
