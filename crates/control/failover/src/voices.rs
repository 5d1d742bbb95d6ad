//! What observers say of each service, as one reader has heard it.

use std::collections::BTreeMap;
use std::time::Duration;

use lifeboat_model::{RegionName, ServiceName};
use lifeboat_quorum::{Observation, Observations, Revision};

use crate::Voice;
use crate::view::Seen;

/// The last words of every observer, by service.
#[derive(Debug, Clone, Default)]
pub struct Voices {
    said: BTreeMap<ServiceName, BTreeMap<RegionName, Heard>>,
    beats: BTreeMap<RegionName, u64>,
}

#[derive(Debug, Clone)]
struct Heard {
    said: Observation,
    revision: Revision,
    at: Duration,
}

impl Voices {
    /// One of an observer's values was read. What it says of a service counts unless it was written
    /// before what is known: values of another spec, or of another version, stay in the store and
    /// are not written any more.
    pub fn hear(&mut self, seen: Seen<Observations>) {
        let Seen { value: Observations { domain, beat, services }, revision, observed: at } = seen;
        let newest = self.beats.entry(domain.clone()).or_default();
        *newest = beat.max(*newest);
        for (service, said) in services {
            let known = self.said.entry(service).or_default();
            if known.get(&domain).is_none_or(|known| known.revision <= revision) {
                known.insert(domain.clone(), Heard { said, revision, at });
            }
        }
    }

    /// What observers say of a service, at `now` of the clock that they were heard by.
    pub fn on(&self, service: &ServiceName, now: Duration) -> BTreeMap<RegionName, Voice> {
        let heard = self.said.get(service).into_iter().flatten();
        let voice = |(domain, heard): (&RegionName, &Heard)| {
            let (said, age) = (heard.said.clone(), now.saturating_sub(heard.at));
            (domain.clone(), Voice { said, age })
        };
        heard.map(voice).collect()
    }

    /// The last beat that was heard of an observer; 0 for none.
    pub fn beat_of(&self, domain: &RegionName) -> u64 {
        self.beats.get(domain).copied().unwrap_or_default()
    }
}
