//! The way out where the quorum store is older than the repositories: a new epoch above all.

use jiff::Timestamp;
use lifeboat_model::{DatabaseName, NodeName, RegionName};
use lifeboat_quorum::{
    Beginning, Degraded, EpochRecord, Fence, FenceProof, Keys, Nodes, Synchronous, Transaction,
    Transition,
};
use lifeboat_telemetry::{Code, Failure, Outcome};

use crate::{Elsewhere, Seen, Service};

/// Who shall hold a service after its epoch was adopted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adoption {
    /// The number of the new epoch: above all that are known.
    pub epoch: u64,
    /// The region.
    pub region: RegionName,
    /// The node of each database.
    pub holders: Nodes,
    /// Whether these are others than those who held the highest epoch.
    pub moves: bool,
}

/// Whom the new epoch is for: whoever holds the highest one that is known, else `to`.
pub fn adoption(
    service: &Service,
    elsewhere: &Elsewhere,
    least: u64,
    to: Option<&RegionName>,
) -> Outcome<Adoption> {
    let epoch = elsewhere.highest().max(least).saturating_add(1);
    // What an agent remembers says nothing of who held it.
    let archived =
        elsewhere.archived.as_ref().filter(|known| known.epoch.saturating_add(1) == epoch);
    let held = archived.and_then(|known| Some((known.region.clone()?, known.holders.clone())));
    let known = |(database, node): (&DatabaseName, &NodeName)| {
        service.databases.get(database).is_some_and(|one| one.nodes.contains_key(node))
    };
    match (held, to) {
        (Some((region, holders)), to)
            if to.is_none_or(|to| *to == region)
                && holders.len() == service.databases.len()
                && holders.iter().all(known) =>
        {
            Ok(Adoption { epoch, region, holders, moves: false })
        }
        (_, Some(to)) => {
            let holders = service.nodes_in(to)?;
            Ok(Adoption { epoch, region: to.clone(), holders, moves: true })
        }
        (_, None) => {
            let name = &service.name;
            let message = format!("it cannot be told who holds epoch {} of {name}", epoch - 1);
            Err(Failure::new(Code::MoveRefused, message).hint(
                "See on the hosts which node writes, and name its region with --to; the others \
                 must be down.",
            ))
        }
    }
}

/// Takes the old record from everybody: nobody may renew a lease under it, and no run changes it.
pub fn withdraw(
    service: &Service,
    keys: &Keys,
    record: &Seen<EpochRecord>,
) -> Outcome<Transaction> {
    let next = record.value.apply(Transition::Withdraw).map_err(refused)?;
    let key = keys.epoch(&service.name);
    Ok(Transaction::new().when(key.clone(), record.revision).put(key, &next))
}

/// The record that goes on, once a full lease has passed since the old one was withdrawn.
pub fn adopt(
    service: &Service,
    keys: &Keys,
    record: &Seen<EpochRecord>,
    adoption: &Adoption,
    proof: FenceProof,
    at: Timestamp,
) -> Outcome<(EpochRecord, Transaction)> {
    let Adoption { epoch, region, holders, .. } = adoption.clone();
    // Upkeep makes commits wait again, and says so, once receivers are at work.
    let degraded = (service.synchronous(&region).needed > 0).then(|| Degraded {
        since: at,
        why: "the epoch was adopted from the repositories".to_owned(),
    });
    let beginning = Beginning {
        epoch,
        region,
        holders,
        fence: Fence { epoch: record.value.epoch, proof, at },
        synchronous: Synchronous::default(),
        degraded,
        at,
        spec: service.digest.clone(),
    };
    let next = record.value.apply(Transition::Begin(Box::new(beginning))).map_err(refused)?;
    let key = keys.epoch(&service.name);
    let transaction = Transaction::new().when(key.clone(), record.revision).put(key, &next);
    Ok((next, transaction))
}

fn refused(error: lifeboat_quorum::Refused) -> Failure {
    Failure::new(Code::MoveRefused, error.to_string())
        .hint("Somebody else is at work on it: see `lifeboat status`, then run it again.")
}
