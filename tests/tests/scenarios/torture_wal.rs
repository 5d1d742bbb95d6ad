//! No commit that a client was told of is lost, whatever is killed: the server, a receiver, the
//! store, all of the east, in any mix.
//!
//! A sample runs always, 200 rounds by `cargo xtask torture wal`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lifeboat_environment::{Clock, Random, SeededRandom, SystemClock};
use lifeboat_scenarios::streamed::{Durable, Streamed};
use lifeboat_scenarios::sweep::Extent;
use lifeboat_testkit::process::tree;
use lifeboat_testkit::store::{Fault, Kind, Profile};
use nix::sys::signal::{Signal, kill};

#[test]
fn pg15_no_told_commit_is_lost_in_random_kills() -> Result<()> {
    torture(6, 1)
}

#[test]
#[ignore = "takes long: cargo xtask torture wal"]
fn full_no_told_commit_is_lost_in_random_kills() -> Result<()> {
    match Extent::full() {
        Extent::Full { rounds, seed } => torture(rounds, seed),
        Extent::Sample(rounds) => torture(rounds, 1),
    }
}

/// Who is hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Server,
    East,
    West,
    Store,
}

/// What is done to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blow {
    /// SIGKILL. The store breaks all connections, and nobody listens.
    Kill,
    /// SIGSTOP, and SIGKILL later. The store answers 500 to everything, whether done or not.
    StopAndKill,
    /// SIGSTOP, and SIGCONT later. The store does as it is told, and loses the answers.
    StopAndGoOn,
}

/// What happens in a round.
#[derive(Debug)]
struct Plan {
    load: Duration,
    blows: Vec<(Victim, Blow)>,
    pause: Duration,
    /// The east is lost.
    destroys: bool,
    /// A copy is restored although nothing is lost.
    samples: bool,
}

/// What a run came to.
#[derive(Debug, Default)]
struct Tally {
    blows: BTreeMap<String, usize>,
    destroyed: usize,
    restored: usize,
    told: usize,
}

impl Plan {
    fn draw(random: &SeededRandom, is_last: bool) -> Self {
        let below = |limit: u64| random.next_u64() % limit;
        let victims = [Victim::Server, Victim::East, Victim::West, Victim::Store];
        let chosen = 1 + below(15);
        let hit = victims.into_iter().enumerate().filter(|(bit, _)| chosen & (1 << bit) != 0);
        let mut blows: Vec<_> = hit
            .map(|(_, victim)| {
                let blow = [Blow::Kill, Blow::StopAndKill, Blow::StopAndGoOn][below(3) as usize];
                (victim, blow)
            })
            .collect();
        for at in (1..blows.len()).rev() {
            blows.swap(at, below(at as u64 + 1) as usize);
        }
        Self {
            load: Duration::from_millis(100 + below(600)),
            blows,
            pause: Duration::from_millis(below(400)),
            destroys: below(6) == 0 || is_last,
            samples: below(4) == 0,
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { load, blows, pause, .. } = self;
        write!(formatter, "{} ms of load, {blows:?}", load.as_millis())?;
        write!(formatter, " within {} ms", pause.as_millis())
    }
}

fn torture(rounds: usize, seed: u64) -> Result<()> {
    let mut tally = Tally::default();
    let random = SeededRandom::new(seed);
    let mut life: Option<Streamed> = None;
    for round in 1..=rounds {
        let durable = if random.next_u64() % 4 == 0 { Durable::Repository } else { Durable::Spool };
        let plan = Plan::draw(&random, round == rounds);
        let mut streamed = match life.take() {
            Some(streamed) => streamed,
            None => Streamed::start(durable)?,
        };
        let place = format!("round {round} of seed {seed}: {plan}");
        if let Err(error) = one_round(&mut streamed, &plan, &place, &mut tally) {
            let folder = PathBuf::from(format!("/tmp/lifeboat-torture-wal-{seed}-{round}"));
            streamed.keep_evidence(&folder)?;
            return Err(error.context(format!("{place}; evidence in {}", folder.display())));
        }
        if plan.destroys {
            tally.told += streamed.clients.told();
        } else {
            life = Some(streamed);
        }
    }
    let Tally { blows, destroyed, restored, told } = &tally;
    println!("torture wal: seed {seed}, {rounds} rounds, {destroyed} times the east destroyed");
    println!("  hit: {blows:?}");
    println!("  restored from the west alone {restored} times; RPO: 0 lost of {told} told");
    ensure!(blows.keys().any(|name| name.contains("Kill")), "nothing was killed");
    ensure!(*told > 0, "nobody was told of a commit");
    Ok(())
}

fn one_round(
    streamed: &mut Streamed,
    plan: &Plan,
    place: &str,
    tally: &mut Tally,
) -> Result<()> {
    let before = streamed.clients.told();
    SystemClock.sleep(plan.load);
    strike(streamed, plan, tally)?;
    // Whatever the store did not do before, it does now; its data is what it was.
    streamed.proxy.reset();
    if plan.blows.contains(&(Victim::Store, Blow::Kill)) {
        streamed.store.revive()?;
    }
    let outcome = if plan.destroys {
        streamed.lose_east()?;
        tally.destroyed += 1;
        tally.restored += 1;
        format!("east destroyed, west alone: {}", streamed.restore_from_west()?)
    } else {
        streamed.repair()?;
        let mut outcome = format!("repaired: {}", streamed.clients.compare(&streamed.world.source)?);
        if plan.samples {
            tally.restored += 1;
            outcome += &format!("; west alone: {}", streamed.restore_from_west()?);
            streamed.repair()?;
        }
        outcome
    };
    println!("{place}; {} more told; {outcome}", streamed.clients.told() - before);
    Ok(())
}

/// All blows, one after the other; then what was stopped dies or goes on.
fn strike(streamed: &mut Streamed, plan: &Plan, tally: &mut Tally) -> Result<()> {
    let gap = plan.pause / (plan.blows.len() as u32 + 1);
    for (victim, blow) in &plan.blows {
        *tally.blows.entry(format!("{victim:?} {blow:?}")).or_default() += 1;
        if *victim == Victim::Store {
            hit_store(streamed, *blow);
        } else {
            let first = if *blow == Blow::Kill { Signal::SIGKILL } else { Signal::SIGSTOP };
            signal(streamed, *victim, first)?;
        }
        SystemClock.sleep(gap);
    }
    SystemClock.sleep(gap);
    for (victim, blow) in plan.blows.iter().filter(|(victim, _)| *victim != Victim::Store) {
        match blow {
            Blow::Kill => {}
            Blow::StopAndKill => signal(streamed, *victim, Signal::SIGKILL)?,
            Blow::StopAndGoOn => signal(streamed, *victim, Signal::SIGCONT)?,
        }
    }
    Ok(())
}

fn hit_store(streamed: &mut Streamed, blow: Blow) {
    match blow {
        Blow::Kill => streamed.store.kill(),
        Blow::StopAndKill => {
            streamed.proxy.set_profile(Profile::FDB_HEAVY);
            streamed.proxy.fail_kind(Kind::Put, Fault::ErrorAfterwards);
        }
        Blow::StopAndGoOn => streamed.proxy.fail_kind(Kind::Put, Fault::LostReply),
    }
}

/// Sends a signal to a victim and everything below it; nobody survives SIGKILL.
fn signal(streamed: &mut Streamed, victim: Victim, signal: Signal) -> Result<()> {
    let host = match victim {
        Victim::Server => {
            if signal == Signal::SIGKILL {
                return streamed.world.source.kill9();
            }
            let server = streamed.world.source.pid().context("no server")?;
            for process in tree(server) {
                let _ = kill(process, signal);
            }
            return Ok(());
        }
        Victim::East => &mut streamed.east,
        Victim::West => &mut streamed.west,
        Victim::Store => return Ok(()),
    };
    host.receiver()?.signal(signal)?;
    if signal == Signal::SIGKILL { host.is_gone() } else { Ok(()) }
}
