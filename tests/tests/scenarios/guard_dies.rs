//! Whatever dies or freezes, nobody is told of a commit later than deadline + fence_deadline (R8,
//! R9, R12), and nothing of the instance is left.
//!
//! Each with a PID namespace, as root, and with subreapers, as the owner of the data. Not here,
//! because it is not kept: without root, both processes of the guard killed in the same instant.

use std::time::Duration;

use anyhow::{Result, ensure};
use lifeboat_drivers::guard::{EndReason, Mode, processes};
use lifeboat_environment::{Clock, SystemClock};
use lifeboat_scenarios::commits::{Acknowledged, Sessions, prepare};
use lifeboat_scenarios::guarded::{Agent, FENCE_DEADLINE, Guarded};
use lifeboat_testkit::process::{PATIENCE, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How far ahead the deadline is. Longer than the fence may take: who dies at once is told apart.
const LIFE: Duration = Duration::from_secs(4);

/// What happens to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Nobody extends any more.
    AgentGone,
    Kill(Victim),
    Freeze(Victim),
    /// The upper process is frozen, and nobody asks it any more.
    FreezeKeeperAgentGone,
    /// Both processes of the guard at once; only a namespace survives that.
    KillBoth,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Keeper,
    Init,
    Postmaster,
    /// Every process of PostgreSQL.
    Instance,
}

impl Victim {
    fn processes(self, guarded: &Guarded) -> Result<Vec<Pid>> {
        let status = guarded.client.status()?;
        Ok(match self {
            Self::Keeper => vec![Pid::from_raw(status.keeper)],
            Self::Init => status.init.map(Pid::from_raw).into_iter().collect(),
            Self::Postmaster => status.postmaster.map(Pid::from_raw).into_iter().collect(),
            Self::Instance => guarded.instance()?,
        })
    }
}

impl Fault {
    /// Hits, and returns when the last acknowledgement may come.
    fn hit(self, guarded: &Guarded, agent: &Agent) -> Result<Duration> {
        let (signal, victims) = match self {
            Self::AgentGone => return Ok(agent.asked()),
            Self::Kill(victim) => (Signal::SIGKILL, victim.processes(guarded)?),
            Self::KillBoth => {
                let both = [Victim::Keeper.processes(guarded)?, Victim::Init.processes(guarded)?];
                (Signal::SIGKILL, both.concat())
            }
            Self::Freeze(victim) => (Signal::SIGSTOP, victim.processes(guarded)?),
            Self::FreezeKeeperAgentGone => (Signal::SIGSTOP, Victim::Keeper.processes(guarded)?),
        };
        ensure!(!victims.is_empty(), "there is nobody to hit");
        for victim in &victims {
            kill(*victim, signal)?;
        }
        Ok(match signal {
            // At once, not at the deadline.
            Signal::SIGKILL => SystemClock.elapsed(),
            _ => agent.asked(),
        })
    }

    fn ends_agent(self) -> bool {
        // An agent whose own probe fails does not extend.
        let silent = [Self::AgentGone, Self::FreezeKeeperAgentGone, Self::Freeze(Victim::Instance)];
        silent.contains(&self)
    }
}

fn nothing_is_acknowledged_too_late(mode: Mode, fault: Fault) -> Result<()> {
    let guarded = Guarded::new(mode)?;
    guarded.start(Some(SystemClock.elapsed() + LIFE))?;
    prepare(&guarded.cluster.connection())?;
    let agent = Agent::start(guarded.plan.socket(), LIFE);
    let sessions = Sessions::start(&guarded.connections())?;
    sessions.wait_for_more(30)?;
    let all = guarded.processes()?;
    ensure!(all.len() > 8, "only {all:?} were there");

    let mut agent = Some(agent);
    let bound = match &agent {
        Some(agent) if fault == Fault::AgentGone => agent.asked(),
        Some(agent) => fault.hit(&guarded, agent)?,
        None => Duration::ZERO,
    };
    let hit = SystemClock.elapsed();
    let bound = if fault.ends_agent() {
        let last = agent.as_ref().map_or(bound, Agent::asked);
        agent.take().map(Agent::stop).transpose()?;
        last.max(bound)
    } else {
        bound
    };
    let acknowledged = sessions.lost()?;
    guarded.wait_until_gone()?;
    if let Some(agent) = agent {
        agent.stop()?;
    }
    judge(&acknowledged, hit, bound)?;
    all_are_gone(&guarded, fault, &all)?;
    told_why(&guarded, fault, &all)
}

fn judge(acknowledged: &[Acknowledged], hit: Duration, bound: Duration) -> Result<()> {
    let before = acknowledged.iter().filter(|one| one.at < hit).count();
    ensure!(before >= 90, "only {before} commits were acknowledged before the fault");
    let last = acknowledged.iter().map(|one| one.at).max().unwrap_or_default();
    let late = last.saturating_sub(bound + FENCE_DEADLINE);
    ensure!(late.is_zero(), "the last acknowledgement came {late:?} too late");
    Ok(())
}

/// Also whoever was frozen, but for the upper half of the guard, which tells how it ended. One that
/// is frozen itself has not yet asked for the exit code of the lower one.
fn all_are_gone(guarded: &Guarded, fault: Fault, all: &[Pid]) -> Result<()> {
    let keeper = all.first().copied();
    let left = || -> Result<Vec<Pid>> {
        let living = processes::table()?.into_iter().filter(|process| !process.ended);
        let living = living.map(|process| process.pid).filter(|pid| Some(*pid) != keeper);
        Ok(living.filter(|pid| all.contains(pid)).collect())
    };
    let gone = wait_until(PATIENCE, || Ok(left()?.is_empty()))?;
    ensure!(gone, "{:?} are left after {fault:?}:\n{}", left()?, guarded.logs());
    Ok(())
}

/// The half of the guard that lives says how it ended; one that thaws does too.
fn told_why(guarded: &Guarded, fault: Fault, all: &[Pid]) -> Result<()> {
    let keeper_is_gone = [Fault::Kill(Victim::Keeper), Fault::KillBoth].contains(&fault);
    if keeper_is_gone {
        ensure!(guarded.client.status().is_err(), "a dead guard answered");
        return Ok(());
    }
    if matches!(fault, Fault::Freeze(Victim::Keeper) | Fault::FreezeKeeperAgentGone) {
        ensure!(guarded.client.status().is_err(), "a frozen guard answered");
        all.first().map(|keeper| kill(*keeper, Signal::SIGCONT)).transpose()?;
    }
    let answers = wait_until(PATIENCE, || {
        Ok(guarded.client.status().is_ok_and(|status| status.last_end.is_some()))
    })?;
    ensure!(answers, "the guard does not say how it ended:\n{}", guarded.logs());
    let end = guarded.client.status()?.last_end.map(|end| end.reason);
    let expected = match fault {
        Fault::Kill(Victim::Postmaster) => EndReason::PostmasterEnded { code: None },
        Fault::Kill(Victim::Init) => EndReason::GuardDied,
        _ => EndReason::Deadline,
    };
    ensure!(end == Some(expected), "{end:?} after {fault:?}:\n{}", guarded.logs());
    Ok(())
}

macro_rules! faults {
    ($($name:ident: $fault:expr;)*) => {
        mod namespace {
            use super::*;
            $(#[test]
            fn $name() -> Result<()> {
                nothing_is_acknowledged_too_late(Mode::Namespace, $fault)
            })*

            #[test]
            fn both_killed() -> Result<()> {
                nothing_is_acknowledged_too_late(Mode::Namespace, Fault::KillBoth)
            }
        }

        mod subreaper {
            use super::*;
            $(#[test]
            fn $name() -> Result<()> {
                nothing_is_acknowledged_too_late(Mode::Subreaper, $fault)
            })*
        }
    };
}

faults! {
    agent_gone: Fault::AgentGone;
    keeper_killed: Fault::Kill(Victim::Keeper);
    init_killed: Fault::Kill(Victim::Init);
    postmaster_killed: Fault::Kill(Victim::Postmaster);
    keeper_frozen: Fault::Freeze(Victim::Keeper);
    init_frozen: Fault::Freeze(Victim::Init);
    instance_frozen: Fault::Freeze(Victim::Instance);
    keeper_frozen_and_agent_gone: Fault::FreezeKeeperAgentGone;
}
