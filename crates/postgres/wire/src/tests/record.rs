//! Records the transcripts in `testdata/transcripts`; see the README there.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use lifeboat_environment::Environment;
use lifeboat_model::Timeline;
use lifeboat_testkit::postgres::Cluster;
use nix::sys::signal::{Signal, kill};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::transcript::{self, PASSWORD, ROLE, Turn};
use super::{server, streams};
use crate::link::{Link, Socket};
use crate::{Connection, Event, Login, SlotOptions, Start, Status, dial};

struct Recorder {
    socket: Box<dyn Socket>,
    turns: Arc<Mutex<Vec<Turn>>>,
}

impl Recorder {
    fn record(&self, turn: Turn) {
        transcript::append(&mut self.turns.lock().unwrap(), turn);
    }
}

impl AsyncRead for Recorder {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Byte by byte, so that what we send stands right behind what made us send it.
        let mut byte = [0];
        let mut single = ReadBuf::new(&mut byte);
        ready!(Pin::new(&mut self.socket).poll_read(context, &mut single))?;
        if !single.filled().is_empty() {
            self.record(Turn::Server(single.filled().to_vec()));
        }
        buffer.put_slice(single.filled());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Recorder {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let sent = ready!(Pin::new(&mut self.socket).poll_write(context, bytes))?;
        self.record(Turn::Client(bytes[..sent].to_vec()));
        Poll::Ready(Ok(sent))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

/// A record of WAL without the images of pages that would make transcripts long.
const RECORD: &str = "SELECT pg_logical_emit_message(true, 'lifeboat', repeat('x', 300))";

type Turns = Arc<Mutex<Vec<Turn>>>;

/// A server whose role has an MD5 password.
fn server(major: u32) -> Cluster {
    let cluster = Cluster::builder(major).setting("password_encryption = md5").start().unwrap();
    cluster.psql(&format!("CREATE ROLE {ROLE} REPLICATION LOGIN PASSWORD '{PASSWORD}'")).unwrap();
    server::allow(&cluster, &format!("local replication {ROLE} md5"));
    cluster
}

async fn open(cluster: &Cluster) -> (Connection, Turns) {
    let mut config = transcript::config();
    config.host = server::config(cluster).host;
    let (socket, security) = dial::dial(&config).await.unwrap();
    let turns = Turns::default();
    let recorder = Recorder { socket, turns: Arc::clone(&turns) };
    let link = Link::new(Box::new(recorder));
    let login = Login::new(&config, security);
    let connection = Connection::log_in(link, login, &Environment::system()).await.unwrap();
    (connection, turns)
}

fn keep(name: &str, major: u32, turns: &Turns) {
    let text = transcript::write(&turns.lock().unwrap());
    std::fs::create_dir_all(transcript::folder()).unwrap();
    std::fs::write(transcript::folder().join(format!("pg{major}-{name}.txt")), text).unwrap();
}

/// Every command, refusals too, and a short stream that we end.
async fn session(major: u32) {
    let cluster = server(major);
    let (mut connection, turns) = open(&cluster).await;
    let system = connection.identify().await.unwrap();
    connection.show("wal_segment_size").await.unwrap();
    connection.show("no_such_setting").await.unwrap_err();
    assert!(!connection.in_recovery().await.unwrap());
    let slot = "east".parse().unwrap();
    assert_eq!(connection.read_slot(&slot).await.unwrap(), None);
    connection.drop_slot(&slot, false).await.unwrap_err();
    let options = SlotOptions { reserve_wal: true, temporary: false };
    connection.create_slot(&slot, options).await.unwrap();
    connection.create_slot(&slot, options).await.unwrap_err();
    connection.read_slot(&slot).await.unwrap().unwrap();
    assert_eq!(connection.timeline_history(Timeline(7)).await.unwrap(), None);
    let start = Start { slot: Some(slot.clone()), lsn: system.flushed, timeline: system.timeline };
    let mut stream = connection.start(start).await.unwrap();
    cluster.psql(RECORD).unwrap();
    streams::follow(&mut stream, system.flushed, server::flushed(&cluster)).await;
    stream.status(Status::durable(server::flushed(&cluster)).request_reply()).await.unwrap();
    while !matches!(stream.next().await.unwrap(), Event::Keepalive(_)) {}
    let mut connection = stream.finish().await.unwrap();
    connection.drop_slot(&slot, true).await.unwrap();
    connection.close().await;
    keep("session", major, &turns);
}

/// A standby is promoted under the stream; the next timeline follows on the same connection.
async fn timeline(major: u32) {
    let primary = server(major);
    let mut standby = primary.standby().unwrap();
    let (mut connection, turns) = open(&standby).await;
    assert!(connection.in_recovery().await.unwrap());
    let system = connection.identify().await.unwrap();
    let start = Start { slot: None, lsn: system.flushed, timeline: system.timeline };
    let mut stream = connection.start(start).await.unwrap();
    primary.psql(RECORD).unwrap();
    primary.wait_for_replay(&mut standby).unwrap();
    standby.psql("SELECT pg_promote()").unwrap();
    let end = loop {
        match stream.next().await.unwrap() {
            Event::Data(data) => stream.status(Status::durable(data.end())).await.unwrap(),
            Event::Keepalive(_) => {}
            Event::EndOfTimeline(end) => break end,
            Event::Shutdown => panic!("the server went away"),
        }
    };
    let mut connection = stream.finish().await.unwrap();
    connection.timeline_history(end.next).await.unwrap().unwrap();
    // There is nothing more on the old timeline, and that is what the server says.
    let start = Start { slot: None, lsn: end.switch, timeline: system.timeline };
    let mut stream = connection.start(start).await.unwrap();
    assert_eq!(stream.next().await.unwrap(), Event::EndOfTimeline(end));
    let connection = stream.finish().await.unwrap();
    let start = Start { slot: None, lsn: end.switch, timeline: end.next };
    let mut stream = connection.start(start).await.unwrap();
    streams::follow(&mut stream, end.switch, server::flushed(&standby)).await;
    stream.finish().await.unwrap().close().await;
    keep("timeline", major, &turns);
}

/// A fast shutdown waits until we have everything.
async fn shutdown(major: u32) {
    let mut cluster = server(major);
    let (mut connection, turns) = open(&cluster).await;
    let system = connection.identify().await.unwrap();
    let start = Start { slot: None, lsn: system.flushed, timeline: system.timeline };
    let mut stream = connection.start(start).await.unwrap();
    streams::until_active(&mut stream, system.flushed).await;
    kill(cluster.pid().unwrap(), Signal::SIGINT).unwrap();
    loop {
        match stream.next().await.unwrap() {
            Event::Data(data) => stream.status(Status::durable(data.end())).await.unwrap(),
            Event::Keepalive(_) => {}
            Event::EndOfTimeline(_) => panic!("nobody was promoted"),
            Event::Shutdown => break,
        }
    }
    cluster.wait_for_end().unwrap();
    keep("shutdown", major, &turns);
}

#[tokio::test]
#[ignore = "records testdata/transcripts anew, by hand: cargo nextest run --run-ignored=only"]
async fn record_transcripts() {
    for major in [15, 16, 18] {
        session(major).await;
        timeline(major).await;
        shutdown(major).await;
    }
}
