//! Real servers.

use std::fs;

use lifeboat_environment::Environment;
use lifeboat_model::Lsn;
use lifeboat_testkit::postgres::Cluster;
use lifeboat_testkit::scratch;

use crate::{Config, Connection, Host};

/// Through the socket, as superuser.
pub fn config(cluster: &Cluster) -> Config {
    let mut config = Config::new(Host::Socket(cluster.sockets().to_owned()), "postgres");
    config.port = cluster.port();
    config
}

pub async fn open(cluster: &Cluster) -> Connection {
    Connection::open(&config(cluster), &Environment::system()).await.unwrap()
}

pub fn flushed(cluster: &Cluster) -> Lsn {
    cluster.psql("SELECT pg_current_wal_flush_lsn()").unwrap().parse().unwrap()
}

/// Puts a line in front of pg_hba.conf.
pub fn allow(cluster: &Cluster, line: &str) {
    let path = cluster.data().join("pg_hba.conf");
    let text = fs::read_to_string(&path).unwrap();
    scratch::write(&path, format!("{line}\n{text}")).unwrap();
    // A reload is asynchronous: the rules are those of the file when a session of them appears.
    cluster.psql("SELECT pg_reload_conf()").unwrap();
    let loaded =
        || cluster.psql("SELECT pg_conf_load_time() > pg_postmaster_start_time()").unwrap();
    while loaded() != "t" {}
}

/// The processes that send WAL.
pub fn senders(cluster: &Cluster) -> Vec<i32> {
    let pids = cluster.psql("SELECT pid FROM pg_stat_replication").unwrap();
    pids.lines().map(|pid| pid.parse().unwrap()).collect()
}
