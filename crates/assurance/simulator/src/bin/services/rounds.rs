//! What happens: calm, then one service after another, a hundred, and a whole region.

use std::rc::Rc;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::sleep;

use crate::process::Used;
use crate::report::{Report, Round};
use crate::services::{PROBE_EVERY, UNHEALTHY_FOR};
use crate::wire::SILENCE;
use crate::world::{Place, Story, World, now};

/// How often it is looked how far things are.
const LOOK: Duration = Duration::from_millis(20);
/// How long each thing may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// Calm before anything is measured or broken.
const CALM: Duration = Duration::from_secs(10);
/// The east, in [`crate::services::REGIONS`].
const EAST: usize = 0;

/// The places of a few of all, spread over them, from both regions in turns.
fn spread(number: usize, few: usize, all: usize) -> usize {
    (number * all / few + number % 2).min(all - 1)
}

/// The script.
pub struct Rounds<'a> {
    world: &'a Rc<World>,
    controller: Used,
    own: Used,
}

impl<'a> Rounds<'a> {
    /// In a world, of a controller.
    pub fn new(world: &'a Rc<World>, controller: Used, own: Used) -> Self {
        Self { world, controller, own }
    }

    /// Measures calm, then breaks things.
    pub async fn run(&self, singles: usize, steady: Duration) -> Result<Report> {
        let count = self.world.places.borrow().len();
        self.calm().await?;
        eprintln!("bench: {count} services are served; calm for {} s", steady.as_secs());
        let mut report = self.steady(steady).await?;
        let mut alone = Round::new("1 service alone");
        for number in 0..singles {
            alone.join(self.lose(vec![spread(number, singles, count)]).await?);
        }
        report.rounds.push(alone);
        let some = (count / 2).min(100);
        let lost = (0..some).map(|number| spread(number, some, count)).collect();
        let name = format!("{some} services at once");
        report.rounds.push(self.lose(lost).await?.named(name));
        report.rounds.push(self.lose_region().await?);
        report.peak_mib = self.controller.peak_mib()?;
        Ok(report)
    }

    async fn steady(&self, wanted: Duration) -> Result<Report> {
        let (began, asked) = (now(), self.world.asked.get());
        let (used, own) = (self.controller.processor()?, self.own.processor()?);
        let waited = self.controller.waited()?;
        sleep(wanted).await;
        let lasted = now().saturating_sub(began);
        let rate = |used: Duration| used.as_secs_f64() / lasted.as_secs_f64();
        let after = self.world.asked.get();
        let each = [0, 1, 2].map(|at| (after[at] - asked[at]) as f64 / lasted.as_secs_f64());
        Ok(Report {
            services: self.world.places.borrow().len(),
            lasted,
            cores: rate(self.controller.processor()?.saturating_sub(used)),
            world_cores: rate(self.own.processor()?.saturating_sub(own)),
            waited: rate(self.controller.waited()?.saturating_sub(waited)),
            asked_a_second: each,
            ..Report::default()
        })
    }

    /// The primaries of some services die.
    async fn lose(&self, lost: Vec<usize>) -> Result<Round> {
        let nodes: Vec<(usize, usize)> = {
            let places = self.world.places.borrow();
            lost.iter().map(|at| (*at, places[*at].holder())).collect()
        };
        self.round(&lost, &nodes).await
    }

    /// Everything in the east dies, its observer too.
    async fn lose_region(&self) -> Result<Round> {
        let lost: Vec<usize> = {
            let places = self.world.places.borrow();
            let there = places.iter().enumerate().filter(|(_, place)| place.holder() == EAST);
            there.map(|(at, _)| at).collect()
        };
        let count = self.world.places.borrow().len();
        let nodes: Vec<(usize, usize)> = (0..count).map(|at| (at, EAST)).collect();
        self.world.observers.borrow_mut()[EAST].alive = false;
        let round = self.round(&lost, &nodes).await?;
        Ok(round.named(format!("the east: {} services at once", lost.len())))
    }

    async fn round(&self, lost: &[usize], nodes: &[(usize, usize)]) -> Result<Round> {
        let (fault, used) = (now(), self.controller.processor()?);
        let waited = self.controller.waited()?;
        for at in lost {
            let mut places = self.world.places.borrow_mut();
            let allowed = self.allowed(*at, &places[*at]);
            places[*at].story = Story { fault: Some(fault), allowed, ..Story::default() };
        }
        nodes.iter().for_each(|(at, node)| self.world.set_alive(*at, *node, false));
        self.wait("a decision about each", lost, |place| place.story.decided.is_some()).await?;
        self.wait("the next epoch of each", lost, |place| place.story.begun.is_some()).await?;
        nodes.iter().for_each(|(at, node)| self.world.set_alive(*at, *node, true));
        self.wait("the end of each run", lost, |place| place.story.over.is_some()).await?;
        let lasted = now().saturating_sub(fault);
        let rate = |used: Duration| used.as_secs_f64() / lasted.as_secs_f64();
        let cores = rate(self.controller.processor()?.saturating_sub(used));
        let waited = rate(self.controller.waited()?.saturating_sub(waited));
        self.calm().await?;
        let places = self.world.places.borrow();
        let stories = lost.iter().map(|at| places[*at].story).collect();
        let round = Round { stories, cores, waited, ..Round::new("") };
        eprintln!("bench: {} services lost and moved in {:.1} s", lost.len(), lasted.as_secs_f64());
        Ok(round)
    }

    /// From when on the policy lets a service move that fails now: two observers have seen it fail
    /// for long enough. An observer sees it at its next probe, and a probe of a silent server takes
    /// its timeouts; a probe that comes later than that is the controller's delay.
    fn allowed(&self, at: usize, place: &Place) -> Option<Duration> {
        let own = match place.probed {
            (_, Some(began)) => began + SILENCE,
            (Some(answered), None) => answered + PROBE_EVERY + SILENCE,
            (None, None) => return None,
        };
        let observers = self.world.observers.borrow();
        let others = observers.iter().filter_map(|observer| observer.will_notice(at));
        let mut noticed: Vec<Duration> = others.chain([own]).collect();
        noticed.sort_unstable();
        noticed.get(1).map(|second| *second + UNHEALTHY_FOR)
    }

    /// Every service serves, no run is at work, and some time passes.
    async fn calm(&self) -> Result<()> {
        let all: Vec<usize> = (0..self.world.places.borrow().len()).collect();
        self.wait("calm", &all, Place::is_calm).await?;
        sleep(CALM).await;
        Ok(())
    }

    async fn wait(&self, what: &str, whom: &[usize], done: impl Fn(&Place) -> bool) -> Result<()> {
        let until = now() + PATIENCE;
        loop {
            let missing = {
                let places = self.world.places.borrow();
                whom.iter().filter(|at| !done(&places[**at])).count()
            };
            if missing == 0 {
                return Ok(());
            }
            if now() >= until {
                bail!("{what}: {missing} of {} services wait for it in vain", whom.len());
            }
            sleep(LOOK).await;
        }
    }
}
