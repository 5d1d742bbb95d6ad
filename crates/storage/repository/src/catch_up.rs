//! What regions missed of the vault while they were away: slots, certificates, bindings, epochs.

use std::collections::{BTreeMap, BTreeSet};

use lifeboat_objects::Key;
use lifeboat_telemetry::Outcome;

use crate::object::decode_any;
use crate::regions::Regions;
use crate::repository::Repository;

/// Brings every region that answers what another one has and it lacks below `keys/`,
/// `bindings/` and `epochs/`. A removed slot stays removed: its removal is brought, the slot is not.
pub async fn catch_up(regions: &mut Regions) -> Outcome<()> {
    let listed = regions.ask(async |repository| vault_keys(repository).await).await?;
    let mut holders: BTreeMap<Key, Repository> = BTreeMap::new();
    for (repository, keys) in regions.all().iter().zip(&listed) {
        for key in keys {
            holders.entry(key.clone()).or_insert_with(|| repository.clone());
        }
    }
    let is_removed = |key: &Key| {
        Key::new(format!("{key}-removed")).is_ok_and(|removal| holders.contains_key(&removal))
    };
    let missed = |key: &Key| listed.iter().any(|keys| !keys.contains(key));
    for (key, holder) in holders.iter().filter(|(key, _)| missed(key) && !is_removed(key)) {
        // Damage is named by `repo check`, and must not spread. Who does not answer is found out
        // by what the command is about.
        let Ok(bytes) = holder.store().get(key).await else { continue };
        if decode_any(key, &bytes).is_ok() {
            regions.create_verified(key, &bytes).await?;
        }
    }
    Ok(())
}

async fn vault_keys(repository: &Repository) -> Outcome<BTreeSet<Key>> {
    let mut keys = BTreeSet::new();
    for prefix in ["keys/", "bindings/", "epochs/"] {
        keys.extend(repository.store().list(prefix).await?.into_iter().map(|(key, _)| key));
    }
    Ok(keys)
}
