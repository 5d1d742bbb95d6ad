//! For how long commits have been waiting for receivers that are not there.
//!
//! Only the primary can tell, and only while it does: a controller that was away, or a primary
//! that nobody hears, says nothing about how long clients have waited.

use std::collections::BTreeMap;
use std::time::Duration;

use lifeboat_model::DatabaseName;
use lifeboat_quorum::{EpochState, Instance};

use crate::candidate::ABSENT_AFTER;
use crate::view::View;

/// What one controller has heard of the stalls of a service's databases.
#[derive(Debug, Clone, Default)]
pub struct Stalls(BTreeMap<DatabaseName, Stall>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stall {
    epoch: u64,
    /// When it was first heard, and last, without a break in between.
    first: Duration,
    last: Duration,
}

impl Stalls {
    /// Hears what stands in the store now.
    pub fn hear(&mut self, view: &View) {
        let Some(record) = view.record.as_ref().map(|seen| &seen.value) else {
            return self.0.clear();
        };
        for (database, holder) in &record.holders {
            let status = view.node(database, holder).filter(|seen| {
                record.state == EpochState::Serving
                    && seen.value.lease == Some(record.epoch)
                    && matches!(seen.value.instance, Instance::Primary { stalled: true, .. })
            });
            let Some(heard) = status.map(|seen| seen.observed) else {
                self.0.remove(database);
                continue;
            };
            let fresh = Stall { epoch: record.epoch, first: heard, last: heard };
            let stall = self.0.entry(database.clone()).or_insert(fresh);
            let goes_on =
                stall.epoch == record.epoch && heard.saturating_sub(stall.last) < ABSENT_AFTER;
            *stall = if goes_on { Stall { last: heard, ..*stall } } else { fresh };
        }
    }

    /// For how long a database's commits have been waiting, as far as that was heard; none if they
    /// are not, or if nobody has said so just now.
    pub fn lasting(&self, database: &DatabaseName, now: Duration) -> Option<Duration> {
        let stall = self.0.get(database)?;
        let is_fresh = now.saturating_sub(stall.last) < ABSENT_AFTER;
        is_fresh.then(|| stall.last.saturating_sub(stall.first))
    }
}
