//! What receivers say that they have: it is durable, and it ends with their seal.

use super::Checks;
use crate::plant::Plant;
use crate::postgres::Node;
use crate::wal;

impl Checks {
    /// An agent is told that a receiver is sealed for an epoch, behind so many records.
    pub fn sealed(&self, receiver: &str, epoch: u64, length: usize) {
        let mut state = self.state.borrow_mut();
        let known = state.seals.entry(receiver.to_owned()).or_insert((epoch, length));
        if epoch > known.0 {
            *known = (epoch, length);
        }
    }

    /// A server hears how far somebody who streams from it is. Nothing behind a seal is ever
    /// acknowledged to a primary of an epoch that was sealed.
    pub fn heard_flushed(&self, plant: &Plant, node: &Node, who: &str, length: usize, epoch: u64) {
        let state = self.state.borrow();
        let Some((sealed, end)) = state.seals.get(who) else { return };
        if epoch <= *sealed && length > *end {
            plant.sim.fail(format!(
                "{who} acknowledges WAL up to {} to {}, the primary of epoch {epoch}, and said \
                 that it is sealed for epoch {sealed} at {}",
                wal::lsn(length),
                node.name,
                wal::lsn(*end)
            ));
        }
    }

    /// A receiver acknowledges WAL: it is on its disk.
    pub fn acknowledges(&self, plant: &Plant, receiver: &str, length: usize, flushed: usize) {
        if length > flushed {
            let (said, has) = (wal::lsn(length), wal::lsn(flushed));
            plant
                .sim
                .fail(format!("{receiver} acknowledges WAL up to {said}; {has} is on its disk"));
        }
    }
}
