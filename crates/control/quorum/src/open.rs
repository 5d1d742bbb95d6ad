//! From the spec to the store that a daemon or a command uses: the one door.

use std::path::Path;

use lifeboat_environment::Environment;
use lifeboat_model::spec::Quorum;
use lifeboat_telemetry::Outcome;

use crate::{EtcdAccess, EtcdStore, Identity, Keys, LocalStore, SignedStore, Store, Timing};

/// Opens the store that the spec names. On a host that was enrolled (`identity.json` in the state
/// directory), it is entered as that user, what is written is signed, and orders of others are
/// read only if whoever may give them has signed them.
///
/// Must be called where a tokio runtime is entered; asks nobody yet.
pub fn open(spec: &Quorum, state: &Path, environment: &Environment) -> Outcome<Box<dyn Store>> {
    let timeout = Timing::of(spec).store_timeout;
    let Some(etcd) = &spec.etcd else {
        // One machine: whoever may read the state directory is whoever may write it.
        return Ok(Box::new(LocalStore::open(&state.join("quorum"), timeout, environment)?));
    };
    let access = EtcdAccess::of(etcd, environment)?;
    match Identity::find(&state.join(Identity::FILE))? {
        None => Ok(Box::new(EtcdStore::new(&access, timeout)?)),
        Some(identity) => {
            let inner = Box::new(EtcdStore::new(&identity.enter(access), timeout)?);
            Ok(Box::new(SignedStore::new(inner, Keys::default(), &identity)?))
        }
    }
}
