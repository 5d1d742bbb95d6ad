//! What is due when.

use std::cmp::Ordering;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::Sim;

pub(super) enum Then {
    Wake(Waker),
    Call(Box<dyn FnOnce()>),
}

/// Ordered by time, then by chance, then by number.
pub(super) struct Due {
    pub at: u64,
    pub tie: u64,
    pub number: u64,
    pub then: Then,
}

impl Due {
    fn key(&self) -> (u64, u64, u64) {
        (self.at, self.tie, self.number)
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

/// Ends at a moment of true time.
pub(super) struct Sleep {
    sim: Sim,
    due: u64,
    waker: Option<Waker>,
}

impl Sleep {
    pub fn new(sim: Sim, due: u64) -> Self {
        Self { sim, due, waker: None }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.sim.core.now.get() >= self.due {
            return Poll::Ready(());
        }
        if self.waker.as_ref().is_none_or(|waker| !waker.will_wake(context.waker())) {
            self.waker = Some(context.waker().clone());
            self.sim.wake_at(self.due, context.waker().clone());
        }
        Poll::Pending
    }
}
