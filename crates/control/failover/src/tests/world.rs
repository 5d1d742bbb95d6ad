//! A small store in memory, read as a controller reads it.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use lifeboat_model::{DatabaseName, Lsn, NodeName, RegionName, Timeline};
use lifeboat_quorum::{
    Commit, EpochRecord, Goal, Instance, Keys, Lease, MemoryStore, NodeStatus, Progress,
    ReceiverStatus, SealStatus, Timing, Token, Transaction,
};

use crate::view::{Mirror, View};
use crate::{Database, Policy, Service, first_epoch};

pub fn name<T: std::str::FromStr>(text: &str) -> T
where
    T::Err: std::fmt::Debug,
{
    text.parse().unwrap()
}

pub fn service() -> Service {
    let nodes = BTreeMap::from([(name("east-1"), name("east")), (name("west-1"), name("west"))]);
    let receivers = vec![name("east"), name("west")];
    let database = Database { nodes, receivers, remote: 1, degrade_after: None };
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

/// A store with one service, and one reader of it.
pub struct World {
    pub service: Service,
    pub keys: Keys,
    pub store: MemoryStore,
    pub mirror: Mirror,
    pub now: Duration,
    beat: u64,
    /// For how long those that write say that they do.
    pub writes: Duration,
}

impl World {
    /// The first epoch, in the east.
    pub fn new() -> Self {
        let (service, keys) = (service(), Keys::default());
        let (_, transaction) = first_epoch(&service, &keys, 1, Timestamp::UNIX_EPOCH).unwrap();
        let mut world = Self {
            service,
            keys,
            store: MemoryStore::new(),
            mirror: Mirror::new(),
            now: Duration::from_secs(1000),
            beat: 0,
            writes: Duration::from_secs(3600),
        };
        // A reader that has looked at the store for long.
        world.mirror.take(world.store.look(world.keys.all(), 0), Duration::ZERO);
        world.commit(transaction);
        world
    }

    /// The same, and it serves: the east writes, the west streams, both receive.
    pub fn serving() -> Self {
        let mut world = Self::new();
        let record = world.record();
        let next = record.apply(lifeboat_quorum::Transition::Serve).unwrap();
        let key = world.keys.epoch(&world.service.name);
        world.commit(Transaction::new().put(key, &next));
        let lease = Lease { epoch: 1, node: name("east-1"), agent: 1, beat: 1 };
        let key = world.keys.lease(&world.service.name, &ledger());
        world.commit(Transaction::new().put(key, &lease));
        world.say("east-1", primary(100), 1);
        world.say("west-1", standby(100), 0);
        world
    }

    pub fn commit(&mut self, transaction: Transaction) {
        assert!(matches!(self.store.change(transaction), Ok(Commit::Done(_))));
    }

    pub fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    pub fn view(&mut self) -> View {
        let snapshot = self.store.look(self.keys.all(), self.mirror.revision());
        self.mirror.take(snapshot, self.now);
        View::of(&self.service, &self.keys, &self.mirror).unwrap()
    }

    pub fn record(&mut self) -> EpochRecord {
        self.view().record.unwrap().value
    }

    /// A node reports, and says that its present order is done.
    pub fn say(&mut self, node: &str, instance: Instance, lease: u64) {
        let token = self.order(node).map_or_else(Token::default, |(token, _)| token);
        self.beat += 1;
        let status = NodeStatus {
            beat: self.beat,
            token,
            progress: Progress::Done { evidence: "as wanted".to_owned() },
            writes: instance.is_primary().then_some(self.writes),
            instance,
            lease: (lease > 0).then_some(lease),
            fork: None,
            not_ready: Vec::new(),
        };
        let key = self.keys.status(&self.service.name, &ledger(), &name(node));
        self.commit(Transaction::new().put(key, &status));
    }

    pub fn receiver_says(&mut self, region: &str, epoch: u64, sealed: Option<(u64, u64)>) {
        self.beat += 1;
        let status = ReceiverStatus {
            beat: self.beat,
            token: Token::default(),
            progress: Progress::None,
            epoch,
            sealed: sealed.map(|(epoch, flushed)| SealStatus {
                epoch,
                timeline: Some(Timeline(1)),
                flushed: Some(Lsn(flushed)),
                shipped: true,
            }),
            running: sealed.is_none(),
        };
        let region: RegionName = name(region);
        let key = self.keys.receiver_status(&self.service.name, &ledger(), &region);
        self.commit(Transaction::new().put(key, &status));
    }

    pub fn order(&mut self, node: &str) -> Option<(Token, Goal)> {
        let node: NodeName = name(node);
        let desired = self.view().desired.remove(&(ledger(), node))?;
        Some((desired.value.token, desired.value.goal))
    }
}

pub fn ledger() -> DatabaseName {
    name("ledger")
}

pub fn primary(flushed: u64) -> Instance {
    Instance::Primary {
        timeline: Timeline(1),
        flushed: Lsn(flushed),
        standbys: Vec::new(),
        receivers: vec![name("east"), name("west")],
        stalled: false,
    }
}

/// A primary to which only these receivers have a stream.
pub fn primary_with(receivers: &[&str], stalled: bool) -> Instance {
    Instance::Primary {
        timeline: Timeline(1),
        flushed: Lsn(1),
        standbys: Vec::new(),
        receivers: receivers.iter().map(|region| name(region)).collect(),
        stalled,
    }
}

pub fn standby(position: u64) -> Instance {
    Instance::Standby {
        timeline: Timeline(1),
        received: Some(Lsn(position)),
        replayed: Lsn(position),
        replayed_commit: None,
        streaming: true,
    }
}
