//! The observers of the two regions, which look and tell as the controller's own does.

use std::time::Duration;

use anyhow::Result;
use lifeboat_model::RegionName;
use lifeboat_quorum::{Observation, Observations, Seen, Transaction};

use super::{Due, Place, World, now};
use crate::controller::silence;
use crate::services::{POLL, PROBE_EVERY, PROBE_FAILING_EVERY};
use crate::wire::SILENCE;

/// How often is told what has not changed.
const TELL: Duration = Duration::from_secs(1);

/// One observer.
pub struct Observer {
    /// Where it looks from.
    domain: RegionName,
    /// Whether it is there.
    pub alive: bool,
    sights: Vec<Sight>,
    beat: u64,
    shares: Vec<Share>,
}

/// The services that one value tells of.
#[derive(Debug, Clone, Copy, Default)]
struct Share {
    told: Duration,
    changed: bool,
}

/// What it sees of one service.
#[derive(Debug, Clone, Copy, Default)]
struct Sight {
    fails: bool,
    since: Duration,
    looked: Duration,
    next: Duration,
}

impl Observer {
    /// One in each region.
    pub fn both(regions: &[RegionName; 2], services: usize) -> Vec<Self> {
        let one = |domain: &RegionName| Self {
            domain: domain.clone(),
            alive: true,
            sights: vec![Sight::default(); services],
            beat: 0,
            shares: vec![Share::default(); services.div_ceil(Observations::SERVICES)],
        };
        regions.iter().map(one).collect()
    }

    /// When it will have found that a service is silent which fails now.
    pub fn will_notice(&self, place: usize) -> Option<Duration> {
        self.sights.get(place).filter(|_| self.alive).map(|sight| sight.next + SILENCE)
    }

    fn tell(&mut self, number: usize, places: &[Place]) -> Option<Observations> {
        let (now, first) = (now(), number * Observations::SERVICES);
        let share = self.shares.get_mut(number)?;
        let since = now.saturating_sub(share.told);
        if since < POLL || (since < TELL && !share.changed) {
            return None;
        }
        *share = Share { told: now, changed: false };
        self.beat += 1;
        let one = |(place, sight): (&Place, &Sight)| {
            let seen = if sight.fails { Seen::Fails } else { Seen::Works };
            let why = match sight.fails {
                true => silence(&place.name),
                false => "a write was committed".to_owned(),
            };
            let observation = Observation {
                epoch: place.record.epoch,
                write: if sight.looked < place.moved { Seen::Unknown } else { seen },
                for_how_long: now.saturating_sub(sight.since.max(place.moved)),
                worked_ago: None,
                why: Observation::brief(&why),
            };
            (place.name.clone(), observation)
        };
        let services = places.iter().zip(self.sights.iter().skip(first)).map(one);
        let (domain, services) = (self.domain.clone(), services.collect());
        Some(Observations { domain, beat: self.beat, services })
    }

    fn see(&mut self, place: usize, fails: bool) {
        let now = now();
        let Some(sight) = self.sights.get_mut(place) else { return };
        sight.looked = now;
        if sight.fails != fails {
            (sight.fails, sight.since) = (fails, now);
            self.shares[place / Observations::SERVICES].changed = true;
        }
    }
}

impl World {
    pub(super) fn look(&self, place: usize, observer: usize) {
        if !self.works(place) {
            return self.at(now() + SILENCE, Due::Silent(place, observer));
        }
        self.observers.borrow_mut()[observer].see(place, false);
        self.look_again(place, observer, PROBE_EVERY);
    }

    pub(super) fn find_silent(&self, place: usize, observer: usize) {
        self.observers.borrow_mut()[observer].see(place, true);
        self.look_again(place, observer, PROBE_FAILING_EVERY);
    }

    fn look_again(&self, place: usize, observer: usize, every: Duration) {
        let next = now() + every;
        if let Some(sight) = self.observers.borrow_mut()[observer].sights.get_mut(place) {
            sight.next = next;
        }
        self.at(next, Due::Look(place, observer));
    }

    /// Observers tell what changed, and everything once a second.
    pub(super) fn tell(&self) -> Result<()> {
        let places = self.places.borrow();
        for observer in self.observers.borrow_mut().iter_mut().filter(|one| one.alive) {
            for (number, places) in places.chunks(Observations::SERVICES).enumerate() {
                if let Some(said) = observer.tell(number, places) {
                    let key = self.keys.observations(&observer.domain, number);
                    self.put(Transaction::new().put(key, &said))?;
                }
            }
        }
        Ok(())
    }
}
