//! Looking for the effect of a step.

use std::time::Duration;

use lifeboat_model::{DatabaseName, Lsn, NodeName};
use lifeboat_quorum::{Instance, NodeStatus, Nodes, Progress};
use lifeboat_workflow::{Change, Kind, Step};

use super::{Next, Turn, write};
use crate::candidate;
use crate::view::Seen;
use crate::{Writes, measure};

/// A candidate of a planned move is this close before anything is stopped.
const CLOSE: u64 = 16 << 20;
/// How long each step may take before it fails.
const PRECHECK: Duration = Duration::from_secs(10);
const RELEASE: Duration = Duration::from_secs(60);
const COMPLETE_PLANNED: Duration = Duration::from_secs(15);
const COMPLETE: Duration = Duration::from_secs(600);
const SEAL: Duration = Duration::from_secs(15);
/// Seals of an asynchronous tier are good to have: they save what receivers hold.
const SEAL_ANYWAY: Duration = Duration::from_millis(1500);
const PROMOTE: Duration = Duration::from_secs(120);
const TRAFFIC: Duration = Duration::from_secs(60);
const ANSWERED: Duration = Duration::from_secs(5);
const RETURN: Duration = Duration::from_secs(30);

impl Turn<'_> {
    pub(super) fn look(&self, step: Step) -> Next {
        match step {
            Step::Precheck => self.look_at_candidate(),
            Step::Revoke => write(Writes::new(Change::Done, "the record is revoking")),
            Step::Release => self.look_at_release(),
            Step::Seal => self.look_at_seals(),
            Step::Fence => self.look_at_fence(),
            Step::Complete => self.look_at_completion(),
            Step::Promote => self.look_at_promotion(),
            Step::Traffic => self.look_at_traffic(),
            Step::Return | Step::Rejoin => self.look_at_return(step),
            Step::Reprotect => {
                write(Writes::new(Change::Done, "receivers and standbys have their orders"))
            }
            Step::Salvage => self.look_at_answers(&self.run.plan.new.clone(), COMPLETE),
            // What was chosen cannot be read: it is chosen again.
            Step::Begin => match self.run.chosen() {
                Some(record) => Next::Begin(Box::new(record)),
                None => self.begin(step),
            },
            // These are done in the transaction that begins them.
            Step::Serve | Step::Report => self.begin(step),
        }
    }

    fn waited(&self) -> Duration {
        self.now.saturating_sub(self.observed)
    }

    fn look_at_candidate(&self) -> Next {
        let mut why = Vec::new();
        if let Err(lines) = candidate::check(self.service, self.view, &self.run.plan.to, self.now) {
            why.extend(lines);
        }
        let mut evidence = Vec::new();
        for (database, node) in &self.run.plan.new {
            match self.distance(database, node) {
                Ok(bytes) if bytes <= CLOSE => {
                    evidence.push(format!("{node} is {bytes} bytes behind"))
                }
                Ok(bytes) => why.push(format!("{node} of {database} is {bytes} bytes behind.")),
                Err(line) => why.push(line),
            }
        }
        match (why.is_empty(), self.waited() < PRECHECK) {
            (true, _) => write(Writes::new(Change::Done, evidence.join("; "))),
            (false, true) => Next::Wait(why.join(" ")),
            (false, false) => self.fail(why.join(" ")),
        }
    }

    /// How far a candidate that streams is behind the primary.
    fn distance(&self, database: &DatabaseName, node: &NodeName) -> Result<u64, String> {
        let old = self.run.plan.old.get(database);
        let primary = old.and_then(|old| self.view.node(database, old));
        let Some(Instance::Primary { flushed, .. }) = primary.map(|seen| &seen.value.instance)
        else {
            return Err(format!("The primary of {database} does not report as one."));
        };
        match self.view.node(database, node).map(|seen| &seen.value.instance) {
            Some(Instance::Standby { streaming: true, received: Some(received), .. }) => {
                Ok(flushed.0.saturating_sub(received.0))
            }
            _ => Err(format!("{node} of {database} does not stream.")),
        }
    }

    fn look_at_release(&self) -> Next {
        match self.answers(&self.run.plan.old) {
            Answers::Done(evidence) => {
                let mut writes = Writes::new(Change::Done, evidence);
                for (database, node) in &self.run.plan.old {
                    match self.view.node(database, node).map(|seen| &seen.value.instance) {
                        Some(Instance::Down { shut_down_at: Some(end), .. }) => {
                            writes = writes.fact(format!("end.{database}"), end.to_string());
                        }
                        // Killed at its deadline before it could stop: nobody knows what is missing.
                        Some(Instance::Down { shut_down_at: None, .. }) => {
                            return self.fail(format!("{node} was not shut down cleanly"));
                        }
                        _ if self.waited() >= RELEASE => {
                            return self.fail(format!("{node} does not say where its WAL ends"));
                        }
                        _ => return Next::Wait(format!("{node} is down; where its WAL ends?")),
                    }
                }
                write(writes)
            }
            Answers::Failed(why) => self.fail(why),
            Answers::Missing(_) if self.waited() >= RELEASE => {
                self.fail(format!("it did not stop within {} s", RELEASE.as_secs()))
            }
            Answers::Missing(doing) => Next::Wait(doing),
        }
    }

    fn look_at_seals(&self) -> Next {
        let epoch = self.run.plan.epoch;
        let synchronous = &self.record.value.synchronous;
        let promised = synchronous.needed > 0 && self.record.value.degraded.is_none();
        let mut writes = Writes::new(Change::Done, "");
        let mut said = Vec::new();
        let (mut enough, mut all) = (true, true);
        for (database, content) in &self.service.databases {
            let (mut counted, mut furthest) = (0, None);
            for region in &content.receivers {
                let seal = self.view.receiver(database, region).and_then(|seen| seen.value.sealed);
                let Some(seal) = seal.filter(|seal| seal.epoch >= epoch) else {
                    all = false;
                    continue;
                };
                let counts = synchronous.receivers.contains(region);
                counted += usize::from(counts);
                // What was promised must be there; without a promise, what the target can reach.
                if if promised { counts } else { *region == self.run.plan.to } {
                    furthest = furthest.max(seal.flushed);
                }
                let at = seal.flushed.map_or_else(|| "nothing".to_owned(), |lsn| lsn.to_string());
                said.push(format!("{region} of {database} is sealed at {at}"));
            }
            // R + W > N: no set that could have acknowledged is without a sealed receiver.
            enough &= counted + usize::from(synchronous.needed) > synchronous.receivers.len();
            if let Some(furthest) = furthest {
                writes = writes.fact(format!("sealed.{database}"), furthest.to_string());
            }
        }
        let wait = if promised { SEAL } else { SEAL_ANYWAY };
        let over = self.waited() >= wait;
        if promised && !enough {
            let why =
                "too few receivers are sealed: a commit that was acknowledged could be missing";
            return if over { self.fail(why) } else { Next::Wait(why.to_owned()) };
        }
        if !promised && !all && !over {
            return Next::Wait("waits for receivers to be sealed".to_owned());
        }
        let claim = if promised { "yes" } else { "no" };
        writes.evidence =
            if said.is_empty() { "no receiver is left".to_owned() } else { said.join("; ") };
        write(writes.fact("rpo_0", claim))
    }

    fn look_at_fence(&self) -> Next {
        if let Answers::Done(evidence) = self.answers(&self.run.plan.old) {
            return write(Writes::new(Change::Done, format!("confirmed: {evidence}")));
        }
        let timing = &self.service.timing;
        let over = |database: &DatabaseName| self.view.waiter(database).is_over(timing, self.now);
        if self.run.plan.old.keys().all(over) {
            let waited = timing.lease.as_millis().to_string();
            let evidence = "no answer; a full lease has passed since its last change";
            return write(Writes::new(Change::Done, evidence).fact("lease_waited_ms", waited));
        }
        Next::Wait("waits for the old primary's answer, or for the end of its lease".to_owned())
    }

    fn look_at_completion(&self) -> Next {
        let planned = self.run.plan.kind == Kind::Switchover;
        let patience = if planned { COMPLETE_PLANNED } else { COMPLETE };
        match self.answers(&self.run.plan.new) {
            Answers::Done(evidence) => {
                let mut writes = Writes::new(Change::Done, evidence);
                for (database, node) in &self.run.plan.new {
                    let Some(Instance::Standby { replayed, replayed_commit, .. }) =
                        self.view.node(database, node).map(|seen| &seen.value.instance)
                    else {
                        return Next::Wait(format!("{node} is not a standby any more"));
                    };
                    if self.required(database).is_some_and(|required| *replayed < required) {
                        return Next::Wait(format!("{node} has replayed up to {replayed}"));
                    }
                    writes = writes.fact(format!("replayed.{database}"), replayed.to_string());
                    if let Some(commit) = replayed_commit {
                        writes =
                            writes.fact(format!("newest_commit.{database}"), commit.to_string());
                    }
                }
                write(writes)
            }
            Answers::Failed(why) => self.fail(why),
            Answers::Missing(doing) if self.waited() >= patience => self.fail(doing),
            Answers::Missing(doing) => Next::Wait(doing),
        }
    }

    fn look_at_promotion(&self) -> Next {
        let holders = &self.record.value.holders;
        match self.answers(holders) {
            Answers::Done(evidence)
                if holders.iter().all(|(database, node)| self.serves(database, node)) =>
            {
                write(Writes::new(Change::Done, evidence))
            }
            Answers::Failed(why) => self.fail(why),
            _ if self.waited() >= PROMOTE => {
                self.fail(format!("it is no primary after {} s", PROMOTE.as_secs()))
            }
            Answers::Missing(doing) | Answers::Done(doing) => Next::Wait(doing),
        }
    }

    /// Whether a node is the primary of the record's epoch, under a lease, and writes.
    pub(super) fn serves(&self, database: &DatabaseName, node: &NodeName) -> bool {
        self.view.node(database, node).is_some_and(|Seen { value, .. }| {
            let NodeStatus { instance, lease, writes, .. } = value;
            instance.is_primary() && *lease == Some(self.record.value.epoch) && writes.is_some()
        })
    }

    fn look_at_traffic(&self) -> Next {
        match self.traffic {
            Some([]) => self.look_at_answers_to_clients(),
            Some(lines) if self.waited() >= TRAFFIC => self.fail(lines.join("; ")),
            Some(lines) => Next::Wait(lines.join("; ")),
            None => Next::Wait("traffic was not looked at yet".to_owned()),
        }
    }

    /// Observers that have written the way clients do end the outage. A move is not held up by
    /// one that cannot.
    fn look_at_answers_to_clients(&self) -> Next {
        let evidence = "every server that answers leads there";
        match self.answered {
            Some(ago) => {
                let at = self.at.checked_sub(ago).unwrap_or(self.at);
                let evidence = format!("{evidence}; observers write through the endpoint");
                write(Writes::new(Change::Done, evidence).fact("answered", at.to_string()))
            }
            None if self.waited() < ANSWERED => {
                Next::Wait("too few observers have written through the endpoint yet".to_owned())
            }
            None => {
                let evidence =
                    format!("{evidence}; TOO FEW OBSERVERS HAVE WRITTEN through the endpoint");
                write(Writes::new(Change::Done, evidence))
            }
        }
    }

    /// The move is over for clients: what does not come back is named, and upkeep goes on with it.
    fn look_at_return(&self, step: Step) -> Next {
        let mut missing = Vec::new();
        for (database, node) in self.others() {
            let status = self.view.node(&database, &node);
            let streams = status.is_some_and(|seen| {
                matches!(seen.value.instance, Instance::Standby { streaming: true, .. })
            });
            let why = status.and_then(|seen| match &seen.value.progress {
                Progress::Failed { why } if seen.value.token == self.token() => Some(why.clone()),
                _ => None,
            });
            match (streams, why) {
                (true, _) => {}
                (false, Some(why)) if step == Step::Rejoin => return self.fail(why),
                (false, Some(why)) => missing.push(format!("{node} of {database}: {why}")),
                (false, None) => missing.push(format!("{node} of {database} does not stream yet")),
            }
        }
        let patience = if step == Step::Rejoin { COMPLETE } else { RETURN };
        match (missing.is_empty(), self.waited() < patience) {
            (true, _) => write(Writes::new(Change::Done, "the other nodes stream from it")),
            (false, true) => Next::Wait(missing.join("; ")),
            (false, false) if step == Step::Rejoin => self.fail(missing.join("; ")),
            (false, false) => write(Writes::new(Change::Done, missing.join("; "))),
        }
    }

    fn others(&self) -> Vec<(DatabaseName, NodeName)> {
        let mut others = Vec::new();
        for (database, content) in &self.service.databases {
            let holder = self.record.value.holders.get(database);
            let nodes = content.nodes.keys().filter(|node| Some(*node) != holder);
            others.extend(nodes.map(|node| (database.clone(), node.clone())));
        }
        others
    }

    fn look_at_answers(&self, nodes: &Nodes, patience: Duration) -> Next {
        match self.answers(nodes) {
            Answers::Done(evidence) => write(Writes::new(Change::Done, evidence)),
            Answers::Failed(why) => self.fail(why),
            Answers::Missing(doing) if self.waited() >= patience => self.fail(doing),
            Answers::Missing(doing) => Next::Wait(doing),
        }
    }

    fn token(&self) -> lifeboat_quorum::Token {
        self.run.token(self.record.value.epoch)
    }

    /// What the nodes say to the order of this attempt.
    fn answers(&self, nodes: &Nodes) -> Answers {
        let (mut evidence, mut missing) = (Vec::new(), Vec::new());
        for (database, node) in nodes {
            let status = self.view.node(database, node).map(|seen| &seen.value);
            match status.filter(|status| status.token == self.token()) {
                None => missing.push(format!("{node} has not answered yet")),
                Some(status) => match &status.progress {
                    Progress::Done { evidence: found } => evidence.push(format!("{node}: {found}")),
                    Progress::Failed { why } => return Answers::Failed(format!("{node}: {why}")),
                    Progress::Working { doing } => missing.push(format!("{node}: {doing}")),
                    Progress::None => missing.push(format!("{node} has not begun")),
                },
            }
        }
        match missing.is_empty() {
            true => Answers::Done(evidence.join("; ")),
            false => Answers::Missing(missing.join("; ")),
        }
    }

    /// The position that the new primary must have replayed: where the old one's WAL ended, or
    /// the furthest that any sealed receiver has acknowledged.
    pub(super) fn required(&self, database: &DatabaseName) -> Option<Lsn> {
        let fact = |step, name: &str| {
            self.run.fact(step, &format!("{name}.{database}")).and_then(|lsn| lsn.parse().ok())
        };
        fact(Step::Release, "end").or_else(|| fact(Step::Seal, "sealed"))
    }

    /// Where the winner's timeline branched off: what a fallback sets apart begins there.
    pub(super) fn fork(&self, database: &DatabaseName) -> Option<Lsn> {
        let holder = self.record.value.holders.get(database)?;
        self.view.node(database, holder)?.value.fork
    }

    pub(super) fn report(&self) -> Writes {
        let measured = measure(self.service, self.run, self.at);
        let mut writes = Writes::new(Change::Done, measured.sentence());
        writes.facts = measured.facts();
        writes
    }
}

enum Answers {
    Done(String),
    Missing(String),
    Failed(String),
}
