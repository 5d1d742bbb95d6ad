//! The times of a lease, and the one inequality between them (R8).

use std::time::Duration;

use lifeboat_model::spec::Quorum;
use serde::{Deserialize, Serialize};

/// The times of a lease. The spec is refused if they break
/// `2 x (renew + probe_timeout + store_timeout) + fence_deadline + margin <= lease`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timing {
    /// How long whoever waits for its end waits.
    pub lease: Duration,
    /// How often the holder renews.
    pub renew: Duration,
    /// When the holder's own probe counts as failed.
    pub probe_timeout: Duration,
    /// When a call of the store counts as failed.
    pub store_timeout: Duration,
    /// How long it takes at most to kill every process of an instance.
    pub fence_deadline: Duration,
    /// What is left for clocks that run at different speed.
    pub margin: Duration,
}

impl Timing {
    /// As the spec says.
    pub fn of(quorum: &Quorum) -> Self {
        Self {
            lease: quorum.lease.duration(),
            renew: quorum.renew.duration(),
            probe_timeout: quorum.probe_timeout.duration(),
            store_timeout: quorum.store_timeout.duration(),
            fence_deadline: quorum.fence_deadline.duration(),
            margin: quorum.margin.duration(),
        }
    }

    /// Whether two attempts to renew, the kill and the margin fit into one lease.
    pub fn holds(&self) -> bool {
        let attempt = self.renew + self.probe_timeout + self.store_timeout;
        2 * attempt + self.fence_deadline + self.margin <= self.lease
            && self.margin * 20 >= self.lease
    }

    /// How long after a renewal was sent the guard begins to kill.
    pub fn life(&self) -> Duration {
        self.lease.saturating_sub(self.fence_deadline).saturating_sub(self.margin)
    }
}
