//! PostgreSQL's parent (F11, ADR 0015): two processes that know one thing, until when the instance
//! may live.
//!
//! The upper one, the keeper, talks to agents. The lower one, init, is PostgreSQL's parent. An
//! extension goes through both before it is confirmed. At the deadline either one kills every
//! process of the instance; and either one does so at once when the other one ends. Both run on
//! one thread, touch no network and no disk between a deadline and its kill, and stay in memory.

mod alarm;
mod deadline;
mod init;
mod keeper;
mod lines;
mod link;
mod log;
mod protect;
mod reap;
mod start;
mod step;
mod watchdog;

pub use deadline::{Deadline, Declined};
pub use init::init;
pub use keeper::run;
pub use start::detach;
pub use step::{borrow, step};
