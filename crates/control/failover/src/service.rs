//! What deciding needs to know of a service's spec.

use std::collections::BTreeMap;
use std::time::Duration;

use lifeboat_model::spec::{OnLoss, Service as ServiceSpec, Spec, WalMode};
use lifeboat_model::{DatabaseId, DatabaseName, NodeName, RegionName, ServiceName};
use lifeboat_quorum::{Nodes, Synchronous, Timing};
use lifeboat_telemetry::{Code, Failure, Outcome};

/// A service that can move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: ServiceName,
    /// Where it normally runs.
    pub home: RegionName,
    /// Where it can go.
    pub standby: Option<RegionName>,
    /// Its databases.
    pub databases: BTreeMap<DatabaseName, Database>,
    /// The times of its leases.
    pub timing: Timing,
    /// When it may move by itself.
    pub policy: Policy,
    /// How much may be lost; zero for none.
    pub rpo: Duration,
    /// How long it may be away.
    pub rto: Duration,
    /// The digest of the spec.
    pub digest: String,
}

/// A database that can move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// Its nodes, with the region of each.
    pub nodes: BTreeMap<NodeName, RegionName>,
    /// The regions that receive its WAL.
    pub receivers: Vec<RegionName>,
    /// How many receivers outside the region that writes a commit waits for.
    pub remote: u8,
    /// How long commits wait for receivers that are lost before they go on without; none for ever.
    pub degrade_after: Option<Duration>,
}

/// When a service may move by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Whether it may at all.
    pub automatic: bool,
    /// How many observers must see it down.
    pub observers_agree: u8,
    /// For how long they must.
    pub unhealthy_for: Duration,
    /// How long it stays after a move.
    pub dwell: Duration,
}

impl Service {
    /// As the spec says.
    pub fn of(spec: &Spec, name: &ServiceName, digest: &str) -> Outcome<Self> {
        let service = spec.services.get(name).ok_or_else(|| {
            let known: Vec<&str> = spec.services.keys().map(ServiceName::as_str).collect();
            Failure::new(Code::DatabaseUnknown, format!("the spec has no service `{name}`"))
                .hint(format!("Name one of {}.", known.join(", ")))
        })?;
        let quorum = spec.quorum.as_ref().ok_or_else(|| {
            Failure::new(Code::SpecInvalid, "the spec has no `quorum`")
                .hint("Add `quorum: { etcd: … }`, or `quorum: { local: {} }` on one machine.")
        })?;
        let objectives = spec.objectives(service);
        Ok(Self {
            name: name.clone(),
            home: service.home.clone(),
            standby: service.standby.clone(),
            databases: databases(service),
            timing: Timing::of(quorum),
            policy: policy(service),
            rpo: objectives.as_ref().map(|tier| tier.rpo.duration()).unwrap_or_default(),
            rto: objectives.map(|tier| tier.rto.duration()).unwrap_or_default(),
            digest: digest.to_owned(),
        })
    }

    /// The node of each database in a region: the first one by name. Fails if a database has none.
    pub fn nodes_in(&self, region: &RegionName) -> Outcome<Nodes> {
        let node = |(database, content): (&DatabaseName, &Database)| {
            let node = content.nodes.iter().find(|(_, of)| *of == region);
            let node = node.map(|(node, _)| (database.clone(), node.clone()));
            node.ok_or_else(|| {
                let database = self.id(database);
                Failure::new(Code::RegionUnknown, format!("{database} has no node in {region}"))
                    .hint("Add one below `nodes` of the database, or name another region.")
            })
        };
        self.databases.iter().map(node).collect()
    }

    /// The region that a service can go to from another one.
    pub fn other_than(&self, region: &RegionName) -> Option<&RegionName> {
        [Some(&self.home), self.standby.as_ref()].into_iter().flatten().find(|one| *one != region)
    }

    /// What commits wait for while `region` writes, if every receiver is there.
    pub fn synchronous(&self, region: &RegionName) -> Synchronous {
        // One rule a service: the databases of one service share their objectives.
        let wanted = self.databases.values().map(|database| {
            let outside = database.receivers.iter().filter(|receiver| *receiver != region);
            Synchronous { needed: database.remote, receivers: outside.cloned().collect() }
        });
        let wanted = wanted.max_by_key(|wanted| wanted.needed).unwrap_or_default();
        match usize::from(wanted.needed) > wanted.receivers.len() {
            true => Synchronous::default(),
            false => wanted,
        }
    }

    /// `SERVICE/DATABASE`.
    pub fn id(&self, database: &DatabaseName) -> DatabaseId {
        DatabaseId { service: self.name.clone(), database: database.clone() }
    }
}

fn databases(service: &ServiceSpec) -> BTreeMap<DatabaseName, Database> {
    let one = |(name, database): (&DatabaseName, &lifeboat_model::spec::Database)| {
        let stream = database.wal.mode == WalMode::Stream;
        let remote = database.wal.acknowledge.as_ref().map_or(0, |settings| settings.remote);
        let nodes = database.nodes.iter().map(|(node, one)| (node.clone(), one.region.clone()));
        let receivers = if stream { database.wal.receivers.clone() } else { Vec::new() };
        let remote = if stream { remote } else { 0 };
        let on_loss = database.wal.acknowledge.as_ref().map(|settings| settings.on_loss);
        let degrade_after = match on_loss {
            Some(OnLoss::DegradeAfter(wait)) => Some(wait.duration()),
            Some(OnLoss::Block) | None => None,
        };
        (name.clone(), Database { nodes: nodes.collect(), receivers, remote, degrade_after })
    };
    service.databases.iter().map(one).collect()
}

fn policy(service: &ServiceSpec) -> Policy {
    let Some(failover) = &service.failover else {
        return Policy {
            automatic: false,
            observers_agree: 2,
            unhealthy_for: Duration::from_secs(6),
            dwell: Duration::from_secs(600),
        };
    };
    Policy {
        automatic: failover.automatic,
        observers_agree: failover.observers_agree,
        unhealthy_for: failover.unhealthy_for.duration(),
        dwell: failover.dwell.duration(),
    }
}
