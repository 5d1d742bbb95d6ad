//! What a lab remembers: its processes and the faults in it. Written before each act, so that
//! `lab down` finds everything also after the lab was killed.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use lifeboat_telemetry::{Code, Failure, Outcome};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::fault::Fault;
use crate::layout::{Domain, Isolation, Layout};
use crate::process::Identity;

const FILE: &str = "lab.json";
const LOCK: &str = "lab.lock";

/// A process that the lab keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unit {
    /// Where it runs.
    pub domain: Domain,
    /// What it is: `etcd`, `agent`, …
    pub name: String,
    /// Whether it keeps root's rights, where the lab has them.
    pub privileged: bool,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Its variables besides the usual ones.
    pub variables: BTreeMap<String, String>,
    /// Whether it runs once it was started, and starts with the host.
    pub enabled: bool,
    /// The process, if it was started.
    pub process: Option<Identity>,
}

impl Unit {
    /// As people name it: `east/etcd`.
    pub fn label(&self) -> String {
        format!("{}/{}", self.domain, self.name)
    }
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// The version of this file: 1.
    pub version: u32,
    /// How domains are kept apart.
    pub isolation: Isolation,
    /// Whether `lab up` came to its end.
    pub complete: bool,
    /// The processes, in the order in which a host starts them.
    pub units: Vec<Unit>,
    /// The faults that were injected and not healed.
    pub faults: Vec<Fault>,
    /// Everything that was ever done to it: a check without any proves nothing.
    pub disturbances: Vec<Disturbed>,
}

/// A fault or a move, and when it happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disturbed {
    /// What.
    pub name: String,
    /// When, in nanoseconds of CLOCK_BOOTTIME.
    pub at_ns: u64,
}

impl State {
    /// A lab with nothing in it.
    pub fn new(isolation: Isolation) -> Self {
        Self {
            version: 1,
            isolation,
            complete: false,
            units: Vec::new(),
            faults: Vec::new(),
            disturbances: Vec::new(),
        }
    }

    /// A unit by domain and name.
    pub fn unit(&self, domain: Domain, name: &str) -> Option<&Unit> {
        self.units.iter().find(|unit| unit.domain == domain && unit.name == name)
    }
}

/// A lab's directory, held by one command at a time.
#[derive(Debug)]
pub struct Held {
    /// Names and addresses.
    pub layout: Layout,
    /// What is remembered.
    pub state: State,
    _lock: Flock<fs::File>,
}

impl Held {
    /// Takes a new lab's directory.
    pub fn create(layout: Layout) -> Outcome<Self> {
        let lock = lock(layout.root())?;
        let held = Self { state: State::new(layout.isolation), layout, _lock: lock };
        held.save()?;
        Ok(held)
    }

    /// Takes the directory of a lab that is there.
    pub fn open(root: &Path) -> Outcome<Self> {
        let state = read(root)?;
        let lock = lock(root)?;
        // Whoever held it before may have changed it.
        let state = read(root).unwrap_or(state);
        let layout = Layout::new(root, state.isolation);
        Ok(Self { layout, state, _lock: lock })
    }

    /// Writes what is remembered; durable when this returns.
    pub fn save(&self) -> Outcome<()> {
        let path = self.layout.root().join(FILE);
        let draft = path.with_extension("draft");
        let text = serde_json::to_vec_pretty(&self.state)
            .map_err(|error| local("cannot write", &path).because(error))?;
        let written = fs::File::create(&draft).and_then(|mut file| {
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&draft, &path)
        });
        written.map_err(|error| local("cannot write", &path).because(error))
    }
}

/// What a lab remembers, for whoever only looks.
pub fn read(root: &Path) -> Outcome<State> {
    let path = root.join(FILE);
    let bytes = fs::read(&path).map_err(|error| {
        Failure::new(Code::LabMissing, format!("there is no lab in {}", root.display()))
            .because(error)
            .hint("`lifeboat lab up` makes one; --directory or LIFEBOAT_LAB says where.")
    })?;
    serde_json::from_slice(&bytes).map_err(|error| local("cannot read", &path).because(error))
}

/// Whether a directory is a lab's, complete or not.
pub fn is_lab(root: &Path) -> bool {
    root.join(LOCK).is_file() || root.join(FILE).is_file()
}

fn lock(root: &Path) -> Outcome<Flock<fs::File>> {
    let path = root.join(LOCK);
    let file = fs::File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|error| local("cannot open", &path).because(error))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| {
        Failure::new(Code::LabInTheWay, format!("another command works on {}", root.display()))
            .because(error)
            .hint("Wait for it, or end it.")
    })
}

/// A failure about a file of the lab.
pub(crate) fn local(what: &str, path: &Path) -> Failure {
    Failure::new(Code::LocalFile, format!("{what} {}", PathBuf::from(path).display()))
}
