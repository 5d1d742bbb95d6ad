//! What one region has and another lacks.

use std::collections::BTreeSet;

use lifeboat_model::WalFileName;
use serde::Serialize;

use super::Gap;
use super::inventory::Inventory;
use crate::retention;

/// What a region lacks that another has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Lag {
    /// How many segments.
    pub segments: u64,
    /// Which segments.
    pub ranges: Vec<Gap>,
    /// Which history files.
    pub histories: Vec<String>,
    /// Which backups.
    pub backups: Vec<String>,
}

impl Lag {
    /// Whether nothing lacks.
    pub fn is_empty(&self) -> bool {
        self.segments == 0 && self.histories.is_empty() && self.backups.is_empty()
    }

    pub(super) fn of(own: &Inventory<'_>, all: &[Inventory<'_>]) -> Self {
        let mut lag = Self::default();
        let needed = retention::needed(own);
        let timelines: BTreeSet<_> = all.iter().flat_map(Inventory::timelines).collect();
        for timeline in timelines {
            let numbers = |inventory: &Inventory<'_>| -> BTreeSet<u64> {
                let numbers = inventory.coverage().numbers(timeline, 0, u64::MAX).into_iter();
                let whole = |number: &u64| inventory.coverage().has_whole(timeline, *number);
                numbers.filter(whole).collect()
            };
            let known: BTreeSet<u64> = all.iter().flat_map(numbers).collect();
            let mut missing: Vec<u64> = known.difference(&numbers(own)).copied().collect();
            // What was pruned here, as every backup begins behind it, is not missed.
            missing.retain(|number| {
                needed.as_ref().is_none_or(|needed| needed.contains(timeline, *number))
            });
            lag.segments += missing.len() as u64;
            for range in missing.chunk_by(|one, next| one + 1 == *next) {
                if let (Some(first), Some(last)) = (range.first(), range.last()) {
                    lag.ranges.extend(own.gap(timeline, *first, *last));
                }
            }
            let known = all.iter().any(|inventory| inventory.ancestors(timeline).is_some());
            if known && own.ancestors(timeline).is_none() {
                lag.histories.push(WalFileName::History(timeline).to_string());
            }
        }
        let names = |inventory: &Inventory<'_>| -> BTreeSet<String> {
            inventory.backups().iter().map(|backup| backup.name.clone()).collect()
        };
        let known: BTreeSet<String> = all.iter().flat_map(names).collect();
        lag.backups = known.difference(&names(own)).cloned().collect();
        lag
    }
}
