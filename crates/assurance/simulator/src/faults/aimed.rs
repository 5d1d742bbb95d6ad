//! Faults that are aimed at whoever holds the service, at moments that chance alone seldom meets.

use std::rc::Rc;
use std::time::Duration;

use super::{Fault, Kind, cut, freeze, freeze_for, kill_for, later, thaw};
use lifeboat_quorum::EpochState;

use crate::chance::Chance;
use crate::etcd::Moment;
use crate::person;
use crate::scene::DOMAINS;
use crate::world::{Unit, World};

const LOOK: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(25);

const AIMED: [Kind; 7] = [
    Kind::Lost,
    Kind::Landed,
    Kind::Thaws,
    Kind::Decided,
    Kind::Misled,
    Kind::Unplugged,
    Kind::Stranded,
];

/// The aimed faults of a seed; early enough in the span that what follows from them is seen.
pub(super) fn schedule(chance: &mut Chance, span: Duration) -> Vec<Fault> {
    if !chance.permille(400) {
        return Vec::new();
    }
    let one = |_| Fault {
        at: chance.between(Duration::ZERO, span / 2),
        kind: *chance.pick(&AIMED),
        lasts: Duration::from_millis(chance.range(1000, 6000)),
        target: chance.draw(),
    };
    (0..2).map(one).collect()
}

pub(super) fn strike(world: &Rc<World>, fault: Fault) {
    let Some(holds) = holder(world) else { return };
    let mut chance = Chance::new(fault.target);
    match fault.kind {
        Kind::Lost => {
            lose(world, holds, fault);
            if chance.permille(500) {
                restart_controllers(world, holds, &mut chance);
            }
            if chance.permille(500) {
                // Its lease lives still when the move begins.
                let (seat, then) = ((holds + 1) % 3, Rc::clone(world));
                let wait = chance.between(Duration::from_millis(200), Duration::from_millis(1500));
                world.plant.sim.after(wait, move || person::fail_over(&then, seat));
            }
        }
        Kind::Landed => freeze_agents_once_landed(world, holds, fault),
        Kind::Thaws => {
            freeze(world, holds);
            let late = chance.between(Duration::ZERO, Duration::from_millis(2500));
            let epoch = world.plant.checks.record().map_or(0, |record| record.epoch);
            thaw_once_replaced(world, holds, epoch, late);
        }
        Kind::Decided => {
            for controller in (0..3).filter(|_| chance.permille(600)) {
                let unit = Unit::Controller(controller);
                let (frozen, lasts) = (Rc::clone(world), fault.lasts);
                let freeze = move || freeze_for(&frozen, unit, lasts);
                world.etcd.when(world.process(unit), Moment::Decided, freeze);
            }
        }
        Kind::Misled => mislead(world, holds, &mut chance),
        Kind::Unplugged => unplug(world, fault),
        Kind::Stranded => {
            // Neither stream nor archive for the candidate, and then the holder is lost.
            unplug(world, fault);
            for place in (0..2).filter(|place| *place != holds) {
                freeze_for(world, Unit::Repository(place), fault.lasts * 3);
            }
            let (then, wait) = (Rc::clone(world), chance.between(fault.lasts / 4, fault.lasts / 2));
            world.plant.sim.after(wait, move || lose(&then, holds, fault));
        }
        _ => {}
    }
}

/// The domain that holds the service now.
fn holder(world: &World) -> Option<usize> {
    let record = world.plant.checks.record()?;
    DOMAINS.iter().position(|domain| *domain == record.region.as_str())
}

/// Cuts a domain off for longer than a lease.
fn lose(world: &Rc<World>, domain: usize, fault: Fault) {
    let others = [(domain + 1) % 3, (domain + 2) % 3];
    others.into_iter().for_each(|other| cut(world, domain, other, true, true));
    let lasts = world.scene.service.timing.lease + fault.lasts;
    later(
        world,
        Fault { lasts, ..fault },
        Box::new(move |world| {
            others.into_iter().for_each(|other| cut(world, domain, other, true, false));
        }),
    );
}

fn restart_controllers(world: &Rc<World>, but: usize, chance: &mut Chance) {
    for controller in (0..3).filter(|domain| *domain != but) {
        let after = Rc::clone(world);
        let wait = chance.between(Duration::ZERO, Duration::from_secs(5));
        world.plant.sim.after(wait, move || {
            kill_for(&after, Unit::Controller(controller), Duration::from_millis(300));
        });
    }
}

/// A renewal was made, its agent is frozen before it hears of it, and goes on where nobody hears
/// it any more.
fn freeze_agents_once_landed(world: &Rc<World>, domain: usize, fault: Fault) {
    let agents = world.units().into_iter().filter(|unit| matches!(unit, Unit::Agent(_)));
    for unit in agents.filter(|unit| world.domain(*unit) == domain) {
        let then = Rc::clone(world);
        world.etcd.when(world.process(unit), Moment::Landed, move || {
            freeze_for(&then, unit, fault.lasts);
            let lost = Rc::clone(&then);
            // The answer still gets there.
            let wait = then.scene.link.most * 3;
            then.plant.sim.after(wait, move || lose(&lost, domain, fault));
        });
    }
}

/// A paused host goes on a while after another one was made the holder, or when that takes too
/// long.
fn thaw_once_replaced(world: &Rc<World>, domain: usize, epoch: u64, late: Duration) {
    let end = world.plant.sim.now() + LONGEST_PAUSE;
    look_for_successor(Rc::clone(world), Paused { domain, epoch, late, end });
}

/// A domain that is paused until its epoch is over.
#[derive(Clone, Copy)]
struct Paused {
    domain: usize,
    epoch: u64,
    late: Duration,
    end: Duration,
}

fn look_for_successor(world: Rc<World>, paused: Paused) {
    let sim = world.plant.sim.clone();
    let replaced = world.plant.checks.record().is_some_and(|record| record.epoch > paused.epoch);
    if replaced || sim.now() > paused.end {
        sim.after(paused.late, move || thaw(&world, paused.domain));
    } else {
        sim.after(LOOK, move || look_for_successor(world, paused));
    }
}

/// A name server loses the name; the controller beside the holder is frozen when it is about to put
/// that right, then the holder's servers are, and it goes on where the next one is led to already.
fn mislead(world: &Rc<World>, holds: usize, chance: &mut Chance) {
    let unit = Unit::Controller(holds);
    let place = chance.place(world.name_servers().len());
    let servers = world.units().into_iter().filter(|unit| matches!(unit, Unit::Postgres(_)));
    let servers: Vec<Unit> = servers.filter(|unit| world.domain(*unit) == holds).collect();
    let late = chance.between(Duration::from_millis(500), Duration::from_millis(3000));
    let then = Rc::clone(world);
    world.plant.when_pointing(world.process(unit), move || {
        freeze_for(&then, unit, LONGEST_PAUSE);
        servers.iter().for_each(|server| freeze_for(&then, *server, LONGEST_PAUSE));
        let epoch = then.plant.checks.record().map_or(0, |record| record.epoch);
        thaw_once_led(then, unit, epoch, late);
    });
    world.name_servers()[place].lose();
}

/// A frozen controller goes on a while after a later epoch serves.
fn thaw_once_led(world: Rc<World>, unit: Unit, epoch: u64, late: Duration) {
    let (sim, process) = (world.plant.sim.clone(), world.process(unit));
    if !sim.is_frozen(process) {
        return;
    }
    let record = world.plant.checks.record();
    let led =
        record.is_some_and(|record| record.epoch > epoch && record.state == EpochState::Serving);
    let thaws = sim.clone();
    match led {
        true => sim.after(late, move || {
            thaws.note_of(process, "goes on");
            thaws.thaw(process);
        }),
        false => sim.after(LOOK, move || thaw_once_led(world, unit, epoch, late)),
    }
}

fn unplug(world: &Rc<World>, fault: Fault) {
    world.plant.unplug(true);
    let lasts = fault.lasts * 3;
    later(world, Fault { lasts, ..fault }, Box::new(|world| world.plant.unplug(false)));
}
