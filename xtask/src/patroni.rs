//! Patroni as the peer of Lifeboat's failover: `cargo xtask bench-patroni`.
//!
//! A round loses everything of the primary's host at once, and moves once by plan. What begins
//! takes turns, so that both hosts are lost equally often.

mod clients;
mod ground;
mod report;

use std::fmt;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;
use lifeboat_environment::{Clock, SystemClock};

use crate::install;
use clients::Clients;
use ground::Ground;
use report::{Moved, Report, outage};

const CLIENTS: i32 = 4;
/// How long clients write before something happens.
const CALM: Duration = Duration::from_secs(5);
/// Patroni's `loop_wait`, in seconds.
const LOOP_SECONDS: u64 = 10;

/// How often, and in which of Patroni's ways.
#[derive(Debug, Args)]
pub struct Options {
    /// Rounds; in each, the primary's host is lost once, and one move is planned.
    #[arg(long, default_value_t = 10)]
    rounds: u64,
    /// Patroni's `synchronous_mode: true`; it is off by default.
    #[arg(long)]
    synchronous: bool,
    /// How HAProxy asks. Patroni's examples have `inter 3s fall 3 rise 2`.
    #[arg(long, value_name = "WORDS", default_value = "inter 1s fall 1 rise 1")]
    check: String,
}

/// Why a service moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The primary's host is lost.
    Failover,
    /// Somebody asks for it.
    Switchover,
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Failover => "failover",
            Self::Switchover => "switchover",
        })
    }
}

/// Measures and prints. Leaves nothing behind.
pub fn run(options: &Options) -> Result<()> {
    ensure!(options.rounds > 0, "--rounds must be at least 1");
    install::patroni()?;
    let mut ground = Ground::start(options.synchronous, &options.check)?;
    println!("{}\n", ground.describe()?);
    let clients = Clients::start(CLIENTS, ground.address());
    let mut report = Report::default();
    let done = rounds(&mut ground, &clients, options.rounds, &mut report);
    done.map_err(|error| error.context(ground.log()))?;
    let told = clients.end()?;
    report.print(&told, &ground.rows()?)
}

fn rounds(ground: &mut Ground, clients: &Clients, count: u64, report: &mut Report) -> Result<()> {
    let mut order = [Kind::Failover, Kind::Switchover];
    for number in 1..=count {
        for kind in order {
            let moved = once(ground, clients, number, kind)?;
            eprintln!("bench: {number}/{count} {moved}");
            report.add(number, moved);
        }
        order.reverse();
    }
    Ok(())
}

/// One move, and the way back to a primary with a standby that streams.
fn once(ground: &mut Ground, clients: &Clients, number: u64, kind: Kind) -> Result<Moved> {
    let since = SystemClock.elapsed();
    let (from, to) = (ground.primary(), ground.primary().other());
    // A lease is renewed once a loop; how much is left of it must not be the same in each round.
    let spread = match kind {
        Kind::Failover => Duration::from_secs(number * 7 % LOOP_SECONDS),
        Kind::Switchover => Duration::ZERO,
    };
    ground.rest(CALM + spread)?;
    let at = SystemClock.elapsed();
    let killed = match kind {
        Kind::Failover => Some(ground.kill()?),
        Kind::Switchover => {
            ground.switch()?;
            None
        }
    };
    let server = ground.server(to);
    ground.wait("a write of every client on the other side", |_| {
        Ok(clients.were_told(CLIENTS, server, at))
    })?;
    let outage = outage(&clients.told_since(since), CLIENTS, ground.server(from), server)?;
    if killed.is_some() {
        ground.revive(from)?;
    }
    ground.wait_for_standby()?;
    Ok(Moved { kind, from, to, killed, outage })
}
