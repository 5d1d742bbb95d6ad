//! What holds between runs: every node and receiver has its order, and a service that lost its
//! promise gets it back.

use std::time::Duration;

use jiff::Timestamp;
use lifeboat_model::{DatabaseName, NodeName, RegionName};
use lifeboat_quorum::{
    Degraded, Desired, EpochRecord, EpochState, Goal, Instance, Keys, Progress, ReceiverGoal,
    Return, Synchronous, Token, Transaction, Transition,
};

use crate::candidate::ABSENT_AFTER;
use crate::view::{Seen, View};
use crate::{Service, Stalls, names};

/// Orders of upkeep come after all steps of the run before, and before the next run.
const STEP: u32 = 1_000_000;

/// What upkeep writes at once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Upkeep {
    /// The record after it.
    pub record: Option<EpochRecord>,
    /// Orders to nodes.
    pub nodes: Vec<(DatabaseName, NodeName, Desired<Goal>)>,
    /// Orders to receivers.
    pub receivers: Vec<(DatabaseName, RegionName, Desired<ReceiverGoal>)>,
    /// Why, for the log.
    pub why: String,
}

impl Upkeep {
    /// The transaction: nothing of it happens if the record is not the one that was read.
    pub fn transaction(
        &self,
        service: &Service,
        keys: &Keys,
        read: &Seen<EpochRecord>,
    ) -> Transaction {
        let name = &service.name;
        let mut transaction = Transaction::new().when(keys.epoch(name), read.revision);
        if let Some(record) = &self.record {
            transaction = transaction.put(keys.epoch(name), record);
        }
        for (database, node, desired) in &self.nodes {
            transaction = transaction.put(keys.desired(name, database, node), desired);
        }
        for (database, region, desired) in &self.receivers {
            transaction = transaction.put(keys.receiver_desired(name, database, region), desired);
        }
        transaction
    }
}

/// What is to be written while no run is at work; none if everything is as it should be.
pub fn upkeep(
    service: &Service,
    view: &View,
    stalls: &Stalls,
    now: Duration,
    at: Timestamp,
) -> Option<Upkeep> {
    let record = view.record.as_ref().filter(|seen| seen.value.run.is_none())?;
    match record.value.state {
        EpochState::Starting | EpochState::Serving => {}
        EpochState::Vacant | EpochState::Releasing | EpochState::Revoking => return None,
    }
    let keeper = Keeper { service, view, record: &record.value, stalls, now, at };
    let serving = || keeper.serve().or_else(|| keeper.degrade()).or_else(|| keeper.promise());
    keeper.orders().or_else(serving)
}

struct Keeper<'a> {
    service: &'a Service,
    view: &'a View,
    record: &'a EpochRecord,
    stalls: &'a Stalls,
    now: Duration,
    at: Timestamp,
}

impl Keeper<'_> {
    /// Orders that are missing, or of an older epoch.
    fn orders(&self) -> Option<Upkeep> {
        let mut upkeep = Upkeep { why: "orders of the epoch".to_owned(), ..Upkeep::default() };
        for (database, content) in &self.service.databases {
            let Some(holder) = self.record.holders.get(database) else { continue };
            for node in content.nodes.keys() {
                let goal = match node == holder {
                    true => self.primary(database),
                    false => Goal::Follow { upstream: holder.clone(), by: Return::AsItIs },
                };
                let present = self.view.desired.get(&(database.clone(), node.clone()));
                if !present.is_some_and(|seen| self.is_same(&seen.value, &goal)) {
                    let token = self.token(present.map(|seen| seen.value.token));
                    upkeep.nodes.push((database.clone(), node.clone(), Desired { token, goal }));
                }
            }
            for region in &content.receivers {
                let present = self.view.receiver_desired.get(&(database.clone(), region.clone()));
                let goal = ReceiverGoal::Receive;
                let same = |seen: &Seen<Desired<ReceiverGoal>>| {
                    seen.value.goal == goal && seen.value.token.epoch == self.record.epoch
                };
                if !present.is_some_and(same) {
                    let token = self.token(present.map(|seen| seen.value.token));
                    let desired = Desired { token, goal };
                    upkeep.receivers.push((database.clone(), region.clone(), desired));
                }
            }
        }
        (!upkeep.nodes.is_empty() || !upkeep.receivers.is_empty()).then_some(upkeep)
    }

    fn primary(&self, database: &DatabaseName) -> Goal {
        let synchronous_standby_names = names(self.service, database, &self.record.synchronous);
        Goal::Primary { required: None, synchronous_standby_names }
    }

    /// How a node gets somewhere does not matter once it is there.
    fn is_same(&self, present: &Desired<Goal>, wanted: &Goal) -> bool {
        if present.token.epoch != self.record.epoch {
            return false;
        }
        match (&present.goal, wanted) {
            (
                Goal::Primary { synchronous_standby_names: present, .. },
                Goal::Primary { synchronous_standby_names: wanted, .. },
            ) => present == wanted,
            (Goal::Follow { upstream: present, .. }, Goal::Follow { upstream: wanted, .. }) => {
                present == wanted
            }
            _ => false,
        }
    }

    fn token(&self, present: Option<Token>) -> Token {
        let first =
            Token { epoch: self.record.epoch, run: self.record.last_run, step: STEP, attempt: 1 };
        match present {
            Some(present) if present >= first => {
                Token { attempt: present.attempt.saturating_add(1), ..present }
            }
            _ => first,
        }
    }

    /// A first epoch serves once its holders do.
    fn serve(&self) -> Option<Upkeep> {
        if self.record.state != EpochState::Starting {
            return None;
        }
        let serves = |(database, node): (&DatabaseName, &NodeName)| {
            self.view.node(database, node).is_some_and(|seen| {
                seen.value.instance.is_primary()
                    && seen.value.lease == Some(self.record.epoch)
                    && seen.value.writes.is_some()
            })
        };
        let record = self.record.apply(Transition::Serve).ok()?;
        self.record.holders.iter().all(serves).then(|| Upkeep {
            record: Some(record),
            why: "the holders write".to_owned(),
            ..Upkeep::default()
        })
    }

    /// `on_loss: { degrade_after: … }`: commits that have waited for so long go on with the receivers
    /// that are there. That is recorded first; the primary hears of it by its next order.
    fn degrade(&self) -> Option<Upkeep> {
        let present = &self.record.synchronous;
        if self.record.state != EpochState::Serving || present.needed == 0 {
            return None;
        }
        let waited = |(database, content): (&DatabaseName, &crate::Database)| {
            let limit = content.degrade_after?;
            self.stalls.lasting(database, self.now).filter(|lasting| *lasting >= limit)
        };
        let waited = self.service.databases.iter().filter_map(waited).max()?;
        let left: Vec<RegionName> =
            present.receivers.iter().filter(|region| self.streams(region)).cloned().collect();
        let needed = u8::try_from(left.len()).unwrap_or(u8::MAX).min(present.needed);
        let why = format!(
            "commits waited for {} s for {} of {} receivers outside {}, and {} are there",
            waited.as_secs(),
            present.needed,
            present.receivers.len(),
            self.record.region,
            left.len()
        );
        // What is lost already was lost at that time.
        let since = self.record.degraded.as_ref().map_or(self.at, |degraded| degraded.since);
        let receivers = if needed == 0 { Vec::new() } else { left };
        let degraded = Degraded { since, why: why.clone() };
        let change = Transition::Synchronize(Synchronous { needed, receivers }, Some(degraded));
        self.record_alone(change, &format!("degraded: {why}"))
    }

    /// Commits wait for all receivers of the spec again, in three writes: the set is recorded while
    /// no promise is made, then it takes effect, then it is promised.
    fn promise(&self) -> Option<Upkeep> {
        if self.record.state != EpochState::Serving {
            return None;
        }
        let wanted = self.service.synchronous(&self.record.region);
        if self.record.synchronous != wanted {
            let there = |region: &RegionName| self.receives(region) && self.streams(region);
            let ready = wanted.receivers.iter().all(there);
            if !ready && wanted.needed > 0 {
                return None;
            }
            let degraded = self.record.degraded.clone().unwrap_or_else(|| Degraded {
                since: self.at,
                why: "what commits wait for is being changed".to_owned(),
            });
            let change = Transition::Synchronize(wanted, Some(degraded));
            return self.record_alone(change, "commits are to wait for all receivers again");
        }
        self.record.degraded.as_ref()?;
        let holds = self.record.holders.iter().all(|(database, node)| self.waits(database, node));
        if !holds {
            return None;
        }
        self.record_alone(Transition::Synchronize(wanted, None), "commits wait for receivers again")
    }

    fn record_alone(&self, change: Transition, why: &str) -> Option<Upkeep> {
        let record = self.record.apply(change).ok()?;
        Some(Upkeep { record: Some(record), why: why.to_owned(), ..Upkeep::default() })
    }

    /// Whether the receivers of a region are at work for this epoch.
    fn receives(&self, region: &RegionName) -> bool {
        self.service.databases.keys().all(|database| {
            self.view.receiver(database, region).is_some_and(|seen| {
                seen.age(self.now) < ABSENT_AFTER
                    && seen.value.running
                    && seen.value.epoch == self.record.epoch
            })
        })
    }

    /// Whether every primary says, just now, that a region's receiver streams from it. A receiver that
    /// runs and is cut off from its primary would make commits wait again.
    fn streams(&self, region: &RegionName) -> bool {
        self.record.holders.iter().all(|(database, node)| {
            self.view.node(database, node).is_some_and(|seen| {
                seen.age(self.now) < ABSENT_AFTER
                    && matches!(
                        &seen.value.instance,
                        Instance::Primary { receivers, .. } if receivers.contains(region)
                    )
            })
        })
    }

    /// Whether the primary says that the present order, with its names, is in effect.
    fn waits(&self, database: &DatabaseName, node: &NodeName) -> bool {
        let desired = self.view.desired.get(&(database.clone(), node.clone()));
        let status = self.view.node(database, node);
        let (Some(desired), Some(status)) = (desired, status) else { return false };
        status.value.token == desired.value.token
            && matches!(status.value.progress, Progress::Done { .. })
            && matches!(status.value.instance, Instance::Primary { stalled: false, .. })
    }
}
