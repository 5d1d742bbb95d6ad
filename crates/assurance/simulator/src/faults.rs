//! What goes wrong under a seed, and when.
//!
//! Each seed turns some kinds of faults off altogether: a fault that is always there hides what
//! the others would show.

mod aimed;

use std::rc::Rc;
use std::time::Duration;

use crate::chance::Chance;
use crate::scene::DOMAINS;
use crate::world::{Unit, World};

/// The kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A process is killed and started again.
    Kill,
    /// A process is frozen for a while.
    Freeze,
    /// A domain loses its power for a while.
    Crash,
    /// A domain is paused as a whole.
    Pause,
    /// Two domains cannot reach each other.
    Cut,
    /// One domain cannot send to another one.
    OneWay,
    /// A domain is cut off from all others, its applications included.
    Isolate,
    /// Messages are lost.
    Loss,
    /// Messages are slow, and overtake each other.
    Slow,
    /// The disk of a domain is slow.
    SlowDisk,
    /// The disk of an etcd member is slow.
    SlowEtcd,
    /// The leader of etcd is killed or frozen.
    Leader,
    /// Two etcd members are away.
    Majority,
    /// The disk of the agents of a domain is full.
    FullDisk,
    /// Somebody sets a wall clock.
    WallClock,
    /// Controllers are frozen and go on at bad moments.
    Controllers,
    /// A primary's server or agent is killed or frozen.
    Primary,
    /// etcd is restored from a snapshot, and daemons are started again.
    Restored,
    /// The holder's domain is cut off; controllers elsewhere are started again meanwhile, or a
    /// person there does not wait for them.
    Lost,
    /// The holder's agent is frozen between a renewal and its answer, and cut off after that.
    Landed,
    /// The holder's domain is paused as a whole until somebody else holds the service.
    Thaws,
    /// Controllers are frozen once they have decided, before a byte leaves them.
    Decided,
    /// A name is lost, and a controller that puts it right is frozen before a byte leaves it, until
    /// somebody else holds the service.
    Misled,
    /// Standbys find nobody to stream from; receivers do.
    Unplugged,
    /// The candidate has neither stream nor archive, and then the holder is lost.
    Stranded,
}

const ALL: [Kind; 17] = [
    Kind::Kill,
    Kind::Freeze,
    Kind::Crash,
    Kind::Pause,
    Kind::Cut,
    Kind::OneWay,
    Kind::Isolate,
    Kind::Loss,
    Kind::Slow,
    Kind::SlowDisk,
    Kind::SlowEtcd,
    Kind::Leader,
    Kind::Majority,
    Kind::FullDisk,
    Kind::WallClock,
    Kind::Controllers,
    Kind::Primary,
];

/// One fault.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// When it begins, counted from the beginning of the faults.
    pub at: Duration,
    /// What it is.
    pub kind: Kind,
    /// How long it lasts.
    pub lasts: Duration,
    /// What it is done to.
    pub target: u64,
}

/// The faults of a seed, in a span of time.
pub fn schedule(chance: &mut Chance, aimed: &mut Chance, span: Duration) -> Vec<Fault> {
    let mut faults = aimed::schedule(aimed, span);
    let on: Vec<Kind> = ALL.into_iter().filter(|_| chance.permille(450)).collect();
    if on.is_empty() {
        return faults;
    }
    let count = chance.range(1, 9);
    let one = |_| {
        let longest = if chance.permille(300) { 30_000 } else { 12_000 };
        Fault {
            at: chance.between(Duration::ZERO, span),
            kind: *chance.pick(&on),
            lasts: Duration::from_millis(chance.range(50, longest)),
            target: chance.draw(),
        }
    };
    faults.extend((0..count).map(one));
    if chance.permille(100) {
        let at = chance.between(span / 3, span * 2 / 3);
        let lasts = chance.between(span / 6, span / 3);
        faults.push(Fault { at, kind: Kind::Restored, lasts, target: chance.draw() });
    }
    faults
}

/// Lets the faults happen, counted from now.
pub fn arrange(world: &Rc<World>, faults: &[Fault]) {
    for fault in faults.iter().copied() {
        let begins = Rc::clone(world);
        world.plant.sim.after(fault.at, move || begin(&begins, fault));
    }
}

fn pick(target: u64, from: &[Unit]) -> Unit {
    from[Chance::new(target).place(from.len())]
}

/// What ends a fault.
type End = Box<dyn FnOnce(&Rc<World>)>;

/// A fault, and the failure domains that it chose.
#[derive(Clone, Copy)]
struct Blow {
    fault: Fault,
    domain: usize,
    other: usize,
}

fn begin(world: &Rc<World>, fault: Fault) {
    let domain = usize::try_from(fault.target % 3).unwrap_or_default();
    let other = (domain + 1 + usize::try_from(fault.target / 3 % 2).unwrap_or_default()) % 3;
    world.plant.sim.note("fault", format!("{:?} for {:?}", fault.kind, fault.lasts));
    let blow = Blow { fault, domain, other };
    match fault.kind {
        Kind::Cut | Kind::OneWay | Kind::Isolate | Kind::Loss | Kind::Slow => {
            strike_network(world, blow);
        }
        Kind::SlowDisk | Kind::SlowEtcd | Kind::FullDisk | Kind::Restored | Kind::WallClock => {
            strike_hosts(world, blow);
        }
        Kind::Lost
        | Kind::Landed
        | Kind::Thaws
        | Kind::Decided
        | Kind::Misled
        | Kind::Unplugged
        | Kind::Stranded => aimed::strike(world, fault),
        _ => strike_processes(world, blow),
    }
}

/// Once the fault has lasted.
fn later(world: &Rc<World>, fault: Fault, end: End) {
    let world = Rc::clone(world);
    world.plant.sim.clone().after(fault.lasts, move || end(&world));
}

/// Between the domains.
fn strike_network(world: &Rc<World>, Blow { fault, domain, other }: Blow) {
    match fault.kind {
        Kind::Cut => {
            cut(world, domain, other, true, true);
            later(world, fault, Box::new(move |world| cut(world, domain, other, true, false)));
        }
        Kind::OneWay => {
            cut(world, domain, other, false, true);
            later(world, fault, Box::new(move |world| cut(world, domain, other, false, false)));
        }
        Kind::Isolate => {
            let both = [(domain + 1) % 3, (domain + 2) % 3];
            both.into_iter().for_each(|other| cut(world, domain, other, true, true));
            later(
                world,
                fault,
                Box::new(move |world| {
                    both.into_iter().for_each(|other| cut(world, domain, other, true, false));
                }),
            );
        }
        Kind::Loss => {
            let permille = 20 + fault.target % 400;
            everywhere(world, move |link| link.lost_permille = permille);
            later(world, fault, Box::new(|world| everywhere(world, |link| link.lost_permille = 0)));
        }
        Kind::Slow => {
            let most = Duration::from_millis(50 + fault.target % 900);
            everywhere(world, move |link| link.most = most.max(link.least * 2));
            let usual = world.scene.link.most;
            later(world, fault, Box::new(move |world| everywhere(world, |link| link.most = usual)));
        }
        _ => {}
    }
}

/// Disks, clocks, and what a store remembers.
fn strike_hosts(world: &Rc<World>, Blow { fault, domain, .. }: Blow) {
    let sim = &world.plant.sim;
    match fault.kind {
        Kind::SlowDisk => {
            let host = world.host(domain);
            world.plant.slow_disk(host, true);
            later(world, fault, Box::new(move |world| world.plant.slow_disk(host, false)));
        }
        Kind::SlowEtcd => {
            world.etcd.slow_disk(domain, true);
            later(world, fault, Box::new(move |world| world.etcd.slow_disk(domain, false)));
        }
        Kind::FullDisk => {
            world.fill_disk(domain, true);
            later(world, fault, Box::new(move |world| world.fill_disk(domain, false)));
        }
        Kind::Restored => {
            let snapshot = world.etcd.truth().snapshot();
            later(world, fault, Box::new(move |world| restore(world, snapshot)));
        }
        Kind::WallClock => {
            let by = i64::try_from(fault.target % 7_200_000).unwrap_or_default() - 3_600_000;
            sim.clock(world.host(domain)).jump_wall(by);
        }
        _ => {}
    }
}

/// Processes and whole hosts.
fn strike_processes(world: &Rc<World>, Blow { fault, domain, other }: Blow) {
    match fault.kind {
        Kind::Kill => {
            let unit = pick(fault.target, &world.units());
            kill_for(world, unit, fault.lasts / 4);
        }
        Kind::Freeze => freeze_for(world, pick(fault.target, &freezable(world)), fault.lasts),
        Kind::Crash => {
            world.crash(domain);
            later(world, fault, Box::new(move |world| world.power_on(domain)));
        }
        Kind::Pause => {
            freeze(world, domain);
            later(world, fault, Box::new(move |world| thaw(world, domain)));
        }
        Kind::Leader => {
            let Some(leader) = world.etcd.leader() else { return };
            match fault.target % 2 {
                0 => kill_for(world, Unit::Etcd(leader), fault.lasts / 2),
                _ => freeze_for(world, Unit::Etcd(leader), fault.lasts),
            }
        }
        Kind::Majority => {
            for member in [domain, other] {
                kill_for(world, Unit::Etcd(member), fault.lasts);
            }
        }
        Kind::Controllers => {
            for controller in 0..3 {
                let (world, lasts) = (Rc::clone(world), fault.lasts);
                let wait = world.plant.sim.between(Duration::ZERO, Duration::from_secs(6));
                let sim = world.plant.sim.clone();
                sim.after(wait, move || freeze_for(&world, Unit::Controller(controller), lasts));
            }
        }
        Kind::Primary => {
            let holders = world.plant.checks.record().map(|record| record.holders);
            let holds = |place: &usize| {
                let node = &world.nodes()[*place];
                holders.as_ref().and_then(|all| all.get(&node.database)) == Some(&node.name)
            };
            let Some(place) = (0..world.nodes().len()).find(holds) else { return };
            match fault.target % 4 {
                0 => kill_for(world, Unit::Agent(place), fault.lasts / 2),
                1 => freeze_for(world, Unit::Agent(place), fault.lasts),
                2 => world.kill(Unit::Postgres(place)),
                _ => freeze_for(world, Unit::Postgres(place), fault.lasts),
            }
        }
        _ => {}
    }
}

/// etcd comes back as it was; whoever repaired it starts most daemons again.
fn restore(world: &Rc<World>, snapshot: lifeboat_quorum::MemoryStore) {
    let sim = &world.plant.sim;
    sim.note("etcd", "is restored from a snapshot");
    for unit in world.units().into_iter().filter(|unit| matches!(unit, Unit::Etcd(_))) {
        world.power_on(world.domain(unit));
        world.start(unit);
    }
    world.etcd.restore(snapshot);
    let record = world.etcd.truth().value(&world.keys.epoch(&world.scene.service.name));
    world.plant.checks.was_restored(record.as_deref());
    for unit in world.units() {
        let daemon = matches!(unit, Unit::Agent(_) | Unit::Controller(_));
        if daemon && sim.chance(|chance| chance.permille(700)) {
            let after = Rc::clone(world);
            let wait = sim.between(Duration::ZERO, Duration::from_secs(5));
            sim.after(wait, move || kill_for(&after, unit, Duration::from_millis(300)));
        }
    }
}

fn freezable(world: &World) -> Vec<Unit> {
    // A guard is two processes; one that is frozen alone is stood in for by the other one.
    world.units().into_iter().filter(|unit| !matches!(unit, Unit::Guard(_))).collect()
}

/// Kills a process, and starts it again after a while.
fn kill_for(world: &Rc<World>, unit: Unit, lasts: Duration) {
    // Where there is no power, there is no process.
    if world.is_down(world.domain(unit)) || world.plant.sim.is_frozen(world.process(unit)) {
        return;
    }
    world.kill(unit);
    let after = Rc::clone(world);
    world.plant.sim.after(lasts, move || after.start(unit));
}

fn freeze_for(world: &Rc<World>, unit: Unit, lasts: Duration) {
    let process = world.process(unit);
    let sim = world.plant.sim.clone();
    if sim.is_frozen(process) || !world.is_running(unit) {
        return;
    }
    sim.note_of(process, format!("is frozen for {lasts:?}"));
    sim.freeze(process);
    world.plant.sim.after(lasts, move || {
        if sim.is_frozen(process) {
            sim.note_of(process, "goes on");
            sim.thaw(process);
        }
    });
}

/// Pauses a whole domain.
fn freeze(world: &Rc<World>, domain: usize) {
    if world.is_down(domain) {
        return;
    }
    world.plant.sim.note(DOMAINS[domain], "is paused as a whole");
    world.plant.checks.is_paused(world.host(domain));
    for unit in world.units().into_iter().filter(|unit| world.domain(*unit) == domain) {
        world.plant.sim.freeze(world.process(unit));
    }
}

/// A paused domain goes on; its processes one after the other, in any order.
fn thaw(world: &Rc<World>, domain: usize) {
    let sim = &world.plant.sim;
    // Its guard finds the deadline over and kills within its time; it may wake last.
    let kills = world.scene.service.timing.fence_deadline + Duration::from_millis(100);
    if !world.plant.checks.goes_on(world.host(domain), sim.now() + kills) {
        return;
    }
    sim.note(DOMAINS[domain], "goes on");
    for unit in world.units().into_iter().filter(|unit| world.domain(*unit) == domain) {
        let (thaws, process) = (sim.clone(), world.process(unit));
        sim.after(sim.between(Duration::ZERO, Duration::from_millis(20)), move || {
            thaws.thaw(process);
        });
    }
}

fn cut(world: &World, from: usize, to: usize, both: bool, is_cut: bool) {
    let names = (DOMAINS[from], DOMAINS[to]);
    let way = if both { "and" } else { "to" };
    let what = if is_cut { "is cut" } else { "works again" };
    world.plant.sim.note("network", format!("{} {way} {} {what}", names.0, names.1));
    for one in world.hosts_of(from) {
        for other in world.hosts_of(to) {
            world.plant.network.set(one, other, |link| link.cut = is_cut);
            if both {
                world.plant.network.set(other, one, |link| link.cut = is_cut);
            }
        }
    }
}

fn everywhere(world: &World, change: impl Fn(&mut crate::network::Link)) {
    let hosts: Vec<_> = (0..3).flat_map(|domain| world.hosts_of(domain)).collect();
    for one in &hosts {
        for other in hosts.iter().filter(|other| *other != one) {
            world.plant.network.set(*one, *other, &change);
        }
    }
}

/// Everything works again.
pub fn heal(world: &Rc<World>) {
    world.plant.sim.note("fault", "everything is healed");
    world.plant.network.heal();
    world.plant.unplug(false);
    world.etcd.forget_moments();
    world.plant.forget_moments();
    for domain in 0..3 {
        world.plant.slow_disk(world.host(domain), false);
        world.etcd.slow_disk(domain, false);
        world.fill_disk(domain, false);
        world.power_on(domain);
        thaw(world, domain);
    }
    for unit in world.units() {
        world.plant.sim.thaw(world.process(unit));
        world.start(unit);
    }
}
