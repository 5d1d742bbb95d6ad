//! Traffic is led to whoever serves, again and again (R21).

use lifeboat_failover::Service;
use lifeboat_quorum::{EpochRecord, EpochState};

use super::Controller;

impl Controller<'_> {
    /// Leads clients to each serving epoch, for ever.
    pub(super) async fn lead_traffic(&self) {
        loop {
            for service in self.settings.services.values() {
                self.lead(service).await;
            }
            self.wait_for_news().await;
        }
    }

    /// A new epoch is led to at once; else it is looked at now and then.
    async fn wait_for_news(&self) {
        let mut waited = std::time::Duration::ZERO;
        while waited < self.settings.traffic_every {
            let news = self.settings.services.keys().any(|name| {
                let Some(record) = self.serving(name) else { return false };
                let known = self.traffic.borrow().get(name).map(|(epoch, _)| *epoch);
                known != Some(record.epoch)
            });
            if news {
                return;
            }
            self.ports.timer.sleep(self.settings.poll).await;
            waited += self.settings.poll;
        }
    }

    fn serving(&self, name: &lifeboat_model::ServiceName) -> Option<EpochRecord> {
        let views = self.views.borrow();
        let record = views.get(name)?.record.as_ref()?.value.clone();
        (record.state == EpochState::Serving).then_some(record)
    }

    async fn lead(&self, service: &Service) {
        let Some(record) = self.serving(&service.name) else { return };
        let mut missing = Vec::new();
        let drivers = self.ports.traffic.get(&service.name);
        for driver in drivers.map(Vec::as_slice).unwrap_or_default() {
            match driver.point(record.region.clone(), record.epoch).await {
                Ok(pointing) => {
                    if pointing.region.as_ref() != Some(&record.region) {
                        missing.push(format!("{} does not lead there yet", driver.name()));
                    }
                    for line in pointing.dissent {
                        self.note(format!("{}: {line}", driver.name()));
                    }
                }
                Err(failure) => {
                    missing.push(format!("{}: {}", driver.name(), failure.full_message()));
                }
            }
        }
        let mut traffic = self.traffic.borrow_mut();
        traffic.insert(service.name.clone(), (record.epoch, missing));
    }
}
