//! Until when an instance may live.

use std::time::Duration;

/// A moment of CLOCK_BOOTTIME that never moves back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deadline {
    until: Option<Duration>,
    longest: Duration,
}

/// Why a deadline was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Declined {
    /// The present one has come: the instance is being killed.
    Over,
    /// It lies in the past, by this much.
    Past(Duration),
    /// It lies this much beyond the farthest that is allowed.
    TooFar(Duration),
}

impl std::fmt::Display for Declined {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Over => formatter.write_str("the deadline has come, the instance is killed"),
            Self::Past(by) => write!(formatter, "the deadline lies {by:.3?} in the past"),
            Self::TooFar(by) => {
                write!(formatter, "the deadline lies {by:.3?} beyond a whole lease from now")
            }
        }
    }
}

impl Deadline {
    /// None yet, and none that lies more than `longest` ahead.
    pub fn new(longest: Duration) -> Self {
        Self { until: None, longest }
    }

    /// The one that holds.
    pub fn until(&self) -> Option<Duration> {
        self.until
    }

    /// Whether it has come.
    pub fn passed(&self, now: Duration) -> bool {
        self.until.is_some_and(|until| now >= until)
    }

    /// Whether `to` would be taken at `now`.
    pub fn check(&self, now: Duration, to: Duration) -> Result<(), Declined> {
        if self.passed(now) {
            return Err(Declined::Over);
        }
        if to <= now {
            return Err(Declined::Past(now.saturating_sub(to)));
        }
        match to.saturating_sub(now).checked_sub(self.longest) {
            Some(by) if !by.is_zero() => Err(Declined::TooFar(by)),
            _ => Ok(()),
        }
    }

    /// Takes `to`, unless a later one holds. Returns the one that holds.
    pub fn extend(&mut self, now: Duration, to: Duration) -> Result<Duration, Declined> {
        self.check(now, to)?;
        let until = self.until.map_or(to, |until| until.max(to));
        self.until = Some(until);
        Ok(until)
    }

    /// Nothing lives any more.
    pub fn clear(&mut self) {
        self.until = None;
    }
}

#[cfg(test)]
mod tests;
