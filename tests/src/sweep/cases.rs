//! What may go wrong in a run, from the calls that it makes.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;

use lifeboat_environment::{Random, SeededRandom};
use lifeboat_testkit::store::{Call, Fault, FaultProxy, Kind, Profile};

use super::Extent;

/// What a case allows a command to come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Severity {
    /// The next attempt works: nothing but success will do.
    Passing,
    /// A region is gone: a clear failure, or success in part that names the region.
    Lasting,
    /// An answer was false: it may also be held for damage.
    False,
}

/// One run with its faults.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) severity: Severity,
    hits: Vec<Hit>,
    storm: Option<Profile>,
}

#[derive(Debug, Clone)]
struct Hit {
    region: usize,
    calls: RangeInclusive<usize>,
    fault: Fault,
}

/// Another attempt cures these, whatever the call is.
const CURED: [Fault; 5] =
    [Fault::Error, Fault::ErrorAfterwards, Fault::Throttle, Fault::Reset, Fault::LostReply];

impl Case {
    fn new(severity: Severity, hits: Vec<Hit>) -> Self {
        Self { severity, hits, storm: None }
    }

    /// Whether a store says what is not true.
    pub(super) fn lies(&self) -> bool {
        self.severity == Severity::False
    }

    /// Makes the proxies fail.
    pub(super) fn arm(&self, proxies: &[FaultProxy; 2]) {
        for Hit { region, calls, fault } in &self.hits {
            proxies[*region].fail_calls(calls.clone(), *fault);
        }
        if let Some(profile) = self.storm {
            proxies.iter().for_each(|proxy| proxy.set_profile(profile));
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}", self.severity)?;
        for Hit { region, calls, fault } in &self.hits {
            let region = ["east", "west"][*region];
            let until = if calls.end() == calls.start() { "" } else { " and all that follow" };
            write!(formatter, ", {fault:?} at call {} of {region}{until}", calls.start())?;
        }
        if let Some(profile) = self.storm {
            write!(formatter, ", {}", profile.name)?;
        }
        Ok(())
    }
}

/// Every case for a run with these calls, or some of them.
pub(super) fn of(calls: &[Vec<Call>; 2], extent: Extent) -> Vec<Case> {
    match extent {
        Extent::Full { rounds, seed, .. } => {
            let random = SeededRandom::new(seed);
            let mut cases = every(calls, seed as usize);
            for _ in 0..rounds {
                by_chance(calls, &random, &mut cases);
            }
            extent.choose(cases)
        }
        Extent::Sample(count) => {
            // Half of the sample is regions that go away: there are far fewer of them.
            let (lasting, passing): (Vec<_>, Vec<_>) =
                every(calls, 0).into_iter().partition(|case| case.severity == Severity::Lasting);
            let half = Extent::Sample(count / 2);
            [half.choose(passing), half.choose(lasting)].concat()
        }
    }
}

/// Each call fails, and each region goes away at each call, and both do. Each kind of call to the
/// first region fails in every way: where there are many of a kind the ways take turns, and `turn`
/// says who begins; where there are few, each call fails in all of them. Calls to the second region
/// fail in two ways.
fn every(calls: &[Vec<Call>; 2], turn: usize) -> Vec<Case> {
    let mut cases = Vec::new();
    for (region, calls) in calls.iter().enumerate() {
        let total = count(calls);
        let mut seen: BTreeMap<Class, usize> = BTreeMap::new();
        for (number, call) in calls.iter().enumerate() {
            let class = Class::of(call);
            let many = total.get(&class).copied().unwrap_or_default();
            let seen = seen.entry(class).or_default();
            let once = |severity, fault| {
                Case::new(severity, vec![Hit { region, calls: number..=number, fault }])
            };
            let (passing, pretending) = faults(call.kind);
            for (severity, faults, most) in
                [(Severity::Passing, passing, 2), (Severity::False, pretending, 1)]
            {
                let ways = match region {
                    0 => faults.len().div_ceil(many.max(1)).max(most),
                    _ => 1,
                };
                // Reduced first: a sum that wraps would skip a way.
                let first = turn % faults.len().max(1) + *seen * ways;
                let turned = (0..ways.min(faults.len()))
                    .filter_map(|way| faults.get(first.wrapping_add(way) % faults.len()));
                cases.extend(turned.map(|fault| once(severity, *fault)));
            }
            *seen += 1;
            let calls = number..=usize::MAX;
            let gone = Hit { region, calls: calls.clone(), fault: Fault::Deny };
            let other = Hit { region: 1 - region, calls, fault: Fault::Deny };
            cases.push(Case::new(Severity::Lasting, vec![gone.clone()]));
            if region == 0 {
                cases.push(Case::new(Severity::Lasting, vec![gone, other]));
            }
        }
    }
    cases
}

/// What a call does to what sort of object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Class(String);

impl Class {
    fn of(call: &Call) -> Self {
        // Identities and numbers tell objects of one sort apart.
        let words = call
            .path
            .split('/')
            .filter(|part| !part.is_empty() && !part.bytes().any(|byte| byte.is_ascii_digit()));
        Self(format!("{:?} {}", call.kind, words.collect::<Vec<_>>().join("/")))
    }
}

fn count(calls: &[Call]) -> BTreeMap<Class, usize> {
    let mut total = BTreeMap::new();
    for call in calls {
        *total.entry(Class::of(call)).or_default() += 1;
    }
    total
}

/// What another attempt cures, and what pretends.
fn faults(kind: Kind) -> (&'static [Fault], &'static [Fault]) {
    use Fault::*;
    match kind {
        Kind::Get | Kind::List | Kind::Head => (
            &[Error, ErrorAfterwards, Throttle, Reset, LostReply, BrokenReply],
            &[FalseNotFound, Halve, Corrupt],
        ),
        _ => (&CURED, &[AcknowledgeOnly, Halve, Corrupt]),
    }
}

/// Two faults at once, a region that stops answering, a storm over both.
fn by_chance(calls: &[Vec<Call>; 2], random: &SeededRandom, cases: &mut Vec<Case>) {
    let hit = |fault| {
        let region = below(random, 2);
        let number = below(random, calls[region].len().max(1));
        Hit { region, calls: number..=number, fault }
    };
    for _ in 0..4 {
        let two = [(); 2].map(|()| hit(CURED[below(random, CURED.len())]));
        cases.push(Case::new(Severity::Passing, two.into()));
    }
    let silent = hit(Fault::Silence);
    let gone = Hit { calls: *silent.calls.start()..=usize::MAX, fault: Fault::Reset, ..silent };
    cases.push(Case::new(Severity::Lasting, vec![silent]));
    cases.push(Case::new(Severity::Lasting, vec![gone]));
    for profile in [Profile::AWS_BAD_DAY, Profile::FDB_HEAVY] {
        let calm = Case::new(Severity::False, Vec::new());
        cases.push(Case { storm: Some(profile), ..calm });
    }
}

fn below(random: &SeededRandom, limit: usize) -> usize {
    (random.next_u64() % limit.max(1) as u64) as usize
}

#[cfg(test)]
mod tests;
