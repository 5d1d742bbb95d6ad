//! What runs all the time: guard, agent, controller.
//!
//! Both loops act through traits alone ([`lifeboat_quorum::Store`], `lifeboat_drivers`), wait on a
//! [`lifeboat_environment::Timer`], and never end by themselves: whoever runs them drops them.

pub mod agent;
pub mod controller;
pub mod guard;
mod inquiry;
pub mod primary;
pub mod receiver;

#[cfg(test)]
mod tests;
