//! Agents that are connected.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use lifeboat_drivers::guard::{Answer, Ask, Refusal, Reply, Request, VERSION};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::Uid;

use crate::guard::lines::Lines;

/// More at once are not agents. The oldest has to go.
const MOST: usize = 16;

/// Who asks, and what.
pub(super) struct Asked {
    peer: u64,
    sequence: u64,
    pub ask: Ask,
}

pub(super) struct Peers {
    listener: UnixListener,
    connected: Vec<(u64, Lines)>,
    next: u64,
}

impl Peers {
    pub fn new(listener: UnixListener) -> Self {
        Self { listener, connected: Vec::new(), next: 0 }
    }

    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let connected = self.connected.iter().map(|(_, lines)| lines.as_fd());
        connected.chain([self.listener.as_fd()])
    }

    /// What was asked since the last call. What cannot be read is answered here.
    pub fn receive(&mut self) -> Vec<Asked> {
        self.accept();
        let mut all = Vec::new();
        for (peer, lines) in &mut self.connected {
            for line in lines.receive::<Request>() {
                let refused = match line {
                    Ok(Request { version: VERSION, sequence, ask }) => {
                        all.push(Asked { peer: *peer, sequence, ask });
                        continue;
                    }
                    Ok(request) => {
                        let why =
                            format!("version {} is asked for, this is {VERSION}", request.version);
                        (request.sequence, why)
                    }
                    Err(why) => (0, why),
                };
                lines.send(&refusal(refused.0, refused.1));
            }
        }
        self.connected.retain(|(_, lines)| !lines.closed());
        all
    }

    /// Answers, if whoever asked is still there.
    pub fn answer(&mut self, asked: Asked, answer: Answer) {
        let found = self.connected.iter_mut().find(|(peer, _)| *peer == asked.peer);
        if let Some((_, lines)) = found {
            lines.send(&Reply { version: VERSION, sequence: asked.sequence, answer });
        }
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            let Ok(mut lines) = stream.try_clone().and_then(Lines::new) else { continue };
            match may_ask(&stream) {
                Ok(()) => {
                    self.next += 1;
                    self.connected.push((self.next, lines));
                }
                Err(why) => lines.send(&refusal(0, why)),
            }
            if self.connected.len() > MOST {
                self.connected.remove(0);
            }
        }
    }
}

/// The same user, or root. The directory of the socket says the same; this holds if it does not.
fn may_ask(stream: &UnixStream) -> Result<(), String> {
    let peer = getsockopt(stream, PeerCredentials).map_err(|error| error.to_string())?;
    let peer = Uid::from_raw(peer.uid());
    match peer.is_root() || peer == Uid::effective() {
        true => Ok(()),
        false => Err(format!("user {peer} may not ask this guard")),
    }
}

fn refusal(sequence: u64, why: String) -> Reply {
    let answer = Answer::Refused { refusal: Refusal::Request, why };
    Reply { version: VERSION, sequence, answer }
}
