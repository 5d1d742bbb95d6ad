//! Sessions with real servers.

use lifeboat_environment::Environment;
use lifeboat_model::{Lsn, Timeline};
use lifeboat_testkit::postgres::Cluster;
use lifeboat_wire::{Config, Connection, Event, Host, SlotOptions, Start, Status};

fn config(cluster: &Cluster) -> Config {
    let mut config = Config::new(Host::Socket(cluster.sockets().to_owned()), "postgres");
    config.port = cluster.port();
    config
}

async fn open(cluster: &Cluster) -> Connection {
    Connection::open(&config(cluster), &Environment::system()).await.unwrap()
}

async fn session(major: u32) {
    let cluster = Cluster::builder(major).start().unwrap();
    let mut connection = open(&cluster).await;
    assert_eq!(connection.server_major(), major);
    let system = connection.identify().await.unwrap();
    let identifier = cluster.psql("SELECT system_identifier FROM pg_control_system()").unwrap();
    assert_eq!(system.identifier.to_string(), identifier);
    assert_eq!(system.timeline, Timeline::FIRST);
    assert_eq!(connection.show("wal_segment_size").await.unwrap(), "16MB");
    assert_eq!(connection.show("data_checksums").await.unwrap(), "on");
    assert!(!connection.in_recovery().await.unwrap());
    let slot = "receiver".parse().unwrap();
    assert_eq!(connection.read_slot(&slot).await.unwrap(), None);
    let options = SlotOptions { reserve_wal: true, temporary: false };
    connection.create_slot(&slot, options).await.unwrap();
    let restart = connection.read_slot(&slot).await.unwrap().unwrap().restart.unwrap();
    assert_eq!(restart.0, Timeline::FIRST);
    assert!(restart.1 <= system.flushed);
    assert_eq!(connection.timeline_history(Timeline(1)).await.unwrap(), None);

    let lsn = Lsn(system.flushed.0 & !0xFF_FFFF);
    let start = Start { slot: Some(slot.clone()), lsn, timeline: system.timeline };
    let mut stream = connection.start(start).await.unwrap();
    cluster.psql("CREATE TABLE t AS SELECT generate_series(1, 10000) AS n").unwrap();
    let end: Lsn = cluster.psql("SELECT pg_current_wal_flush_lsn()").unwrap().parse().unwrap();
    let mut reached = lsn;
    while reached < end {
        if let Event::Data(data) = stream.next().await.unwrap() {
            assert_eq!(data.start, reached);
            reached = data.end();
            stream.status(Status::durable(reached)).await.unwrap();
        }
    }
    let mut connection = stream.finish().await.unwrap();
    let slot_now = connection.read_slot(&slot).await.unwrap().unwrap();
    assert!(slot_now.restart.unwrap().1 >= end);
    connection.drop_slot(&slot, true).await.unwrap();
    connection.close().await;
}

#[tokio::test]
async fn pg15_session() {
    session(15).await;
}

#[tokio::test]
async fn pg16_session() {
    session(16).await;
}

#[tokio::test]
async fn pg18_session() {
    session(18).await;
}
