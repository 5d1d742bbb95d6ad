//! Bytes that no server sends.

use bytes::{BufMut, Bytes, BytesMut};
use lifeboat_model::{Lsn, Timeline};
use proptest::prelude::*;

use super::transcript::{self, Turn, any_transcript, replay_damaged};
use crate::{
    Error, Event, Login, MESSAGE_BYTES_MAX, Protocol, Security, Start, Status, StatusError, Step,
};

pub fn message(tag: u8, body: &[u8]) -> Bytes {
    let mut message = BytesMut::new();
    message.put_u8(tag);
    message.put_u32(body.len() as u32 + 4);
    message.put_slice(body);
    message.freeze()
}

pub fn ready() -> Bytes {
    message(b'Z', b"I")
}

/// A session that takes commands.
pub fn idle() -> Protocol {
    let mut protocol = Protocol::new(Login::new(&transcript::config(), Security::Socket)).unwrap();
    protocol.outbox().clear();
    protocol.inbox().extend_from_slice(&message(b'R', &[0, 0, 0, 0]));
    protocol.inbox().extend_from_slice(&ready());
    assert!(matches!(protocol.step(), Ok(Some(Step::Ready))));
    protocol
}

pub fn start() -> Start {
    Start { slot: None, lsn: Lsn(0x100_0000), timeline: Timeline(3) }
}

/// A session that streams.
fn streaming() -> Protocol {
    let mut protocol = idle();
    protocol.start(&start()).unwrap();
    protocol.outbox().clear();
    protocol.inbox().extend_from_slice(&message(b'W', &[0, 0, 0]));
    assert!(matches!(protocol.step(), Ok(Some(Step::Started))));
    protocol
}

pub fn data(start: u64, bytes: &[u8]) -> Bytes {
    let mut body = BytesMut::new();
    body.put_u8(b'w');
    body.put_u64(start);
    body.put_u64(start + bytes.len() as u64);
    body.put_i64(800_000_000_000_000);
    body.put_slice(bytes);
    message(b'd', &body)
}

pub fn row(fields: &[&str]) -> Bytes {
    let mut body = BytesMut::new();
    body.put_u16(fields.len() as u16);
    for field in fields {
        body.put_u32(field.len() as u32);
        body.put_slice(field.as_bytes());
    }
    message(b'D', &body)
}

fn step(protocol: &mut Protocol, bytes: &[u8]) -> Result<Option<Step>, Error> {
    protocol.inbox().extend_from_slice(bytes);
    protocol.step()
}

fn refused(protocol: &mut Protocol, bytes: &[u8]) -> String {
    let error = step(protocol, bytes).unwrap_err();
    assert!(matches!(error, Error::Protocol(_)), "{error}");
    // It is over.
    assert!(matches!(protocol.step(), Err(Error::Busy)));
    error.to_string()
}

#[test]
fn a_length_without_end_is_refused_before_it_comes() {
    for length in [MESSAGE_BYTES_MAX as u32 + 1, 0x7FFF_FFFF, 0xFFFF_FFFF, 3, 0] {
        let mut header = BytesMut::from(&b"d"[..]);
        header.put_u32(length);
        refused(&mut streaming(), &header);
    }
    let mut header = BytesMut::from(&b"d"[..]);
    header.put_u32(MESSAGE_BYTES_MAX as u32);
    let mut protocol = streaming();
    assert!(step(&mut protocol, &header).unwrap().is_none());
    assert!(protocol.inbox().capacity() < 4096);
}

#[test]
fn an_answer_without_end_is_refused() {
    let mut protocol = idle();
    protocol.command("SHOW x").unwrap();
    let row = row(&["x"]);
    for _ in 0..64 {
        assert!(step(&mut protocol, &row).unwrap().is_none());
    }
    refused(&mut protocol, &row);
}

#[test]
fn parameters_without_end_are_refused() {
    let mut protocol = idle();
    for number in 0..256 {
        let body = format!("p{number}\0x\0");
        assert!(step(&mut protocol, &message(b'S', body.as_bytes())).unwrap().is_none());
    }
    assert!(step(&mut protocol, &message(b'S', b"p1\0y\0")).unwrap().is_none());
    assert_eq!(protocol.parameters()["p1"], "y");
    refused(&mut protocol, &message(b'S', b"one more\0x\0"));
}

#[test]
fn wal_that_is_not_contiguous_is_refused() {
    let mut protocol = streaming();
    let first = step(&mut protocol, &data(0x100_0000, b"abc")).unwrap();
    assert!(matches!(first, Some(Step::Event(Event::Data(data))) if data.end() == Lsn(0x100_0003)));
    let error = refused(&mut protocol, &data(0x100_0004, b"abc"));
    assert!(error.contains("WAL from 0/1000004 came where 0/1000003 was due"), "{error}");
    // A whole segment that is missing looks like any other gap.
    refused(&mut streaming(), &data(0x200_0000, b"abc"));
    // And so does WAL that comes twice.
    refused(&mut streaming(), &data(0xFF_FFFF, b"abc"));
}

#[test]
fn wal_beyond_the_last_position_is_refused() {
    let mut protocol = idle();
    protocol.start(&Start { lsn: Lsn(u64::MAX - 1), ..start() }).unwrap();
    step(&mut protocol, &message(b'W', &[0, 0, 0])).unwrap();
    let mut body = BytesMut::from(&b"w"[..]);
    body.put_u64(u64::MAX - 1);
    body.put_slice(&[0; 16]);
    body.put_slice(b"abc");
    refused(&mut protocol, &message(b'd', &body));
}

#[test]
fn the_bytes_of_wal_are_not_copied() {
    let mut protocol = streaming();
    protocol.inbox().extend_from_slice(&data(0x100_0000, &[7; 1000]));
    let whole = protocol.inbox().as_ptr_range();
    let Ok(Some(Step::Event(Event::Data(data)))) = protocol.step() else { panic!("data") };
    assert!(whole.contains(&data.bytes.as_ptr()));
}

#[test]
fn a_next_timeline_that_is_none_is_refused() {
    for fields in [["3", "0/1000000"], ["0", "0/1000000"], ["4", "0/1000001"], ["4", "x"]] {
        let mut protocol = streaming();
        assert!(step(&mut protocol, &message(b'c', b"")).unwrap().is_none());
        assert_eq!(&protocol.outbox().split()[..], &message(b'c', b"")[..]);
        assert!(step(&mut protocol, &row(&fields)).unwrap().is_none());
        refused(&mut protocol, &ready());
    }
}

#[test]
fn a_message_at_the_wrong_time_is_refused() {
    refused(&mut idle(), &ready());
    refused(&mut idle(), &data(0, b"abc"));
    refused(&mut streaming(), &ready());
    refused(&mut streaming(), &row(&["x"]));
    let mut protocol = idle();
    protocol.command("SHOW x").unwrap();
    refused(&mut protocol, &message(b'W', &[0, 0, 0]));
    for body in
        [&b""[..], b"w", b"k1234567", b"q", b"wssssssssnnnnnnnn\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFF"]
    {
        refused(&mut streaming(), &message(b'd', body));
    }
}

#[test]
fn only_an_idle_session_takes_a_command() {
    let mut protocol = idle();
    protocol.command("SHOW x").unwrap();
    assert!(matches!(protocol.command("SHOW y"), Err(Error::Busy)));
    assert!(matches!(protocol.start(&start()), Err(Error::Busy)));
}

#[test]
fn what_the_server_says_cannot_move_a_cursor() {
    let error = message(b'E', b"VFATAL\0C57P01\0Mgood\x1B[2Jbye\0\0");
    let error = step(&mut streaming(), &error).unwrap_err();
    assert_eq!(error.to_string(), "FATAL 57P01: good [2Jbye");
}

#[test]
fn an_error_in_a_stream_ends_it_and_not_the_session() {
    let mut protocol = streaming();
    let error = message(b'E', b"VERROR\0C58P01\0Mgone\0\0");
    assert!(step(&mut protocol, &error).unwrap().is_none());
    assert!(!protocol.is_idle());
    assert!(matches!(step(&mut protocol, &ready()), Err(Error::Server(_))));
    assert!(protocol.is_idle());
    // A server that hangs up instead has still said why.
    let mut protocol = streaming();
    assert!(step(&mut protocol, &error).unwrap().is_none());
    assert!(matches!(protocol.closed(), Error::Server(said) if said.sqlstate == "58P01"));
    assert!(matches!(streaming().closed(), Error::Closed));
}

#[test]
fn a_status_never_claims_too_much() {
    let [low, middle, high] = [Lsn(1), Lsn(2), Lsn(3)];
    assert_eq!(Status::new(middle, high, low), Err(StatusError));
    assert_eq!(Status::new(high, middle, high), Err(StatusError));
    assert_eq!(Status::new(low, low, middle), Err(StatusError));
    assert!(Status::new(high, middle, low).is_ok());
    assert_eq!(Status::new(low, low, low), Ok(Status::durable(low)));
}

#[test]
fn a_later_status_replaces_one_that_waits() {
    let mut protocol = streaming();
    let now = jiff::Timestamp::from_second(946_684_801).unwrap();
    protocol.status(Status::durable(Lsn(1)), now);
    assert_eq!(protocol.outbox().len(), 39);
    protocol.status(Status::durable(Lsn(2)).request_reply(), now);
    protocol.status(Status::durable(Lsn(3)), now);
    assert_eq!(protocol.outbox().split().len(), 39);
    let sent = protocol.outbox().split();
    let mut body = BytesMut::from(&b"r"[..]);
    [3, 3, 3].into_iter().for_each(|lsn| body.put_u64(lsn));
    body.put_i64(1_000_000);
    // The question is not lost with the report that it came with.
    body.put_u8(1);
    assert_eq!(sent, message(b'd', &body));
    assert!(protocol.outbox().is_empty());
}

#[test]
fn after_the_end_nobody_is_told_anything() {
    let mut protocol = streaming();
    protocol.status(Status::durable(Lsn(1)), jiff::Timestamp::UNIX_EPOCH);
    protocol.stop();
    protocol.status(Status::durable(Lsn(2)), jiff::Timestamp::UNIX_EPOCH);
    let sent = protocol.outbox().split();
    assert_eq!(sent.len(), 39 + 5);
    assert_eq!(&sent[39..], &message(b'c', b"")[..]);
    assert!(protocol.outbox().is_empty());
    // Data that is still on its way belongs to nobody.
    assert!(step(&mut protocol, &data(0x100_0000, b"abc")).unwrap().is_none());
    assert!(step(&mut protocol, &message(b'c', b"")).unwrap().is_none());
    assert!(step(&mut protocol, &message(b'C', b"COPY 0\0")).unwrap().is_none());
    assert!(matches!(step(&mut protocol, &ready()), Ok(Some(Step::Stopped))));
    assert!(protocol.is_idle());
}

/// Puts a session in each of its states.
fn any_state() -> impl Strategy<Value = fn() -> Protocol> {
    let login: fn() -> Protocol =
        || Protocol::new(Login::new(&transcript::config(), Security::Socket)).unwrap();
    let command: fn() -> Protocol = || {
        let mut protocol = idle();
        protocol.command("SHOW x").unwrap();
        protocol
    };
    let opening: fn() -> Protocol = || {
        let mut protocol = idle();
        protocol.start(&start()).unwrap();
        protocol
    };
    let stopping: fn() -> Protocol = || {
        let mut protocol = streaming();
        protocol.stop();
        protocol
    };
    prop::sample::select(vec![login, idle, command, opening, streaming, stopping])
}

fn any_message() -> impl Strategy<Value = Bytes> {
    let tags = prop::sample::select(&b"RSKZETDCWcdNAvGHnI123st"[..]);
    let body = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        prop::collection::vec(
            prop::sample::select(&b"\0\0\0\x01\x05\x0A\x0B\x0CwkCVM\xFF"[..]),
            0..40
        ),
    ];
    (tags, body).prop_map(|(tag, body)| message(tag, &body))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn random_bytes_never_panic(
        state in any_state(),
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut protocol = state();
        protocol.inbox().extend_from_slice(&bytes);
        while let Ok(Some(_)) = protocol.step() {}
        let _ = protocol.closed();
    }

    #[test]
    fn random_messages_never_panic(
        state in any_state(),
        messages in prop::collection::vec(any_message(), 0..12),
    ) {
        let mut protocol = state();
        for message in messages {
            protocol.inbox().extend_from_slice(&message);
            while let Ok(Some(_)) = protocol.step() {}
            prop_assert!(protocol.outbox().len() < 4096);
        }
        let _ = protocol.closed();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn damage_never_panics(
        mut turns in any_transcript(),
        at in any::<prop::sample::Index>(),
        bit in 0_u32..8,
        truncate in any::<bool>(),
    ) {
        let server = |turn: &Turn| if let Turn::Server(bytes) = turn { bytes.len() } else { 0 };
        let total: usize = turns.iter().map(server).sum();
        let mut at = at.index(total);
        for turn in &mut turns {
            let Turn::Server(bytes) = turn else { continue };
            match bytes.get_mut(at) {
                Some(_) if truncate => bytes.truncate(at),
                Some(byte) => *byte ^= 1_u8 << bit,
                None => {
                    at -= bytes.len();
                    continue;
                }
            }
            break;
        }
        replay_damaged(&turns, total);
    }
}
