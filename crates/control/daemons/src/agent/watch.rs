//! Reading the store.

use lifeboat_failover::View;
use lifeboat_quorum::StoreError;

use super::Agent;

impl Agent<'_> {
    /// Reads what changed, for ever.
    pub(super) async fn watch(&self) {
        loop {
            if let Err(error) = self.read().await {
                self.tell_trouble(&error);
            }
            self.ports.timer.sleep(self.settings.poll).await;
        }
    }

    /// Reads what changed since the last time.
    pub(super) async fn read(&self) -> Result<(), StoreError> {
        let Self { settings, ports, .. } = self;
        let prefix = settings.keys.service(&settings.service.name);
        let (since, began) = (self.mirror.borrow().revision(), self.now());
        let snapshot = ports.store.read(&prefix, since).await?;
        let now = self.now();
        if snapshot.revision < since {
            self.inquiry.doubt();
        }
        let changed = self.mirror.borrow_mut().take(snapshot, now);
        self.read_at.set(Some(now));
        if !changed.is_empty() {
            self.look_again()?;
        }
        let epoch = self.record().map_or(0, |(record, _)| record.epoch);
        self.inquiry.saw((began, now), settings.service.timing.lease, epoch);
        Ok(())
    }

    /// Sees the service as it stands in the mirror now.
    fn look_again(&self) -> Result<(), StoreError> {
        let settings = self.settings;
        let view = View::of(&settings.service, &settings.keys, &self.mirror.borrow())?;
        if let Some(lease) = view.leases.get(&settings.database) {
            let mut known = self.lease.get();
            if lease.revision > known.revision {
                known.revision = lease.revision;
                known.beat = known.beat.max(lease.value.beat);
                self.lease.set(known);
            }
        }
        *self.view.borrow_mut() = view;
        Ok(())
    }

    fn tell_trouble(&self, error: &StoreError) {
        // One store that is away for a moment is no news each poll.
        let silent_for = self.read_at.get().map(|read| self.now().saturating_sub(read));
        if silent_for.is_none_or(|silent| silent >= self.settings.service.timing.store_timeout * 2)
        {
            self.note(error.to_string());
        }
    }
}
