//! Whether a service should move now: a pure function of what observers say (R1 to R5).

use std::collections::BTreeMap;
use std::time::Duration;

use lifeboat_model::RegionName;
use lifeboat_quorum::{EpochState, Instance, NodeStatus, Observation, Seen as Sight};

use crate::view::{Seen, View};
use crate::{Service, candidate};

/// What an observer says, and for how long the judge has not heard from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voice {
    /// What it saw last.
    pub said: Observation,
    /// How old that is, by the judge's own clock.
    pub age: Duration,
}

/// What the judge decides from.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// The service.
    pub service: &'a Service,
    /// What the store says of it.
    pub view: &'a View,
    /// What observers say, by failure domain.
    pub voices: &'a BTreeMap<RegionName, Voice>,
    /// How long the epoch has been what it is, by the judge's own clock.
    pub since_move: Duration,
    /// The judge's clock.
    pub now: Duration,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing: it works, or nobody can tell.
    Stay,
    /// It fails, and might come back.
    Watch,
    /// It should move, and a person has to say so.
    Ask {
        /// To there.
        to: RegionName,
    },
    /// It moves.
    Move {
        /// To there.
        to: RegionName,
    },
    /// It fails, and nothing can be done by moving it.
    Stuck,
}

/// A verdict, and why, in sentences.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Verdict,
    /// What speaks for it and against it, in the order in which it was asked.
    pub reasons: Vec<String>,
}

/// An observer that was silent for this long says nothing any more.
const SILENT_AFTER: Duration = Duration::from_secs(5);

/// Judges.
pub fn judge(evidence: &Evidence<'_>) -> Judgement {
    let mut reasons = Vec::new();
    let verdict = decide(evidence, &mut reasons);
    Judgement { verdict, reasons }
}

fn decide(evidence: &Evidence<'_>, reasons: &mut Vec<String>) -> Verdict {
    let Evidence { service, view, .. } = evidence;
    let Some(record) = view.record.as_ref().map(|seen| &seen.value) else {
        reasons.push("No epoch was begun yet: `lifeboat apply` does.".to_owned());
        return Verdict::Stay;
    };
    if let Some(run) = record.run {
        reasons.push(format!("Run {run} is at work on it; a judge never fires into a move."));
        return Verdict::Stay;
    }
    if record.state == EpochState::Starting {
        reasons.push(format!("Epoch {} begins: its holder has not written yet.", record.epoch));
        return Verdict::Stay;
    }
    if record.state != EpochState::Serving {
        let state = format!("{:?}", record.state).to_lowercase();
        reasons.push(format!("Epoch {} is {state}, and a person has to go on.", record.epoch));
        return Verdict::Stay;
    }
    let down = count_votes(evidence, record.epoch, reasons);
    if down == Votes::Up {
        return Verdict::Stay;
    }
    let Some(to) = service.other_than(&record.region) else {
        reasons.push("The spec names no other region for it.".to_owned());
        return Verdict::Stuck;
    };
    let waits = waits_for_receivers(evidence, record.epoch);
    if let Err(why) = candidate::check(service, view, to, evidence.now) {
        reasons.extend(waits);
        reasons.extend(why);
        return Verdict::Stuck;
    }
    if let Some(why) = waits {
        // The other region, or the way there, is lost: a move would not bring it back (R3).
        reasons.push(why);
        return if down == Votes::Early { Verdict::Watch } else { Verdict::Ask { to: to.clone() } };
    }
    reasons.push(format!("{to} could take over."));
    if down == Votes::Early {
        return Verdict::Watch;
    }
    if evidence.since_move < service.policy.dwell && record.epoch > 1 {
        let (since, dwell) = (evidence.since_move.as_secs(), service.policy.dwell.as_secs());
        reasons.push(format!("It moved {since} s ago and stays for {dwell} s (`dwell`)."));
        return Verdict::Ask { to: to.clone() };
    }
    if let Err(why) = candidate::check_standby(service, view, to, evidence.now) {
        reasons.extend(why);
        return Verdict::Ask { to: to.clone() };
    }
    match service.policy.automatic {
        true => Verdict::Move { to: to.clone() },
        false => {
            reasons.push("The spec says `automatic: false`: a person moves it.".to_owned());
            Verdict::Ask { to: to.clone() }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Votes {
    Up,
    Early,
    Down,
}

/// How many observers see it down, and for long enough.
fn count_votes(evidence: &Evidence<'_>, epoch: u64, reasons: &mut Vec<String>) -> Votes {
    let policy = &evidence.service.policy;
    let (mut failing, mut long_enough) = (0_u8, 0_u8);
    let writes = writes(evidence, epoch);
    for (domain, Voice { said, age }) in evidence.voices {
        if *age >= SILENT_AFTER {
            let seconds = age.as_secs();
            reasons.push(format!("{domain} has said nothing for {seconds} s: no vote."));
        } else if said.epoch != epoch {
            reasons.push(format!("{domain} speaks of epoch {}: no vote.", said.epoch));
        } else if *age > evidence.since_move {
            reasons.push(format!("{domain} last spoke before epoch {epoch} served: no vote."));
        } else if said.write == Sight::Fails {
            // What failed before the epoch served says nothing of it: its primary was still to come.
            // Nor does what failed before a primary that was started again writes.
            let lasting = (said.for_how_long + *age)
                .min(evidence.since_move)
                .min(writes.unwrap_or(Duration::MAX));
            failing = failing.saturating_add(1);
            if lasting >= policy.unhealthy_for {
                long_enough = long_enough.saturating_add(1);
            }
            let seconds = lasting.as_secs_f64();
            reasons.push(format!("{domain} sees it fail for {seconds:.1} s: {}.", said.why));
        } else {
            reasons.push(format!("{domain} sees: {}.", said.why));
        }
    }
    if let Some(writes) = writes.filter(|writes| *writes < policy.unhealthy_for) {
        let seconds = writes.as_secs_f64();
        reasons.push(format!("Its primary has been writing again for {seconds:.1} s."));
    }
    let needed = policy.observers_agree;
    let wait = policy.unhealthy_for.as_secs_f64();
    reasons.push(format!(
        "{long_enough} of {} observers see it fail for {wait:.1} s or more; {needed} are needed.",
        evidence.voices.len()
    ));
    match (long_enough >= needed, failing >= needed) {
        (true, _) => Votes::Down,
        (false, true) => Votes::Early,
        (false, false) => {
            tell_own_signals(evidence, reasons);
            Votes::Up
        }
    }
}

/// For how long every holder has been writing under its lease, by what they say at this moment; none if
/// one does not.
fn writes(evidence: &Evidence<'_>, epoch: u64) -> Option<Duration> {
    let record = &evidence.view.record.as_ref()?.value;
    let each = record.holders.iter().map(|(database, node)| {
        let seen = evidence.view.node(database, node)?;
        writing(seen, epoch, evidence.now)
    });
    each.collect::<Option<Vec<Duration>>>()?.into_iter().min()
}

/// For how long a holder has been writing under its lease, if it says so at this moment.
fn writing(holder: &Seen<NodeStatus>, epoch: u64, now: Duration) -> Option<Duration> {
    let age = holder.age(now);
    let well = age < candidate::ABSENT_AFTER && holder.value.lease == Some(epoch);
    Some(holder.value.writes.filter(|_| well)?.saturating_add(age))
}

/// Why clients see no commit where the database itself is well: its holder writes under its lease,
/// says so at this moment, and its commits wait for receivers.
fn waits_for_receivers(evidence: &Evidence<'_>, epoch: u64) -> Option<String> {
    let record = &evidence.view.record.as_ref()?.value;
    let waits = record.holders.iter().find_map(|(database, node)| {
        let seen = evidence.view.node(database, node)?;
        let well = writing(seen, epoch, evidence.now).is_some();
        let stalled = matches!(seen.value.instance, Instance::Primary { stalled: true, .. });
        (well && stalled).then(|| format!("{node} of {database}"))
    })?;
    Some(format!(
        "{waits} writes, and its commits wait for receivers that do not answer (`on_loss`). Mend the \
         way to them, give RPO 0 up with `lifeboat wal acknowledge --undo`, or move it yourself."
    ))
}

/// What is worth knowing while nothing moves: a stalled quorum is no failed database (R3).
fn tell_own_signals(evidence: &Evidence<'_>, reasons: &mut Vec<String>) {
    for ((database, node), status) in &evidence.view.status {
        if let Instance::Primary { stalled: true, .. } = status.value.instance {
            reasons.push(format!(
                "Commits on {node} of {database} wait for receivers that are not there \
                 (`on_loss`): no reason to move."
            ));
        }
    }
}
