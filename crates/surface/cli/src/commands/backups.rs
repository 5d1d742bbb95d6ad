//! `lifeboat backups`: what there is to go back to.

pub mod list;
pub mod show;

use std::collections::BTreeMap;

use lifeboat_model::DatabaseId;
use lifeboat_repository::access::Access;
use lifeboat_repository::ids::StreamId;
use lifeboat_repository::manifest::{Description, Manifest};
use lifeboat_repository::regions::Regions;
use lifeboat_telemetry::{Code, Failure, Outcome};

use crate::commands::incarnations;
use crate::keyring::Keyring;

/// List backups, or show one
#[derive(Debug, clap::Subcommand)]
pub enum Backups {
    List(list::Args),
    Show(show::Args),
}

/// A backup and where it lies.
pub struct Stored {
    manifest: Manifest,
    description: Description,
    regions: Vec<String>,
}

/// All backups of a database, oldest first: of every incarnation, from every region.
pub fn read(access: &Access<'_>, regions: &Regions, id: &DatabaseId) -> Outcome<Vec<Stored>> {
    let mut found: BTreeMap<(StreamId, String), (Manifest, Vec<String>)> = BTreeMap::new();
    let mut damaged = Vec::new();
    for binding in incarnations::of(access, regions, &id.to_string())? {
        let stream = binding.body.stream;
        for repository in regions.all() {
            let manifests = access.blocking.run(repository.manifests(stream))?;
            damaged.extend(manifests.damaged.into_iter().map(|(name, why)| ((stream, name), why)));
            for manifest in manifests.sound {
                let entry = found.entry((stream, manifest.body.name.clone()));
                let (_, regions) = entry.or_insert_with(|| (manifest, Vec::new()));
                regions.push(repository.region().to_owned());
            }
        }
    }
    // Another region's copy will do; where there is none, a list without it would be a lie.
    if let Some((_, why)) = damaged.into_iter().find(|(backup, _)| !found.contains_key(backup)) {
        return Err(why);
    }
    let mut keys = Keyring::new(access, regions, id);
    let mut stored = Vec::new();
    for ((stream, _), (manifest, regions)) in found {
        let description = manifest.description(&keys.of(stream)?)?;
        stored.push(Stored { manifest, description, regions });
    }
    stored.sort_by_key(|backup| backup.description.stopped_at);
    Ok(stored)
}

/// The failure where a database has no backup at all.
fn none(id: &DatabaseId) -> Failure {
    Failure::new(Code::NoBackup, format!("there is no backup of {id}"))
        .hint(format!("Take one: `lifeboat backup {id}`."))
}
