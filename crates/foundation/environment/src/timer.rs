//! Waiting without a thread: daemons wait on a [`Timer`], so that the simulator owns their time.

use std::time::Duration;

use futures::future::LocalBoxFuture;

use crate::{Clock, SystemClock};

/// A clock that a task can wait on.
pub trait Timer {
    /// Time since some fixed moment, counted while the machine sleeps (CLOCK_BOOTTIME).
    fn elapsed(&self) -> Duration;

    /// Ends after `duration`. Only paces: whoever decides reads [`Timer::elapsed`] afterwards,
    /// for the process may have been frozen meanwhile.
    fn sleep(&self, duration: Duration) -> LocalBoxFuture<'static, ()>;
}

/// The machine's clock, on a tokio runtime with its timer enabled.
#[derive(Debug, Clone, Copy)]
pub struct SystemTimer;

impl Timer for SystemTimer {
    fn elapsed(&self) -> Duration {
        SystemClock.elapsed()
    }

    fn sleep(&self, duration: Duration) -> LocalBoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}
