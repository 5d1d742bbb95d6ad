//! Whether a service's record may be acted on: not if a higher epoch is known elsewhere (F9).

use std::time::Duration;

use futures::future::join_all;
use lifeboat_failover::{Service, View};

use super::{Controller, Ports};
use crate::inquiry::spoken;

impl Controller<'_> {
    /// Asks the repositories, whenever there is reason to, for ever.
    pub(super) async fn inquire(&self) {
        let Ports { timer, epochs, .. } = *self.ports;
        let asking = self.settings.services.values().map(async |service| {
            let Some(inquiry) = self.inquiries.get(&service.name) else { return };
            loop {
                inquiry.until_due(timer).await;
                inquiry.ask(timer, epochs, service).await;
                self.tell_news_of(&service.name);
            }
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
            let was_open = inquiry.is_open();
            inquiry.saw(read, service.timing.lease, epoch);
            if was_open && !inquiry.is_open() {
                self.tell_news_of(name);
            }
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
