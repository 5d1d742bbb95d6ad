//! The agent: runs beside one node of one database, keeps its lease, and carries orders out.
//!
//! Loops at once: [`lease`] renews while the node may write and does; [`duty`] makes the
//! instance what the record and the order say; [`report`] tells. They share what was read of the
//! store ([`watch`]), and believe nothing that is older than what is known elsewhere ([`trust`]).
//! A lease that cannot be renewed needs nobody: the guard kills at its deadline.

mod duty;
mod glass;
mod lease;
mod report;
mod trust;
mod watch;

use std::cell::{Cell, RefCell};
use std::time::Duration;

use lifeboat_drivers::{EpochArchive, InstanceDriver, Memory};
use lifeboat_environment::Timer;
use lifeboat_failover::{Mirror, Service, View};
use lifeboat_model::{DatabaseName, Lsn, NodeName};
use lifeboat_quorum::{
    Desired, EpochRecord, Goal, Holder, Instance, Keys, NodeStatus, Progress, Revision, Store,
    Token,
};

use crate::inquiry::Inquiry;

/// Which node this is, and how it behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The service.
    pub service: Service,
    /// The database.
    pub database: DatabaseName,
    /// The node.
    pub node: NodeName,
    /// Which start of the agent this is; random.
    pub agent: u64,
    /// Where things lie in the store.
    pub keys: Keys,
    /// How often the store is read.
    pub poll: Duration,
    /// How long a start or a promotion may take without a write before the lease is let go.
    pub patience: Duration,
    /// Whether a lease that lives may outlive the store (`on_quorum_loss: serve`).
    pub serve_without_quorum: bool,
}

/// What the agent acts through.
pub struct Ports<'a> {
    /// Time.
    pub timer: &'a dyn Timer,
    /// The quorum store.
    pub store: &'a dyn Store,
    /// The instance.
    pub instance: &'a dyn InstanceDriver,
    /// What must not be forgotten.
    pub memory: &'a dyn Memory,
    /// Epochs in the repositories.
    pub epochs: &'a dyn EpochArchive,
    /// Who is told until when this node may be written to: while it writes and its lease lives.
    /// Zero if one of both is not so.
    pub deadline: &'a dyn Fn(Duration),
    /// Who is told what an operator should know.
    pub note: &'a dyn Fn(String),
}

/// An agent at work.
struct Agent<'a> {
    settings: &'a Settings,
    ports: &'a Ports<'a>,
    mirror: RefCell<Mirror>,
    view: RefCell<View>,
    /// When the store was read last, by our clock; before that nothing is known.
    read_at: Cell<Option<Duration>>,
    holder: RefCell<Holder>,
    /// The last change of our lease that we know of.
    lease: Cell<Known>,
    instance: RefCell<Instance>,
    progress: RefCell<Progress>,
    accepted: Cell<Token>,
    /// The instance was started or told to promote at this time, and has not written since.
    starting: Cell<Option<Duration>>,
    /// The guard has a deadline for what was started or promoted.
    armed: Cell<bool>,
    /// Since when local writes are committed in time.
    writes: Cell<Option<Duration>>,
    /// The order that failed last, when, and how often in a row before that.
    failed: Cell<Option<(Token, Duration, u32)>>,
    fork: Cell<Option<Lsn>>,
    not_ready: RefCell<Vec<String>>,
    changed: Cell<bool>,
    inquiry: Inquiry,
    /// Until when the instance may live by a person's permission.
    granted: Cell<Option<Duration>>,
}

/// What is known of the lease's key.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    revision: Revision,
    beat: u64,
}

/// Runs for ever.
pub async fn run(settings: &Settings, ports: &Ports<'_>) {
    let agent = Agent::new(settings, ports);
    futures::join!(
        agent.watch(),
        agent.inquire(),
        agent.look_out(),
        agent.keep_lease(),
        agent.do_duty(),
        agent.report()
    );
}

impl<'a> Agent<'a> {
    fn new(settings: &'a Settings, ports: &'a Ports<'a>) -> Self {
        // What cannot be read lets no order through either: `accept` says so.
        let remembered = ports.memory.highest().unwrap_or_default();
        Self {
            settings,
            ports,
            mirror: RefCell::new(Mirror::new()),
            view: RefCell::new(View::default()),
            read_at: Cell::new(None),
            holder: RefCell::new(Holder::new(settings.service.timing)),
            lease: Cell::new(Known::default()),
            instance: RefCell::new(Instance::Unclear),
            progress: RefCell::new(Progress::None),
            accepted: Cell::new(remembered),
            starting: Cell::new(None),
            armed: Cell::new(false),
            writes: Cell::new(None),
            failed: Cell::new(None),
            fork: Cell::new(None),
            not_ready: RefCell::new(Vec::new()),
            changed: Cell::new(true),
            inquiry: Inquiry::new(remembered.epoch),
            granted: Cell::new(None),
        }
    }
}

impl Agent<'_> {
    fn now(&self) -> Duration {
        self.ports.timer.elapsed()
    }

    /// The record, if one was read.
    fn record(&self) -> Option<(EpochRecord, Revision)> {
        let view = self.view.borrow();
        view.record.as_ref().map(|seen| (seen.value.clone(), seen.revision))
    }

    /// What is wanted of this node.
    fn order(&self) -> Option<Desired<Goal>> {
        let place = (self.settings.database.clone(), self.settings.node.clone());
        self.view.borrow().desired.get(&place).map(|seen| seen.value.clone())
    }

    /// Whether the record lets this node write.
    fn is_allowed(&self, record: &EpochRecord) -> bool {
        record.allows(&self.settings.database, &self.settings.node)
    }

    /// Whether our lease lives now.
    fn is_live(&self) -> bool {
        self.holder.borrow().is_live(self.now())
    }

    fn note(&self, message: impl Into<String>) {
        (self.ports.note)(message.into());
    }

    fn set_progress(&self, progress: Progress) {
        if *self.progress.borrow() != progress {
            *self.progress.borrow_mut() = progress;
            self.changed.set(true);
        }
    }

    fn set_instance(&self, instance: Instance) {
        if std::mem::discriminant(&*self.instance.borrow()) != std::mem::discriminant(&instance) {
            self.changed.set(true);
        }
        *self.instance.borrow_mut() = instance;
    }

    fn status(&self, beat: u64) -> NodeStatus {
        let epoch = self.record().map(|(record, _)| record.epoch);
        NodeStatus {
            beat,
            token: self.accepted.get(),
            progress: self.progress.borrow().clone(),
            instance: self.instance.borrow().clone(),
            lease: epoch.filter(|_| self.is_live()),
            writes: self.writes.get().map(|since| self.now().saturating_sub(since)),
            fork: self.fork.get(),
            not_ready: self.not_ready.borrow().clone(),
        }
    }
}

#[cfg(test)]
mod tests;
