//! End-to-end scenarios over real processes: what they share.
//!
//! The scenarios themselves lie in `tests/scenarios`, a file for each promise.

pub mod acknowledged;
pub mod clouds;
pub mod commits;
pub mod fragments;
pub mod guarded;
pub mod lab;
pub mod ledger;
pub mod moved;
pub mod objects;
pub mod restored;
pub mod service;
pub mod streamed;
pub mod sweep;
pub mod told;
pub mod volume;
pub mod world;
