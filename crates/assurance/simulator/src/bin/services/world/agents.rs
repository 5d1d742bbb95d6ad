//! Agents that do at once what they are told.

use std::time::Duration;

use anyhow::{Context, Result};
use lifeboat_quorum::{
    Desired, EpochState, Goal, Instance, Lease, NodeStatus, Progress, Token, Transaction, decode,
};

use super::{Due, World, now};
use crate::services::{self, RENEW};

/// How often an agent reports what has not changed.
pub const REPORT: Duration = Duration::from_secs(1);

/// A node and its agent.
pub struct Node {
    /// Whether it is there.
    alive: bool,
    beat: u64,
    lease: Option<u64>,
    token: Token,
    progress: Progress,
    instance: Instance,
}

impl Node {
    /// A primary of the first epoch, or its standby.
    pub fn new(primary: bool) -> Self {
        Self {
            alive: true,
            beat: 0,
            lease: primary.then_some(1),
            token: Token::default(),
            progress: Progress::None,
            instance: if primary { services::primary() } else { services::standby(true) },
        }
    }

    /// It is the primary of this epoch.
    pub fn serves(&self, epoch: u64) -> bool {
        self.alive && self.instance.is_primary() && self.lease == Some(epoch)
    }

    /// It dies, or comes back; its instance is down then.
    pub fn set_alive(&mut self, alive: bool) {
        if alive && !self.alive {
            self.instance = services::down();
            (self.lease, self.progress) = (None, Progress::None);
        }
        self.alive = alive;
    }

    fn obey(&mut self, order: Desired<Goal>) {
        self.instance = services::after(&order.goal);
        let primary = matches!(order.goal, Goal::Primary { .. });
        self.lease = primary.then_some(order.token.epoch);
        self.token = order.token;
        self.progress = Progress::Done { evidence: "as it was wanted".to_owned() };
    }

    fn status(&mut self) -> NodeStatus {
        self.beat += 1;
        NodeStatus {
            beat: self.beat,
            token: self.token,
            progress: self.progress.clone(),
            instance: self.instance.clone(),
            lease: self.lease,
            writes: self.instance.is_primary().then_some(Duration::from_secs(3600)),
            fork: None,
            not_ready: Vec::new(),
        }
    }
}

impl World {
    /// A node reports.
    pub(super) fn report(&self, at: usize, node: usize, due: Duration) -> Result<()> {
        self.at(due + REPORT, Due::Report(at, node));
        self.tell_of(at, node)
    }

    fn tell_of(&self, at: usize, node: usize) -> Result<()> {
        let mut places = self.places.borrow_mut();
        let place = places.get_mut(at).context("no such service")?;
        if !place.nodes[node].alive {
            return Ok(());
        }
        let status = place.nodes[node].status();
        let key = self.keys.status(&place.name, &self.database, &self.names[node]);
        self.put(Transaction::new().put(key, &status))
    }

    /// The holder renews its lease, while the record lets it.
    pub(super) fn renew(&self, at: usize, node: usize, due: Duration) -> Result<()> {
        self.at(due + RENEW, Due::Renew(at, node));
        let mut places = self.places.borrow_mut();
        let place = places.get_mut(at).context("no such service")?;
        let (epoch, beat) = (place.record.epoch, place.nodes[node].beat);
        if !place.nodes[node].serves(epoch) || place.record.state == EpochState::Revoking {
            return Ok(());
        }
        place.renewed = now();
        let lease = Lease { epoch, node: self.names[node].clone(), agent: 1, beat };
        let key = self.keys.lease(&place.name, &self.database);
        self.put(Transaction::new().put(key, &lease))
    }

    /// A node sees its order, carries it out and says so.
    pub(super) fn obey(&self, at: usize, node: usize) -> Result<()> {
        let mut places = self.places.borrow_mut();
        let place = places.get_mut(at).context("no such service")?;
        let key = self.keys.desired(&place.name, &self.database, &self.names[node]);
        let found = self.store.look(&key, 0);
        let Some(entry) = found.get(&key).filter(|_| place.nodes[node].alive) else {
            return Ok(());
        };
        let order: Desired<Goal> = decode(entry)?;
        let again = place.nodes[node].progress == Progress::None;
        if order.token < place.nodes[node].token
            || (order.token == place.nodes[node].token && !again)
        {
            return Ok(());
        }
        place.nodes[node].obey(order);
        drop(places);
        self.tell_of(at, node)
    }
}
