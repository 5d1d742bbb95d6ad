//! Whether the quorum store is older than what is known of its epochs elsewhere (F9).
//!
//! A store that was restored from a snapshot, or a service that a person moved while it was lost,
//! shows an epoch that was over long ago. Numbers only grow, and each lies in the repositories
//! before it stands in the store; so a higher one there than here is the sign.

use lifeboat_drivers::KnownEpoch;
use lifeboat_quorum::{EpochRecord, Keys, StoreError};
use lifeboat_telemetry::{Code, Failure};

use crate::Service;
use crate::view::{Mirror, read_run};

/// What is known of a service's epochs outside the quorum store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Elsewhere {
    /// The highest epoch that any repository had when it was asked.
    pub archived: Option<KnownEpoch>,
    /// The highest one that this process has seen or persisted.
    pub remembered: u64,
}

impl Elsewhere {
    /// Takes in what repositories said; what was known before stays known.
    pub fn learn(&mut self, archived: Option<KnownEpoch>) {
        let known = self.archived.as_ref().map_or(0, |known| known.epoch);
        if archived.as_ref().is_some_and(|found| found.epoch >= known) {
            self.archived = archived;
        }
    }

    /// The highest number of all.
    pub fn highest(&self) -> u64 {
        self.archived.as_ref().map_or(0, |known| known.epoch).max(self.remembered)
    }

    /// Why nothing may be decided from this record; none if it is not older than what is known.
    pub fn refuse(
        &self,
        service: &Service,
        keys: &Keys,
        mirror: &Mirror,
        record: &EpochRecord,
    ) -> Result<Option<Failure>, StoreError> {
        if record.epoch < self.remembered {
            let archived = self.archived.as_ref().filter(|known| known.epoch >= self.remembered);
            let seen = || format!("an agent or a daemon has seen epoch {}", self.remembered);
            return Ok(Some(older(service, record, &archived.map_or_else(seen, tell))));
        }
        let Some(archived) = self.archived.as_ref().filter(|known| known.epoch > record.epoch)
        else {
            return Ok(None);
        };
        // A run may be about to begin it, or was given up when it was: then the store knows.
        if let Some(run) = archived.run
            && let Some((run, _)) = read_run(service, keys, mirror, run)?
            && run.chose(archived.epoch)
        {
            return Ok(None);
        }
        Ok(Some(older(service, record, &tell(archived))))
    }
}

fn tell(archived: &KnownEpoch) -> String {
    let KnownEpoch { epoch, region, repositories, .. } = archived;
    let places: Vec<&str> = repositories.iter().map(|region| region.as_str()).collect();
    let places = places.join(", ");
    match region {
        Some(region) => format!("the repository of {places} has epoch {epoch}, for {region}"),
        None => format!(
            "the repository of {places} has epoch {epoch}, of which it cannot be told whose it is"
        ),
    }
}

fn older(service: &Service, record: &EpochRecord, known: &str) -> Failure {
    let (name, epoch) = (&service.name, record.epoch);
    let message = format!("the quorum store has epoch {epoch} of {name}, and {known}");
    Failure::new(Code::QuorumRegressed, message).hint(format!(
        "Nobody acts on that record. See where {name} writes, then let `lifeboat apply --adopt` \
         go on above every known epoch."
    ))
}
