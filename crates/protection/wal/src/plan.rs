//! The plan that a restore leaves for restore_command: everything that `wal fetch` needs to know,
//! so that it works with an empty environment. It holds no secrets.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use lifeboat_environment::Environment;
use lifeboat_model::{SegmentName, SegmentSize, SystemIdentifier, Timeline};
use lifeboat_objects::{Location, Options, Store};
use lifeboat_repository::ids::{Incarnation, StreamId, VaultId};
use lifeboat_telemetry::{Code, Failure, Outcome};
use serde::{Deserialize, Serialize};

use crate::durable;

/// Where WAL comes from, and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecoveryPlan {
    /// Version of this file.
    pub lifeboat_plan: u32,
    /// `SERVICE/DATABASE`.
    pub database: String,
    /// The vault that the repositories must belong to.
    pub vault: VaultId,
    /// The stream that is read.
    pub stream: StreamId,
    /// The cluster that wrote it.
    pub system_identifier: SystemIdentifier,
    /// The incarnation of the cluster that wrote it.
    pub incarnation: Incarnation,
    /// The region by whose repository absence is judged.
    pub region: String,
    /// All repositories, with every reference resolved.
    pub repositories: Vec<PlanRepository>,
    /// The timeline on which the recovery starts: the backup's.
    pub timeline: Timeline,
    /// `wal_segment_size`.
    pub wal_segment_bytes: u64,
    /// The last segment of each timeline that was in the repository when the plan was made.
    pub frontier: Vec<SegmentName>,
    /// The WAL-read key.
    pub read_key_file: PathBuf,
    /// A directory for what is fetched ahead, of this restore alone.
    pub prefetch: PathBuf,
    /// How long one call may try, in milliseconds.
    pub fetch_deadline_ms: u64,
    /// When the plan was made.
    pub created_at: Timestamp,
}

/// One region's repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanRepository {
    /// The region.
    pub region: String,
    /// Where it lies.
    pub url: String,
    /// The store's address where it is not the cloud's own.
    pub endpoint: Option<String>,
    /// The cloud's name of its region.
    pub region_name: Option<String>,
}

impl RecoveryPlan {
    /// Reads a plan.
    pub fn load(path: &Path) -> Outcome<Self> {
        let unusable = |why: String| {
            Failure::new(Code::LocalFile, format!("cannot use the plan {}: {why}", path.display()))
                .hint("`lifeboat restore` wrote it; run the restore again, or bring it back.")
        };
        let text = std::fs::read(path).map_err(|error| unusable(error.to_string()))?;
        let plan: Self =
            serde_json::from_slice(&text).map_err(|error| unusable(error.to_string()))?;
        if plan.lifeboat_plan != 1 {
            return Err(unusable(format!("it has version {}", plan.lifeboat_plan)));
        }
        plan.segment_size()?;
        Ok(plan)
    }

    /// Writes the plan durably.
    pub fn save(&self, path: &Path) -> Outcome<()> {
        let text = serde_json::to_vec_pretty(self).map_err(|error| {
            Failure::new(Code::Internal, "the plan cannot be encoded").because(error)
        })?;
        durable::write(path, &text)
    }

    /// The cluster's segment size.
    pub fn segment_size(&self) -> Outcome<SegmentSize> {
        SegmentSize::new(self.wal_segment_bytes).ok_or_else(|| {
            let message = format!("no cluster has segments of {} bytes", self.wal_segment_bytes);
            Failure::new(Code::LocalFile, message)
        })
    }

    /// How long one call may try.
    pub fn fetch_deadline(&self) -> Duration {
        Duration::from_millis(self.fetch_deadline_ms)
    }

    /// The last segment of a timeline that the plan knows of.
    pub fn frontier_of(&self, timeline: Timeline) -> Option<SegmentName> {
        self.frontier.iter().copied().filter(|name| name.timeline() == timeline).max()
    }

    /// The stores, the planned region's first.
    pub(crate) fn stores(
        &self,
        environment: &Environment,
        options: &Options,
    ) -> Outcome<Vec<(String, Store)>> {
        let mut repositories: Vec<_> = self.repositories.iter().collect();
        repositories.sort_by_key(|repository| repository.region != self.region);
        if repositories.first().is_none_or(|first| first.region != self.region) {
            let message = format!("the plan does not say where {} is", self.region);
            return Err(Failure::new(Code::LocalFile, message));
        }
        let mut stores = Vec::new();
        for repository in repositories {
            let location = Location::new(&repository.url)?
                .with_endpoint(repository.endpoint.clone())
                .with_region(repository.region_name.clone());
            let store = Store::open(&location, environment, *options)?;
            stores.push((repository.region.clone(), store));
        }
        Ok(stores)
    }
}
