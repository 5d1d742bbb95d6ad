//! Waiting longer after each failure, and never as long as another one that failed at the same time.

use std::time::Duration;

use lifeboat_environment::Environment;

/// How often a wait looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(50);

/// The pauses between attempts.
pub(crate) struct Pause {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Pause {
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: Duration::ZERO }
    }

    /// Whether there was a failure since the last success.
    pub(crate) fn is_used(&self) -> bool {
        !self.next.is_zero()
    }

    /// It worked.
    pub(crate) fn reset(&mut self) {
        self.next = Duration::ZERO;
    }

    /// Waits; ends early once `enough` says so.
    pub(crate) fn wait(&mut self, environment: &Environment, mut enough: impl FnMut() -> bool) {
        self.next = (self.next * 2).clamp(self.first, self.longest);
        let half = self.next / 2;
        let span = u64::try_from(half.as_micros()).unwrap_or(u64::MAX).saturating_add(1);
        let chance = Duration::from_micros(environment.random().next_u64() % span);
        let clock = environment.clock();
        let end = clock.elapsed().saturating_add(half).saturating_add(chance);
        while !enough() {
            let left = end.saturating_sub(clock.elapsed());
            if left.is_zero() {
                break;
            }
            clock.sleep(left.min(LOOK));
        }
    }
}
