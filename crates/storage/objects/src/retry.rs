//! Attempts with limits: each has a timeout, all together have a number and a deadline.

use std::future::Future;
use std::time::Duration;

use lifeboat_environment::Environment;
use lifeboat_telemetry::{Code, Failure, duration};

use crate::fault::Fault;

/// How long a store may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// How long one attempt may take; bodies get a second more for each MiB.
    pub attempt_timeout: Duration,
    /// How long all attempts of one operation may take together.
    pub deadline: Duration,
    /// How many attempts there are at most.
    pub attempts: u32,
    /// The first pause; each further one is twice as long, up to `longest_pause`.
    pub first_pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            attempt_timeout: Duration::from_secs(20),
            deadline: Duration::from_secs(120),
            attempts: 20,
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(5),
        }
    }
}

/// How a series of attempts ended, where it did not end well.
#[derive(Debug)]
pub(crate) enum Ended {
    Absent,
    Failed(Failure),
}

impl Ended {
    /// For operations to which absence is a failure too.
    pub(crate) fn or_missing(self, what: &str, location: &str) -> Failure {
        match self {
            Self::Failed(failure) => failure,
            Self::Absent => Failure::new(Code::ObjectMissing, format!("{what}: not in {location}"))
                .hint("Run `lifeboat repo check` to learn what else is missing."),
        }
    }
}

/// What a series of attempts needs to know.
pub(crate) struct Attempts<'a> {
    pub(crate) environment: &'a Environment,
    pub(crate) options: &'a Options,
    pub(crate) location: &'a str,
}

impl Attempts<'_> {
    /// Tries until an attempt succeeds, a fault is final, or a limit is reached. `what` names the
    /// operation and its object, as in `create packs/7a`; `size` is the length of a body, if known.
    pub(crate) async fn run<T, Next, Try>(
        &self,
        what: &str,
        size: usize,
        mut next: Next,
    ) -> Result<T, Ended>
    where
        Next: FnMut() -> Try,
        Try: Future<Output = Result<T, Fault>>,
    {
        let clock = self.environment.clock();
        let end = clock.elapsed().saturating_add(self.options.deadline);
        let allowance = Duration::from_secs((size >> 20) as u64);
        let mut seen_absent = false;
        let mut attempt = 0;
        loop {
            let left = end.saturating_sub(clock.elapsed());
            let limit = self.options.attempt_timeout.saturating_add(allowance).min(left);
            let error = match tokio::time::timeout(limit, next()).await {
                Ok(Ok(done)) => return Ok(done),
                Ok(Err(Fault::Final { code, error, hint })) => {
                    let message = format!("cannot {what} in {}", self.location);
                    let hint = hint.replace("{store}", self.location);
                    let failure = Failure::new(code, message).because(error).hint(hint);
                    return Err(Ended::Failed(failure));
                }
                // A single "not found" is hearsay; two without a sign of life are proof.
                Ok(Err(Fault::Absent)) if seen_absent => return Err(Ended::Absent),
                Ok(Err(Fault::Absent)) => {
                    seen_absent = true;
                    continue;
                }
                Ok(Err(Fault::Transient { error, .. })) => error,
                Ok(Err(Fault::Exists)) => "the name is taken, but there is no object".into(),
                Err(_) => format!("no answer within {}", duration(limit)).into(),
            };
            attempt += 1;
            let left = end.saturating_sub(clock.elapsed());
            if attempt >= self.options.attempts || left.is_zero() {
                return Err(Ended::Failed(self.exhausted(what, attempt).because(error)));
            }
            tokio::time::sleep(self.pause(attempt).min(left)).await;
        }
    }

    /// Half of the pause is chance, so that clients that failed together do not return together.
    fn pause(&self, attempt: u32) -> Duration {
        let doubled =
            self.options.first_pause.saturating_mul(1 << attempt.saturating_sub(1).min(16));
        let half = doubled.min(self.options.longest_pause) / 2;
        let span = u64::try_from(half.as_micros()).unwrap_or(u64::MAX).saturating_add(1);
        half + Duration::from_micros(self.environment.random().next_u64() % span)
    }

    fn exhausted(&self, what: &str, attempts: u32) -> Failure {
        let message = format!("cannot {what} in {} after {attempts} attempts", self.location);
        Failure::new(Code::StoreUnavailable, message).hint(format!(
            "Check that {} can be reached from here; the operation can be repeated safely.",
            self.location
        ))
    }
}
