//! An executor with a time of its own: one thread, one seed, one order of events.
//!
//! Tasks belong to processes, processes to hosts. A process that is killed loses its tasks and with
//! them everything that was not written to a disk; one that is frozen is not polled, while time
//! and the clock of its host go on.

mod clock;
mod sleep;
mod task;

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

pub use clock::{HostClock, SimClock, SimTimer};
use sleep::{Due, Then};
use task::{Ready, Task, TaskId};

use crate::chance::{Chance, nanos};
use crate::history::{History, Line};

/// So many steps without time passing are a task that spins.
const STEPS_AT_ONE_INSTANT: u32 = 200_000;

/// A machine with a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub(crate) usize);

/// A process on a host; the same one after a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId(pub(crate) usize);

struct Host {
    name: String,
    clock: Arc<HostClock>,
}

struct Process {
    host: HostId,
    name: String,
    /// Grows with each kill.
    incarnation: u32,
    frozen: bool,
    frozen_at: u64,
    /// Woken while frozen.
    held: Vec<TaskId>,
}

/// The simulation; clones are handles to the same one.
#[derive(Clone)]
pub struct Sim {
    core: Rc<Core>,
}

struct Core {
    now: Cell<u64>,
    chance: RefCell<Chance>,
    timers: RefCell<BinaryHeap<Reverse<Due>>>,
    numbered: Cell<u64>,
    ready: Arc<Ready>,
    tasks: RefCell<Vec<Option<Task>>>,
    hosts: RefCell<Vec<Host>>,
    processes: RefCell<Vec<Process>>,
    history: RefCell<History>,
    failure: RefCell<Option<String>>,
}

impl Sim {
    /// An empty world at time zero.
    pub fn new(chance: Chance) -> Self {
        Self {
            core: Rc::new(Core {
                now: Cell::new(0),
                chance: RefCell::new(chance),
                timers: RefCell::default(),
                numbered: Cell::new(0),
                ready: Arc::default(),
                tasks: RefCell::default(),
                hosts: RefCell::default(),
                processes: RefCell::default(),
                history: RefCell::default(),
                failure: RefCell::default(),
            }),
        }
    }

    /// A host whose clock shows `booted` now and gains or loses so many millionths.
    pub fn host(&self, name: &str, booted: Duration, drift_ppm: i64) -> HostId {
        let mut hosts = self.core.hosts.borrow_mut();
        let clock = Arc::new(HostClock::new(nanos(booted), drift_ppm));
        clock.set_true(self.core.now.get());
        hosts.push(Host { name: name.to_owned(), clock });
        HostId(hosts.len() - 1)
    }

    /// A process on a host; it has no task yet.
    pub fn process(&self, host: HostId, name: &str) -> ProcessId {
        let mut processes = self.core.processes.borrow_mut();
        processes.push(Process {
            host,
            name: name.to_owned(),
            incarnation: 0,
            frozen: false,
            frozen_at: 0,
            held: Vec::new(),
        });
        ProcessId(processes.len() - 1)
    }

    /// True time.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.core.now.get())
    }

    /// Draws from the seed.
    pub fn chance<R>(&self, draw: impl FnOnce(&mut Chance) -> R) -> R {
        draw(&mut self.core.chance.borrow_mut())
    }

    /// A span of time by chance.
    pub fn between(&self, low: Duration, high: Duration) -> Duration {
        self.chance(|chance| chance.between(low, high))
    }

    /// Where a process runs.
    pub fn host_of(&self, process: ProcessId) -> HostId {
        self.core.processes.borrow()[process.0].host
    }

    /// A process's name.
    pub fn name_of(&self, process: ProcessId) -> String {
        self.core.processes.borrow()[process.0].name.clone()
    }

    /// Which start of a process runs now.
    pub fn incarnation(&self, process: ProcessId) -> u32 {
        self.core.processes.borrow()[process.0].incarnation
    }

    /// The clock of a host.
    pub fn clock(&self, host: HostId) -> SimClock {
        SimClock::new(Arc::clone(&self.core.hosts.borrow()[host.0].clock))
    }

    /// What a process waits with.
    pub fn timer(&self, process: ProcessId) -> SimTimer {
        let clock = self.clock(self.host_of(process));
        SimTimer::new(self.clone(), clock)
    }

    /// A host was switched off and on: its clock begins again.
    pub fn reboot_clock(&self, host: HostId) {
        self.core.hosts.borrow()[host.0].clock.reboot();
    }

    /// Adds a task to a process.
    pub fn spawn(&self, process: ProcessId, future: impl Future<Output = ()> + 'static) {
        let mut tasks = self.core.tasks.borrow_mut();
        let place = tasks.iter().position(Option::is_none).unwrap_or(tasks.len());
        let number = self.number();
        let id = TaskId { place, number };
        let task = Task::new(id, process, Box::pin(future), Arc::clone(&self.core.ready));
        if place == tasks.len() {
            tasks.push(Some(task));
        } else {
            tasks[place] = Some(task);
        }
        drop(tasks);
        self.core.ready.push(id);
    }

    /// SIGKILL: the tasks of the process are gone at once, frozen or not.
    pub fn kill(&self, process: ProcessId) {
        {
            let mut processes = self.core.processes.borrow_mut();
            let process = &mut processes[process.0];
            process.incarnation += 1;
            process.frozen = false;
            process.held.clear();
        }
        let mut dead = Vec::new();
        for slot in self.core.tasks.borrow_mut().iter_mut() {
            if slot.as_ref().is_some_and(|task| task.process == process) {
                dead.extend(slot.take());
            }
        }
        // Dropped outside of the borrow: what a future owns may call back.
        drop(dead);
    }

    /// SIGSTOP: it is not polled any more.
    pub fn freeze(&self, process: ProcessId) {
        let process = &mut self.core.processes.borrow_mut()[process.0];
        process.frozen = true;
        process.frozen_at = self.core.now.get();
    }

    /// SIGCONT.
    pub fn thaw(&self, process: ProcessId) {
        let held = {
            let mut processes = self.core.processes.borrow_mut();
            let process = &mut processes[process.0];
            process.frozen = false;
            std::mem::take(&mut process.held)
        };
        for task in held {
            self.core.ready.push(task);
        }
    }

    /// Since when a process has been frozen, in true time; none if it is not.
    pub fn frozen_since(&self, process: ProcessId) -> Option<Duration> {
        let processes = self.core.processes.borrow();
        let process = processes.get(process.0).filter(|process| process.frozen)?;
        Some(Duration::from_nanos(process.frozen_at))
    }

    /// Whether a process is frozen.
    pub fn is_frozen(&self, process: ProcessId) -> bool {
        self.core.processes.borrow()[process.0].frozen
    }

    /// Does something later, in true time, whatever processes do: physics, not software.
    pub fn after(&self, delay: Duration, call: impl FnOnce() + 'static) {
        self.due(self.core.now.get().saturating_add(nanos(delay)), Then::Call(Box::new(call)));
    }

    pub(crate) fn wake_at(&self, due: u64, waker: Waker) {
        self.due(due, Then::Wake(waker));
    }

    fn due(&self, at: u64, then: Then) {
        // Events of one instant come in an order that the seed chooses.
        let tie = self.chance(Chance::draw);
        let number = self.number();
        self.core.timers.borrow_mut().push(Reverse(Due { at, tie, number, then }));
    }

    fn number(&self) -> u64 {
        self.core.numbered.set(self.core.numbered.get() + 1);
        self.core.numbered.get()
    }

    /// Runs everything up to this moment, or until something failed.
    pub fn run_until(&self, end: Duration) {
        let end = nanos(end);
        let mut steps = 0_u32;
        while self.core.failure.borrow().is_none() {
            if let Some(task) = self.next_ready() {
                steps += 1;
                if steps > STEPS_AT_ONE_INSTANT {
                    self.fail("a task spins: no time passes".to_owned());
                    break;
                }
                self.poll(task);
                continue;
            }
            steps = 0;
            let next = {
                let mut timers = self.core.timers.borrow_mut();
                match timers.peek() {
                    Some(Reverse(due)) if due.at <= end => timers.pop(),
                    _ => None,
                }
            };
            let Some(Reverse(due)) = next else { break };
            self.advance(due.at);
            self.core.history.borrow_mut().mix(due.at, due.number);
            match due.then {
                Then::Wake(waker) => waker.wake(),
                Then::Call(call) => call(),
            }
        }
        self.advance(end.max(self.core.now.get()));
    }

    fn advance(&self, to: u64) {
        self.core.now.set(to.max(self.core.now.get()));
        for host in self.core.hosts.borrow().iter() {
            host.clock.set_true(self.core.now.get());
        }
    }

    fn next_ready(&self) -> Option<TaskId> {
        self.core.ready.take(|length| self.chance(|chance| chance.place(length)))
    }

    fn poll(&self, id: TaskId) {
        let taken = {
            let mut tasks = self.core.tasks.borrow_mut();
            let Some(Some(task)) = tasks.get_mut(id.place) else { return };
            if task.id != id {
                return;
            }
            let mut processes = self.core.processes.borrow_mut();
            let process = &mut processes[task.process.0];
            if process.frozen {
                process.held.push(id);
                return;
            }
            task.begin()
        };
        let Some((mut future, waker)) = taken else { return };
        self.core.history.borrow_mut().mix(self.core.now.get(), id.number);
        let outcome = future.as_mut().poll(&mut Context::from_waker(&waker));
        let ended = {
            let mut tasks = self.core.tasks.borrow_mut();
            match (outcome, tasks.get_mut(id.place)) {
                (Poll::Pending, Some(Some(task))) if task.id == id => {
                    task.end(future);
                    None
                }
                // Done, or killed by itself.
                (_, Some(slot)) if slot.as_ref().is_some_and(|task| task.id == id) => {
                    *slot = None;
                    Some(future)
                }
                _ => Some(future),
            }
        };
        drop(ended);
    }

    /// Writes a line into the history.
    pub fn note(&self, who: &str, what: impl Into<String>) {
        self.core.history.borrow_mut().note(self.now(), who, what.into());
    }

    /// Writes a line about a process.
    pub fn note_of(&self, process: ProcessId, what: impl Into<String>) {
        let name = self.name_of(process);
        self.note(&name, what);
    }

    /// Something that must never happen did: the run ends. The first failure counts.
    pub fn fail(&self, what: String) {
        self.note("CHECKER", what.clone());
        self.core.failure.borrow_mut().get_or_insert(what);
    }

    /// What must never happen and did.
    pub fn failure(&self) -> Option<String> {
        self.core.failure.borrow().clone()
    }

    /// The hash over all that happened.
    pub fn hash(&self) -> String {
        self.core.history.borrow().hash()
    }

    /// The newest lines of the history.
    pub fn lines(&self) -> Vec<Line> {
        self.core.history.borrow().lines().cloned().collect()
    }

    /// The name of a host.
    pub fn host_name(&self, host: HostId) -> String {
        self.core.hosts.borrow()[host.0].name.clone()
    }

    /// Ends every task. Futures own handles to the simulation: without this it is never freed.
    pub fn end(&self) {
        let tasks = std::mem::take(&mut *self.core.tasks.borrow_mut());
        drop(tasks);
        let timers = std::mem::take(&mut *self.core.timers.borrow_mut());
        drop(timers);
    }
}
