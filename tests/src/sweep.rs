//! One command under every fault that its stores can have.
//!
//! A run without faults is recorded first. Then the same run is repeated, each time from the same
//! start, with a fault at each of its calls: one call that fails and is tried again, a region that
//! is gone from a call on, answers that are false. Whatever comes of it must be the command's
//! normal end or a clear failure; what must hold holds; and the next run without faults succeeds.

mod cases;

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use lifeboat_environment::{Environment, Random, SeededRandom};
use lifeboat_testkit::process::Finished;

use crate::clouds::{Clouds, is_clear};
use cases::{Case, Severity};

/// How much of a sweep is done.
#[derive(Debug, Clone, Copy)]
pub enum Extent {
    /// So many cases, the same each time.
    Sample(usize),
    /// Every case, and so many rounds of those that chance makes.
    Full {
        /// How many rounds.
        rounds: usize,
        /// What chance starts from.
        seed: u64,
        /// The part of the cases that is done.
        share: Share,
    },
}

/// One of so many equal parts, which run beside each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Counted from 1.
    pub number: usize,
    /// How many there are.
    pub of: usize,
}

impl Share {
    fn take<T>(self, all: Vec<T>) -> Vec<T> {
        let of = self.of.max(1);
        let skipped = self.number.saturating_sub(1);
        all.into_iter().skip(skipped).step_by(of).collect()
    }
}

impl Extent {
    /// A share of all of it, with the rounds and the seed that `cargo xtask torture` sets.
    pub fn full(number: usize, of: usize) -> Self {
        let share = Share { number, of };
        let environment = Environment::system();
        let variable = |name: &str, usual: u64| {
            environment.variable(name).and_then(|text| text.parse().ok()).unwrap_or(usual)
        };
        let rounds = variable("LIFEBOAT_TORTURE_ROUNDS", 1);
        Self::Full { rounds: rounds as usize, seed: variable("LIFEBOAT_TORTURE_SEED", 1), share }
    }

    /// A share of them, or a sample.
    pub fn choose<T>(self, mut all: Vec<T>) -> Vec<T> {
        let count = match self {
            Self::Sample(count) => count,
            Self::Full { share, .. } => return share.take(all),
        };
        let random = SeededRandom::new(SEED_OF_SAMPLES);
        let mut chosen = Vec::new();
        while chosen.len() < count && !all.is_empty() {
            let number = random.next_u64() % all.len() as u64;
            chosen.push(all.swap_remove(number as usize));
        }
        chosen
    }
}

/// The same cases each time.
const SEED_OF_SAMPLES: u64 = 1;

/// A sweep over one command.
#[derive(Debug)]
pub struct Sweep<'a> {
    /// The command, for reports.
    pub name: &'a str,
    /// How much is done.
    pub extent: Extent,
    /// Objects that going back to the start leaves in place.
    pub stays: fn(&str) -> bool,
}

/// A run that ended.
#[derive(Debug)]
pub struct Ended {
    /// How.
    pub finished: Finished,
    /// Whether a store said what is not true: then it may hold damage, which must be named.
    pub lied_to: bool,
}

impl Ended {
    /// It did all that it was asked for.
    pub fn is_done(&self) -> bool {
        self.finished.code == Some(0)
    }
}

/// What a sweep came to.
#[derive(Debug, Default)]
struct Tally {
    faults: usize,
    codes: BTreeMap<i32, usize>,
    findings: usize,
}

impl Sweep<'_> {
    /// Runs `command` in every case. `holds` is what must be true after each run.
    pub fn run(
        &self,
        clouds: &mut Clouds,
        command: impl Fn(&mut Clouds) -> Result<Finished>,
        holds: impl Fn(&mut Clouds, &Ended) -> Result<()>,
    ) -> Result<()> {
        let start = clouds.keep(&format!("kept-{}", self.name.replace(' ', "-")))?;
        clouds.rewind(&start, self.stays)?;
        let normal = command(clouds)?;
        let calls = [clouds.proxies[0].calls(), clouds.proxies[1].calls()];
        clouds.calm();
        ensure!(matches!(normal.code, Some(0 | 1)), "without any fault: {normal}");
        let normal = Ended { finished: normal, lied_to: false };
        holds(clouds, &normal).context("without any fault")?;

        let mut tally = Tally::default();
        let cases = cases::of(&calls, self.extent);
        let count = cases.len();
        for (number, case) in cases.into_iter().enumerate() {
            if number % 100 == 99 {
                eprintln!("{}: {number} of {count}", self.name);
            }
            clouds.rewind(&start, self.stays)?;
            case.arm(&clouds.proxies);
            let ended = Ended { finished: command(clouds)?, lied_to: case.lies() };
            tally.faults += clouds.proxies.iter().map(|proxy| faults(proxy.calls())).sum::<usize>();
            *tally.codes.entry(ended.finished.code.unwrap_or(-1)).or_default() += 1;
            clouds.calm();
            let judged = judge(&case, &normal, &ended)
                .and_then(|()| holds(clouds, &ended))
                .and_then(|()| {
                    let again = Ended { finished: command(clouds)?, lied_to: ended.lied_to };
                    if again.lied_to {
                        judge(&case, &normal, &again)?;
                    } else {
                        let same = again.finished.code == normal.finished.code;
                        ensure!(same, "run again: {}", again.finished);
                    }
                    if ended.is_done() {
                        return Ok(());
                    }
                    holds(clouds, &again).with_context(|| format!("again: {}", again.finished))
                })
                .with_context(|| ended.finished.to_string());
            if let Err(error) = judged {
                eprintln!("{}: {case}: {error:#}\n", self.name);
                tally.findings += 1;
            }
        }
        clouds.rewind(&start, self.stays)?;
        println!(
            "sweep: {}: {} + {} calls, {count} cases, {} faults, exit codes {:?}, {} findings",
            self.name,
            calls[0].len(),
            calls[1].len(),
            tally.faults,
            tally.codes,
            tally.findings,
        );
        // A sweep in which nothing went wrong has shown nothing.
        ensure!(tally.faults >= count / 2, "{}: {} faults only", self.name, tally.faults);
        ensure!(tally.findings == 0, "{}: {} findings", self.name, tally.findings);
        Ok(())
    }
}

fn faults(calls: Vec<lifeboat_testkit::store::Call>) -> usize {
    calls.iter().filter(|call| call.fault.is_some()).count()
}

fn judge(case: &Case, normal: &Ended, ended: &Ended) -> Result<()> {
    let finished = &ended.finished;
    ensure!(!finished.stderr.contains("panicked"), "a panic");
    if finished.code == normal.finished.code {
        return Ok(());
    }
    // What a standby hears every few seconds is no error.
    if !finished.stderr.starts_with("absent: not available now: ") {
        is_clear(finished)?;
    }
    let allowed: &[i32] = match case.severity {
        Severity::Passing => &[],
        Severity::Lasting => &[1, 5, 200],
        Severity::False => &[1, 3, 4, 5, 200],
    };
    ensure!(finished.code.is_some_and(|code| allowed.contains(&code)), "not with this fault");
    Ok(())
}
