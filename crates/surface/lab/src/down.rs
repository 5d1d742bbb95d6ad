//! `lifeboat lab down`: nothing of a lab is left, whatever became of it before.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use lifeboat_environment::{Clock, SystemClock};
use lifeboat_telemetry::{Code, Failure, Outcome};

use crate::layout::{Domain, Isolation, Layout};
use crate::process::{freeze, kill_all, of_lab};
use crate::state::{self, local};
use crate::{disk, network};

/// What is dead leaves its group within this.
const DISSOLVED: Duration = Duration::from_secs(10);

/// What was taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone {
    /// Whether there was a lab at all.
    pub found: bool,
    /// How many processes were ended.
    pub processes: usize,
}

/// Takes a lab away. What it is made of is found by the name of its directory, so no state file
/// needs to be left, and doing it twice is no error.
pub fn down(root: &Path) -> Outcome<Gone> {
    let remembered = state::read(root).ok();
    let isolation = remembered.as_ref().map_or(Isolation::Namespaces, |state| state.isolation);
    let layout = Layout::new(root, isolation);
    let is_there = root.exists();
    if is_there && !state::is_lab(root) && !is_empty(root) {
        let message = format!("{} is not empty, and no lab", root.display());
        return Err(Failure::new(Code::LabInTheWay, message)
            .hint("Nothing was touched. Name the lab's directory with --directory."));
    }
    for domain in Domain::ALL {
        freeze(&layout, domain, false)?;
    }
    let mut everything = of_lab(&layout);
    let units = remembered.iter().flat_map(|state| &state.units);
    everything.extend(units.filter_map(|unit| unit.process).flat_map(crate::process::tree));
    let processes = everything.len();
    kill_all(|| {
        let mut left = of_lab(&layout);
        let alive = |one: &&crate::process::Identity| one.life() != crate::process::Life::Down;
        left.extend(everything.iter().filter(alive));
        left
    })?;
    disk::unmount_below(root)?;
    network::tear_down(&layout)?;
    for domain in Domain::ALL {
        remove_group(&layout.cgroup().join(domain.name()))?;
    }
    remove_group(&layout.cgroup())?;
    if is_there {
        fs::remove_dir_all(root).map_err(|error| local("cannot remove", root).because(error))?;
    }
    Ok(Gone { found: is_there || processes > 0, processes })
}

fn is_empty(root: &Path) -> bool {
    fs::read_dir(root).is_ok_and(|mut entries| entries.next().is_none())
}

/// A process that has ended is in its group until the kernel has taken it apart.
fn remove_group(path: &Path) -> Outcome<()> {
    let end = SystemClock.elapsed() + DISSOLVED;
    loop {
        match fs::remove_dir(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error)
                if error.kind() == ErrorKind::ResourceBusy && SystemClock.elapsed() < end =>
            {
                SystemClock.sleep(Duration::from_millis(20));
            }
            done => return done.map_err(|error| local("cannot remove", path).because(error)),
        }
    }
}
