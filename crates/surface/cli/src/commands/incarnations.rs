//! The incarnations of a database's cluster: what it was bound to, one after the other.

use std::collections::BTreeSet;

use lifeboat_objects::Key;
use lifeboat_repository::access::Access;
use lifeboat_repository::binding::{Binding, BindingBody};
use lifeboat_repository::check::{Place, classify};
use lifeboat_repository::ids::StreamId;
use lifeboat_repository::keys::VaultSecrets;
use lifeboat_repository::layout;
use lifeboat_repository::regions::Regions;
use lifeboat_repository::repository::Repository;
use lifeboat_telemetry::Outcome;

/// Every incarnation that any region knows, oldest first; the last one may write.
pub fn of(access: &Access<'_>, regions: &Regions, database: &str) -> Outcome<Vec<Binding>> {
    let mut granted: Vec<Binding> = Vec::new();
    for binding in access.blocking.run(regions.bindings(database))? {
        // One that was granted again counts where it was granted last.
        granted.retain(|known| known.body.stream != binding.body.stream);
        granted.push(binding);
    }
    Ok(granted)
}

/// Incarnations whose binding is lost, each with its newest backup. Regions that answer make up
/// for each other's bindings; where only one does, its streams are asked whose they are.
pub fn unbound(
    access: &Access<'_>,
    regions: &Regions,
    secrets: &VaultSecrets,
    database: &str,
) -> Outcome<Vec<(String, BindingBody)>> {
    let [repository] = regions.all() else {
        return Ok(Vec::new());
    };
    access.blocking.run(async {
        let mut found = Vec::new();
        for stream in unbound_streams(repository).await? {
            let Some(newest) = repository.manifests(stream).await?.sound.pop() else {
                continue;
            };
            let description = newest.description(&secrets.stream_keys(stream))?;
            if description.database == database {
                let body = BindingBody {
                    database: description.database,
                    system_identifier: description.cluster.system_identifier,
                    incarnation: description.cluster.incarnation,
                    stream,
                    granted_at: description.started_at,
                };
                found.push((newest.body.name, body));
            }
        }
        Ok(found)
    })
}

/// Streams with backups that no binding of any database names.
async fn unbound_streams(repository: &Repository) -> Outcome<BTreeSet<StreamId>> {
    let listed = repository.store().list("streams/").await?;
    let stream = |(key, _): &(Key, _)| match classify(key) {
        Some(Place::Manifest(stream, _)) => Some(stream),
        _ => None,
    };
    let mut streams: BTreeSet<StreamId> = listed.iter().filter_map(stream).collect();
    for database in repository.bound_databases().await? {
        for binding in repository.bindings(&database).await? {
            streams.remove(&binding.body.stream);
        }
    }
    Ok(streams)
}

/// The name of the newest backup of a stream in any region, be it a damaged one. Names grow over
/// all incarnations of a database.
pub fn newest_backup(
    access: &Access<'_>,
    regions: &Regions,
    stream: StreamId,
) -> Outcome<Option<String>> {
    let prefix = format!("{}manifests/", layout::stream(stream));
    let mut newest = None;
    for repository in regions.all() {
        let listed = access.blocking.run(repository.store().list(&prefix))?;
        let names = listed.iter().filter_map(|(key, _)| key.as_str().strip_prefix(&prefix));
        newest = newest.max(names.max().map(str::to_owned));
    }
    Ok(newest)
}
