//! Which commits wait for which receivers: `synchronous_standby_names` from the spec.
//!
//! [`Survey`] asks the writing server, [`Plan`] decides from that alone, [`Change`] carries it out
//! and reads it back, [`Memory`] knows what was there before.

mod apply;
mod memory;
mod plan;
mod rule;
mod survey;

pub use apply::Change;
pub use memory::Memory;
pub use plan::{Plan, Remark, Standing, Way, Weight, Wish};
pub use rule::Rule;
pub use survey::{Override, Setting, Survey, weakness};
