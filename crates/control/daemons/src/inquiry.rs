//! Asking the repositories whether the quorum store is the one that it was (F9).
//!
//! They are asked at the start, and again where there is reason for doubt: the store was silent for
//! as long as a lease, its revision went back, an epoch went down. Who does not answer is passed
//! over, for nobody may need a repository to serve; if nobody did, they are asked again later.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::time::Duration;

use futures::future::{Either, select};
use lifeboat_drivers::{EpochArchive, KnownEpoch};
use lifeboat_environment::Timer;
use lifeboat_failover::{Elsewhere, Mirror, Service};
use lifeboat_quorum::{EpochRecord, Keys};
use lifeboat_telemetry::Failure;
use tokio::sync::Notify;

/// How long an answer is waited for at the most, whatever an archive promises.
const PATIENCE: Duration = Duration::from_secs(3);
/// When they are asked again if nobody answered.
const AGAIN: Duration = Duration::from_secs(30);

/// What became of the question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It is to be asked.
    Due,
    /// It was answered then. What was read before that may be older than the answer, which counts
    /// from the next read on.
    Answered(Duration),
    /// It was answered, and the store was read since.
    Settled,
    /// Nobody answered, at this time.
    PassedOver(Duration),
}

/// What one process knows of one service's epochs from elsewhere.
#[derive(Debug)]
pub(crate) struct Inquiry {
    elsewhere: RefCell<Elsewhere>,
    /// An answer that does not count yet.
    answer: RefCell<Option<KnownEpoch>>,
    phase: Cell<Phase>,
    /// How often there was reason for doubt.
    doubts: Cell<u32>,
    /// Wakes who asks.
    doubted: Notify,
    /// When the last read of the store ended, and the epoch that it found.
    read: Cell<Option<(Duration, u64)>>,
}

impl Inquiry {
    /// Nobody was asked yet; an epoch may be remembered from an earlier life.
    pub fn new(remembered: u64) -> Self {
        let elsewhere = Elsewhere { archived: None, remembered };
        Self {
            elsewhere: RefCell::new(elsewhere),
            answer: RefCell::default(),
            phase: Cell::new(Phase::Due),
            doubts: Cell::new(0),
            doubted: Notify::new(),
            read: Cell::new(None),
        }
    }

    /// The store was read from `began` to `ended`, and has this epoch; 0 for none.
    pub fn saw(&self, (began, ended): (Duration, Duration), lease: Duration, epoch: u64) {
        let before = self.read.replace(Some((ended, epoch)));
        // Without a store for so long, a person may have gone on without it.
        let doubt =
            before.is_some_and(|(at, before)| ended.saturating_sub(at) >= lease || epoch < before);
        if doubt {
            self.doubt();
        }
        let mut elsewhere = self.elsewhere.borrow_mut();
        if matches!(self.phase.get(), Phase::Answered(at) if began >= at) {
            elsewhere.learn(self.answer.take());
            self.phase.set(Phase::Settled);
        }
        drop(elsewhere);
        self.remember(epoch);
    }

    /// An epoch is known here, wherever from.
    pub fn remember(&self, epoch: u64) {
        let mut elsewhere = self.elsewhere.borrow_mut();
        elsewhere.remembered = elsewhere.remembered.max(epoch);
    }

    /// There is reason to ask again.
    pub fn doubt(&self) {
        self.doubts.set(self.doubts.get().saturating_add(1));
        self.phase.set(Phase::Due);
        self.doubted.notify_one();
    }

    /// Whether nothing new may be begun by the store's word yet.
    pub fn is_open(&self) -> bool {
        matches!(self.phase.get(), Phase::Due | Phase::Answered(_))
    }

    /// Ends when they are to be asked. One waits for it at a time.
    pub async fn until_due(&self, timer: &dyn Timer) {
        loop {
            let doubted = self.doubted.notified();
            match self.phase.get() {
                Phase::Due => return,
                Phase::PassedOver(at) => {
                    let left = AGAIN.saturating_sub(timer.elapsed().saturating_sub(at));
                    if left.is_zero() {
                        return;
                    }
                    select(timer.sleep(left), pin!(doubted)).await;
                }
                Phase::Answered(_) | Phase::Settled => doubted.await,
            }
        }
    }

    /// Asks once.
    pub async fn ask(&self, timer: &dyn Timer, epochs: &dyn EpochArchive, service: &Service) {
        let doubts = self.doubts.get();
        let answer = match select(epochs.highest(&service.name), timer.sleep(PATIENCE)).await {
            Either::Left((answer, _)) => answer.ok(),
            Either::Right(_) => None,
        };
        let phase = match answer {
            Some(archived) => {
                self.answer.replace(archived);
                Phase::Answered(timer.elapsed())
            }
            None => Phase::PassedOver(timer.elapsed()),
        };
        // Who doubted meanwhile wants an answer that is newer than the doubt.
        if self.doubts.get() == doubts {
            self.phase.set(phase);
        }
    }

    /// The highest epoch that any repository was ever heard to have, whatever the store says.
    pub fn heard(&self) -> Option<KnownEpoch> {
        let archived = self.elsewhere.borrow().archived.clone();
        let answer = self.answer.borrow().clone();
        archived.into_iter().chain(answer).max_by_key(|known| known.epoch)
    }

    /// Why nothing may be done by this record; none if nothing speaks against it.
    pub fn refuse(
        &self,
        service: &Service,
        keys: &Keys,
        mirror: &Mirror,
        record: &EpochRecord,
    ) -> Option<Failure> {
        self.elsewhere.borrow().refuse(service, keys, mirror, record).unwrap_or_else(|error| {
            // A run that cannot be read explains nothing.
            Some(error.into())
        })
    }
}

/// A failure for a log: code, what happened, what to do.
pub(crate) fn spoken(failure: &Failure) -> String {
    let hint = failure.hint_text().map(|hint| format!(". {hint}")).unwrap_or_default();
    format!("{}: {}{hint}", failure.code().text(), failure.full_message())
}
