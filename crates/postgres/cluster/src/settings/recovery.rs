//! Settings that make a server recover, and end where it should.

use jiff::Timestamp;
use lifeboat_model::{RecoveryTarget, Timeline};

/// This file in the data directory asks for a recovery from the archive.
pub const RECOVERY_SIGNAL: &str = "recovery.signal";
/// This file in the data directory makes the server a standby.
pub const STANDBY_SIGNAL: &str = "standby.signal";

/// How a restored server recovers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveryPlan {
    /// Where recovery ends.
    pub target: RecoveryTarget,
    /// The timeline to follow; the newest that the archive has if there is none.
    pub timeline: Option<Timeline>,
    /// What the server does there.
    pub action: TargetAction,
    /// The command that fetches a WAL file.
    pub restore_command: String,
}

/// `recovery_target_action`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetAction {
    /// Accept connections for writing.
    Promote,
    /// Wait, readable, for a person to decide.
    Pause,
    /// Shut down.
    Shutdown,
}

impl RecoveryPlan {
    /// The settings, in the order in which a person reads them.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let mut settings = vec![("restore_command", self.restore_command.clone())];
        let target = match &self.target {
            RecoveryTarget::Latest => None,
            RecoveryTarget::Immediate | RecoveryTarget::Backup(_) => {
                Some(("recovery_target", "immediate".to_owned()))
            }
            RecoveryTarget::Time { at, .. } => Some(("recovery_target_time", time(*at))),
            RecoveryTarget::Lsn(lsn) => Some(("recovery_target_lsn", lsn.to_string())),
            // Commit records carry the lower half only.
            RecoveryTarget::Xid(xid) => {
                Some(("recovery_target_xid", (xid & 0xFFFF_FFFF).to_string()))
            }
            RecoveryTarget::Name(name) => Some(("recovery_target_name", name.clone())),
        };
        settings.extend(target);
        if let RecoveryTarget::Time { inclusive, .. } = &self.target {
            let inclusive = if *inclusive { "on" } else { "off" };
            settings.push(("recovery_target_inclusive", inclusive.to_owned()));
        }
        settings.push(("recovery_target_timeline", self.timeline_value()));
        settings.push(("recovery_target_action", self.action.name().to_owned()));
        settings
    }

    fn timeline_value(&self) -> String {
        match (&self.target, self.timeline) {
            (_, Some(timeline)) => timeline.to_string(),
            // The end of a backup lies on the backup's own timeline. A later one, which may have
            // branched off before, would be refused.
            (RecoveryTarget::Immediate | RecoveryTarget::Backup(_), None) => "current".to_owned(),
            (_, None) => "latest".to_owned(),
        }
    }
}

impl TargetAction {
    /// The value of the setting.
    pub fn name(self) -> &'static str {
        match self {
            Self::Promote => "promote",
            Self::Pause => "pause",
            Self::Shutdown => "shutdown",
        }
    }
}

/// Settings of an earlier recovery that must not stay in the configuration: PostgreSQL refuses
/// two targets.
pub fn recovery_names() -> &'static [&'static str] {
    &[
        "restore_command",
        "archive_cleanup_command",
        "recovery_end_command",
        "recovery_target",
        "recovery_target_name",
        "recovery_target_time",
        "recovery_target_xid",
        "recovery_target_lsn",
        "recovery_target_inclusive",
        "recovery_target_timeline",
        "recovery_target_action",
    ]
}

/// With the offset, so that the server's time zone does not matter.
fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S.%6f+00").to_string()
}
