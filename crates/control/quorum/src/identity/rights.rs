//! What each daemon may write into etcd, and nothing else.

use lifeboat_model::{DatabaseId, NodeName, RegionName, Spec};
use lifeboat_telemetry::{Code, Failure, Outcome};

use super::{Issued, Role};
use crate::Keys;

/// The right to read or write one key, or all below a prefix.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// The key, or the prefix.
    pub key: String,
    /// Whether it is a prefix.
    pub below: bool,
    /// Whether it is a right to write; else to read.
    pub write: bool,
}

impl Right {
    fn read(prefix: &str) -> Self {
        Self { key: prefix.to_owned(), below: true, write: false }
    }

    fn write(key: String) -> Self {
        Self { key, below: false, write: true }
    }

    fn write_below(key: String) -> Self {
        Self { key, below: true, write: true }
    }
}

/// The rights of one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rights(pub Vec<Right>);

impl Rights {
    /// Of somebody whom the authority certified, as the spec is now.
    pub fn of(keys: &Keys, spec: &Spec, issued: &Issued) -> Outcome<Self> {
        match issued.role {
            Role::Controller => Ok(Self::of_controller(keys, spec, &issued.region)),
            Role::Operator => Ok(Self::of_operator(keys, spec)),
            Role::Agent => {
                let nodes = nodes(spec, issued)?;
                Ok(Self::of_agent(keys, &issued.region, &nodes))
            }
        }
    }

    /// Of the agent of these nodes: what it tells of them, their leases, and its region's
    /// receivers of their databases.
    pub fn of_agent(keys: &Keys, region: &RegionName, nodes: &[(DatabaseId, NodeName)]) -> Self {
        let mut rights = vec![Right::read(keys.all())];
        for (id, node) in nodes {
            let (service, database) = (&id.service, &id.database);
            rights.push(Right::write(keys.status(service, database, node)));
            rights.push(Right::write(keys.lease(service, database)));
            rights.push(Right::write(keys.receiver_status(service, database, region)));
        }
        Self::sorted(rights)
    }

    /// Of the controller of a domain: epochs, orders and runs of every service, and what its own
    /// observer sees. No lease and no status: those are agents'.
    pub fn of_controller(keys: &Keys, spec: &Spec, domain: &RegionName) -> Self {
        let mut rights = Self::of_operator(keys, spec).0;
        rights.push(Right::write_below(keys.observer(domain)));
        for service in spec.services.keys() {
            rights.push(Right::write_below(format!("{}desired/", keys.service(service))));
        }
        for (id, _) in spec.databases() {
            for region in spec.regions.keys() {
                let key = keys.receiver_desired(&id.service, &id.database, region);
                rights.push(Right::write(key));
            }
        }
        Self::sorted(rights)
    }

    /// Of a person's commands: they begin and end runs.
    pub fn of_operator(keys: &Keys, spec: &Spec) -> Self {
        let mut rights = vec![Right::read(keys.all())];
        for service in spec.services.keys() {
            rights.push(Right::write(keys.epoch(service)));
            rights.push(Right::write_below(keys.runs(service)));
        }
        Self::sorted(rights)
    }

    /// And this key too.
    #[must_use]
    pub fn and_write(mut self, key: String) -> Self {
        self.0.push(Right::write(key));
        Self::sorted(self.0)
    }

    fn sorted(mut rights: Vec<Right>) -> Self {
        rights.sort();
        rights.dedup();
        Self(rights)
    }
}

/// The nodes of an agent: those that were named, else all of its region.
fn nodes(spec: &Spec, issued: &Issued) -> Outcome<Vec<(DatabaseId, NodeName)>> {
    let databases = spec.databases();
    let all = databases.flat_map(|(id, database)| {
        let here = database.nodes.iter().filter(|(_, node)| node.region == issued.region);
        here.map(move |(name, _)| (id.clone(), name.clone()))
    });
    let all: Vec<(DatabaseId, NodeName)> = all.collect();
    if issued.nodes.is_empty() {
        return Ok(all);
    }
    let one = |named: &String| {
        let found = all.iter().find(|(id, node)| format!("{id}/{node}") == *named).cloned();
        found.ok_or_else(|| {
            let message = format!("the spec has no node {named} in {}", issued.region);
            Failure::new(Code::RegionUnknown, message).hint("Write it SERVICE/DATABASE/NODE.")
        })
    };
    issued.nodes.iter().map(one).collect()
}
