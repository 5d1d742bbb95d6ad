//! A person's permission to write without a lease (ADR 0016): what `--break-glass` leaves on the
//! host of the node that it is for.

use std::time::Duration;

use jiff::Timestamp;
use lifeboat_model::{DatabaseName, Lsn, NodeName, ServiceName};
use serde::{Deserialize, Serialize};

const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// The permission of one node, for one epoch, for a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// The service.
    pub service: ServiceName,
    /// The database.
    pub database: DatabaseName,
    /// The node.
    pub node: NodeName,
    /// The epoch that was created for it.
    pub epoch: u64,
    /// What must be replayed before it is promoted; none where nothing is known to be required.
    pub required: Option<Lsn>,
    /// Which start of the host it counts from: it does not outlive that.
    pub boot: String,
    /// When it ends, by CLOCK_BOOTTIME, in milliseconds.
    pub until_ms: u64,
    /// When it ends, by the wall clock; for display.
    pub ends_at: Timestamp,
    /// When it was given, by the wall clock; for display.
    pub given_at: Timestamp,
    /// Who gave it.
    pub by: String,
    /// What was typed.
    pub statement: String,
}

impl Grant {
    /// Which start of the host this is; empty, and equal to none, where that cannot be told.
    pub fn this_boot() -> String {
        std::fs::read_to_string(BOOT).map(|text| text.trim().to_owned()).unwrap_or_default()
    }

    /// When it ends, by CLOCK_BOOTTIME.
    pub fn until(&self) -> Duration {
        Duration::from_millis(self.until_ms)
    }

    /// Whether it holds at `now` of the start `boot`. A host that was started again has no
    /// permission any more: its clock counts anew.
    pub fn is_live(&self, boot: &str, now: Duration) -> bool {
        !boot.is_empty() && self.boot == boot && now < self.until()
    }
}
