//! No commit that a client was told of is lost, whatever is killed: the server, a receiver, the
//! store, all of the east, in any mix.
//!
//! A sample runs always, 200 rounds by `cargo xtask torture wal`.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lifeboat_environment::{Clock, Random, SeededRandom, SystemClock};
use lifeboat_scenarios::streamed::{Durable, Streamed};
use lifeboat_scenarios::sweep::Extent;
use lifeboat_testkit::scratch::Scratch;
use lifeboat_testkit::store::{Fault, Kind, Profile};
use nix::sys::signal::Signal;

#[test]
fn pg15_no_told_commit_is_lost_in_random_kills() -> Result<()> {
    // Every blow there is, one copy beside the living world, and the east lost twice: once while
    // commits wait for the west's spool, once while they wait for its repository.
    torture(6, 2627)
}

#[test]
#[ignore = "takes long: cargo xtask torture wal"]
fn full_no_told_commit_is_lost_in_random_kills() -> Result<()> {
    match Extent::full(1, 1) {
        Extent::Full { rounds, seed, .. } => torture(rounds, seed),
        Extent::Sample(rounds) => torture(rounds, 1),
    }
}

#[test]
fn pg15_commits_that_wait_for_nobody_are_lost_and_that_is_seen() -> Result<()> {
    let mut streamed = Streamed::start(Durable::Spool)?;
    streamed.wait_for_nobody()?;
    strike(&mut streamed, Blow::Server(How::Stopped))?;
    strike(&mut streamed, Blow::West(How::Killed))?;
    release(&mut streamed, Blow::Server(How::Stopped))?;
    let before = streamed.clients.told();
    streamed.world.wait_until("commits", || Ok(streamed.clients.told() > before + 10))?;
    streamed.lose_east()?;
    let error = streamed.restore_from_west().err().context("nothing was lost")?;
    ensure!(format!("{error:#}").contains("lost of"), "{error:#}");
    let evidence = Scratch::new()?;
    streamed.keep_evidence(evidence.path())?;
    for (log, line) in [("server.log", "ready to accept"), ("west.log", "--drain")] {
        let text = fs::read_to_string(evidence.join(log))?;
        ensure!(text.contains(line), "{log}: {text}");
    }
    ensure!(evidence.join("west/lifeboat/format").exists(), "the west's store was not kept");
    Ok(())
}

/// What is done to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum How {
    /// SIGKILL, to everything below it too.
    Killed,
    /// SIGSTOP, and SIGKILL at the end of the wave.
    StoppedThenKilled,
    /// SIGSTOP, and SIGCONT at the end of the wave.
    Stopped,
}

/// What is done to the west's store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Trouble {
    /// Its connections break, and nobody listens until the end of the wave.
    Killed,
    /// Some calls fail, others come late; of a PUT nobody hears but 500, although it was done.
    Errors,
    /// PUTs are done, and the connection ends without an answer.
    LostReplies,
}

/// Who is hit, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Blow {
    Server(How),
    East(How),
    West(How),
    Store(Trouble),
}

/// Blows that fall together.
#[derive(Debug)]
struct Wave {
    /// How long everything works before.
    load: Duration,
    blows: Vec<Blow>,
    /// Between two blows, and before what was stopped dies or goes on.
    gap: Duration,
}

/// What happens in a round.
#[derive(Debug)]
struct Plan {
    /// The second one hits what is just about to come back.
    waves: Vec<Wave>,
    /// The east is lost.
    destroys: bool,
    /// A copy is restored although nothing is lost.
    samples: bool,
}

/// What a run came to.
#[derive(Debug, Default)]
struct Tally {
    blows: BTreeMap<Blow, usize>,
    destroyed: usize,
    restored: usize,
    told: usize,
}

impl Wave {
    fn draw(random: &SeededRandom, shortest: u64, longest: u64) -> Self {
        let below = |limit: u64| random.next_u64() % limit;
        let chosen = 1 + below(15);
        let mut blows = Vec::new();
        for victim in (0..4).filter(|bit| chosen & (1 << bit) != 0) {
            let which = below(3) as usize;
            let how = [How::Killed, How::StoppedThenKilled, How::Stopped][which];
            let trouble = [Trouble::Killed, Trouble::Errors, Trouble::LostReplies][which];
            blows.push(match victim {
                0 => Blow::Server(how),
                1 => Blow::East(how),
                2 => Blow::West(how),
                _ => Blow::Store(trouble),
            });
        }
        for at in (1..blows.len()).rev() {
            blows.swap(at, below(at as u64 + 1) as usize);
        }
        Self {
            load: Duration::from_millis(shortest + below(longest - shortest)),
            blows,
            gap: Duration::from_millis(below(150)),
        }
    }
}

impl Plan {
    fn draw(random: &SeededRandom, is_last: bool) -> Self {
        let mut waves = vec![Wave::draw(random, 100, 700)];
        if random.next_u64().is_multiple_of(3) {
            waves.push(Wave::draw(random, 0, 700));
        }
        Self {
            waves,
            destroys: random.next_u64().is_multiple_of(6) || is_last,
            samples: random.next_u64().is_multiple_of(4),
        }
    }

    fn show(&self) -> String {
        let wave = |Wave { load, blows, gap }: &Wave| {
            format!("{} ms, {blows:?} {} ms apart", load.as_millis(), gap.as_millis())
        };
        self.waves.iter().map(wave).collect::<Vec<_>>().join(", then ")
    }
}

fn torture(rounds: usize, seed: u64) -> Result<()> {
    let mut tally = Tally::default();
    let random = SeededRandom::new(seed);
    let mut world: Option<Streamed> = None;
    for round in 1..=rounds {
        let durable = match random.next_u64() % 4 {
            0 => Durable::Repository,
            _ => Durable::Spool,
        };
        let plan = Plan::draw(&random, round == rounds);
        let place = format!("round {round} of seed {seed}: {}", plan.show());
        let mut streamed = match world.take() {
            Some(streamed) => streamed,
            None => {
                println!("a new world, in which commits wait for the west's {durable:?}");
                Streamed::start(durable).with_context(|| format!("before {place}"))?
            }
        };
        match one_round(&mut streamed, &plan, &mut tally) {
            Ok(outcome) => println!("{place}: {outcome}"),
            Err(error) => {
                let folder = PathBuf::from(format!("/tmp/lifeboat-torture-wal-{seed}-{round}"));
                streamed.keep_evidence(&folder)?;
                return Err(error.context(format!("{place}; evidence in {}", folder.display())));
            }
        }
        if plan.destroys {
            tally.told += streamed.clients.told();
        } else {
            world = Some(streamed);
        }
    }
    let Tally { blows, destroyed, restored, told } = &tally;
    println!("torture wal: seed {seed}, {rounds} rounds, {destroyed} times the east destroyed");
    println!("  {blows:?}");
    println!("  restored from the west alone {restored} times; RPO: 0 lost of {told} told");
    ensure!(blows.keys().any(|blow| blow.kills()), "nothing was killed");
    ensure!(*told > 0, "nobody was told of a commit");
    Ok(())
}

fn one_round(streamed: &mut Streamed, plan: &Plan, tally: &mut Tally) -> Result<String> {
    let before = streamed.clients.told();
    for (number, wave) in plan.waves.iter().enumerate() {
        if number > 0 {
            streamed.revive()?;
        }
        SystemClock.sleep(wave.load);
        hit(streamed, wave, tally)?;
    }
    let mut outcome = String::new();
    if plan.destroys {
        streamed.lose_east()?;
        outcome += &format!("east destroyed, west alone: {}", streamed.restore_from_west()?);
    } else {
        streamed.repair()?;
        outcome += &format!("repaired: {}", streamed.clients.compare(&streamed.world.source)?);
        if plan.samples {
            outcome += &format!("; west alone: {}", streamed.restore_from_west()?);
            streamed.repair()?;
        }
    }
    tally.destroyed += usize::from(plan.destroys);
    tally.restored += usize::from(plan.destroys || plan.samples);
    Ok(format!("{} more told; {outcome}", streamed.clients.told() - before))
}

/// All blows, one after the other; then what was stopped dies or goes on.
fn hit(streamed: &mut Streamed, wave: &Wave, tally: &mut Tally) -> Result<()> {
    for blow in &wave.blows {
        *tally.blows.entry(*blow).or_default() += 1;
        strike(streamed, *blow)?;
        SystemClock.sleep(wave.gap);
    }
    for blow in &wave.blows {
        release(streamed, *blow)?;
    }
    Ok(())
}

impl Blow {
    fn kills(self) -> bool {
        match self {
            Self::Server(how) | Self::East(how) | Self::West(how) => how != How::Stopped,
            Self::Store(trouble) => trouble == Trouble::Killed,
        }
    }
}

fn strike(streamed: &mut Streamed, blow: Blow) -> Result<()> {
    let first = |how| if how == How::Killed { Signal::SIGKILL } else { Signal::SIGSTOP };
    match blow {
        Blow::Server(how) => streamed.signal_server(first(how))?,
        Blow::East(how) => streamed.east.signal(first(how))?,
        Blow::West(how) => streamed.west.signal(first(how))?,
        Blow::Store(Trouble::Killed) => streamed.store.kill(),
        Blow::Store(Trouble::Errors) => {
            streamed.proxy.set_profile(Profile::FDB_HEAVY);
            streamed.proxy.fail_kind(Kind::Put, Fault::ErrorAfterwards);
        }
        Blow::Store(Trouble::LostReplies) => {
            streamed.proxy.fail_kind(Kind::Put, Fault::LostReply);
        }
    }
    Ok(())
}

fn release(streamed: &mut Streamed, blow: Blow) -> Result<()> {
    let last = |how| match how {
        How::Killed => None,
        How::StoppedThenKilled => Some(Signal::SIGKILL),
        How::Stopped => Some(Signal::SIGCONT),
    };
    match blow {
        Blow::Server(how) => last(how).map_or(Ok(()), |signal| streamed.signal_server(signal)),
        Blow::East(how) => last(how).map_or(Ok(()), |signal| streamed.east.signal(signal)),
        Blow::West(how) => last(how).map_or(Ok(()), |signal| streamed.west.signal(signal)),
        Blow::Store(Trouble::Killed) => streamed.store.revive(),
        Blow::Store(Trouble::Errors | Trouble::LostReplies) => {
            streamed.proxy.reset();
            Ok(())
        }
    }
}
