//! How long nobody was served, all rounds, their medians, and what is gone.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use comfy_table::Table;
use comfy_table::presets::NOTHING;

use super::Kind;
use super::clients::Told;
use super::ground::{Killed, Side};
use crate::bench::median;

/// A time without service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outage {
    /// From the last acknowledgement of the old side to the first one of the new side.
    pub first: Duration,
    /// The same for the client that waited longest.
    pub slowest: Duration,
    /// When the new side acknowledged for the first time.
    pub served_at: Duration,
    /// Acknowledgements of the old side after that.
    pub overlap: usize,
}

/// One move of the service.
pub struct Moved {
    /// Why it moved.
    pub kind: Kind,
    /// Who served before.
    pub from: Side,
    /// Who serves since.
    pub to: Side,
    /// Who died, if anybody did.
    pub killed: Option<Killed>,
    /// What clients saw of it.
    pub outage: Outage,
}

impl fmt::Display for Moved {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, from, to, killed, outage, .. } = self;
        let (first, slowest) = (seconds(outage.first), seconds(outage.slowest));
        write!(formatter, "{kind} from {from} to {to}: {first} s, slowest client {slowest} s")?;
        match killed {
            Some(killed) => write!(formatter, ", {} processes were killed", killed.processes),
            None => Ok(()),
        }
    }
}

/// What clients saw of a move. `told` begins when everybody was still served by the old side.
pub fn outage(told: &[Told], clients: i32, from: IpAddr, to: IpAddr) -> Result<Outage> {
    let mut gaps = Vec::new();
    for client in 0..clients {
        let own: Vec<Told> = told.iter().filter(|one| one.client == client).copied().collect();
        let gap = gap(&own, from, to);
        gaps.push(gap.with_context(|| format!("client {client} was not served on both sides"))?);
    }
    let (last, first) = gap(told, from, to).context("nobody was served on both sides")?;
    let slowest = gaps.iter().map(|(last, first)| first.saturating_sub(*last)).max();
    let late = told.iter().filter(|one| one.server == from && one.at > first);
    Ok(Outage {
        first: first.saturating_sub(last),
        slowest: slowest.unwrap_or_default(),
        served_at: first,
        overlap: late.count(),
    })
}

/// The last word of the old side, and the first of the new one.
fn gap(told: &[Told], from: IpAddr, to: IpAddr) -> Option<(Duration, Duration)> {
    let of = |server: IpAddr| told.iter().filter(move |one| one.server == server).map(|one| one.at);
    let first = of(to).min()?;
    Some((of(from).filter(|at| *at < first).max()?, first))
}

/// Everything that was measured, in its order.
#[derive(Default)]
pub struct Report {
    moves: Vec<(u64, Moved)>,
}

impl Report {
    /// Adds a move of a round.
    pub fn add(&mut self, round: u64, moved: Moved) {
        self.moves.push((round, moved));
    }

    /// Prints every move, the medians, and what was acknowledged and is gone.
    pub fn print(&self, told: &[Told], rows: &str) -> Result<()> {
        let gone = gone(told, rows)?;
        let mut table = Table::new();
        table.load_style(NOTHING);
        let header = ["round", "what", "to", "etcd's leader died", "first s", "slowest s", "gone"];
        table.set_header(header);
        let mut begin = Duration::ZERO;
        for (round, moved) in &self.moves {
            // A move loses what was told before its new side served.
            let end = moved.outage.served_at;
            let lost = gone.iter().filter(|one| one.at >= begin && one.at < end);
            let led = moved.killed.as_ref().map(|killed| if killed.led { "yes" } else { "no" });
            table.add_row([
                round.to_string(),
                moved.kind.to_string(),
                moved.to.to_string(),
                led.unwrap_or_default().to_owned(),
                seconds(moved.outage.first),
                seconds(moved.outage.slowest),
                lost.count().to_string(),
            ]);
            begin = end;
        }
        println!("{table}\n");
        self.print_medians();
        println!("acknowledged and gone: {} of {} rows", gone.len(), told.len());
        let overlap: usize = self.moves.iter().map(|(_, moved)| moved.outage.overlap).sum();
        println!("acknowledged by the old side after the new one had begun: {overlap}");
        Ok(())
    }

    fn print_medians(&self) {
        for kind in [Kind::Failover, Kind::Switchover] {
            let of_kind = self.moves.iter().filter(|(_, moved)| moved.kind == kind);
            let outages: Vec<Outage> = of_kind.map(|(_, moved)| moved.outage).collect();
            let first = spread(outages.iter().map(|one| one.first));
            let slowest = spread(outages.iter().map(|one| one.slowest));
            println!("{kind}, median of {}: first {first}", outages.len());
            println!("{kind}, median of {}: slowest client {slowest}", outages.len());
        }
        let killed = self.moves.iter().filter_map(|(_, moved)| moved.killed.as_ref());
        let led = killed.clone().filter(|killed| killed.led).count();
        println!("etcd's leader died in {led} of {} failovers", killed.count());
    }
}

/// Acknowledged writes that are not in the table.
fn gone(told: &[Told], rows: &str) -> Result<Vec<Told>> {
    let parsed = rows.lines().map(|line| {
        let (client, number) = line.split_once('|').context("no row")?;
        Ok((client.parse::<i32>()?, number.parse::<i32>()?))
    });
    let rows: BTreeSet<(i32, i32)> = parsed.collect::<Result<_>>()?;
    ensure!(!rows.is_empty(), "the table is empty");
    let missing = told.iter().filter(|one| !rows.contains(&(one.client, one.number)));
    Ok(missing.copied().collect())
}

fn spread(times: impl Iterator<Item = Duration>) -> String {
    let times: Vec<Duration> = times.collect();
    let middle = median(times.iter().map(Duration::as_secs_f64).collect());
    let (least, most) = (times.iter().min(), times.iter().max());
    let shown = |time: Option<&Duration>| seconds(time.copied().unwrap_or_default());
    format!("{middle:.2} s ({} to {})", shown(least), shown(most))
}

fn seconds(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64())
}

#[cfg(test)]
mod tests;
