//! Who acknowledged when: the terms of the writers, and that no two of them meet.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Evidence, Finding, Row, cases, row};
use crate::ledger::{Entry, History};

/// The time in which one node acknowledged writes on one timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// The node.
    pub node: String,
    /// Its timeline.
    pub timeline: u32,
    /// When the first of its acknowledgements came.
    pub first_ns: u64,
    /// When the last one came.
    pub last_ns: u64,
    /// How many came.
    pub acknowledged: u64,
}

/// The terms, by when they began.
pub fn terms(history: &History) -> Vec<Term> {
    let mut found: BTreeMap<(u32, String), Term> = BTreeMap::new();
    for entry in history.acknowledged() {
        let (Some(node), Some(timeline)) = (&entry.node, entry.timeline) else { continue };
        let term = found.entry((timeline, node.clone())).or_insert_with(|| Term {
            node: node.clone(),
            timeline,
            first_ns: entry.done_ns,
            last_ns: entry.done_ns,
            acknowledged: 0,
        });
        term.first_ns = term.first_ns.min(entry.done_ns);
        term.last_ns = term.last_ns.max(entry.done_ns);
        term.acknowledged += 1;
    }
    let mut terms: Vec<Term> = found.into_values().collect();
    terms.sort_by_key(|term| (term.first_ns, term.timeline));
    terms
}

/// Two nodes never acknowledge in the same instant: each term is over before the next one begins,
/// timelines only grow, no timeline has two writers, and all of them are one cluster.
///
/// One thing is let pass, and told: the late answers of a host that was frozen as a whole. They
/// belong to commits that were decided before the old epoch was sealed; what carries the answer may
/// lie still for as long as it likes, as a packet may.
pub(super) fn one_at_a_time(evidence: &Evidence) -> Finding {
    let late = late(evidence);
    let is_late = |entry: &Entry| late.contains(&row(entry));
    let entries = evidence.history.entries.iter().filter(|entry| !is_late(entry));
    let history = &History { entries: entries.cloned().collect() };
    let nameless = history.acknowledged().filter(|entry| !has_identity(entry)).count();
    if nameless > 0 {
        return Finding::NotChecked(format!(
            "{nameless} acknowledgements do not say whose they are"
        ));
    }
    let terms = terms(history);
    if terms.is_empty() {
        return Finding::NotChecked("no write was acknowledged".to_owned());
    }
    let mut found = Vec::new();
    let systems: BTreeSet<&str> =
        history.acknowledged().filter_map(|entry| entry.system.as_deref()).collect();
    if systems.len() > 1 {
        found.push(format!("{} different clusters acknowledged writes", systems.len()));
    }
    for (place, term) in terms.iter().enumerate() {
        for later in terms.iter().skip(place + 1) {
            if later.timeline == term.timeline {
                found.push(format!(
                    "{} and {} both wrote on timeline {}",
                    term.node, later.node, term.timeline
                ));
            } else if later.timeline < term.timeline {
                found.push(format!(
                    "{} began to write on timeline {} after {} wrote on timeline {}",
                    later.node, later.timeline, term.node, term.timeline
                ));
            }
            if later.first_ns <= term.last_ns {
                let common = term.last_ns.min(later.last_ns) - later.first_ns;
                found.push(format!(
                    "{} (timeline {}) and {} (timeline {}) both acknowledged writes, for {:.3} s",
                    term.node,
                    term.timeline,
                    later.node,
                    later.timeline,
                    Duration::from_nanos(common).as_secs_f64()
                ));
            }
        }
    }
    cases(found, || {
        let told = terms.iter().map(|term| {
            format!("{} on timeline {}: {}", term.node, term.timeline, term.acknowledged)
        });
        let mut told: Vec<_> = told.collect();
        if !late.is_empty() {
            told.push(format!("{} late answers of a frozen host, all kept", late.len()));
        }
        told.join(", ")
    })
}

/// Acknowledgements that came from a host that was frozen as a whole, after another node had begun
/// to write: of writes that were sent before it began, and that the survivor has.
fn late(evidence: &Evidence) -> BTreeSet<Row> {
    let Some(survivor) = &evidence.survivor else { return BTreeSet::new() };
    let frozen = |node: &str, before: u64| {
        evidence.disturbances.iter().any(|one| {
            let host = one.name.strip_prefix("freeze ").filter(|host| !host.contains('/'));
            one.at_ns < before && host.is_some_and(|host| node == format!("{host}-1"))
        })
    };
    let all = terms(&evidence.history);
    let began = |entry: &Entry| {
        let later = all.iter().filter(|term| Some(term.timeline) > entry.timeline);
        later.map(|term| term.first_ns).min()
    };
    let is_late = |entry: &&Entry| {
        let (Some(node), Some(began)) = (&entry.node, began(entry)) else { return false };
        entry.done_ns >= began
            && entry.sent_ns < began
            && survivor.rows.contains(&row(entry))
            && frozen(node, began)
    };
    evidence.history.acknowledged().filter(is_late).map(row).collect()
}

fn has_identity(entry: &Entry) -> bool {
    entry.node.is_some() && entry.timeline.is_some() && entry.system.is_some()
}
