//! The one suite of all stores, over real parts.

use std::time::Duration;

use anyhow::Result;
use lifeboat_environment::Environment;
use lifeboat_quorum::{EtcdAccess, EtcdStore, LocalStore, MemoryStore};
use lifeboat_testkit::etcd::Cluster;
use lifeboat_testkit::quorum::conformance;

/// Disks of test machines are slow at times; what is timed has tests of its own.
const WAIT: Duration = Duration::from_secs(10);

fn etcd(cluster: &Cluster) -> Result<EtcdStore> {
    let access = EtcdAccess { endpoints: cluster.endpoints(), ..EtcdAccess::default() };

    Ok(EtcdStore::new(&access, WAIT)?)
}

#[tokio::test]
async fn memory_does_what_every_store_does() -> Result<()> {
    let store = MemoryStore::new();
    conformance(&store, &store.clone(), "lifeboat/").await
}

#[tokio::test]
async fn a_real_etcd_does_what_every_store_does() -> Result<()> {
    let cluster = Cluster::start()?;
    conformance(&etcd(&cluster)?, &etcd(&cluster)?, "lifeboat/").await
}

#[tokio::test]
async fn one_machines_files_do_what_every_store_does() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let open = || LocalStore::open(&folder.path().join("quorum"), WAIT, &Environment::system());
    conformance(&open()?, &open()?, "lifeboat/").await
}
