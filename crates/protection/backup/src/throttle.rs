//! The rate limit of a backup: bytes read from the source a second, over all workers.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use lifeboat_environment::Environment;

/// Hands out permission to read.
pub struct Throttle {
    bytes_per_second: Option<u64>,
    /// When the bytes that were handed out so far will have been due.
    due: Mutex<Duration>,
}

impl Throttle {
    /// No limit if `None`.
    pub fn new(bytes_per_second: Option<u64>) -> Self {
        Self { bytes_per_second, due: Mutex::new(Duration::ZERO) }
    }

    /// Waits until `bytes` may be read.
    pub fn wait(&self, environment: &Environment, bytes: u64) {
        let Some(rate) = self.bytes_per_second.filter(|rate| *rate > 0) else {
            return;
        };
        let now = environment.clock().elapsed();
        let wait = {
            let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
            let start = (*due).max(now);
            *due = start + Duration::from_secs_f64(bytes as f64 / rate as f64);
            start.saturating_sub(now)
        };
        if !wait.is_zero() {
            environment.clock().sleep(wait);
        }
    }
}
