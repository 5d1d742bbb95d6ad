//! `tiers` and `services`: what matters, how much, and where it runs.

use std::collections::BTreeMap;

use super::{Bucket, Database, Table, TrafficRecord, Workload};
use crate::reader::{choices, section};
use crate::setting::Schedule;
use crate::{DatabaseName, PersonName, RegionName, ResourceName, ServiceName, TierName, TimeSpan};

section! {
    /// Objectives.
    pub struct Tier {
        /// How long a service may be away.
        rto: TimeSpan,
        /// How much of the latest work may be lost.
        rpo: TimeSpan,
    }
}

section! {
    /// An application and what belongs to it.
    pub struct Service {
        /// Its tier.
        tier: TierName,
        /// The region where it normally runs.
        home: RegionName,
        /// The region where it can go.
        standby: Option<RegionName>,
        /// Its own objective instead of the tier's.
        rto: Option<TimeSpan>,
        /// Its own objective instead of the tier's.
        rpo: Option<TimeSpan>,
        /// What stands ready in the other region.
        strategy: Option<Strategy>,
        /// Services that must be up first.
        depends_on: Vec<ServiceName>,
        /// Its databases.
        databases: BTreeMap<DatabaseName, Database>,
        /// Its configuration files.
        configuration: Option<Configuration>,
        /// Its object buckets.
        buckets: BTreeMap<ResourceName, Bucket>,
        /// Its tables outside a database.
        tables: BTreeMap<ResourceName, Table>,
        /// Its programs.
        workloads: BTreeMap<ResourceName, Workload>,
        /// The names by which clients reach it.
        traffic: Vec<TrafficRecord>,
        /// Who decides that it moves.
        failover: Option<Failover>,
        /// Its rehearsals.
        drills: Vec<Drill>,
    }
}

choices! {
    /// What stands ready in the other region.
    pub enum Strategy {
        /// Nothing but the data.
        BackupAndRestore = "backup-and-restore",
        /// The data services; programs are started.
        PilotLight = "pilot-light",
        /// Everything, small.
        WarmStandby = "warm-standby",
        /// Everything, serving.
        ActiveActive = "active-active",
    }
}

section! {
    /// Files outside the databases.
    pub struct Configuration {
        /// Paths; `*` stands for any part of a name.
        files: Vec<String>,
    }
}

section! {
    /// Who decides that a service moves.
    pub struct Failover {
        /// Whether a controller may. Default: false.
        automatic: bool = false,
        /// How many persons must approve. Default: 0.
        approvals: u8 = 0,
        /// How many observers must see it down. Default: 2.
        observers_agree: u8 = 2,
        /// How long they must see it down. Default: 6s.
        unhealthy_for: TimeSpan = TimeSpan::from_secs(6),
        /// How long it stays after a move. Default: 10m.
        dwell: TimeSpan = TimeSpan::from_secs(600),
        /// Steps that need an approval of their own.
        approve: BTreeMap<ResourceName, Approval>,
    }
}

section! {
    /// So many of these persons.
    pub struct Approval {
        /// How many.
        any: u8,
        /// Of whom.
        of: Vec<PersonName>,
    }
}

section! {
    /// A rehearsal.
    pub struct Drill {
        /// What is rehearsed.
        kind: DrillKind,
        /// When.
        schedule: Schedule,
    }
}

choices! {
    /// What is rehearsed.
    pub enum DrillKind {
        /// A restore in a sandbox.
        Restore = "restore",
        /// A planned move.
        Switchover = "switchover",
        /// An unplanned move.
        Failover = "failover",
        /// All services leave a region.
        Evacuation = "evacuation",
    }
}
