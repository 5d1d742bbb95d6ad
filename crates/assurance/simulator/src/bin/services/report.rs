//! What was measured, beside its bars.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::services::LEASE;
use crate::world::Story;

/// One core.
const CORES: f64 = 1.0;
/// 256 MiB.
const MIB: f64 = 256.0;
/// A decision comes this soon after the policy allows it.
const DECISION: f64 = 1.0;

/// Services that were lost together.
#[derive(Debug, Default)]
pub struct Round {
    /// What was lost.
    pub name: String,
    /// What became of each service.
    pub stories: Vec<Story>,
    /// What the controller used, from the fault to the end of the last run, in cores.
    pub cores: f64,
    /// For how much of that time it had to wait for a core.
    pub waited: f64,
}

impl Round {
    /// Nothing yet.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    /// With another name.
    #[must_use]
    pub fn named(self, name: String) -> Self {
        Self { name, ..self }
    }

    /// Another one of the same kind.
    pub fn join(&mut self, other: Self) {
        self.stories.extend(other.stories);
        self.cores = self.cores.max(other.cores);
        self.waited = self.waited.max(other.waited);
    }

    fn seconds(&self, of: impl Fn(&Story) -> Option<f64>) -> Result<Seconds> {
        let all: Option<Vec<f64>> = self.stories.iter().map(of).collect();
        let mut all = all.context("a story has no end")?;
        all.sort_unstable_by(f64::total_cmp);
        let at = |share: f64| all.get(((all.len() - 1) as f64 * share) as usize).copied();
        let [median, most] = [at(0.5), at(1.0)].map(|one| one.context("no service was lost"));
        Ok(Seconds { median: median?, most: most? })
    }
}

struct Seconds {
    median: f64,
    most: f64,
}

/// Everything.
#[derive(Debug, Default)]
pub struct Report {
    /// How many services.
    pub services: usize,
    /// How long was measured while nothing happened.
    pub lasted: Duration,
    /// What the controller used then, in cores.
    pub cores: f64,
    /// What the world used then.
    pub world_cores: f64,
    /// For how much of that time the controller had to wait for a core.
    pub waited: f64,
    /// Reads, commits and probes of the controller a second.
    pub asked_a_second: [f64; 3],
    /// The controller's memory at its worst, faults included.
    pub peak_mib: f64,
    /// What happened after that.
    pub rounds: Vec<Round>,
}

fn seconds(from: Option<Duration>, to: Option<Duration>) -> Option<f64> {
    Some(to?.as_secs_f64() - from?.as_secs_f64())
}

impl Report {
    /// Prints, and says whether all bars are met.
    pub fn print(&self) -> Result<bool> {
        let mut met = true;
        let mut bar = |what: String, found: f64, most: f64, unit: &str| {
            let holds = found < most;
            met &= holds;
            let word = if holds { "met" } else { "MISSED" };
            println!("{what:<52} {found:>8.2} {unit:<5}  under {most:>6.2}  {word}");
        };
        println!("services {}, observers of each 3, controllers 1\n", self.services);
        let calm = self.lasted.as_secs();
        bar(format!("CPU, {calm} s without a fault"), self.cores, CORES, "cores");
        bar("peak memory, all faults included".to_owned(), self.peak_mib, MIB, "MiB");
        for round in &self.rounds {
            let found = round.seconds(|story| seconds(story.allowed, story.decided))?;
            bar(format!("decision, the last one: {}", round.name), found.most, DECISION, "s");
        }
        println!(
            "\nmedian and longest, in seconds; CPU in cores from the fault to the last run's end, and for \
             how much of that time the controller waited for a core"
        );
        for round in &self.rounds {
            self.print_round(round)?;
        }
        let [reads, commits, probes] = self.asked_a_second;
        println!(
            "\nwithout a fault the controller asks for {reads:.0} reads, {commits:.0} commits and \
             {probes:.0} probes a second, and waits for a core {:.0} % of the time; the world beside it \
             uses {:.2} cores",
            self.waited * 100.0,
            self.world_cores
        );
        Ok(met)
    }

    fn print_round(&self, round: &Round) -> Result<()> {
        let rows = [
            ("policy allows it -> decision", round.seconds(|of| seconds(of.allowed, of.decided))?),
            ("fault -> decision", round.seconds(|of| seconds(of.fault, of.decided))?),
            (
                "end of the lease -> next epoch",
                round.seconds(|of| seconds(of.renewed.map(|renewed| renewed + LEASE), of.begun))?,
            ),
            ("fault -> run over", round.seconds(|of| seconds(of.fault, of.over))?),
        ];
        let (name, waited) = (&round.name, round.waited * 100.0);
        println!("{name} (CPU {:.2}, waited {waited:.0} %)", round.cores);
        for (what, found) in rows {
            println!("  {what:<32} {:>7.2} {:>7.2}", found.median, found.most);
        }
        Ok(())
    }
}
