//! Whether the record may be acted on: not if a higher epoch is known elsewhere (F9).

use lifeboat_quorum::{EpochRecord, Goal, Instance};
use lifeboat_telemetry::Failure;

use super::Agent;

impl Agent<'_> {
    /// Asks the repositories, whenever there is reason to, for ever. Beside everything else: no
    /// renewal waits for an answer.
    pub(super) async fn inquire(&self) {
        let Self { settings, ports, .. } = self;
        loop {
            self.inquiry.until_due(ports.timer).await;
            self.inquiry.ask(ports.timer, ports.epochs, &settings.service).await;
        }
    }

    /// Why the record is not acted on; none if nothing speaks against it.
    pub(super) fn refusal(&self, record: &EpochRecord) -> Option<Failure> {
        let settings = self.settings;
        self.inquiry.refuse(&settings.service, &settings.keys, &self.mirror.borrow(), record)
    }

    /// Whether a lease may be kept under this record, or taken. While the answer is out, what
    /// writes goes on: it had its lease from somebody who knew. Nothing new begins.
    pub(super) fn trusts(&self, record: &EpochRecord) -> bool {
        if self.refusal(record).is_some() {
            return false;
        }
        !self.inquiry.is_open()
            || self.is_live()
            || matches!(*self.instance.borrow(), Instance::Primary { .. })
    }

    /// Whether an order may be carried out before the answer: only what can do no harm.
    pub(super) fn may_begin(&self, goal: &Goal) -> bool {
        let harmless = matches!(goal, Goal::Fence | Goal::Down);
        let goes_on = matches!(goal, Goal::Primary { .. } | Goal::Release) && self.is_live();
        harmless || goes_on || !self.inquiry.is_open()
    }
}
