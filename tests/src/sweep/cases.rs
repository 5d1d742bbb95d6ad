//! What may go wrong in a run, from the calls that it makes.

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
        Extent::Full { rounds, seed } => {
            let random = SeededRandom::new(seed);
            let mut cases = every(calls);
            for _ in 0..rounds {
                by_chance(calls, &random, &mut cases);
            }
            cases
        }
        Extent::Sample(count) => {
            // Half of the sample is regions that go away: there are far fewer of them.
            let (lasting, passing): (Vec<_>, Vec<_>) =
                every(calls).into_iter().partition(|case| case.severity == Severity::Lasting);
            let half = Extent::Sample(count / 2);
            [half.choose(passing), half.choose(lasting)].concat()
        }
    }
}

/// Each call to the first region fails once, in each way, and each one to the second in two ways;
/// each region goes away at each call, and both do.
fn every(calls: &[Vec<Call>; 2]) -> Vec<Case> {
    let mut cases = Vec::new();
    for (region, calls) in calls.iter().enumerate() {
        for (number, call) in calls.iter().enumerate() {
            let (passing, pretending) = faults(call.kind);
            let ways = if region == 0 { usize::MAX } else { 1 };
            let once = |severity, fault| {
                Case::new(severity, vec![Hit { region, calls: number..=number, fault }])
            };
            for (severity, faults) in [(Severity::Passing, passing), (Severity::False, pretending)]
            {
                let turned = faults.iter().cycle().skip(number).take(faults.len().min(ways));
                cases.extend(turned.map(|fault| once(severity, *fault)));
            }
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
