//! Epochs in this process's memory, for tests.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{pending, poll_fn};
use std::rc::Rc;
use std::task::Poll;

use futures::future::LocalBoxFuture;
use lifeboat_model::{RegionName, ServiceName};
use lifeboat_quorum::EpochRecord;
use lifeboat_telemetry::{Code, Failure, Outcome};

use super::{EpochArchive, KnownEpoch};

/// How the one repository answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mood {
    /// As it should.
    #[default]
    Well,
    /// It says that it cannot.
    Away,
    /// Not at all.
    Silent,
}

/// One repository in memory. Clones are the same; each call lets others go first, once.
#[derive(Debug, Clone, Default)]
pub struct MemoryEpochs {
    objects: Rc<RefCell<BTreeMap<(ServiceName, u64), EpochRecord>>>,
    mood: Rc<Cell<Mood>>,
    asked: Rc<Cell<u32>>,
}

impl MemoryEpochs {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on it answers so.
    pub fn be(&self, mood: Mood) {
        self.mood.set(mood);
    }

    /// It has this epoch, whoever created it.
    pub fn put(&self, service: &ServiceName, record: EpochRecord) {
        self.objects.borrow_mut().insert((service.clone(), record.epoch), record);
    }

    /// How often it was asked for the highest epoch.
    pub fn asked(&self) -> u32 {
        self.asked.get()
    }

    /// The numbers that were given.
    pub fn numbers(&self, service: &ServiceName) -> Vec<u64> {
        let objects = self.objects.borrow();
        objects.keys().filter(|(of, _)| of == service).map(|(_, epoch)| *epoch).collect()
    }

    async fn answers(&self) -> Outcome<()> {
        let mut waited = false;
        poll_fn(|context| {
            context.waker().wake_by_ref();
            if std::mem::replace(&mut waited, true) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        match self.mood.get() {
            Mood::Well => Ok(()),
            Mood::Away => Err(Failure::new(Code::StoreUnavailable, "no repository answers")),
            Mood::Silent => pending().await,
        }
    }

    async fn find(&self, service: &ServiceName) -> Outcome<Option<KnownEpoch>> {
        self.asked.set(self.asked.get().saturating_add(1));
        self.answers().await?;
        let objects = self.objects.borrow();
        let highest = objects.iter().rfind(|((of, _), _)| of == service);
        highest
            .map(|((_, epoch), record)| {
                Ok(KnownEpoch {
                    epoch: *epoch,
                    region: Some(record.region.clone()),
                    holders: record.holders.clone(),
                    run: record.run,
                    repositories: vec![own()?],
                })
            })
            .transpose()
    }

    async fn create(
        &self,
        service: &ServiceName,
        record: &EpochRecord,
    ) -> Outcome<Vec<RegionName>> {
        self.answers().await?;
        let mut objects = self.objects.borrow_mut();
        let there =
            objects.entry((service.clone(), record.epoch)).or_insert_with(|| record.clone());
        let grant = |of: &EpochRecord| (of.region.clone(), of.holders.clone(), of.run);
        if grant(there) != grant(record) {
            let message =
                format!("epoch {} of {service} was given to another holder", record.epoch);
            return Err(Failure::new(Code::EpochTaken, message));
        }
        Ok(vec![own()?])
    }
}

fn own() -> Outcome<RegionName> {
    "memory".parse().map_err(|_| Failure::new(Code::Internal, "`memory` is no name of a region"))
}

impl EpochArchive for MemoryEpochs {
    fn highest<'a>(
        &'a self,
        service: &'a ServiceName,
    ) -> LocalBoxFuture<'a, Outcome<Option<KnownEpoch>>> {
        Box::pin(self.find(service))
    }

    fn record<'a>(
        &'a self,
        service: &'a ServiceName,
        record: &'a EpochRecord,
    ) -> LocalBoxFuture<'a, Outcome<Vec<RegionName>>> {
        Box::pin(self.create(service, record))
    }
}
