//! Whether a service's record may be acted on: not if a higher epoch is known elsewhere (F9).

use std::time::Duration;

use futures::future::join_all;
use lifeboat_failover::{Service, View};

use super::Controller;
use crate::inquiry::spoken;

impl Controller<'_> {
    /// Asks the repositories, whenever there is reason to, for ever.
    pub(super) async fn inquire(&self) {
        let ports = self.ports;
        let services = self.settings.services.values();
        let asking = services.filter_map(|service| {
            let inquiry = self.inquiries.get(&service.name)?;
            Some(inquiry.keep_asking(ports.timer, self.settings.poll, ports.epochs, service))
        });
        join_all(asking).await;
    }

    /// The store was read from then to then.
    pub(super) fn saw_epochs(&self, read: (Duration, Duration)) {
        let views = self.views.borrow();
        for (name, inquiry) in &self.inquiries {
            let Some(service) = self.settings.services.get(name) else { continue };
            let record = views.get(name).and_then(|view| view.record.as_ref());
            let epoch = record.map_or(0, |record| record.value.epoch);
            inquiry.saw(read, service.timing.lease, epoch);
        }
    }

    /// Whether anything may be done by what stands in the store. Says once why not.
    pub(super) fn trusts(&self, service: &Service, view: &View) -> bool {
        let name = &service.name;
        let (Some(inquiry), Some(record)) = (self.inquiries.get(name), &view.record) else {
            return true;
        };
        let keys = &self.settings.keys;
        let refusal = inquiry.refuse(service, keys, &self.mirror.borrow(), &record.value);
        let mut refused = self.refused.borrow_mut();
        match &refusal {
            Some(failure) if refused.insert(name.clone()) => self.note(spoken(failure)),
            Some(_) => {}
            None => drop(refused.remove(name)),
        }
        refusal.is_none() && !inquiry.is_open()
    }
}
