//! What Lifeboat tells: failures with codes that `lifeboat explain` expands, and progress events.

mod cancel;
mod code;
mod failure;
mod progress;
mod units;

pub use cancel::Cancel;
pub use code::{Code, Kind};
pub use failure::{Failure, Outcome};
pub use progress::{Event, Progress, Recorder, Reporter, Silent};
pub use units::{bytes, duration, rate};

#[cfg(test)]
mod tests;
