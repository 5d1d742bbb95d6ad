//! What a run does next: a function of plan, journal, record and statuses.
//!
//! Every controller computes the same from the same; what it writes compares what it read, so it
//! happens once. Each step is begun (its orders are written), looked at until its effect is seen,
//! and then done, or it fails and waits for a person. A switchover that fails goes back by itself.

mod abort;
mod look;

use std::time::Duration;

use jiff::Timestamp;
use lifeboat_model::{DatabaseName, RegionName};
use lifeboat_quorum::{
    Degraded, EpochRecord, EpochState, FenceProof, Goal, Nodes, ReceiverGoal, Return, Synchronous,
    Transition,
};
use lifeboat_workflow::{Change, Kind, Run, Step, StepState};

use crate::candidate::ABSENT_AFTER;
use crate::view::{Seen, View};
use crate::{Service, Writes, names};

/// Everything that the next move of a run is decided from.
#[derive(Debug, Clone, Copy)]
pub struct Turn<'a> {
    /// The service.
    pub service: &'a Service,
    /// What the store says.
    pub view: &'a View,
    /// The record.
    pub record: &'a Seen<EpochRecord>,
    /// The run.
    pub run: &'a Run,
    /// When this controller saw the run's last transition.
    pub observed: Duration,
    /// Where traffic does not lead yet, in words; none if it was not looked at in this epoch.
    pub traffic: Option<&'a [String]>,
    /// How long ago enough observers had written through the clients' endpoint in this epoch.
    pub answered: Option<Duration>,
    /// This controller's clock, before it read the store.
    pub now: Duration,
    /// Its wall clock, for display.
    pub at: Timestamp,
}

/// What a controller does next for a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Look again, because of this.
    Wait(String),
    /// Write this, and look again at once.
    Write(Box<Writes>),
    /// Choose the next epoch's number, and write `started` with the record that it makes.
    Choose(Box<Proposal>),
    /// Begin the epoch that was chosen: repositories first, then `done` with its record.
    Begin(Box<EpochRecord>),
}

/// A new epoch, but for its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// Who shall hold it.
    pub region: RegionName,
    /// The node of each database.
    pub holders: Nodes,
    /// How the former epoch was ended.
    pub proof: FenceProof,
    /// What commits wait for.
    pub synchronous: Synchronous,
    /// Why RPO is not held from the start, if it is not.
    pub degraded: Option<Degraded>,
}

/// Says what comes next.
pub fn advance(turn: &Turn<'_>) -> Next {
    match turn.run.state() {
        StepState::Ready => match turn.run.step() {
            Some(step) => turn.begin(step),
            None => Next::Wait("it is over".to_owned()),
        },
        StepState::Started => match turn.run.step() {
            Some(step) => turn.look(step),
            None => Next::Wait("it is over".to_owned()),
        },
        StepState::Failed => {
            let why = turn.run.journal.last().map(|entry| entry.evidence.clone());
            Next::Wait(format!("waits for a person: {}", why.unwrap_or_default()))
        }
        StepState::Aborting => turn.go_back(),
        StepState::Over | StepState::Aborted => Next::Wait("it is over".to_owned()),
    }
}

impl Turn<'_> {
    /// Begins a step: its orders, its change of the record.
    fn begin(&self, step: Step) -> Next {
        let started = || Writes::new(Change::Started, "");
        match step {
            Step::Precheck | Step::Traffic => write(started()),
            Step::Release => self.change(
                Transition::Release(self.run.plan.run),
                self.order_nodes(started(), &self.run.plan.old, |_| Goal::Release),
            ),
            Step::Revoke => match self.record.value.state {
                EpochState::Revoking => write(Writes::new(Change::Done, "the record is revoking")),
                _ => self.change(Transition::Revoke(self.run.plan.run), started()),
            },
            Step::Seal => {
                write(self.order_receivers(started(), || ReceiverGoal::Seal {
                    epoch: self.run.plan.epoch,
                }))
            }
            Step::Fence => write(self.order_nodes(started(), &self.run.plan.old, |_| Goal::Fence)),
            Step::Complete => write(self.order_nodes(started(), &self.run.plan.new, |database| {
                Goal::Hold { complete: self.required(database) }
            })),
            Step::Begin => match self.has_watched() {
                true => Next::Choose(Box::new(self.proposal())),
                false => Next::Wait("looks at the store for a full lease first".to_owned()),
            },
            Step::Promote => write(self.promote(started())),
            Step::Serve => self.change(
                Transition::Serve,
                Writes::new(Change::Done, format!("epoch {} serves", self.record.value.epoch)),
            ),
            Step::Return | Step::Reprotect => write(self.followers(started(), Return::AsItIs)),
            Step::Salvage => write(self.salvage(started())),
            Step::Rejoin => write(self.followers(started(), Return::Rewind)),
            Step::Report => self.change(Transition::Finish, self.report()),
        }
    }

    /// Whether this controller has looked at the store for a full lease. The journal may say that
    /// the holder is fenced and be an old one: of a store that was restored from before an epoch
    /// that it does not know, and whose holder lives until its own lease is over.
    fn has_watched(&self) -> bool {
        self.now.saturating_sub(self.view.first_read) >= self.service.timing.lease
    }

    /// A change of the record together with a transition; one that is not allowed fails the step.
    fn change(&self, transition: Transition, writes: Writes) -> Next {
        match self.record.value.apply(transition) {
            Ok(record) => write(writes.record(record)),
            Err(error) => write(Writes::new(Change::Failed, error.to_string())),
        }
    }

    fn order_nodes(
        &self,
        mut writes: Writes,
        nodes: &Nodes,
        goal: impl Fn(&DatabaseName) -> Goal,
    ) -> Writes {
        let orders =
            nodes.iter().map(|(database, node)| (database.clone(), node.clone(), goal(database)));
        writes.nodes.extend(orders);
        writes
    }

    fn order_receivers(&self, mut writes: Writes, goal: impl Fn() -> ReceiverGoal) -> Writes {
        for (database, content) in &self.service.databases {
            let orders =
                content.receivers.iter().map(|region| (database.clone(), region.clone(), goal()));
            writes.receivers.extend(orders);
        }
        writes
    }

    /// The new primary, and the receivers of its epoch: its first commit may wait for them.
    fn promote(&self, writes: Writes) -> Writes {
        let synchronous = &self.record.value.synchronous;
        let writes =
            self.order_nodes(writes, &self.record.value.holders, |database| Goal::Primary {
                required: self.required(database),
                synchronous_standby_names: names(self.service, database, synchronous),
            });
        self.order_receivers(writes, || ReceiverGoal::Receive)
    }

    /// Everybody else follows the holder.
    fn followers(&self, mut writes: Writes, by: Return) -> Writes {
        for (database, holder) in &self.record.value.holders {
            let Some(content) = self.service.databases.get(database) else { continue };
            for node in content.nodes.keys().filter(|node| *node != holder) {
                let goal = Goal::Follow { upstream: holder.clone(), by };
                writes.nodes.push((database.clone(), node.clone(), goal));
            }
        }
        self.order_receivers(writes, || ReceiverGoal::Receive)
    }

    fn salvage(&self, mut writes: Writes) -> Writes {
        let forks = self.run.plan.new.iter().filter_map(|(database, node)| {
            let fork = self.fork(database)?;
            Some((database.clone(), node.clone(), Goal::Salvage { fork }))
        });
        writes.nodes.extend(forks);
        writes
    }

    /// The next epoch: who held, who shall, how the former one ended, what commits wait for.
    fn proposal(&self) -> Proposal {
        let plan = &self.run.plan;
        let wanted = self.service.synchronous(&plan.to);
        let (synchronous, degraded) = match plan.kind {
            Kind::Switchover | Kind::Fallback => (wanted, None),
            Kind::Failover => self.what_still_exists(wanted),
        };
        let proof = self.proof();
        Proposal {
            region: plan.to.clone(),
            holders: plan.new.clone(),
            proof,
            synchronous,
            degraded,
        }
    }

    /// A failover begins with the receivers that are left; too few of them, and commits wait for
    /// nobody until the service is protected again. Whoever answered the order to seal outlived the
    /// old primary: what was last heard before says nothing, for it is a few seconds old, as is the
    /// loss.
    fn what_still_exists(&self, wanted: Synchronous) -> (Synchronous, Option<Degraded>) {
        let epoch = self.run.plan.epoch;
        let alive = |region: &&RegionName| {
            self.service.databases.keys().all(|database| {
                self.view.receiver(database, region).is_some_and(|status| {
                    status.age(self.now) < ABSENT_AFTER
                        && status.value.sealed.is_some_and(|seal| seal.epoch >= epoch)
                })
            })
        };
        let left: Vec<RegionName> = wanted.receivers.iter().filter(alive).cloned().collect();
        if wanted.needed == 0 || left.len() >= usize::from(wanted.needed) {
            return (Synchronous { receivers: left, ..wanted }, None);
        }
        let why = format!(
            "{} of {} receivers outside {} are left, and {} are needed",
            left.len(),
            wanted.receivers.len(),
            self.run.plan.to,
            wanted.needed
        );
        (Synchronous::default(), Some(Degraded { since: self.at, why }))
    }

    /// What the fence step found, as the record keeps it.
    fn proof(&self) -> FenceProof {
        let plan = &self.run.plan;
        let confirmed = || FenceProof::Confirmed { nodes: plan.old.clone() };
        let Some(fence) = self.run.end_of(Step::Fence) else {
            // A switchover: its release was confirmed, or it would not have come to here.
            return confirmed();
        };
        if fence.change == Change::Skipped {
            let (name, statement) = (fence.by.clone(), fence.evidence.clone());
            return FenceProof::Person { name, statement };
        }
        match fence.facts.get("lease_waited_ms").and_then(|waited| waited.parse().ok()) {
            Some(waited_ms) => FenceProof::LeaseOver { waited_ms },
            None => confirmed(),
        }
    }
}

fn write(writes: Writes) -> Next {
    Next::Write(Box::new(writes))
}
