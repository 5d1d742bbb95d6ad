//! The driver of an instance over real servers.

mod pair;
mod questions;
mod stopped;
