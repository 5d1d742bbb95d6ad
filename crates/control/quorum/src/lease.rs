//! The lease: a plain key, renewed by compare-and-swap (R7). No clock of the store takes part.

use std::time::Duration;

use lifeboat_model::NodeName;
use serde::{Deserialize, Serialize};

use crate::{Revision, Timing};

/// The value of a lease's key. Only the agent of the holder changes it, and only while the epoch's
/// record is the one that it read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// The epoch that it belongs to.
    pub epoch: u64,
    /// The node that holds it.
    pub node: NodeName,
    /// Which start of the agent: two agents of one node never renew each other's lease.
    pub agent: u64,
    /// Grows with each renewal, so that each one changes the key.
    pub beat: u64,
}

/// The holder's side: until when the instance may live.
///
/// Counts from the *sending* of the last renewal that was confirmed, for the store may have made
/// the change at any moment since then.
#[derive(Debug, Clone, Copy)]
pub struct Holder {
    timing: Timing,
    sent: Option<Duration>,
}

impl Holder {
    /// Nothing is held.
    pub fn new(timing: Timing) -> Self {
        Self { timing, sent: None }
    }

    /// A renewal that was sent at `sent` was confirmed. Returns the moment at which the guard
    /// begins to kill.
    pub fn confirmed(&mut self, sent: Duration) -> Duration {
        let sent = self.sent.map_or(sent, |before| before.max(sent));
        self.sent = Some(sent);
        sent + self.timing.life()
    }

    /// When the guard begins to kill; none if nothing is held.
    pub fn deadline(&self) -> Option<Duration> {
        self.sent.map(|sent| sent + self.timing.life())
    }

    /// Whether the lease lives at `now`.
    pub fn is_live(&self, now: Duration) -> bool {
        self.deadline().is_some_and(|deadline| now < deadline)
    }

    /// The lease was given back, or belongs to somebody else.
    pub fn forget(&mut self) {
        self.sent = None;
    }
}

/// The other side: from when on nobody can be writing under a lease.
///
/// Counts a full lease from its own *last observed change* of the key: whoever observes a change
/// does so after it was sent.
#[derive(Debug, Clone, Copy, Default)]
pub struct Waiter {
    seen: Option<(Revision, Duration)>,
}

impl Waiter {
    /// Nothing was observed yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The key was read at `now`, its last change being `revision`; 0 if it is not there.
    pub fn observe(&mut self, revision: Revision, now: Duration) {
        if self.seen.is_none_or(|(seen, _)| seen != revision) {
            self.seen = Some((revision, now));
        }
    }

    /// When the lease is over, if it does not change any more. Only a key that can no longer be
    /// renewed, because the epoch is being revoked, stays unchanged for certain.
    pub fn over_at(&self, timing: &Timing) -> Option<Duration> {
        self.seen.map(|(_, since)| since + timing.lease)
    }

    /// Whether a full lease has passed at `now`.
    pub fn is_over(&self, timing: &Timing, now: Duration) -> bool {
        self.over_at(timing).is_some_and(|over| now >= over)
    }
}
