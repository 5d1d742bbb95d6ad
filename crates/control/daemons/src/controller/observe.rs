//! The observer: a committed write through the clients' endpoint, and what came of it (R3).
//!
//! Each service is looked at in its own time, so that one whose server is silent holds up nobody.
//! What was seen is told by shares of the services: one value of the store could not hold the
//! reasons of all of them, and what has not changed in a share need not be told again.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::{join, join_all};
use lifeboat_drivers::Probed;
use lifeboat_model::ServiceName;
use lifeboat_quorum::{Observation, Observations, Seen, Transaction};
use tokio::sync::Semaphore;

use super::Controller;

/// An observation is told at once when it changes, and this often anyway.
const AT_LEAST_EVERY: Duration = Duration::from_millis(1000);
/// How many services are probed at the same time. A server that is silent holds its place for as
/// long as a probe may take: there must be some for a whole region of them.
const AT_ONCE: usize = 1024;
/// A look is over long before this. One that is not says nothing of now.
const STALE_AFTER: Duration = Duration::from_secs(10);

/// The services that one value tells of, and what is known of them from here.
struct Share<'a> {
    number: usize,
    names: &'a [&'a ServiceName],
    sights: RefCell<BTreeMap<&'a ServiceName, Sight>>,
    /// When all of it was last told; none if something is other than it was told.
    told: Cell<Option<Duration>>,
}

/// What is known of one service from here.
struct Sight {
    probed: Probed,
    since: Duration,
    looked: Duration,
    /// When a write was last committed.
    worked: Option<Duration>,
}

impl Controller<'_> {
    /// Observes, for ever.
    pub(super) async fn observe(&self) {
        let names: Vec<&ServiceName> = self.settings.services.keys().collect();
        let places = Semaphore::new(AT_ONCE);
        let shares = names.chunks(Observations::SERVICES).enumerate().map(|(number, names)| {
            Share { number, names, sights: RefCell::default(), told: Cell::default() }
        });
        let shares: Vec<Share<'_>> = shares.collect();
        let each = shares.iter().map(|share| {
            let looks = share.names.iter().map(|name| self.keep_looking(share, name, &places));
            join(join_all(looks), self.keep_telling(share))
        });
        join_all(each).await;
    }

    /// Probes one service, again and again.
    async fn keep_looking<'a>(&self, share: &Share<'a>, name: &'a ServiceName, places: &Semaphore) {
        self.ports.timer.sleep(self.turn_of(name, self.settings.probe_every)).await;
        loop {
            let probed = {
                // Nobody closes it: without a place, it would be looked at all the same.
                let _place = places.acquire().await;
                self.ports.probe.probe(name).await
            };
            let again_after = match probed.seen {
                Seen::Works => self.settings.probe_every,
                _ => self.settings.probe_failing_every,
            };
            self.remember(share, name, probed);
            self.ports.timer.sleep(again_after).await;
        }
    }

    fn remember<'a>(&self, share: &Share<'a>, name: &'a ServiceName, probed: Probed) {
        let now = self.now();
        let mut sights = share.sights.borrow_mut();
        let same = sights.get(name).filter(|sight| sight.probed.seen == probed.seen);
        let since = same.map_or(now, |sight| sight.since);
        if same.is_none() {
            share.told.set(None);
        }
        let worked = match probed.seen {
            Seen::Works => Some(now),
            _ => sights.get(name).and_then(|sight| sight.worked),
        };
        sights.insert(name, Sight { probed, since, looked: now, worked });
    }

    /// Tells what one share is like: at once when it changes, and so often that the others know that
    /// there is still somebody who looks.
    async fn keep_telling(&self, share: &Share<'_>) {
        loop {
            let now = self.now();
            let told = share.told.get();
            if told.is_none_or(|told| now.saturating_sub(told) >= AT_LEAST_EVERY) {
                // Set before it is told: what is seen meanwhile is told the next time.
                share.told.set(Some(now));
                if !self.tell(share).await {
                    share.told.set(None);
                }
            }
            self.ports.timer.sleep(self.settings.poll).await;
        }
    }

    async fn tell(&self, share: &Share<'_>) -> bool {
        let one = |(name, sight): (&&ServiceName, &Sight)| {
            Some(((*name).clone(), self.observation(name, sight)?))
        };
        let services = share.sights.borrow().iter().filter_map(one).collect();
        let domain = self.settings.domain.clone();
        let known = self.voices.borrow().beat_of(&domain);
        let beat = self.beat.get().max(known).saturating_add(1);
        self.beat.set(beat);
        let key = self.settings.keys.observations(&domain, share.number);
        let value = Observations { domain, beat, services };
        self.ports.store.commit(Transaction::new().put(key, &value)).await.is_ok()
    }

    /// What is said of a service; none before it has an epoch.
    fn observation(&self, name: &ServiceName, sight: &Sight) -> Option<Observation> {
        let now = self.now();
        let epoch = self.view_of(name)?.record.as_ref()?.value.epoch;
        // What failed before the epoch served says nothing of it.
        let moved = self.moved.borrow().get(name).map_or(Duration::ZERO, |(_, at)| *at);
        let says_nothing = sight.looked < moved || now.saturating_sub(sight.looked) >= STALE_AFTER;
        Some(Observation {
            epoch,
            write: if says_nothing { Seen::Unknown } else { sight.probed.seen },
            for_how_long: now.saturating_sub(sight.since.max(moved)),
            worked_ago: sight.worked.map(|worked| now.saturating_sub(worked)),
            why: Observation::brief(&sight.probed.why),
        })
    }
}
