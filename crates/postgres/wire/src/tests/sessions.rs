//! Commands and refusals of real servers.

use lifeboat_environment::Environment;
use lifeboat_model::{Lsn, Timeline};
use lifeboat_telemetry::Code;
use lifeboat_testkit::postgres::Cluster;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::server::{config, open};
use crate::{Condition, Connection, Error, SlotName, SlotOptions, Start};

async fn commands(major: u32) {
    let cluster = Cluster::builder(major).wal_segment_size_mb(1).start().unwrap();
    let mut connection = open(&cluster).await;
    assert_eq!(connection.server_major(), major);
    let system = connection.identify().await.unwrap();
    let identifier = cluster.psql("SELECT system_identifier FROM pg_control_system()").unwrap();
    assert_eq!(system.identifier.to_string(), identifier);
    assert_eq!(system.timeline, Timeline::FIRST);
    assert_eq!(connection.show("wal_segment_size").await.unwrap(), "1MB");
    assert_eq!(connection.show("data_checksums").await.unwrap(), "on");
    assert_eq!(connection.timeline_history(Timeline(1)).await.unwrap(), None);

    let slot: SlotName = "receiver".parse().unwrap();
    let restart = "SELECT restart_lsn FROM pg_replication_slots";
    connection.create_slot(&slot, SlotOptions::default()).await.unwrap();
    assert_eq!(cluster.psql(restart).unwrap(), "");
    connection.drop_slot(&slot, false).await.unwrap();
    let options = SlotOptions { reserve_wal: true, temporary: false };
    connection.create_slot(&slot, options).await.unwrap();
    let reserved: Lsn = cluster.psql(restart).unwrap().parse().unwrap();
    assert!(reserved <= system.flushed);
    if major >= 15 {
        let read = connection.read_slot(&slot).await.unwrap().unwrap();
        assert_eq!(read.restart, Some((Timeline::FIRST, reserved)));
        assert_eq!(connection.read_slot(&"other".parse().unwrap()).await.unwrap(), None);
    } else {
        let error = connection.read_slot(&slot).await.unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    }
    if major >= 14 {
        assert!(!connection.in_recovery().await.unwrap());
    }
    // A refusal leaves the connection as it was.
    let error = connection.create_slot(&slot, options).await.unwrap_err();
    assert_eq!(error.condition(), Some(Condition::SlotExists));
    connection.drop_slot(&slot, true).await.unwrap();
    let error = connection.drop_slot(&slot, true).await.unwrap_err();
    assert_eq!(error.condition(), Some(Condition::SlotMissing));
    assert_eq!(cluster.psql("SELECT count(*) FROM pg_replication_slots").unwrap(), "0");
    connection.close().await;
}

#[tokio::test]
async fn pg13_commands() {
    commands(13).await;
}

#[tokio::test]
async fn pg15_commands() {
    commands(15).await;
}

#[tokio::test]
async fn pg16_commands() {
    commands(16).await;
}

#[tokio::test]
async fn pg18_commands() {
    commands(18).await;
}

async fn refusals(major: u32) {
    let mut cluster = Cluster::builder(major).setting("max_wal_senders = 2").start().unwrap();
    let mut connection = open(&cluster).await;
    let system = connection.identify().await.unwrap();
    let slot: SlotName = "receiver".parse().unwrap();
    let at = |slot: Option<&SlotName>, lsn| Start {
        slot: slot.cloned(),
        lsn,
        timeline: system.timeline,
    };
    let error = open(&cluster).await.start(at(Some(&slot), system.flushed)).await.unwrap_err();
    assert_eq!(error.condition(), Some(Condition::SlotMissing));

    senders(&mut cluster, 1);
    connection.create_slot(&slot, SlotOptions::default()).await.unwrap();
    let stream = connection.start(at(Some(&slot), system.flushed)).await.unwrap();
    let error = open(&cluster).await.start(at(Some(&slot), system.flushed)).await.unwrap_err();
    assert_eq!(error.condition(), Some(Condition::SlotInUse));
    assert_eq!(error.at("db.east:5432").code(), Code::SlotUnusable);

    senders(&mut cluster, 1);
    let second = open(&cluster).await;
    let error = Connection::open(&config(&cluster), &Environment::system()).await.unwrap_err();
    assert_eq!(error.condition(), Some(Condition::SendersExhausted));

    let ahead = Lsn(system.flushed.0 + (1 << 30));
    let error = second.start(at(None, ahead)).await.unwrap_err();
    assert!(matches!(error, Error::Ahead { asked, .. } if asked == ahead), "{error}");
    drop(stream);
}

/// Waits until the sessions that were dropped are gone.
fn senders(cluster: &mut Cluster, count: u32) {
    let query = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender'";
    cluster.wait_for(query, &count.to_string()).unwrap();
}

#[tokio::test]
async fn pg15_refusals() {
    refusals(15).await;
}

#[tokio::test]
async fn pg16_refusals() {
    refusals(16).await;
}

#[tokio::test]
async fn pg18_refusals() {
    refusals(18).await;
}

#[tokio::test]
async fn pg15_wal_that_is_gone_is_a_condition() {
    let settings = ["min_wal_size = 2MB", "max_wal_size = 2MB", "wal_keep_size = 0"];
    let builder = Cluster::builder(15).wal_segment_size_mb(1);
    let builder = settings.into_iter().fold(builder, |builder, line| builder.setting(line));
    let cluster = builder.start().unwrap();
    let system = open(&cluster).await.identify().await.unwrap();
    for _ in 0..4 {
        cluster.psql("CREATE TABLE t AS SELECT generate_series(1, 20000); DROP TABLE t").unwrap();
        cluster.psql("SELECT pg_switch_wal(); CHECKPOINT").unwrap();
    }
    let start = Start { slot: None, lsn: system.flushed, timeline: system.timeline };
    let mut stream = open(&cluster).await.start(start).await.unwrap();
    let error = stream.next().await.unwrap_err();
    assert_eq!(error.condition(), Some(Condition::WalRemoved), "{error}");
    assert_eq!(error.at("db.east:5432").code(), Code::WalGap);
    // The stream is over, the session is not.
    assert!(matches!(stream.next().await, Err(Error::Busy)));
    let mut connection = stream.finish().await.unwrap();
    assert_eq!(connection.identify().await.unwrap().identifier, system.identifier);
}

#[tokio::test]
async fn pg15_an_older_timeline_is_not_of_this_history() {
    let cluster = Cluster::builder(15).start().unwrap();
    let mut connection = open(&cluster).await;
    let system = connection.identify().await.unwrap();
    let start = Start { slot: None, lsn: system.flushed, timeline: Timeline(9) };
    let error = connection.start(start).await.unwrap_err();
    assert!(matches!(&error, Error::Server(said) if said.sqlstate == "XX000"), "{error}");
}

#[tokio::test]
async fn pg15_the_role_and_the_name_are_those_asked_for() {
    let cluster = Cluster::builder(15).start().unwrap();
    cluster.psql("CREATE ROLE plain LOGIN").unwrap();
    let mut asked = config(&cluster);
    asked.application_name = "lifeboat-east".to_owned();
    asked.options = Some("-c wal_sender_timeout=7s".to_owned());
    let mut connection = Connection::open(&asked, &Environment::system()).await.unwrap();
    assert_eq!(connection.show("wal_sender_timeout").await.unwrap(), "7s");
    let name = "SELECT application_name FROM pg_stat_activity WHERE backend_type = 'walsender'";
    assert_eq!(cluster.psql(name).unwrap(), "lifeboat-east");
    asked.user = "plain".to_owned();
    let error = Connection::open(&asked, &Environment::system()).await.unwrap_err();
    assert_eq!(error.condition(), Some(Condition::NotPermitted));
    assert_eq!(error.at("db.east:5432").code(), Code::ClusterPermission);
}

/// Dials something that answers so to the question for TLS.
async fn dial(answer: &[u8]) -> Error {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut config = crate::Config::parse(&format!("host=127.0.0.1 port={port} user=x")).unwrap();
    config.connect_timeout = std::time::Duration::from_millis(500);
    let serve = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        socket.write_all(answer).await.unwrap();
        // The client closes when it has had enough.
        let _ = socket.read_to_end(&mut Vec::new()).await;
    };
    let environment = Environment::system();
    tokio::join!(Connection::open(&config, &environment), serve).0.unwrap_err()
}

#[tokio::test]
async fn what_is_no_server_is_an_error() {
    assert!(matches!(dial(b"").await, Error::Timeout(_)));
    assert!(matches!(dial(b"N").await, Error::Timeout(_)));
    assert!(matches!(dial(b"HTTP/1.1 400 Bad Request").await, Error::Protocol(_)));
    assert!(matches!(dial(b"Sno TLS at all").await, Error::Tls(_)));
    let http = b"NHTTP/1.1 400 Bad Request";
    assert!(matches!(dial(http).await, Error::Protocol(_)));
}

#[tokio::test]
async fn nobody_there_is_an_error_that_names_the_step() {
    let config = crate::Config::parse("host=127.0.0.1 port=1 user=x").unwrap();
    let error = Connection::open(&config, &Environment::system()).await.unwrap_err();
    let failure = error.at(config.place());
    assert_eq!(failure.code(), Code::ClusterUnreachable);
    assert!(failure.full_message().starts_with("PostgreSQL at 127.0.0.1:1: cannot connect: "));
}
