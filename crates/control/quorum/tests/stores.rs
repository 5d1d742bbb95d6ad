//! The one suite of all stores, over real parts.

use std::time::Duration;

use anyhow::Result;
use lifeboat_quorum::{EtcdAccess, EtcdStore, MemoryStore};
use lifeboat_testkit::etcd::Cluster;
use lifeboat_testkit::quorum::conformance;

fn etcd(cluster: &Cluster) -> Result<EtcdStore> {
    let access = EtcdAccess { endpoints: cluster.endpoints(), ..EtcdAccess::default() };
    // Disks of test machines are slow at times; what is timed has tests of its own.
    Ok(EtcdStore::new(&access, Duration::from_secs(10))?)
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
