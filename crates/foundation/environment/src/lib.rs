//! The only door to time, chance, process environment and failpoints.
//!
//! Every crate receives an [`Environment`] and asks it; `clippy.toml` forbids the direct
//! ways. Tests and the simulator hand in their own clock and their own chance.

mod clock;
mod failpoints;
mod random;
mod timer;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use clock::{Clock, ManualClock, SystemClock};
pub use failpoints::{FailpointError, Failpoints};
pub use random::{Random, SeededRandom, SystemRandom};
pub use timer::{SystemTimer, Timer};

/// What a process knows of the world outside its arguments.
#[derive(Clone)]
pub struct Environment {
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    failpoints: Failpoints,
    variables: Arc<BTreeMap<String, String>>,
}

impl Environment {
    /// The real clock, the real random source and this process's variables.
    pub fn system() -> Self {
        let variables: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let failpoints = Failpoints::from_list(variables.get("LIFEBOAT_FAILPOINTS"));
        Self {
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
            failpoints,
            variables: Arc::new(variables),
        }
    }

    /// An environment in which the test owns time, chance and variables.
    pub fn for_test(clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Self {
        Self {
            clock,
            random,
            failpoints: Failpoints::default(),
            variables: Arc::new(BTreeMap::new()),
        }
    }

    /// The same environment with other variables.
    #[must_use]
    pub fn with_variables(mut self, variables: BTreeMap<String, String>) -> Self {
        self.variables = Arc::new(variables);
        self
    }

    /// The same environment with other failpoints.
    #[must_use]
    pub fn with_failpoints(mut self, failpoints: Failpoints) -> Self {
        self.failpoints = failpoints;
        self
    }

    /// The clock.
    pub fn clock(&self) -> &dyn Clock {
        self.clock.as_ref()
    }

    /// The random source.
    pub fn random(&self) -> &dyn Random {
        self.random.as_ref()
    }

    /// The failpoints.
    pub fn failpoints(&self) -> &Failpoints {
        &self.failpoints
    }

    /// An environment variable; `None` also where it is not UTF-8.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }
}

impl std::fmt::Debug for Environment {
    /// Variables may hold secrets: they are never printed.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Environment").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
