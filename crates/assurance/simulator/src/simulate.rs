//! One seed from the beginning to the end.

use std::rc::Rc;
use std::time::Duration;

use lifeboat_failover::{Mirror, View};
use lifeboat_workflow::StepState;

use crate::chance::Chance;
use crate::checks::Counts;
use crate::faults::{self, Fault};
use crate::history::Line;
use crate::mutant::Mutant;
use crate::person;
use crate::scene::Scene;
use crate::world::World;

/// Within this everything was started and serves.
const WARM_UP: Duration = Duration::from_secs(15);
/// How long faults begin.
const FAULTS: Duration = Duration::from_secs(35);
/// How long it may take until everything is well again.
const LIVENESS: Duration = Duration::from_secs(60);
/// Who is well for so long stays so, without faults.
const WELL: Duration = Duration::from_secs(12);
/// Clients must have been served within this.
const FRESH: Duration = Duration::from_secs(4);

/// What came of a seed.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// What must never happen and did; none if all is well.
    pub failure: Option<String>,
    /// The hash over everything that happened.
    pub hash: String,
    /// The newest lines of the history.
    pub lines: Vec<Line>,
    /// What happened how often.
    pub counts: Counts,
    /// The faults.
    pub faults: Vec<Fault>,
}

/// Runs a seed.
pub fn simulate(seed: u64, mutant: Option<Mutant>) -> Outcome {
    let chance = Chance::new(seed);
    let scene = Scene::of(&mut chance.fork(1));
    let faults = faults::schedule(&mut chance.fork(2), &mut chance.fork(5), FAULTS);
    let world = World::new(scene, chance.fork(3), mutant);
    let sim = world.plant.sim.clone();
    sim.note("scene", format!("{:?}", world.scene));
    while !world.plant.checks.is_serving() && sim.now() < WARM_UP * 4 {
        sim.run_until(sim.now() + Duration::from_secs(1));
    }
    sim.run_until(sim.now() + WARM_UP / 3);
    let begin = sim.now();
    if !world.plant.checks.is_serving() {
        sim.fail("without any fault the service does not come to serve".to_owned());
    }
    faults::arrange(&world, &faults);
    if world.scene.persons {
        person::arrange(&world, &mut chance.fork(4), FAULTS);
    }
    // Faults that began last end within this too, or are healed.
    sim.run_until(begin + FAULTS + Duration::from_secs(2));
    if sim.failure().is_none() {
        faults::heal(&world);
        recover(&world);
    }
    let outcome = Outcome {
        seed,
        failure: sim.failure(),
        hash: sim.hash(),
        lines: sim.lines(),
        counts: world.plant.checks.counts(),
        faults,
    };
    sim.end();
    outcome
}

/// Runs until the service has been well for a while, or its time is over.
fn recover(world: &Rc<World>) {
    let sim = &world.plant.sim;
    let end = sim.now() + LIVENESS;
    let mut well_since = None;
    while sim.now() < end && sim.failure().is_none() {
        sim.run_until(sim.now() + Duration::from_secs(1));
        let now = sim.now();
        well_since = is_well(world).then(|| well_since.unwrap_or(now));
        if well_since.is_some_and(|since| now - since >= WELL) {
            return;
        }
    }
    // What was restored is repaired by persons.
    if sim.failure().is_none() && !world.plant.checks.is_restored() {
        look_for_life(world);
    }
}

/// Whether clients are served, and nothing is under way.
fn is_well(world: &World) -> bool {
    let now = world.plant.sim.now();
    let fresh = |database| {
        let newest = world.plant.checks.newest(database);
        newest.is_some_and(|at| now.saturating_sub(at) < FRESH)
    };
    let idle = world.plant.checks.record().is_some_and(|record| record.run.is_none());
    idle && world.plant.checks.is_serving() && world.scene.service.databases.keys().all(fresh)
}

/// Every service is written to, or waits for a person.
fn look_for_life(world: &Rc<World>) {
    let now = world.plant.sim.now();
    for database in world.scene.service.databases.keys() {
        let newest = world.plant.checks.newest(database);
        let fresh = newest.is_some_and(|at| now.saturating_sub(at) < FRESH);
        if fresh {
            continue;
        }
        match waits_for(world) {
            Ok(why) => world.plant.sim.note("liveness", format!("{database} waits: {why}")),
            Err(state) => {
                let newest = newest.map(|at| at.as_secs_f64());
                let what = format!(
                    "60 s after everything was healed nobody writes to {database} (last at \
                     {newest:?}), and it waits for no person: {state}"
                );
                world.plant.sim.fail(what);
            }
        }
    }
}

/// What a person has to decide; else how things are.
fn waits_for(world: &World) -> Result<String, String> {
    let mut mirror = Mirror::new();
    mirror.take(world.etcd.truth().read(world.keys.all(), 0), Duration::ZERO);
    let view =
        View::of(&world.scene.service, &world.keys, &mirror).map_err(|error| error.to_string())?;
    let Some(record) = view.record.map(|seen| seen.value) else {
        return Err("there is no record".to_owned());
    };
    let state = format!("epoch {} is {:?}", record.epoch, record.state);
    match view.run {
        Some((run, _)) if run.state() == StepState::Failed => {
            let why = run.journal.last().map(|entry| entry.evidence.clone());
            Ok(format!("{state}, run {} failed: {why:?}", run.plan.run))
        }
        Some((run, _)) => {
            let step = run.step().map(lifeboat_workflow::Step::name);
            Err(format!("{state}, run {} is {:?} at {step:?}", run.plan.run, run.state()))
        }
        None => Err(state),
    }
}
