//! For how long clients could not write, and whether that is what was reported.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Evidence, Finding, cases, terms};
use crate::ledger::{History, Way};

/// Between the last write that one node took and the first that the next one acknowledged, as clients
/// of the endpoint saw it. Of the last one counts when it was sent: who waits for an answer, perhaps
/// until a link is mended, is not served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outage {
    /// Who wrote before.
    pub from: String,
    /// Who writes since.
    pub to: String,
    /// When the last write that was acknowledged before was sent.
    pub began_ns: u64,
    /// Until any client wrote again.
    pub first: Duration,
    /// Until the slowest one did.
    pub slowest: Duration,
}

/// The outages at changes of the writer, in their order.
pub fn outages(history: &History) -> Vec<Outage> {
    let all = terms(history);
    let pairs = all.iter().zip(all.iter().skip(1));
    pairs
        .filter_map(|(before, after)| {
            let through = || history.acknowledged().filter(|entry| entry.way == Way::Endpoint);
            let of = |term: &super::Term| {
                let (node, timeline) = (term.node.clone(), term.timeline);
                through().filter(move |entry| {
                    entry.node.as_ref() == Some(&node) && entry.timeline == Some(timeline)
                })
            };
            let mut last: BTreeMap<&str, u64> = BTreeMap::new();
            for entry in of(before) {
                let at = last.entry(&entry.writer).or_default();
                *at = entry.sent_ns.max(*at);
            }
            let began_ns = *last.values().max()?;
            let mut firsts: BTreeMap<&str, u64> = BTreeMap::new();
            for entry in of(after) {
                let at = firsts.entry(&entry.writer).or_insert(u64::MAX);
                *at = entry.done_ns.min(*at);
            }
            let first = *firsts.values().min()?;
            let each = firsts
                .iter()
                .filter_map(|(writer, at)| Some(at.saturating_sub(*last.get(writer)?)));
            let slowest = each.max().unwrap_or_default();
            Some(Outage {
                from: before.node.clone(),
                to: after.node.clone(),
                began_ns,
                first: Duration::from_nanos(first.saturating_sub(began_ns)),
                slowest: Duration::from_nanos(slowest),
            })
        })
        .collect()
}

/// Whether each reported RTO is what clients saw.
pub(super) fn reported(evidence: &Evidence, tolerance: Duration) -> Finding {
    let Some(moves) = &evidence.moves else {
        return Finding::NotChecked("the reports could not be read".to_owned());
    };
    let seen = outages(&evidence.history);
    if moves.len() != seen.len() {
        return Finding::NotChecked(format!(
            "{} moves were reported, clients saw {}",
            moves.len(),
            seen.len()
        ));
    }
    let mut wrong = Vec::new();
    for (one, outage) in moves.iter().zip(&seen) {
        let name = format!("{} ({} to {})", one.run, one.from, one.to);
        if (&one.from, &one.to) != (&outage.from, &outage.to) {
            wrong.push(format!("{name}: clients moved from {} to {}", outage.from, outage.to));
        }
        match one.rto {
            None => wrong.push(format!("{name}: no RTO was reported")),
            Some(rto) if rto.abs_diff(outage.first) > tolerance => wrong.push(format!(
                "{name}: reported {:.1} s without writes, clients saw {:.1} s",
                rto.as_secs_f64(),
                outage.first.as_secs_f64()
            )),
            Some(_) => {}
        }
    }
    cases(wrong, || {
        let told = seen.iter().map(|outage| {
            let (first, slowest) = (outage.first.as_secs_f64(), outage.slowest.as_secs_f64());
            format!("{} to {}: {first:.1} s, slowest client {slowest:.1} s", outage.from, outage.to)
        });
        told.collect::<Vec<_>>().join(", ")
    })
}

/// A duration on the clock of clients.
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
