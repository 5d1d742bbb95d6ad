//! The relay: a process that carries the packets of bad links, late or not at all. The kernel of
//! small machines has no netem.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use lifeboat_environment::Environment;
use lifeboat_telemetry::{Cancel, Outcome};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};

use crate::kernel::open_tun;
use crate::layout::{Domain, Layout};
use crate::network::RELAY;
use crate::state::local;

/// No packet on a link is longer.
const LONGEST_PACKET: usize = 65_536;
/// More packets than that are not kept: a queue that is full drops, as one of a router does.
const QUEUE: usize = 20_000;
/// How often the list of bad links is read.
const REFRESH: Duration = Duration::from_millis(100);

/// One direction of a bad link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BadLink {
    /// From where.
    pub from: Domain,
    /// To where.
    pub to: Domain,
    /// How late packets come.
    pub delay_ms: u64,
    /// How many of a hundred never come.
    pub loss_percent: u8,
}

/// The file with the bad links.
pub fn list_path(layout: &Layout) -> PathBuf {
    layout.root().join("relay.json")
}

/// Says which links are bad from now on.
pub fn write_list(layout: &Layout, links: &[BadLink]) -> Outcome<()> {
    let path = list_path(layout);
    let failed = |error: std::io::Error| local("cannot write", &path).because(error);
    let draft = path.with_extension("draft");
    let text = serde_json::to_vec(links).map_err(|error| failed(error.into()))?;
    fs::write(&draft, text).and_then(|()| fs::rename(&draft, &path)).map_err(failed)
}

/// The bad links of now.
pub fn read_list(layout: &Layout) -> Vec<BadLink> {
    let bytes = fs::read(list_path(layout)).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

/// Carries packets until it is told to end. Runs in the hub.
pub fn run(layout: &Layout, environment: &Environment, cancel: &Cancel) -> Outcome<()> {
    crate::enter::join_namespace(&layout.hub())?;
    let mut device = open_tun(RELAY)?;
    let failed = |error: nix::Error| local("cannot use", "/dev/net/tun".as_ref()).because(error);
    fcntl(&device, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(failed)?;
    let mut relay = Relay { layout, environment, links: Vec::new(), queue: BinaryHeap::new() };
    let (mut refreshed, mut count) = (None, 0);
    while !cancel.is_requested() {
        let now = environment.clock().elapsed();
        if refreshed.is_none_or(|at| now >= at + REFRESH) {
            relay.links = read_list(layout);
            refreshed = Some(now);
        }
        let wait = relay.due().map_or(REFRESH, |due| due.saturating_sub(now).min(REFRESH));
        // A millisecond more, for the wait is cut to whole ones.
        let timeout = u16::try_from(wait.as_millis()).unwrap_or(1).saturating_add(1);
        let mut descriptors = [PollFd::new(device.as_fd(), PollFlags::POLLIN)];
        match poll(&mut descriptors, PollTimeout::from(timeout)) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(failed(error)),
        }
        relay.take(&mut device, &mut count)?;
        relay.give(&mut device);
    }
    Ok(())
}

struct Relay<'a> {
    layout: &'a Layout,
    environment: &'a Environment,
    links: Vec<BadLink>,
    /// Due time, order of arrival, packet.
    queue: BinaryHeap<Reverse<(Duration, u64, Vec<u8>)>>,
}

impl Relay<'_> {
    fn due(&self) -> Option<Duration> {
        self.queue.peek().map(|Reverse((due, ..))| *due)
    }

    fn take(&mut self, device: &mut fs::File, count: &mut u64) -> Outcome<()> {
        let mut buffer = vec![0; LONGEST_PACKET];
        loop {
            let length = match device.read(&mut buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => {
                    return Err(local("cannot read", "/dev/net/tun".as_ref()).because(error));
                }
            };
            let packet = buffer.get(..length).unwrap_or_default();
            let link = self.link_of(packet);
            let (delay, loss) =
                link.map_or((0, 0), |link| (link.delay_ms, u64::from(link.loss_percent)));
            let lost = self.environment.random().next_u64() % 100 < loss;
            if lost || self.queue.len() >= QUEUE {
                continue;
            }
            let due = self.environment.clock().elapsed() + Duration::from_millis(delay);
            *count += 1;
            self.queue.push(Reverse((due, *count, packet.to_vec())));
        }
    }

    fn give(&mut self, device: &mut fs::File) {
        let now = self.environment.clock().elapsed();
        while self.due().is_some_and(|due| due <= now) {
            if let Some(Reverse((.., packet))) = self.queue.pop() {
                // A packet that the kernel does not take is a packet lost.
                let _ = device.write_all(&packet);
            }
        }
    }

    fn link_of(&self, packet: &[u8]) -> Option<&BadLink> {
        let (from, to) = ends(packet)?;
        let domain = |address: Ipv4Addr| {
            let network = address.octets()[..3].to_vec();
            Domain::ALL
                .into_iter()
                .find(|domain| self.layout.gateway(*domain).octets()[..3] == network[..])
        };
        let (from, to) = (domain(from)?, domain(to)?);
        self.links.iter().find(|link| link.from == from && link.to == to)
    }
}

/// Source and destination of an IPv4 packet.
fn ends(packet: &[u8]) -> Option<(Ipv4Addr, Ipv4Addr)> {
    if packet.first()? >> 4 != 4 {
        return None;
    }
    let address = |at: usize| {
        let bytes: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
        Some(Ipv4Addr::from(bytes))
    };
    Some((address(12)?, address(16)?))
}
