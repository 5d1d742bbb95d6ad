//! What receivers have brought.

use lifeboat_model::Lsn;
use lifeboat_telemetry::Outcome;

use super::inventory::Inventory;
use super::{ReceiverLine, Shipped};

impl Inventory<'_> {
    /// How far the WAL of the newest timeline goes.
    pub fn shipped(&self) -> Outcome<Option<Shipped>> {
        let Some(timeline) = self.coverage.timelines().last() else {
            return Ok(None);
        };
        let last = self.coverage.spans(timeline).and_then(|spans| spans.iter().next_back());
        let Some((start, lsn)) = last else {
            return Ok(None);
        };
        let last_commit = self.last_facts(timeline, lsn, start)?.time;
        Ok(Some(Shipped { timeline, lsn, last_commit }))
    }

    pub(super) fn receiver_lines(&self) -> Vec<ReceiverLine> {
        let newest = |epoch: u32| -> Option<Lsn> {
            let own = self.fragments.keys().filter(|name| name.epoch == epoch);
            own.map(|name| (name.timeline, name.end)).max().map(|(_, end)| end)
        };
        let lines = self.receivers().iter().map(|receiver| ReceiverLine {
            epoch: receiver.epoch,
            writer: receiver.body.writer.clone(),
            host: receiver.body.host.clone(),
            started_at: receiver.body.started_at,
            control_epoch: receiver.body.control_epoch,
            durable: receiver.body.durable,
            newest: newest(receiver.epoch),
        });
        lines.collect()
    }
}
