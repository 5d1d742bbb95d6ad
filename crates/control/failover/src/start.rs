//! How a service gets its first epoch, and how a run begins: one transaction each.

use jiff::Timestamp;
use lifeboat_model::RegionName;
use lifeboat_quorum::{
    Beginning, EpochRecord, EpochState, Fence, FenceProof, Instance, Keys, Nodes, RunId,
    Transaction, Transition,
};
use lifeboat_telemetry::{Code, Failure, Outcome};
use lifeboat_workflow::{Kind, Plan};

use crate::view::View;
use crate::{Service, candidate};

/// A move that somebody wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// What kind of move.
    pub kind: Kind,
    /// To which region; none for the other one.
    pub to: Option<RegionName>,
    /// Who wants it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Since when it was seen to fail.
    pub failing_since: Option<Timestamp>,
    /// When an observer last saw a write committed.
    pub last_worked: Option<Timestamp>,
}

/// The record of a service that nobody moved yet, and the transaction that creates it.
pub fn first_epoch(
    service: &Service,
    keys: &Keys,
    epoch: u64,
    at: Timestamp,
) -> Outcome<(EpochRecord, Transaction)> {
    let record = EpochRecord::first(Beginning {
        epoch,
        region: service.home.clone(),
        holders: service.nodes_in(&service.home)?,
        fence: Fence { epoch: epoch.saturating_sub(1), proof: FenceProof::NoHolder, at },
        synchronous: service.synchronous(&service.home),
        degraded: None,
        at,
        spec: service.digest.clone(),
    });
    let transaction = Transaction::new().create(keys.epoch(&service.name), &record);
    Ok((record, transaction))
}

/// The plan of a move, and the transaction that begins it. Refused with reasons where it must not.
pub fn start(
    service: &Service,
    view: &View,
    keys: &Keys,
    wanted: &Wanted,
    now: std::time::Duration,
    at: Timestamp,
) -> Outcome<(Plan, Transaction)> {
    let name = &service.name;
    let Some(seen) = &view.record else {
        return Err(refused(format!("{name} has no epoch yet")).hint("Run `lifeboat apply`."));
    };
    let record = &seen.value;
    if let Some(run) = record.run {
        let hint = format!("See `lifeboat runs show {name} {run}`; resume it, or abort it.");
        return Err(refused(format!("run {run} is at work on {name}")).hint(hint));
    }
    let to = target(service, record, wanted)?;
    if wanted.kind != Kind::Fallback {
        candidate::check(service, view, &to, now).map_err(|why| {
            refused(format!("{to} cannot take {name} over"))
                .details(why)
                .hint("Repair what is named. `lifeboat status` shows each node.")
        })?;
    }
    let run = RunId(record.last_run.saturating_add(1));
    let transition = match wanted.kind {
        Kind::Switchover | Kind::Fallback => Transition::Claim(run),
        Kind::Failover => Transition::Revoke(run),
    };
    let next = record.apply(transition).map_err(|error| {
        refused(error.to_string()).hint(
            "A planned move needs a serving epoch. If the primary is lost: `lifeboat failover`.",
        )
    })?;
    let new = service.nodes_in(&to)?;
    let plan = Plan {
        run,
        service: name.clone(),
        kind: wanted.kind,
        from: record.region.clone(),
        newest_commit: newest_commit(view, &new),
        new,
        to,
        old: record.holders.clone(),
        epoch: record.epoch,
        steps: wanted.kind.steps().to_vec(),
        by: wanted.by.clone(),
        reason: wanted.reason.clone(),
        failing_since: wanted.failing_since,
        last_worked: wanted.last_worked,
        at,
        spec: service.digest.clone(),
    };
    let transaction = Transaction::new()
        .when(keys.epoch(name), seen.revision)
        .create(keys.plan(name, run), &plan)
        .put(keys.epoch(name), &next);
    Ok((plan, transaction))
}

/// An old primary that is started again before it is stopped for good goes on a little: what came
/// before says when clients were last served.
fn newest_commit(view: &View, new: &Nodes) -> Option<Timestamp> {
    let replayed =
        new.iter().filter_map(|(database, node)| match view.node(database, node)?.value.instance {
            Instance::Standby { replayed_commit, .. } => replayed_commit,
            _ => None,
        });
    replayed.max()
}

fn target(service: &Service, record: &EpochRecord, wanted: &Wanted) -> Outcome<RegionName> {
    let name = &service.name;
    if wanted.kind == Kind::Fallback {
        // The loser: whoever does not hold it.
        return other(service, record);
    }
    let Some(to) = wanted.to.clone() else { return other(service, record) };
    if service.nodes_in(&to)?.is_empty() {
        return Err(refused(format!("{name} has no database in {to}")));
    }
    // A failover to where it is begins a new epoch there: the way on after one that was given up.
    if to == record.region && record.state == EpochState::Serving {
        return Err(refused(format!("{name} is in {to} already")));
    }
    Ok(to)
}

fn other(service: &Service, record: &EpochRecord) -> Outcome<RegionName> {
    service.other_than(&record.region).cloned().ok_or_else(|| {
        refused(format!("the spec names no other region for {}", service.name))
            .hint("Add `standby:` to the service.")
    })
}

fn refused(message: String) -> Failure {
    Failure::new(Code::MoveRefused, message)
}
