//! What a move would take and lose, reckoned from today's state: for people who think about one.

use std::time::Duration;

use lifeboat_model::{DatabaseName, Lsn, RegionName};
use lifeboat_quorum::Instance;
use lifeboat_telemetry::bytes;
use lifeboat_workflow::Kind;

use crate::Service;
use crate::candidate::ABSENT_AFTER;
use crate::view::View;

/// Ending sessions and writing the last checkpoint; measured in the lab (`bench-failover`).
const RELEASE: Duration = Duration::from_millis(700);
/// A seal, and a fence that is answered.
const ANSWER: Duration = Duration::from_millis(500);
/// From the end of the old epoch until clients of a load balancer write again.
const TAKE_OVER: Duration = Duration::from_millis(1300);
/// What replay reads of the WAL a second, at least.
const REPLAY: u64 = 50 << 20;

/// What is expected of a move that begins now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prediction {
    /// For how long clients could not write.
    pub away: Duration,
    /// What would be lost, in words.
    pub loss: String,
}

/// Reckons a move to a region.
pub fn predict(
    service: &Service,
    view: &View,
    kind: Kind,
    to: &RegionName,
    now: Duration,
) -> Prediction {
    let behind = behind(service, view, to);
    let bytes_behind = behind.iter().flatten().copied().max().unwrap_or_default();
    let replay = Duration::from_millis(bytes_behind.saturating_mul(1000) / REPLAY);
    match kind {
        Kind::Switchover => Prediction {
            away: RELEASE + replay + TAKE_OVER,
            loss: "nothing: the old primary stops first".to_owned(),
        },
        Kind::Failover => Prediction {
            away: ANSWER + fence(service, view, now) + replay + TAKE_OVER,
            loss: loss(view, &behind),
        },
        Kind::Fallback => Prediction {
            away: Duration::ZERO,
            loss: "nothing: what only the loser has is set apart".to_owned(),
        },
    }
}

/// Agents that report answer at once; one that is silent is waited out.
fn fence(service: &Service, view: &View, now: Duration) -> Duration {
    let holders = view.record.iter().flat_map(|record| &record.value.holders);
    let mut holders = holders.map(|(database, node)| view.node(database, node));
    match holders.all(|status| status.is_some_and(|status| status.age(now) < ABSENT_AFTER)) {
        true => ANSWER,
        false => service.timing.lease,
    }
}

/// How many bytes the target's node of each database lacks; none where that is not known.
fn behind(service: &Service, view: &View, to: &RegionName) -> Vec<Option<u64>> {
    let one = |database: &DatabaseName| -> Option<u64> {
        let holder = view.record.as_ref()?.value.holders.get(database)?;
        let nodes = &service.databases.get(database)?.nodes;
        let target = nodes.iter().find(|(_, region)| *region == to)?.0;
        let Lsn(flushed) = match &view.node(database, holder)?.value.instance {
            Instance::Primary { flushed, .. } => *flushed,
            _ => return None,
        };
        match &view.node(database, target)?.value.instance {
            Instance::Standby { received, replayed, .. } => {
                Some(flushed.saturating_sub(received.unwrap_or(*replayed).0))
            }
            _ => None,
        }
    };
    service.databases.keys().map(one).collect()
}

fn loss(view: &View, behind: &[Option<u64>]) -> String {
    let promised = view
        .record
        .as_ref()
        .is_some_and(|seen| seen.value.synchronous.needed > 0 && seen.value.degraded.is_none());
    if promised {
        return "nothing that was acknowledged: commits wait for another region".to_owned();
    }
    let known: Option<Vec<u64>> = behind.iter().copied().collect();
    match known {
        Some(lags) => {
            let most = lags.into_iter().max().unwrap_or_default();
            format!("up to {} of WAL that the target has not received", bytes(most))
        }
        None => "unknown: the primary or the target does not say where it is".to_owned(),
    }
}
