//! Recorded sessions, replayed through the core cut at any place.

use std::fmt::Write;
use std::path::PathBuf;

use bytes::{Buf, Bytes};
use jiff::Timestamp;
use lifeboat_model::{Lsn, Timeline};
use proptest::prelude::*;

use crate::{
    Config, Error, Event, Host, Login, Methods, Password, Protocol, Security, Start, Status, Step,
};

pub const ROLE: &str = "receiver";
pub const PASSWORD: &str = "of no worth";

/// One direction of a recorded session, until the other one speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    Client(Vec<u8>),
    Server(Vec<u8>),
}

/// Adds bytes; what follows bytes of the same side is one turn with them.
pub fn append(turns: &mut Vec<Turn>, turn: Turn) {
    match (turns.last_mut(), turn) {
        (Some(Turn::Client(last)), Turn::Client(bytes))
        | (Some(Turn::Server(last)), Turn::Server(bytes)) => last.extend(bytes),
        (_, turn) => turns.push(turn),
    }
}

pub fn write(turns: &[Turn]) -> String {
    let mut text = String::new();
    for turn in turns {
        let (side, bytes) = match turn {
            Turn::Client(bytes) => ('>', bytes),
            Turn::Server(bytes) => ('<', bytes),
        };
        for line in bytes.chunks(48) {
            writeln!(text, "{side} {}", hex::encode(line)).unwrap();
        }
    }
    text
}

fn read(text: &str) -> Vec<Turn> {
    let mut turns = Vec::new();
    for line in text.lines() {
        let (side, digits) = line.split_once(' ').unwrap();
        let bytes = hex::decode(digits).unwrap();
        append(&mut turns, if side == ">" { Turn::Client(bytes) } else { Turn::Server(bytes) });
    }
    turns
}

pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/transcripts")
}

const NAMES: [&str; 9] = [
    "pg15-session",
    "pg15-timeline",
    "pg15-shutdown",
    "pg16-session",
    "pg16-timeline",
    "pg16-shutdown",
    "pg18-session",
    "pg18-timeline",
    "pg18-shutdown",
];

fn load(name: &str) -> Vec<Turn> {
    read(&std::fs::read_to_string(folder().join(format!("{name}.txt"))).unwrap())
}

/// What was recorded with; the password's digest depends only on the server's salt.
pub fn config() -> Config {
    let mut config = Config::new(Host::Socket(PathBuf::from("/")), ROLE);
    config.password = Some(Password::new(PASSWORD.to_owned()));
    config.methods = Methods { md5: true, ..Methods::default() };
    config
}

/// Cuts what we sent into messages; only the first has no letter in front.
fn messages(turns: &[Turn]) -> Vec<Vec<Bytes>> {
    let mut first = true;
    let cut = |turn: &Turn| {
        let Turn::Client(bytes) = turn else { return Vec::new() };
        let (mut rest, mut messages) = (Bytes::from(bytes.clone()), Vec::new());
        while !rest.is_empty() {
            let tag = usize::from(!std::mem::take(&mut first));
            let length = u32::from_be_bytes(rest[tag..tag + 4].try_into().unwrap());
            messages.push(rest.split_to(length as usize + tag));
        }
        messages
    };
    turns.iter().map(cut).collect()
}

/// Makes the core send `message`, as the caller did when it was recorded.
fn cause(protocol: &mut Protocol, message: &Bytes) -> Result<(), Error> {
    match message[0] {
        b'Q' => {
            let text = std::str::from_utf8(&message[5..message.len() - 1]).unwrap();
            match text.strip_prefix("START_REPLICATION ") {
                Some(rest) => protocol.start(&start(rest)),
                None => protocol.command(text),
            }
        }
        b'd' => {
            let mut body = message.slice(6..);
            let mut lsn = || Lsn(body.get_u64());
            let status = Status::new(lsn(), lsn(), lsn()).unwrap();
            let at = Timestamp::from_microsecond(body.get_i64() + 946_684_800_000_000).unwrap();
            protocol.status(if body.get_u8() == 1 { status.request_reply() } else { status }, at);
            Ok(())
        }
        b'c' => {
            protocol.stop();
            Ok(())
        }
        b'X' => {
            protocol.terminate();
            Ok(())
        }
        // The core would have sent it by itself.
        _ => Err(Error::Busy),
    }
}

fn start(text: &str) -> Start {
    let words: Vec<&str> = text.split(' ').collect();
    let slot = words.iter().position(|word| *word == "SLOT");
    let after = |name: &str| words[words.iter().position(|word| *word == name).unwrap() + 1];
    Start {
        slot: slot.map(|at| words[at + 1].trim_matches('"').parse().unwrap()),
        lsn: after("PHYSICAL").parse().unwrap(),
        timeline: Timeline(after("TIMELINE").parse().unwrap()),
    }
}

fn describe(step: &Step) -> String {
    match step {
        Step::Rows(rows) => {
            let text = |row: &crate::Row| {
                let field =
                    |column| row.bytes(column).map(|it| String::from_utf8_lossy(it).into_owned());
                let fields: Vec<_> = (0..4).map(field).collect();
                format!("{fields:?}")
            };
            format!("Rows {}", rows.iter().map(text).collect::<Vec<_>>().join(" "))
        }
        Step::Event(Event::Data(data)) => {
            let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &data.bytes);
            let digest = hex::encode(&digest.as_ref()[..8]);
            let (start, end, known) = (data.start, data.end(), data.server_end);
            format!("Data {start}..{end} of {known} at {} {digest}", data.sent_at)
        }
        step => format!("{step:?}"),
    }
}

/// Replays a session; the core must send exactly what was recorded. `cut` says how much of the
/// server's bytes comes next.
fn replay(turns: &[Turn], mut cut: impl FnMut(usize) -> usize) -> Vec<String> {
    let mut protocol = Protocol::new(Login::new(&config(), Security::Socket)).unwrap();
    let mut steps = Vec::new();
    for (turn, messages) in turns.iter().zip(messages(turns)) {
        for message in messages {
            if protocol.outbox().is_empty() {
                cause(&mut protocol, &message).unwrap();
            }
            let sent = protocol.outbox().split_to(message.len());
            assert_eq!(hex::encode(sent), hex::encode(&message));
        }
        let Turn::Server(bytes) = turn else { continue };
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (piece, later) = rest.split_at(cut(rest.len()).clamp(1, rest.len()));
            rest = later;
            protocol.inbox().extend_from_slice(piece);
            loop {
                match protocol.step() {
                    Ok(None) => break,
                    Ok(Some(step)) => steps.push(describe(&step)),
                    Err(error) => {
                        steps.push(format!("{error}"));
                        break;
                    }
                }
            }
        }
    }
    assert!(protocol.outbox().is_empty());
    assert!(protocol.inbox().is_empty());
    steps
}

/// Replays as well as it goes with bytes that are not what was recorded.
pub fn replay_damaged(turns: &[Turn], total: usize) {
    let mut protocol = Protocol::new(Login::new(&config(), Security::Socket)).unwrap();
    let causes = messages(turns);
    for (turn, messages) in turns.iter().zip(causes) {
        for message in messages {
            if protocol.outbox().is_empty() && cause(&mut protocol, &message).is_err() {
                return;
            }
            protocol.outbox().clear();
        }
        if let Turn::Server(bytes) = turn {
            protocol.inbox().extend_from_slice(bytes);
            while let Ok(Some(_)) = protocol.step() {}
            // What a message claims costs nothing before it has come.
            assert!(protocol.inbox().capacity() <= 4 * total + 4096);
        }
    }
    let _ = protocol.closed();
}

pub fn any_transcript() -> impl Strategy<Value = Vec<Turn>> {
    prop::sample::select(&NAMES[..]).prop_map(load)
}

#[test]
fn recorded_sessions_replay_as_they_were() {
    for name in NAMES {
        let steps = replay(&load(name), |all| all);
        insta::assert_snapshot!(name, steps.join("\n"));
    }
}

#[test]
fn recorded_sessions_replay_byte_by_byte() {
    for name in NAMES {
        let turns = load(name);
        assert_eq!(replay(&turns, |_| 1), replay(&turns, |all| all), "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_split_gives_the_same_steps(
        turns in any_transcript(),
        cuts in prop::collection::vec(1_usize..2000, 1..50),
    ) {
        let mut cuts = cuts.iter().copied().cycle();
        let cut = replay(&turns, |_| cuts.next().unwrap());
        prop_assert_eq!(cut, replay(&turns, |all| all));
    }
}
