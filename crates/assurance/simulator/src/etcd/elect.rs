//! Who leads: heartbeats, votes, terms.

use std::collections::{BTreeMap, BTreeSet};

use lifeboat_environment::Timer;

use super::Request;
use super::member::{Role, Volatile};

impl Volatile {
    pub fn new_patience(&mut self) {
        let least = self.etcd.inner.timing.election;
        self.patience = self.etcd.inner.sim.between(least, least * 2);
    }

    /// Hears from a leader; whether it is one of now.
    pub fn follow(&mut self, term: u64, leader: usize) -> bool {
        let known = self.term();
        if term < known {
            // Told of a newer term, a leader of an older one gives up.
            self.tell(leader, Request::HeartbeatSeen { term: known, by: self.me });
            return false;
        }
        if term > known {
            self.durable(|durable| {
                (durable.term, durable.voted) = (term, false);
                // What a former leader sent and did not make is overwritten by the new one.
                durable.tail.clear();
            });
        }
        if term > known || !matches!(self.role, Role::Follower) {
            self.role = Role::Follower;
        }
        self.leader = Some(leader);
        self.heard = self.timer.elapsed();
        true
    }

    pub fn tick(&mut self) {
        let now = self.timer.elapsed();
        match &self.role {
            Role::Leader { .. } if !self.has_heard_of_late() => {
                self.note("leads no majority any more");
                self.role = Role::Follower;
                self.leader = None;
                self.heard = now;
                self.new_patience();
            }
            Role::Leader { .. } => {
                let term = self.term();
                for member in self.others() {
                    self.tell(member, Request::Heartbeat { term, leader: self.me });
                }
            }
            Role::Follower | Role::Candidate { .. } => {
                if now.saturating_sub(self.heard) > self.patience {
                    self.stand(now);
                }
            }
        }
    }

    /// Whether a majority was heard from within an election's time.
    fn has_heard_of_late(&self) -> bool {
        self.heard_within(self.etcd.inner.timing.election)
    }

    /// Whether a majority answered the last heartbeats: what a leader may answer reads by.
    pub fn has_majority(&self) -> bool {
        self.heard_within(self.etcd.inner.timing.heartbeat * 3)
    }

    fn heard_within(&self, span: std::time::Duration) -> bool {
        let Role::Leader { seen, .. } = &self.role else { return false };
        let now = self.timer.elapsed();
        let fresh = seen.values().filter(|at| now.saturating_sub(**at) <= span).count();
        fresh + 1 >= self.majority()
    }

    /// Stands for election.
    fn stand(&mut self, now: std::time::Duration) {
        let term = self.term().max(self.stood) + 1;
        self.stood = term;
        self.role = Role::Candidate { term, votes: BTreeSet::from([self.me]) };
        self.leader = None;
        self.heard = now;
        self.new_patience();
        let newest = self.newest();
        for member in self.others() {
            self.tell(member, Request::Vote { term, candidate: self.me, newest });
        }
    }

    fn newest(&self) -> u64 {
        let truth = &self.etcd.inner.truth;
        self.durable(|durable| {
            let open = durable.tail.iter().filter(|entry| !truth.is_applied(entry.number()));
            open.map(super::Entry::number).max().unwrap_or_default()
        })
    }

    pub fn vote(&mut self, term: u64, candidate: usize, newest: u64) {
        let now = self.timer.elapsed();
        self.stood = self.stood.max(term);
        // Whoever hears from a leader votes for nobody: a member that was cut off disturbs no one.
        let content = match &self.role {
            Role::Leader { .. } => self.has_heard_of_late(),
            Role::Follower => {
                self.leader.is_some()
                    && now.saturating_sub(self.heard) < self.etcd.inner.timing.election
            }
            // It has its own vote for this term.
            Role::Candidate { term: own, .. } => *own >= term,
        };
        if content || newest < self.newest() {
            return;
        }
        let known = self.durable(|durable| (durable.term, durable.voted));
        if term < known.0 || (term == known.0 && known.1) {
            return;
        }
        self.durable(|durable| (durable.term, durable.voted) = (term, true));
        self.role = Role::Follower;
        self.leader = None;
        self.heard = now;
        self.tell(candidate, Request::Voted { term, by: self.me });
    }

    pub fn voted(&mut self, term: u64, by: usize) {
        let majority = self.majority();
        let Role::Candidate { term: own, votes } = &mut self.role else { return };
        if *own != term {
            return;
        }
        votes.insert(by);
        if votes.len() < majority {
            return;
        }
        let now = self.timer.elapsed();
        let seen: BTreeMap<_, _> = votes.iter().map(|member| (*member, now)).collect();
        let seen = seen.into_iter().filter(|(member, _)| *member != self.me).collect();
        self.durable(|durable| (durable.term, durable.voted) = (term, true));
        self.role = Role::Leader { seen, pending: BTreeMap::new() };
        self.leader = Some(self.me);
        self.etcd.inner.truth.elected(term, self.me);
        self.note(&format!("leads term {term}"));
        self.land();
        self.tick();
    }

    pub fn seen(&mut self, term: u64, by: usize) {
        let (now, mine) = (self.timer.elapsed(), self.term());
        if term > mine {
            self.durable(|durable| (durable.term, durable.voted) = (term, false));
            (self.role, self.leader) = (Role::Follower, None);
        }
        if let Role::Leader { seen, .. } = &mut self.role
            && term == mine
            && by != self.me
        {
            seen.insert(by, now);
        }
    }

    fn note(&self, what: &str) {
        self.etcd.inner.sim.note_of(self.etcd.process(self.me), what);
    }
}
