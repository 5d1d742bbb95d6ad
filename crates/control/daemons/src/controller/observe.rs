//! The observer: a committed write through the clients' endpoint, and what came of it (R3).

use std::collections::BTreeMap;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use lifeboat_drivers::Probed;
use lifeboat_model::ServiceName;
use lifeboat_quorum::{Observation, Observations, Seen, Transaction};

use super::Controller;

/// An observation is told at once when it changes, and this often anyway.
const AT_LEAST_EVERY: Duration = Duration::from_millis(1000);
/// How many services are probed at the same time.
const AT_ONCE: usize = 64;

/// What is known of one service from here.
struct Sight {
    probed: Probed,
    since: Duration,
    looked: Duration,
}

impl Controller<'_> {
    /// Observes, for ever.
    pub(super) async fn observe(&self) {
        let mut sights: BTreeMap<ServiceName, Sight> = BTreeMap::new();
        let mut told: Option<Duration> = None;
        loop {
            let changed = self.look(&mut sights).await;
            let now = self.now();
            let due = told.is_none_or(|told| now.saturating_sub(told) >= AT_LEAST_EVERY);
            if (changed || due) && self.tell(&sights).await {
                told = Some(now);
            }
            self.ports.timer.sleep(self.settings.poll).await;
        }
    }

    /// Probes what is due. Says whether anything is other than before.
    async fn look(&self, sights: &mut BTreeMap<ServiceName, Sight>) -> bool {
        let now = self.now();
        let due = |name: &&ServiceName| {
            let Some(sight) = sights.get(*name) else { return true };
            let every = match sight.probed.seen {
                Seen::Works => self.settings.probe_every,
                _ => self.settings.probe_failing_every,
            };
            now.saturating_sub(sight.looked) >= every
        };
        let mut names: Vec<&ServiceName> = self.settings.services.keys().filter(due).collect();
        let mut probing = FuturesUnordered::new();
        let mut changed = false;
        loop {
            while probing.len() < AT_ONCE {
                let Some(name) = names.pop() else { break };
                probing.push(async move { (name, self.ports.probe.probe(name).await) });
            }
            let Some((name, probed)) = probing.next().await else { return changed };
            changed |= self.remember(sights, name, probed);
        }
    }

    fn remember(
        &self,
        sights: &mut BTreeMap<ServiceName, Sight>,
        name: &ServiceName,
        probed: Probed,
    ) -> bool {
        let now = self.now();
        let same = sights.get(name).filter(|sight| sight.probed.seen == probed.seen);
        let (since, changed) = match same {
            Some(sight) => (sight.since, false),
            None => (now, true),
        };
        sights.insert(name.clone(), Sight { probed, since, looked: now });
        changed
    }

    async fn tell(&self, sights: &BTreeMap<ServiceName, Sight>) -> bool {
        let now = self.now();
        let one = |(name, sight): (&ServiceName, &Sight)| {
            let views = self.views.borrow();
            let epoch = views.get(name)?.record.as_ref()?.value.epoch;
            // What failed before the epoch served says nothing of it.
            let moved = self.moved.borrow().get(name).map_or(Duration::ZERO, |(_, at)| *at);
            let since = sight.since.max(moved);
            let observation = Observation {
                epoch,
                write: if sight.looked < moved { Seen::Unknown } else { sight.probed.seen },
                for_how_long: now.saturating_sub(since),
                why: sight.probed.why.clone(),
            };
            Some((name.clone(), observation))
        };
        let services = sights.iter().filter_map(one).collect();
        let domain = self.settings.domain.clone();
        let known = self.voices.borrow().get(&domain).map_or(0, |(said, _)| said.beat);
        let beat = self.beat.get().max(known).saturating_add(1);
        self.beat.set(beat);
        let key = self.settings.keys.observer(&domain);
        let value = Observations { domain, beat, services };
        self.ports.store.commit(Transaction::new().put(key, &value)).await.is_ok()
    }
}
