//! Telling what the instance is and how far the order is.

use std::time::Duration;

use lifeboat_quorum::Transaction;

use super::Agent;

/// A change is told at once, everything else this often.
const AT_LEAST_EVERY: Duration = Duration::from_millis(1000);

impl Agent<'_> {
    /// Reports, for ever.
    pub(super) async fn report(&self) {
        let Self { settings, ports, .. } = self;
        let key = settings.keys.status(&settings.service.name, &settings.database, &settings.node);
        let mut beat = 0_u64;
        let mut told: Option<Duration> = None;
        loop {
            let now = self.now();
            let due = told.is_none_or(|told| now.saturating_sub(told) >= AT_LEAST_EVERY);
            if self.changed.replace(false) || due {
                beat = beat.max(self.reported_beat()).saturating_add(1);
                let status = self.status(beat);
                match ports.store.commit(Transaction::new().put(key.clone(), &status)).await {
                    Ok(_) => told = Some(now),
                    Err(_) => self.changed.set(true),
                }
            }
            ports.timer.sleep(self.settings.poll).await;
        }
    }

    /// The beat of an agent before this one.
    fn reported_beat(&self) -> u64 {
        let view = self.view.borrow();
        let status = view.node(&self.settings.database, &self.settings.node);
        status.map_or(0, |seen| seen.value.beat)
    }
}
