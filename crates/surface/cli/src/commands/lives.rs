//! The lives of a database's cluster: what it was bound to, one after the other.

use std::collections::BTreeMap;

use lifeboat_repository::access::Access;
use lifeboat_repository::binding::Binding;
use lifeboat_repository::regions::Regions;
use lifeboat_telemetry::Outcome;

/// Every life that any region knows, oldest first; the last one may write.
pub fn of(access: &Access<'_>, regions: &Regions, database: &str) -> Outcome<Vec<Binding>> {
    let mut all = BTreeMap::new();
    for repository in regions.all() {
        for binding in access.blocking.run(repository.bindings(database))? {
            all.insert(binding.number, binding);
        }
    }
    let mut lives: Vec<Binding> = Vec::new();
    for binding in all.into_values() {
        // A life that was granted again counts where it was granted last.
        lives.retain(|life| life.body.stream != binding.body.stream);
        lives.push(binding);
    }
    Ok(lives)
}
