//! The clocks of a host: each runs a little slower or faster than true time.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use futures::future::LocalBoxFuture;
use jiff::Timestamp;
use lifeboat_environment::{Clock, Timer};

use super::Sim;
use super::sleep::Sleep;
use crate::chance::nanos;

/// 2026-11-01, when every simulation begins.
const WALL_SECOND: i64 = 1_793_491_200;

/// The clock of a host; atomics, for a [`Clock`] must be `Sync`.
#[derive(Debug)]
pub struct HostClock {
    truth: AtomicU64,
    booted_at: AtomicU64,
    booted_with: AtomicU64,
    drift_ppm: i64,
    wall_offset_ms: AtomicI64,
}

impl HostClock {
    pub(super) fn new(shows: u64, drift_ppm: i64) -> Self {
        Self {
            truth: AtomicU64::new(0),
            booted_at: AtomicU64::new(0),
            booted_with: AtomicU64::new(shows),
            drift_ppm,
            wall_offset_ms: AtomicI64::new(0),
        }
    }

    pub(super) fn set_true(&self, now: u64) {
        self.truth.store(now, Ordering::Relaxed);
    }

    pub(super) fn reboot(&self) {
        self.booted_at.store(self.truth.load(Ordering::Relaxed), Ordering::Relaxed);
        self.booted_with.store(0, Ordering::Relaxed);
    }

    fn elapsed(&self) -> u64 {
        let since = self
            .truth
            .load(Ordering::Relaxed)
            .saturating_sub(self.booted_at.load(Ordering::Relaxed));
        let shown = scale(since, self.drift_ppm);
        self.booted_with.load(Ordering::Relaxed).saturating_add(shown)
    }

    /// How long it truly takes until this clock has moved so far.
    fn true_span(&self, shown: u64) -> u64 {
        let by_hour = i128::from(1_000_000_i64 + self.drift_ppm);
        u64::try_from(i128::from(shown) * 1_000_000 / by_hour).unwrap_or(u64::MAX)
    }
}

fn scale(nanos: u64, drift_ppm: i64) -> u64 {
    let scaled = i128::from(nanos) * i128::from(1_000_000_i64 + drift_ppm) / 1_000_000;
    u64::try_from(scaled).unwrap_or_default()
}

/// A host's clocks, for production code.
#[derive(Debug, Clone)]
pub struct SimClock {
    clock: Arc<HostClock>,
}

impl SimClock {
    pub(super) fn new(clock: Arc<HostClock>) -> Self {
        Self { clock }
    }

    /// Somebody sets the wall clock; nothing that matters may look at it.
    pub fn jump_wall(&self, by_ms: i64) {
        self.clock.wall_offset_ms.fetch_add(by_ms, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let shown =
            i128::from(scale(self.clock.truth.load(Ordering::Relaxed), self.clock.drift_ppm));
        let offset = i128::from(self.clock.wall_offset_ms.load(Ordering::Relaxed)) * 1_000_000;
        let wall = i128::from(WALL_SECOND) * 1_000_000_000 + shown + offset;
        Timestamp::from_nanosecond(wall).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.clock.elapsed())
    }

    /// Daemons wait on a timer; a thread that sleeps would stop the world.
    fn sleep(&self, _: Duration) {}
}

/// What a process waits with.
#[derive(Clone)]
pub struct SimTimer {
    sim: Sim,
    clock: SimClock,
}

impl SimTimer {
    pub(super) fn new(sim: Sim, clock: SimClock) -> Self {
        Self { sim, clock }
    }
}

impl Timer for SimTimer {
    fn elapsed(&self) -> Duration {
        self.clock.elapsed()
    }

    fn sleep(&self, duration: Duration) -> LocalBoxFuture<'static, ()> {
        let span = self.clock.clock.true_span(nanos(duration));
        // The kernel wakes nobody early, and often a little late.
        let late = nanos(self.sim.between(Duration::ZERO, Duration::from_micros(300)));
        let due = nanos(self.sim.now()).saturating_add(span).saturating_add(late);
        Box::pin(Sleep::new(self.sim.clone(), due))
    }
}
