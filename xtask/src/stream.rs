//! A receiver beside pg_receivewal, as the only one that commits wait for: `cargo xtask
//! bench-stream`.
//!
//! Each pair runs the same load twice, once with each receiver in the same place; who begins takes
//! turns. How far the repository lags behind the server is measured afterwards, as looking costs.

mod ground;
mod lag;
mod memory;
mod replay;
mod report;

use std::path::Path;

use anyhow::{Result, bail};
use clap::Args;

use ground::{Ground, Receiver};
use report::Report;

/// How often and how long.
#[derive(Debug, Args)]
pub struct Options {
    /// Pairs of runs.
    #[arg(long, default_value_t = 15)]
    pairs: usize,
    /// How long pgbench writes in each run, in seconds.
    #[arg(long, default_value_t = 30)]
    seconds: u32,
    /// Sessions of pgbench.
    #[arg(long, default_value_t = 4)]
    clients: u32,
    /// Only measure how fast a recovery replays from a repository.
    #[arg(long)]
    replay_only: bool,
    /// Only measure what a receiver takes at 100 MB/s of WAL, fed from a recording. It fails above
    /// 64 MiB.
    #[arg(long)]
    memory: bool,
}

/// Measures and prints.
pub fn run(root: &Path, options: &Options) -> Result<()> {
    if options.pairs == 0 || options.seconds < 2 {
        bail!("--pairs must be at least 1, --seconds at least 2");
    }
    if options.replay_only {
        return replay::run(root);
    }
    if options.memory {
        return memory::run(root);
    }
    let ground = Ground::new(root)?;
    let mut report = Report::default();
    let mut order = [Receiver::Lifeboat, Receiver::PgReceivewal];
    for number in 1..=options.pairs {
        for receiver in order {
            let measured = ground.measure(receiver, options.seconds, options.clients)?;
            eprintln!("bench: {number}/{} {receiver:?}: {measured}", options.pairs);
            report.add(number, receiver, measured);
        }
        order.reverse();
    }
    let lags = ground.lag(options.seconds, options.clients)?;
    report.print(lags);
    drop(ground);
    replay::run(root)
}
