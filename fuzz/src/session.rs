//! A replication session whose server says whatever the fuzzer wants.

use std::path::PathBuf;

use jiff::Timestamp;
use lifeboat_model::{Lsn, Timeline};
use lifeboat_wire::{
    Config, Event, Host, Login, Methods, Password, Protocol, Security, Start, Status, Step,
};

const COMMANDS: [&str; 3] =
    ["IDENTIFY_SYSTEM", "READ_REPLICATION_SLOT \"slot\"", "TIMELINE_HISTORY 2"];

/// Plays a session: the first byte says how much of the server's bytes comes at a time and where
/// the session begins, the rest is what the server says. Nothing may panic, nothing may cost
/// memory that has not come, and WAL is contiguous.
pub fn play(input: &[u8]) {
    let Some((choice, server)) = input.split_first() else { return };
    let chunk = [1, 7, 61, usize::MAX][usize::from(choice & 3)];
    let mut protocol = match Protocol::new(Login::new(&config(), Security::Socket)) {
        Ok(protocol) => protocol,
        Err(_) => return,
    };
    let mut session = Session { commands: 0, position: None, streams: choice & 4 != 0 };
    for piece in server.chunks(chunk.min(server.len().max(1))) {
        protocol.outbox().clear();
        protocol.inbox().extend_from_slice(piece);
        loop {
            match protocol.step() {
                Ok(None) => break,
                Ok(Some(step)) => session.take(&mut protocol, step),
                // A refusal leaves a session that takes commands; anything else is its end.
                Err(_) if protocol.is_idle() => session.ask(&mut protocol),
                Err(_) => return,
            }
        }
        assert!(protocol.inbox().capacity() <= 4 * input.len() + 4096, "memory for a claim");
    }
    let _ = protocol.closed();
}

struct Session {
    commands: usize,
    position: Option<Lsn>,
    streams: bool,
}

impl Session {
    fn take(&mut self, protocol: &mut Protocol, step: Step) {
        match step {
            Step::Ready | Step::Rows(_) | Step::Stopped => self.ask(protocol),
            Step::Started => self.position = Some(start().lsn),
            Step::Event(Event::Data(data)) => {
                assert_eq!(Some(data.start), self.position, "a hole in a stream");
                self.position = Some(data.end());
                let now = Timestamp::UNIX_EPOCH;
                protocol.status(Status::durable(data.end()), now);
            }
            Step::Event(Event::Keepalive(_)) => {}
            Step::Event(Event::EndOfTimeline(end)) => {
                assert!(end.next > start().timeline, "an older timeline follows");
                assert!(Some(end.switch) <= self.position, "a switch that was not reached");
                self.ask(protocol);
            }
            Step::Event(Event::Shutdown) => {}
        }
    }

    fn ask(&mut self, protocol: &mut Protocol) {
        let text = COMMANDS[self.commands % COMMANDS.len()];
        self.commands += 1;
        // Who is not idle refuses, and that is all.
        let _ = match self.streams || self.commands > COMMANDS.len() {
            true => protocol.start(&start()),
            false => protocol.command(text),
        };
    }
}

fn start() -> Start {
    Start { slot: None, lsn: Lsn(0x100_0000), timeline: Timeline(1) }
}

fn config() -> Config {
    let mut config = Config::new(Host::Socket(PathBuf::from("/")), "receiver");
    config.password = Some(Password::new("a password".to_owned()));
    config.methods = Methods { md5: true, ..Methods::default() };
    config
}
