//! What tests of both daemons need.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use futures::future::LocalBoxFuture;
use lifeboat_drivers::{InstanceDriver, Killed, ShutDown, StartAs};
use lifeboat_environment::Timer;
use lifeboat_failover::{Database, Policy, Service};
use lifeboat_model::{Lsn, NodeName, Timeline};
use lifeboat_quorum::{Instance, NodeStatus, Progress, Return, Timing, Token};
use lifeboat_telemetry::{Code, Failure, Outcome};

pub fn name<T: std::str::FromStr>(text: &str) -> T
where
    T::Err: std::fmt::Debug,
{
    text.parse().unwrap()
}

/// Two regions, one database.
pub fn service() -> Service {
    let nodes = BTreeMap::from([(name("east-1"), name("east")), (name("west-1"), name("west"))]);
    let database = Database { nodes, receivers: Vec::new(), remote: 0, degrade_after: None };
    Service {
        name: name("payments"),
        home: name("east"),
        standby: Some(name("west")),
        databases: BTreeMap::from([(name("ledger"), database)]),
        timing: Timing {
            lease: Duration::from_secs(6),
            renew: Duration::from_millis(500),
            probe_timeout: Duration::from_millis(500),
            store_timeout: Duration::from_millis(750),
            fence_deadline: Duration::from_millis(1500),
            margin: Duration::from_millis(500),
        },
        policy: Policy {
            automatic: true,
            observers_agree: 2,
            unhealthy_for: Duration::from_secs(2),
            dwell: Duration::from_secs(600),
        },
        rpo: Duration::ZERO,
        rto: Duration::from_secs(300),
        digest: String::new(),
    }
}

/// A node that streams.
pub fn standby_status() -> NodeStatus {
    NodeStatus {
        beat: 1,
        token: Token::default(),
        progress: Progress::None,
        instance: Instance::Standby {
            timeline: Timeline(1),
            received: Some(Lsn(100)),
            replayed: Lsn(100),
            replayed_commit: None,
            streaming: true,
        },
        lease: None,
        writes: None,
        fork: None,
        not_ready: Vec::new(),
    }
}

/// Time that passes where somebody waits for it, after everybody else had ten turns.
#[derive(Debug, Clone, Default)]
pub struct FakeTimer {
    now: Rc<Cell<Duration>>,
}

impl FakeTimer {
    pub fn pass(&self, time: Duration) {
        self.now.set(self.now.get() + time);
    }
}

impl Timer for FakeTimer {
    fn elapsed(&self) -> Duration {
        self.now.get()
    }

    fn sleep(&self, duration: Duration) -> LocalBoxFuture<'static, ()> {
        let (now, until) = (Rc::clone(&self.now), self.now.get() + duration);
        let mut turns = 0;
        Box::pin(poll_fn(move |context| {
            turns += 1;
            if turns > 10 {
                now.set(now.get().max(until));
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        }))
    }
}

/// An instance that does at once what it is told.
#[derive(Debug)]
pub struct FakeInstance(RefCell<Instance>, Cell<Option<Duration>>);

const DOWN: Instance = Instance::Down { timeline: Timeline(1), shut_down_at: None };

impl FakeInstance {
    pub fn down() -> Self {
        Self(RefCell::new(DOWN), Cell::new(None))
    }

    pub fn now(&self) -> Instance {
        self.0.borrow().clone()
    }

    /// It is a standby from now on, with a stream or without.
    pub fn stream(&self, streams: bool) {
        let mut instance = standby_status().instance;
        if let Instance::Standby { streaming, .. } = &mut instance {
            *streaming = streams;
        }
        *self.0.borrow_mut() = instance;
    }

    /// Until when it may live.
    pub fn deadline(&self) -> Option<Duration> {
        self.1.get()
    }

    pub fn is_primary(&self) -> bool {
        self.0.borrow().is_primary()
    }

    fn become_primary(&self) {
        *self.0.borrow_mut() = Instance::Primary {
            timeline: Timeline(1),
            flushed: Lsn(100),
            standbys: Vec::new(),
            receivers: Vec::new(),
            stalled: false,
        };
    }
}

fn well<T: 'static>(value: T) -> LocalBoxFuture<'static, Outcome<T>> {
    Box::pin(async { Ok(value) })
}

impl InstanceDriver for FakeInstance {
    fn inspect(&self) -> LocalBoxFuture<'_, Outcome<Instance>> {
        well(self.now())
    }

    fn probe(&self) -> LocalBoxFuture<'_, Outcome<()>> {
        match self.is_primary() {
            true => well(()),
            false => Box::pin(async { Err(Failure::new(Code::NotPrimary, "no primary")) }),
        }
    }

    fn extend(&self, deadline: Duration) -> LocalBoxFuture<'_, Outcome<()>> {
        self.1.set(Some(deadline));
        well(())
    }

    fn start(&self, start: StartAs) -> LocalBoxFuture<'_, Outcome<()>> {
        match start {
            StartAs::Primary { .. } => self.become_primary(),
            StartAs::Standby { .. } => *self.0.borrow_mut() = standby_status().instance,
        }
        well(())
    }

    fn follow(&self, _: Option<NodeName>) -> LocalBoxFuture<'_, Outcome<()>> {
        well(())
    }

    fn synchronize(&self, _: String, _: u64) -> LocalBoxFuture<'_, Outcome<()>> {
        well(())
    }

    fn promote(&self, deadline: Duration) -> LocalBoxFuture<'_, Outcome<()>> {
        self.1.set(Some(deadline));
        self.become_primary();
        well(())
    }

    fn release(&self) -> LocalBoxFuture<'_, Outcome<ShutDown>> {
        *self.0.borrow_mut() = DOWN;
        well(ShutDown { timeline: Timeline(1), end: Lsn(100) })
    }

    fn stop(&self) -> LocalBoxFuture<'_, Outcome<()>> {
        *self.0.borrow_mut() = DOWN;
        well(())
    }

    fn fence(&self) -> LocalBoxFuture<'_, Outcome<Killed>> {
        *self.0.borrow_mut() = DOWN;
        well(Killed { processes: 1, took: Duration::ZERO })
    }

    fn come_back(&self, _: NodeName, _: Return) -> LocalBoxFuture<'_, Outcome<String>> {
        well(String::new())
    }

    fn salvage(&self, _: Lsn) -> LocalBoxFuture<'_, Outcome<String>> {
        well(String::new())
    }

    fn fork(&self) -> LocalBoxFuture<'_, Outcome<Option<Lsn>>> {
        well(None)
    }

    fn readiness(&self) -> LocalBoxFuture<'_, Outcome<Vec<String>>> {
        well(Vec::new())
    }
}
