//! The spec, `lifeboat.yaml`: what is to be protected, where, and how well.

mod alerts;
mod database;
mod encryption;
mod quorum;
mod region;
mod resource;
mod service;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lifeboat_telemetry::{Code, Failure, Outcome};

pub use alerts::{AlertRules, Alerts, Channel, CommandChannel, Email, Sns, Webhook};
pub use database::{
    Acknowledge, BackupSettings, Database, Durable, Engine, Keep, Location, OnLoss, PostgresNode,
    ProofLevel, Retention, Smoke, Snapshots, StorageAges, Verify, WalMode, WalSettings,
};
pub use encryption::{CommandSlot, Empty, Encryption, KmsSlot, Slot, Slots};
pub use quorum::{Etcd, OnQuorumLoss, Person, Quorum, Role};
pub use region::{Region, RepositorySettings, StorageClasses};
pub use resource::{
    Bucket, Health, Scale, Table, TableEngine, TrafficDriver, TrafficRecord, Tsig, Velero,
    Workload, WorkloadDriver, WorkloadLocation,
};
pub use service::{Approval, Configuration, Drill, DrillKind, Failover, Service, Strategy, Tier};

use crate::reader::{expected, section};
use crate::tree::{Node, Value};
use crate::{
    DatabaseId, NodeName, PersonName, RegionName, ServiceName, TierName, TimeSpan, finding,
};

section! {
    /// The whole of lifeboat.yaml.
    pub struct Spec {
        /// The version of the spec's language: 1.
        lifeboat: Option<Language>,
        /// Where local state lies: spool, keys, catalogue, tokens. Without it LIFEBOAT_STATE,
        /// then /var/lib/lifeboat, then .lifeboat beside the spec.
        state: Option<PathBuf>,
        /// The regions: failure domains, each with a repository.
        regions: BTreeMap<RegionName, Region>,
        /// The third failure domain: a controller and an observer, no data.
        witness: Option<RegionName>,
        /// How repositories are encrypted. Without it: on, with one recovery key.
        encryption: Encryption = Encryption::default(),
        /// Where leases and epochs live.
        quorum: Option<Quorum>,
        /// Who may operate and approve.
        people: BTreeMap<PersonName, Person>,
        /// Objectives that services share.
        tiers: BTreeMap<TierName, Tier>,
        /// The services to protect.
        services: BTreeMap<ServiceName, Service>,
        /// Who is told when something is wrong.
        alerts: Option<Alerts>,
    }
}

/// The version of the spec's language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Language;

impl crate::reader::Read for Language {
    fn read(
        node: &Node,
        path: &finding::Path,
        findings: &mut finding::Findings<'_>,
    ) -> Option<Self> {
        match node.value {
            Value::Integer(1) => Some(Self),
            _ => expected(node, path, "1, the version of the language of this file", findings),
        }
    }
}

impl schemars::JsonSchema for Language {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Language".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "const": 1 })
    }
}

impl Spec {
    /// A region by its name.
    pub fn region(&self, name: &RegionName) -> Outcome<&Region> {
        self.regions.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.regions.keys().map(RegionName::as_str).collect();
            Failure::new(Code::RegionUnknown, format!("the spec has no region `{name}`"))
                .hint(format!("Its regions are {}.", known.join(", ")))
        })
    }

    /// All databases, in the order of their names.
    pub fn databases(&self) -> impl Iterator<Item = (DatabaseId, &Database)> {
        self.services.iter().flat_map(|(service, content)| {
            content.databases.iter().map(|(database, settings)| {
                let id = DatabaseId { service: service.clone(), database: database.clone() };
                (id, settings)
            })
        })
    }

    /// A database by its name.
    pub fn database(&self, id: &DatabaseId) -> Outcome<&Database> {
        let service = self.services.get(&id.service);
        service.and_then(|service| service.databases.get(&id.database)).ok_or_else(|| {
            Failure::new(Code::DatabaseUnknown, format!("the spec has no database `{id}`"))
                .hint(self.known_databases())
        })
    }

    /// The database that is meant where none is named: the only one there is.
    pub fn only_database(&self) -> Outcome<DatabaseId> {
        let mut all = self.databases();
        match (all.next(), all.next()) {
            (Some((id, _)), None) => Ok(id),
            (None, _) => Err(Failure::new(Code::DatabaseUnknown, "the spec has no database")
                .hint("Add one below `services.SERVICE.databases`.")),
            _ => Err(Failure::new(Code::DatabaseUnknown, "the spec has more than one database")
                .hint(self.known_databases())),
        }
    }

    fn known_databases(&self) -> String {
        let known: Vec<String> = self.databases().map(|(id, _)| id.to_string()).collect();
        format!("Name one of {}.", known.join(", "))
    }

    /// The database and node whose data directory is `directory`, both resolved by the caller.
    /// Where nodes of two regions use the same path, `here` decides.
    pub fn node_by_data_directory(
        &self,
        directory: &Path,
        here: Option<&RegionName>,
    ) -> Option<(DatabaseId, &NodeName, &PostgresNode)> {
        let mut found = self.databases().flat_map(|(id, database)| {
            database.nodes.iter().map(move |(name, node)| (id.clone(), name, node))
        });
        found.find(|(_, _, node)| {
            node.data_directory == directory && here.is_none_or(|here| node.region == *here)
        })
    }

    /// The objectives of a service: its own, else those of its tier.
    pub fn objectives(&self, service: &Service) -> Option<Tier> {
        let tier = self.tiers.get(&service.tier);
        Some(Tier {
            rto: service.rto.or_else(|| Some(tier?.rto))?,
            rpo: service.rpo.or_else(|| Some(tier?.rpo))?,
        })
    }
}

/// How often WAL is shipped unless the spec says so: a tenth of the RPO, within bounds.
pub fn default_flush_every(rpo: TimeSpan) -> TimeSpan {
    TimeSpan::from_millis((rpo.millis() / 10).clamp(500, 10_000))
}
