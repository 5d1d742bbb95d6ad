//! Streams of real servers, compared byte by byte.

use std::fs;
use std::path::Path;
use std::time::Duration;

use lifeboat_model::{Lsn, SegmentName, SegmentSize, Timeline};
use lifeboat_testkit::postgres::{Cluster, Stop};
use lifeboat_testkit::process::{PATIENCE, run};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::task::JoinSet;

use super::server::{flushed, open, senders};
use crate::{Data, EndOfTimeline, Error, Event, SlotName, SlotOptions, Start, Status, Stream};

/// Streams until `end` has come, acknowledging all of it.
pub async fn follow(stream: &mut Stream, start: Lsn, end: Lsn) -> Vec<u8> {
    let mut wal = Vec::new();
    while start.0 + (wal.len() as u64) < end.0 {
        if let Event::Data(data) = stream.next().await.unwrap() {
            take(stream, &mut wal, start, &data).await;
        }
    }
    wal
}

async fn take(stream: &mut Stream, wal: &mut Vec<u8>, start: Lsn, data: &Data) {
    assert_eq!(data.start.0, start.0 + wal.len() as u64);
    assert!(!data.bytes.is_empty());
    wal.extend_from_slice(&data.bytes);
    stream.status(Status::durable(data.end())).await.unwrap();
}

/// What lies in segment files from `start` on.
pub fn segments(folder: &Path, timeline: Timeline, start: Lsn, length: usize) -> Vec<u8> {
    let size = SegmentSize::DEFAULT;
    let mut wal = Vec::new();
    let mut name = SegmentName::from_lsn(timeline, start, size);
    let skip = size.offset_of(start) as usize;
    while wal.len() < skip + length {
        let path = folder.join(name.to_string());
        let partial = folder.join(format!("{name}.partial"));
        wal.extend(fs::read(&path).or_else(|_| fs::read(&partial)).unwrap());
        name = name.next(size).unwrap();
    }
    wal[skip..skip + length].to_vec()
}

fn segment_start(lsn: Lsn) -> Lsn {
    Lsn(lsn.0 - SegmentSize::DEFAULT.offset_of(lsn))
}

/// Streams while pgbench runs; the same bytes lie in pg_wal and in what pg_receivewal wrote.
async fn under_load(major: u32) {
    let cluster = Cluster::builder(major).start().unwrap();
    cluster.pgbench(["-i", "-s", "1", "-q"]).unwrap();
    let mut connection = open(&cluster).await;
    let (slot, other): (SlotName, SlotName) = ("ours".parse().unwrap(), "theirs".parse().unwrap());
    let options = SlotOptions { reserve_wal: true, temporary: false };
    connection.create_slot(&slot, options).await.unwrap();
    connection.create_slot(&other, options).await.unwrap();
    let system = connection.identify().await.unwrap();
    let start = segment_start(system.flushed);
    let timeline = system.timeline;
    let load = cluster.pgbench_in_background(["-c", "2", "-t", "1500", "-n"]).unwrap();
    let mut loads = JoinSet::new();
    loads.spawn_blocking(move || load.wait(PATIENCE).unwrap().success().map(drop));
    let asked = Start { slot: Some(slot), lsn: start, timeline };
    let mut stream = connection.start(asked).await.unwrap();
    let mut wal = Vec::new();
    loop {
        tokio::select! {
            event = stream.next() => match event.unwrap() {
                Event::Data(data) => take(&mut stream, &mut wal, start, &data).await,
                event => assert!(matches!(event, Event::Keepalive(_)), "{event:?}"),
            },
            Some(ended) = loads.join_next() => break ended.unwrap().unwrap(),
        }
    }
    cluster.psql("SELECT pg_switch_wal(); CREATE TABLE after AS SELECT 1 AS n").unwrap();
    let end = flushed(&cluster);
    let reached = Lsn(start.0 + wal.len() as u64);
    wal.extend(follow(&mut stream, reached, end).await);
    assert!(wal.len() > 16 << 20);
    assert!(wal == segments(&cluster.data().join("pg_wal"), timeline, start, wal.len()));

    let folder = cluster.scratch().folder("receivewal").unwrap();
    let mut receive = cluster.installation().client_command("pg_receivewal").unwrap();
    receive.args(["--no-loop", "--slot", other.as_str(), "--endpos", &end.to_string()]);
    receive.arg("-D").arg(&folder).arg("-d").arg(cluster.connection());
    run(&mut receive).unwrap().success().unwrap();
    let length = (end.0 - start.0) as usize;
    assert!(wal[..length] == segments(&folder, timeline, start, length));
}

#[tokio::test]
async fn pg15_bytes_are_those_of_pg_wal_and_pg_receivewal() {
    under_load(15).await;
}

#[tokio::test]
async fn pg16_bytes_are_those_of_pg_wal_and_pg_receivewal() {
    under_load(16).await;
}

#[tokio::test]
async fn pg18_bytes_are_those_of_pg_wal_and_pg_receivewal() {
    under_load(18).await;
}

/// The end of a timeline names the next one, which follows on the same connection.
async fn promotion(major: u32) {
    let mut primary = Cluster::builder(major).start().unwrap();
    let mut standby = primary.standby().unwrap();
    primary.psql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n").unwrap();
    primary.wait_for_replay(&mut standby).unwrap();
    let mut connection = open(&standby).await;
    assert!(connection.in_recovery().await.unwrap());
    let system = connection.identify().await.unwrap();
    assert_eq!(system.timeline, Timeline(1));
    let start = segment_start(system.flushed);
    let asked = Start { slot: None, lsn: start, timeline: Timeline(1) };
    let mut stream = connection.start(asked.clone()).await.unwrap();
    let mut wal = follow(&mut stream, start, system.flushed).await;
    primary.stop(Stop::Fast).unwrap();
    standby.psql("SELECT pg_promote()").unwrap();
    let end = end_of_timeline(&mut stream, &mut wal, start).await;
    assert_eq!(end.next, Timeline(2));
    assert_eq!(end.switch.0, start.0 + wal.len() as u64);

    let mut connection = stream.finish().await.unwrap();
    let history = connection.timeline_history(Timeline(2)).await.unwrap().unwrap();
    let text = String::from_utf8(history.content.to_vec()).unwrap();
    assert!(text.starts_with(&format!("1\t{}\t", end.switch)), "{text}");
    assert_eq!(connection.identify().await.unwrap().timeline, Timeline(2));
    // Whoever comes late gets the same answer, from the beginning and from the very end.
    let mut late = open(&standby).await.start(asked).await.unwrap();
    let mut again = Vec::new();
    assert_eq!(end_of_timeline(&mut late, &mut again, start).await, end);
    assert!(again == wal);
    let last = Start { slot: None, lsn: end.switch, timeline: Timeline(1) };
    let mut stream = connection.start(last).await.unwrap();
    assert_eq!(stream.next().await.unwrap(), Event::EndOfTimeline(end));
    assert!(matches!(stream.next().await, Err(Error::Busy)));

    let connection = stream.finish().await.unwrap();
    standby.psql("CREATE TABLE u AS SELECT generate_series(1, 1000) AS n").unwrap();
    let next = Start { slot: None, lsn: end.switch, timeline: Timeline(2) };
    let mut stream = connection.start(next).await.unwrap();
    wal.extend(follow(&mut stream, end.switch, flushed(&standby)).await);
    assert!(wal == segments(&standby.data().join("pg_wal"), Timeline(2), start, wal.len()));
}

async fn end_of_timeline(stream: &mut Stream, wal: &mut Vec<u8>, start: Lsn) -> EndOfTimeline {
    loop {
        match stream.next().await.unwrap() {
            Event::Data(data) => take(stream, wal, start, &data).await,
            Event::Keepalive(_) => {}
            Event::EndOfTimeline(end) => return end,
            Event::Shutdown => panic!("the server went away"),
        }
    }
}

#[tokio::test]
async fn pg15_promotion_ends_the_timeline() {
    promotion(15).await;
}

#[tokio::test]
async fn pg16_promotion_ends_the_timeline() {
    promotion(16).await;
}

#[tokio::test]
async fn pg18_promotion_ends_the_timeline() {
    promotion(18).await;
}

/// A fast shutdown lets us go only when we have flushed the shutdown checkpoint.
async fn shutdown(major: u32) {
    let mut cluster = Cluster::builder(major).start().unwrap();
    let mut connection = open(&cluster).await;
    let system = connection.identify().await.unwrap();
    let start = system.flushed;
    let asked = Start { slot: None, lsn: start, timeline: system.timeline };
    let mut stream = connection.start(asked).await.unwrap();
    until_active(&mut stream, start).await;
    cluster.psql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n").unwrap();
    kill(cluster.pid().unwrap(), Signal::SIGINT).unwrap();
    let end = unacknowledged(&mut stream, start).await;
    // Written is not flushed, so the server asks again instead of going.
    stream.status(Status::new(end, start, start).unwrap()).await.unwrap();
    assert_eq!(unacknowledged(&mut stream, end).await, end);
    stream.status(Status::durable(end)).await.unwrap();
    assert_eq!(stream.next().await.unwrap(), Event::Shutdown);
    assert!(matches!(stream.next().await, Err(Error::Busy)));
    cluster.wait_for_end().unwrap();
    cluster.start().unwrap();
    let checkpoint = cluster.psql("SELECT checkpoint_lsn FROM pg_control_checkpoint()").unwrap();
    assert!(checkpoint.parse::<Lsn>().unwrap() < end);
    assert!(cluster.log().contains("database system was shut down at"));
}

/// Waits until the server answers: a shutdown before would take the session for an idle one.
pub async fn until_active(stream: &mut Stream, start: Lsn) {
    stream.status(Status::durable(start).request_reply()).await.unwrap();
    while !matches!(stream.next().await.unwrap(), Event::Keepalive(_)) {}
}

/// Takes data until the server has nothing more and asks how far we are.
async fn unacknowledged(stream: &mut Stream, start: Lsn) -> Lsn {
    let mut reached = start;
    loop {
        match stream.next().await.unwrap() {
            Event::Data(data) => reached = data.end(),
            Event::Keepalive(keepalive) => {
                if keepalive.reply_requested && keepalive.server_end == reached {
                    return reached;
                }
            }
            event => panic!("{event:?}"),
        }
    }
}

#[tokio::test]
async fn pg15_shutdown_waits_for_our_flush() {
    shutdown(15).await;
}

#[tokio::test]
async fn pg16_shutdown_waits_for_our_flush() {
    shutdown(16).await;
}

#[tokio::test]
async fn pg18_shutdown_waits_for_our_flush() {
    shutdown(18).await;
}

#[tokio::test]
async fn pg15_a_frozen_server_blocks_nobody_and_loses_nothing() {
    let cluster = Cluster::builder(15).start().unwrap();
    let mut connection = open(&cluster).await;
    let system = connection.identify().await.unwrap();
    let start = system.flushed;
    let asked = Start { slot: None, lsn: start, timeline: system.timeline };
    let mut stream = connection.start(asked).await.unwrap();
    let wal = follow(&mut stream, start, flushed(&cluster)).await;
    let reached = Lsn(start.0 + wal.len() as u64);
    let [sender] = senders(&cluster)[..] else { panic!("one session streams") };
    kill(Pid::from_raw(sender), Signal::SIGSTOP).unwrap();
    cluster.psql("CREATE TABLE t AS SELECT generate_series(1, 100000) AS n").unwrap();
    // What was sent before may still be on its way; then comes nothing.
    let mut wal = Vec::new();
    while let Ok(event) = tokio::time::timeout(Duration::from_millis(300), stream.next()).await {
        if let Event::Data(data) = event.unwrap() {
            take(&mut stream, &mut wal, reached, &data).await;
        }
    }
    // More than all buffers between us and the server hold.
    for _ in 0..100_000 {
        stream.status(Status::durable(reached).request_reply()).await.unwrap();
    }
    kill(Pid::from_raw(sender), Signal::SIGCONT).unwrap();
    let end = flushed(&cluster);
    let so_far = Lsn(reached.0 + wal.len() as u64);
    wal.extend(follow(&mut stream, so_far, end).await);
    let folder = cluster.data().join("pg_wal");
    assert!(wal == segments(&folder, system.timeline, reached, wal.len()));
}

#[tokio::test]
async fn pg15_a_killed_server_is_an_error() {
    let mut cluster = Cluster::builder(15).start().unwrap();
    let mut connection = open(&cluster).await;
    let system = connection.identify().await.unwrap();
    let asked = Start { slot: None, lsn: system.flushed, timeline: system.timeline };
    let mut stream = connection.start(asked).await.unwrap();
    cluster.kill9().unwrap();
    let error = loop {
        if let Err(error) = stream.next().await {
            break error;
        }
    };
    assert!(matches!(error, Error::Closed | Error::Io { .. }), "{error}");
}

#[tokio::test]
async fn pg15_our_name_satisfies_synchronous_replication() {
    let cluster = Cluster::builder(15)
        .setting("synchronous_standby_names = 'ANY 1 (lifeboat)'")
        .setting("synchronous_commit = remote_apply");
    let cluster = cluster.start().unwrap();
    let mut connection = open(&cluster).await;
    let system = connection.identify().await.unwrap();
    let asked = Start { slot: None, lsn: system.flushed, timeline: system.timeline };
    let mut stream = connection.start(asked).await.unwrap();
    let mut commit = cluster.installation().client_command("psql").unwrap();
    commit.arg("-d").arg(cluster.connection()).args(["-c", "CREATE TABLE t (n int)"]);
    let mut commits = JoinSet::new();
    commits.spawn_blocking(move || run(&mut commit).unwrap().success().map(drop));
    let mut reached = system.flushed;
    loop {
        tokio::select! {
            event = stream.next() => if let Event::Data(data) = event.unwrap() {
                reached = data.end();
                stream.status(Status::durable(reached)).await.unwrap();
            },
            Some(committed) = commits.join_next() => break committed.unwrap().unwrap(),
        }
    }
    assert!(reached > system.flushed);
}
