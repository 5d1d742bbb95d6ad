//! The shell over a pipe: dropped futures, slow readers, one byte at a time.

use std::time::Duration;

use bytes::Bytes;
use lifeboat_environment::Environment;
use lifeboat_model::Lsn;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufStream, DuplexStream, duplex};
use tokio::task::JoinSet;

use super::hostile::{data, message, ready, row, start};
use super::transcript;
use crate::link::{Link, Socket};
use crate::{Connection, Error, Event, Login, Security, Status, Stream};

fn greeting() -> Bytes {
    let mut bytes = message(b'R', &[0, 0, 0, 0]).to_vec();
    bytes.extend(message(b'S', b"server_version\x0016.4 (Debian 16.4-1)\0"));
    bytes.extend(ready());
    bytes.into()
}

async fn log_in(client: impl Socket + 'static) -> Result<Connection, Error> {
    let login = Login::new(&transcript::config(), Security::Socket);
    Connection::log_in(Link::new(Box::new(client)), login, &Environment::system()).await
}

/// Reads until a command of that name has come as a whole.
async fn hear(server: &mut DuplexStream, command: &str) {
    let mut heard = Vec::new();
    let whole = |heard: &[u8]| {
        let text = String::from_utf8_lossy(heard);
        text.find(command).is_some_and(|at| text[at..].contains('\0'))
    };
    while !whole(&heard) {
        assert_ne!(server.read_buf(&mut heard).await.unwrap(), 0);
    }
}

/// A stream and the server's end of it, with a pipe of that size.
async fn stream(pipe: usize) -> (Stream, DuplexStream) {
    let (client, mut server) = duplex(pipe);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        server.write_all(&greeting()).await.unwrap();
        hear(&mut server, "IDENTIFY_SYSTEM").await;
        let system = row(&["7710477625775519719", "3", "1/0"]);
        server.write_all(&[system, ready()].concat()).await.unwrap();
        hear(&mut server, "START_REPLICATION").await;
        server.write_all(&message(b'W', &[0, 0, 0])).await.unwrap();
        server
    });
    let stream = log_in(client).await.unwrap().start(start()).await.unwrap();
    (stream, tasks.join_next().await.unwrap().unwrap())
}

#[tokio::test]
async fn versions_are_read_from_what_the_server_says() {
    let (client, mut server) = duplex(4096);
    server.write_all(&greeting()).await.unwrap();
    let mut connection = log_in(client).await.unwrap();
    assert_eq!(connection.server_major(), 16);
    assert_eq!(connection.server_version(), "16.4 (Debian 16.4-1)");
    assert_eq!(connection.parameter("in_hot_standby"), None);
    for name in ["", "a b", "x;y", "X"] {
        assert!(matches!(connection.show(name).await, Err(Error::Config(_))), "{name}");
    }
}

#[tokio::test]
async fn what_a_layer_below_holds_back_is_flushed() {
    let (client, mut server) = duplex(4096);
    let serve = async {
        hear(&mut server, "user").await;
        server.write_all(&greeting()).await.unwrap();
    };
    // As TLS does, this keeps what was written until it is told otherwise.
    let both = async { tokio::join!(log_in(BufStream::new(client)), serve) };
    let (connection, ()) = tokio::time::timeout(Duration::from_secs(60), both).await.unwrap();
    connection.unwrap();
}

#[tokio::test]
async fn a_dropped_next_loses_nothing() {
    let (mut stream, mut server) = stream(4096).await;
    let mut wal: Vec<u8> = (0..200).collect();
    let mut bytes = Vec::new();
    for (number, piece) in wal.chunks(7).enumerate() {
        bytes.extend(data(0x100_0000 + 7 * number as u64, piece));
    }
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        for byte in bytes {
            server.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        server
    });
    let (mut came, mut dropped) = (Vec::new(), 0);
    while came.len() < wal.len() {
        tokio::select! {
            biased;
            event = stream.next() => match event.unwrap() {
                Event::Data(data) => came.extend_from_slice(&data.bytes),
                event => panic!("{event:?}"),
            },
            () = tokio::task::yield_now() => dropped += 1,
        }
    }
    assert_eq!(came, std::mem::take(&mut wal));
    assert!(dropped > 100, "{dropped}");
}

#[tokio::test]
async fn a_reader_that_is_slow_costs_no_memory_and_no_time() {
    let (mut stream, mut server) = stream(64).await;
    for lsn in 1..10_000 {
        stream.status(Status::durable(Lsn(lsn))).await.unwrap();
    }
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        // What lies in the pipe, then the newest, then nothing.
        let mut last = Vec::new();
        let mut count = 0;
        while last.get(6..14) != Some(&9_999_u64.to_be_bytes()[..]) {
            let mut status = vec![0; 39];
            server.read_exact(&mut status).await.unwrap();
            last = status;
            count += 1;
        }
        server.write_all(&data(0x100_0000, b"x")).await.unwrap();
        (server, count)
    });
    // The rest of a status goes out while we wait for data.
    assert!(matches!(stream.next().await.unwrap(), Event::Data(_)));
    let (_server, count) = tasks.join_next().await.unwrap().unwrap();
    assert!(count <= 4, "{count}");
}

#[tokio::test]
async fn a_dropped_command_leaves_a_connection_that_says_so() {
    let (client, mut server) = duplex(4096);
    server.write_all(&greeting()).await.unwrap();
    let mut connection = log_in(client).await.unwrap();
    let short = Duration::from_millis(10);
    assert!(tokio::time::timeout(short, connection.identify()).await.is_err());
    assert!(matches!(connection.identify().await, Err(Error::Busy)));
}

#[tokio::test]
async fn the_last_words_of_a_server_are_heard() {
    let (mut stream, mut server) = stream(4096).await;
    let fatal = message(b'E', b"VFATAL\0C57P01\0Mterminated by somebody\0\0");
    server.write_all(&fatal).await.unwrap();
    drop(server);
    // Writing fails now, but what it said came before.
    stream.status(Status::durable(Lsn(1))).await.unwrap_err();
    let error = stream.next().await.unwrap_err();
    assert!(matches!(&error, Error::Server(said) if said.sqlstate == "57P01"), "{error}");
    assert!(matches!(stream.next().await, Err(Error::Busy)));
}

#[tokio::test]
async fn a_server_that_only_closes_is_closed() {
    let (mut stream, server) = stream(4096).await;
    drop(server);
    assert!(matches!(stream.next().await, Err(Error::Closed)));
}
