//! Traffic is led to whoever serves, again and again (R21).

use std::collections::BTreeSet;
use std::pin::pin;

use futures::future::{Either, join_all, select};
use lifeboat_drivers::TrafficDriver;
use lifeboat_failover::{Service, TrafficState, reconcile};
use lifeboat_model::ServiceName;
use lifeboat_quorum::{EpochRecord, EpochState};

use super::Controller;

impl Controller<'_> {
    /// Leads clients to each serving epoch, for ever. No service waits for another one's servers.
    pub(super) async fn lead_traffic(&self) {
        join_all(self.settings.services.values().map(|service| self.lead(service))).await;
    }

    /// A new epoch is led to at once; else it is looked at now and then.
    async fn lead(&self, service: &Service) {
        let name = &service.name;
        let drivers = self.ports.traffic.get(name).map(Vec::as_slice).unwrap_or_default();
        let every = self.settings.traffic_every;
        let mut pause = every + self.turn_of(name, every);
        let mut told = BTreeSet::new();
        let mut settled = None;
        loop {
            let Some(record) = self.serving(name) else {
                select(self.ports.timer.sleep(every), pin!(self.news_of(name))).await;
                continue;
            };
            let known = settled == Some(record.epoch);
            if let Some(states) = self.look_at_traffic(name, &record, drivers, known).await {
                settled = Some(record.epoch);
                self.take(name, record.epoch, &states, &mut told);
            }
            let look_again = self.ports.timer.sleep(pause);
            select(look_again, pin!(self.until_another_serves(name, record.epoch))).await;
            pause = every;
        }
    }

    /// One look. A look at what was settled ends where a new epoch begins: that one does not wait
    /// for servers that are silent.
    async fn look_at_traffic(
        &self,
        name: &ServiceName,
        record: &EpochRecord,
        drivers: &[Box<dyn TrafficDriver>],
        settled: bool,
    ) -> Option<Vec<TrafficState>> {
        let states = reconcile(record, drivers, settled);
        if !settled {
            return Some(states.await);
        }
        match select(pin!(states), pin!(self.until_another_serves(name, record.epoch))).await {
            Either::Left((states, _)) => Some(states),
            Either::Right(_) => None,
        }
    }

    /// Ends when another epoch serves than this one.
    async fn until_another_serves(&self, name: &ServiceName, epoch: u64) {
        while self.serving(name).is_none_or(|record| record.epoch == epoch) {
            self.news_of(name).await;
        }
    }

    pub(super) fn serving(&self, name: &ServiceName) -> Option<EpochRecord> {
        let view = self.view_of(name)?;
        let record = &view.record.as_ref()?.value;
        if !self.trusts(self.settings.services.get(name)?, &view) {
            return None;
        }
        (record.state == EpochState::Serving).then(|| record.clone())
    }

    /// Keeps what a look brought, and tells what was not told before.
    fn take(
        &self,
        name: &ServiceName,
        epoch: u64,
        states: &[TrafficState],
        told: &mut BTreeSet<String>,
    ) {
        let missing = states.iter().filter_map(|state| {
            let why = state.missing.as_ref()?;
            Some(format!("{}: {why}", state.name))
        });
        let missing: Vec<_> = missing.collect();
        let mut lines: BTreeSet<_> = missing.iter().cloned().collect();
        for TrafficState { name, repaired, remarks, .. } in states {
            for line in repaired {
                self.note(format!("{name}: {line}; this was put right"));
            }
            lines.extend(remarks.iter().map(|line| format!("{name}: {line}")));
        }
        for line in lines.difference(told) {
            self.note(line.clone());
        }
        *told = lines;
        self.traffic.borrow_mut().insert(name.clone(), (epoch, missing));
    }
}
