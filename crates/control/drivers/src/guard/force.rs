//! The guard's work, done by an agent because the guard is frozen.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use lifeboat_environment::{Clock, SystemClock};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::processes::living_below;
use crate::Killed;

/// Kills everything below the upper process of a guard, and then that one. While it lives, frozen
/// or not, orphans come to it: so none below it means none at all.
pub(super) fn kill_below(keeper: Pid, limit: Duration) -> io::Result<Killed> {
    let start = SystemClock.elapsed();
    // Whoever runs could start what is not in the list yet.
    kill(keeper, Signal::SIGSTOP)?;
    let mut seen = BTreeSet::new();
    loop {
        let living = living_below(keeper)?;
        let took = SystemClock.elapsed().saturating_sub(start);
        if living.is_empty() {
            kill(keeper, Signal::SIGKILL)?;
            // The lower process of the guard was one of them.
            let processes = u32::try_from(seen.len()).unwrap_or(u32::MAX).saturating_sub(1);
            return Ok(Killed { processes, took });
        }
        if took > limit {
            // Whatever froze it: it goes on where this process gives up.
            kill(keeper, Signal::SIGCONT)?;
            let left: Vec<_> = living.iter().map(ToString::to_string).collect();
            return Err(io::Error::other(format!("still there: {}", left.join(", "))));
        }
        for pid in living {
            seen.insert(pid);
            let _ = kill(pid, Signal::SIGKILL);
        }
        SystemClock.sleep(Duration::from_millis(2));
    }
}
