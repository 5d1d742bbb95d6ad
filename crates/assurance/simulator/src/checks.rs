//! What must never happen, checked at every step, against the truth that only a simulator knows.

mod losses;
mod moves;
mod receivers;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use lifeboat_drivers::traffic::Stamp;
use lifeboat_model::{DatabaseName, NodeName};
use lifeboat_quorum::{EpochRecord, EpochState, Lease, RunId, Token};
use lifeboat_workflow::Plan;

use crate::executor::HostId;
use crate::plant::Plant;
use crate::postgres::{Node, Told};
use crate::wal;

/// A commit that somebody was told of.
#[derive(Debug, Clone)]
pub struct Acknowledged {
    /// Its record.
    pub id: u64,
    /// When the server said so, in true time.
    pub at: Duration,
    /// Which server.
    pub node: NodeName,
    /// The epoch of that moment.
    pub epoch: u64,
    /// Whether the record promised then that it survives the loss of its region.
    pub promised: bool,
}

/// All checks of one run.
#[derive(Default)]
pub struct Checks {
    state: RefCell<State>,
}

/// A database's node.
type Spot = (DatabaseName, NodeName);

fn spot(node: &Node) -> Spot {
    (node.database.clone(), node.name.clone())
}

/// What a frozen server had answered before may be on its way for so long.
const ON_ITS_WAY: Duration = Duration::from_millis(100);
/// Within this an agent that renews has seen a write of a new primary.
const NEW: Duration = Duration::from_secs(5);

#[derive(Default)]
struct State {
    /// The record of the newest epoch that there ever was.
    record: Option<EpochRecord>,
    /// What the store shows, which may be an older one once it was restored.
    shown: Option<EpochRecord>,
    /// When each epoch began, and its newest record.
    begun: BTreeMap<u64, (Duration, EpochRecord)>,
    restored: bool,
    /// Since when the newest epoch has served without a break.
    serving: Option<Duration>,
    /// Since when a server has been a primary without a break.
    since: BTreeMap<Spot, Duration>,
    /// Renewals that were sent while a server was frozen: since when it was, and when the first
    /// was sent.
    late: BTreeMap<Spot, (Duration, Duration)>,
    acknowledged: BTreeMap<DatabaseName, Vec<Acknowledged>>,
    heard: BTreeSet<u64>,
    /// Commits of no promise that a later holder lacks, and how many each epoch cost.
    given_up: BTreeSet<u64>,
    losses: BTreeMap<u64, usize>,
    plans: BTreeMap<RunId, Plan>,
    /// For which epoch each receiver said that it is sealed, and behind how many records.
    seals: BTreeMap<String, (u64, usize)>,
    tokens: BTreeMap<String, Token>,
    /// Hosts that were paused as a whole, and until when.
    paused: BTreeMap<HostId, Duration>,
    not_guaranteed: u64,
    moves: u64,
}

/// Numbers of a run, to see that faults and moves really happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Acknowledged commits.
    pub acknowledged: u64,
    /// Epochs that began after the first.
    pub moves: u64,
    /// Late acknowledgements of hosts that were paused as a whole.
    pub not_guaranteed: u64,
}

impl Checks {
    /// A server did what others can see.
    pub fn told(&self, plant: &Plant, node: &Node, told: Told) {
        match told {
            Told::IsPrimary => {
                self.state.borrow_mut().since.insert(spot(node), plant.sim.now());
                self.look_for_losses(plant, node);
            }
            Told::Acknowledged(id) => self.acknowledged(plant, node, id),
            Told::Died => {
                self.state.borrow_mut().since.remove(&spot(node));
            }
        }
    }

    /// I23, I26: whoever acknowledges holds the present epoch, and became a primary in it.
    fn acknowledged(&self, plant: &Plant, node: &Node, id: u64) {
        let now = plant.sim.now();
        let mut state = self.state.borrow_mut();
        let Some(record) = state.record.clone() else {
            return plant.sim.fail(format!("{} acknowledges before any epoch", node.name));
        };
        let since = state.since.get(&spot(node)).copied().unwrap_or_default();
        let begun = state.begun.get(&record.epoch).map(|(at, _)| *at).unwrap_or_default();
        let holds = record.holders.get(&node.database) == Some(&node.name) && since >= begun;
        if !holds {
            let paused = state.paused.get(&node.host).is_some_and(|until| now <= *until);
            if is_shown_alone(&state, node) {
                // It never heard of the newer epoch, and the store does not know it any more:
                // whoever restores one stops the agents first (LB7003).
                state.not_guaranteed += 1;
                return;
            }
            let promised = was_promised(&state, node);
            if paused && !promised {
                state.not_guaranteed += 1;
                return;
            }
            if paused && holder_has(plant, &record, &node.database, id) {
                // It was flushed behind the seal before the seal was set; only the word of it was
                // late. It must survive like any other.
                state.not_guaranteed += 1;
                remember(&mut state, node, (id, now, record.epoch, promised));
                return;
            }
            let what = format!(
                "{} acknowledges a commit in epoch {}, which {:?} holds since {begun:?}",
                node.name, record.epoch, record.holders
            );
            return plant.sim.fail(what);
        }
        remember(&mut state, node, (id, now, record.epoch, promises(&record)));
    }

    /// A client got an acknowledgement.
    pub fn heard(&self, _: &DatabaseName, id: u64) {
        self.state.borrow_mut().heard.insert(id);
    }

    /// I24: the record of an epoch changed.
    pub fn record_changed(&self, plant: &Plant, before: Option<&[u8]>, after: Option<&[u8]>) {
        let read = |bytes: Option<&[u8]>| -> Option<EpochRecord> {
            bytes.and_then(|bytes| serde_json::from_slice(bytes).ok())
        };
        let (before, after) = (read(before), read(after));
        let Some(after) = after else {
            return plant.sim.fail("the record of the epoch went away".to_owned());
        };
        let text = format!("epoch {} is {:?} in {}", after.epoch, after.state, after.region);
        plant.sim.note("record", format!("{text}, run {:?}", after.run.map(|run| run.0)));
        let epoch_before = before.as_ref().map_or(0, |record| record.epoch);
        if after.epoch < epoch_before {
            plant.sim.fail(format!("epoch {} follows on {epoch_before}", after.epoch));
        }
        self.state.borrow_mut().shown = Some(after.clone());
        let newest = self.record().map_or(0, |record| record.epoch);
        if self.is_restored() && after.epoch <= newest {
            // What a run has chosen is begun again as it was, by the same holders.
            let begun = self.state.borrow().begun.get(&after.epoch).cloned();
            let same = begun.is_some_and(|(_, begun)| {
                (&begun.holders, &begun.fence) == (&after.holders, &after.fence)
            });
            if after.epoch > epoch_before && !same {
                plant.sim.fail(format!("epoch {} begins a second time", after.epoch));
            }
            // What a restored store says of an epoch that is over changes nothing.
            return;
        }
        if let Some(before) = before.as_ref().filter(|before| !is_allowed(before, &after)) {
            let (from, to) = ((before.epoch, before.state), (after.epoch, after.state));
            plant.sim.fail(format!("the record goes from {from:?} to {to:?}"));
        }
        if let Some(run) = before.as_ref().and_then(|record| record.run)
            && after.run.is_some_and(|next| next != run)
        {
            plant.sim.fail(format!("run {run} is replaced by {:?} while it is at work", after.run));
        }
        self.look_at_judge(plant, before.as_ref(), &after);
        if after.epoch > epoch_before {
            if before.is_some() {
                plant.sim.note("record", format!("fence: {:?}", after.fence.proof));
                self.look_for_writers(plant, &after);
                self.state.borrow_mut().moves += 1;
            }
            let began = (plant.sim.now(), after.clone());
            self.state.borrow_mut().begun.insert(after.epoch, began);
        }
        let mut state = self.state.borrow_mut();
        if let Some((_, newest)) = state.begun.get_mut(&after.epoch) {
            *newest = after.clone();
        }
        state.record = Some(after);
    }

    /// etcd was restored: what it says is old.
    pub fn was_restored(&self, record: Option<&[u8]>) {
        let mut state = self.state.borrow_mut();
        state.restored = true;
        state.shown = record.and_then(|bytes| serde_json::from_slice(bytes).ok());
    }

    /// Whether etcd was restored.
    pub fn is_restored(&self) -> bool {
        self.state.borrow().restored
    }

    /// R3: a lease is renewed by a holder that commits, not by one that is frozen. What was sent
    /// after the freeze counts, not what landed then; and one renewal may follow on a write
    /// before it, for also an agent can be frozen in between.
    pub fn renewed(&self, plant: &Plant, database: &str, lease: &[u8], sent: Duration) {
        let Ok(lease) = serde_json::from_slice::<Lease>(lease) else { return };
        let mut state = self.state.borrow_mut();
        // A holder that stops cleanly holds on without a write: its checkpoint may take long.
        let state_now = state.record.as_ref().map(|record| record.state);
        if !matches!(state_now, Some(EpochState::Starting | EpochState::Serving)) {
            return;
        }
        let holds = |node: &Rc<Node>| node.name == lease.node && node.database.as_str() == database;
        for node in plant.nodes().into_iter().filter(holds) {
            let Some(frozen) = plant.sim.frozen_since(node.postgres) else { continue };
            // One that is new has its own time for a first write.
            let since = state.since.get(&spot(&node)).filter(|since| **since + NEW < frozen);
            if since.is_none() || sent <= frozen + ON_ITS_WAY {
                continue;
            }
            let first = state.late.entry(spot(&node)).or_insert((frozen, sent));
            if first.0 != frozen {
                *first = (frozen, sent);
            }
            if first.1 != sent {
                plant.sim.fail(format!(
                    "the lease of {} is renewed again, while no write has been possible for {:?}",
                    node.name,
                    sent - frozen
                ));
            }
        }
    }

    /// Nobody can write while an epoch begins, whoever shall hold it.
    fn look_for_writers(&self, plant: &Plant, record: &EpochRecord) {
        for node in plant.nodes() {
            let primary = self.state.borrow().since.contains_key(&spot(&node));
            let until = self.state.borrow().paused.get(&node.host).copied();
            let paused = until.is_some_and(|until| plant.sim.now() <= until);
            if primary && !paused {
                plant.sim.fail(format!(
                    "epoch {} begins while {} can still write; fence: {:?}",
                    record.epoch, node.name, record.fence.proof
                ));
            }
        }
    }

    /// I27: a name server changed its record.
    pub fn pointed(&self, plant: &Plant, before: Option<&Stamp>, after: &Stamp) {
        if let Some(before) = before.filter(|before| before.epoch > after.epoch) {
            let (from, to) = (before.epoch, after.epoch);
            plant.sim.fail(format!("a name goes back from epoch {from} to {to}"));
        }
        let state = self.state.borrow();
        let region = state.begun.get(&after.epoch).map(|(_, record)| &record.region);
        if region != Some(&after.region) {
            let after = (after.epoch, &after.region);
            plant
                .sim
                .fail(format!("a name leads to {} for epoch {}, not its region", after.1, after.0));
        }
    }

    /// I25: an agent accepted an order.
    pub fn accepted(&self, plant: &Plant, who: &str, token: Token) {
        let mut state = self.state.borrow_mut();
        let highest = state.tokens.entry(who.to_owned()).or_default();
        if token < *highest {
            plant.sim.fail(format!("{who} accepts {token} after {highest}"));
        }
        *highest = token;
    }

    /// I30: WAL behind `length` is thrown away on a node.
    pub fn discarded(&self, plant: &Plant, node: &Node, length: usize) {
        let disk = node.disk.borrow();
        let kept = disk.salvaged_from.is_some_and(|from| from <= length);
        let elsewhere: Vec<_> = plant
            .nodes_of(&node.database)
            .into_iter()
            .filter(|other| other.name != node.name)
            .collect();
        let only_here = disk.log.records().iter().skip(length).find(|record| {
            record.at.is_some()
                && !elsewhere.iter().any(|other| other.disk.borrow().log.holds(record.id))
        });
        if let Some(record) = only_here.filter(|_| !kept) {
            plant.sim.fail(format!(
                "{} throws commit {} away, behind {}, before it was set apart",
                node.name,
                record.id,
                wal::lsn(length)
            ));
        }
    }

    /// A whole host is paused.
    pub fn is_paused(&self, host: HostId) {
        self.state.borrow_mut().paused.insert(host, Duration::MAX);
    }

    /// A paused host goes on; what it does until this moment is not guaranteed. Says whether it was
    /// paused.
    pub fn goes_on(&self, host: HostId, until: Duration) -> bool {
        let mut state = self.state.borrow_mut();
        let paused = state.paused.get(&host) == Some(&Duration::MAX);
        if paused {
            state.paused.insert(host, until);
        }
        paused
    }

    /// Whether the record says that somebody serves.
    pub fn record(&self) -> Option<EpochRecord> {
        self.state.borrow().record.clone()
    }

    /// Whether the record is where nothing moves any more.
    pub fn is_serving(&self) -> bool {
        self.record().is_some_and(|record| record.state == EpochState::Serving)
    }

    /// When the newest commit of a database was acknowledged.
    pub fn newest(&self, database: &DatabaseName) -> Option<Duration> {
        self.state.borrow().acknowledged.get(database)?.last().map(|commit| commit.at)
    }

    /// Numbers of this run.
    pub fn counts(&self) -> Counts {
        let state = self.state.borrow();
        let acknowledged = state.acknowledged.values().map(|commits| commits.len() as u64).sum();
        Counts { acknowledged, moves: state.moves, not_guaranteed: state.not_guaranteed }
    }
}

fn remember(state: &mut State, node: &Node, (id, at, epoch, promised): (u64, Duration, u64, bool)) {
    let commit = Acknowledged { id, at, node: node.name.clone(), epoch, promised };
    state.acknowledged.entry(node.database.clone()).or_default().push(commit);
}

/// Whether commits of an epoch survive the loss of its region.
fn promises(record: &EpochRecord) -> bool {
    record.synchronous.needed > 0 && record.degraded.is_none()
}

/// Whether a node holds the service by a store that was restored from before the newest epoch.
fn is_shown_alone(state: &State, node: &Node) -> bool {
    let newest = state.record.as_ref().map_or(0, |record| record.epoch);
    let shown = state.shown.as_ref().filter(|shown| state.restored && shown.epoch < newest);
    shown.is_some_and(|shown| shown.holders.get(&node.database) == Some(&node.name))
}

/// Whether the last epoch that a node held made that promise.
fn was_promised(state: &State, node: &Node) -> bool {
    let held = state.begun.values().rev().map(|(_, record)| record);
    let mut held = held.filter(|record| record.holders.get(&node.database) == Some(&node.name));
    held.next().is_some_and(promises)
}

/// Whether the holder has a commit, be it while it is only about to become a primary.
fn holder_has(plant: &Plant, record: &EpochRecord, database: &DatabaseName, id: u64) -> bool {
    let holder = record.holders.get(database).and_then(|holder| plant.node(database, holder));
    holder.is_some_and(|holder| holder.disk.borrow().log.holds(id))
}

/// Whether `apply` of the record could have made this change.
fn is_allowed(before: &EpochRecord, after: &EpochRecord) -> bool {
    use EpochState::{Releasing, Revoking, Serving, Starting, Vacant};
    let begins = after.epoch > before.epoch;
    match (before.state, after.state) {
        (Releasing | Revoking | Vacant, Starting) => begins,
        _ if begins => false,
        (Starting, Starting | Serving) | (Serving, Serving | Releasing) => true,
        (Releasing, Releasing | Serving) | (Vacant, Vacant) => true,
        (_, Revoking) => true,
        _ => false,
    }
}
