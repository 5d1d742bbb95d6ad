//! The driver of an instance over real servers.

mod endpoint;
mod pair;
mod questions;
mod stopped;
