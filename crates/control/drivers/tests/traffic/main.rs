//! Traffic drivers over what they drive: one suite for all of them, and what is special to each.

mod dns;
mod manual;
mod member;
mod model;
mod proxy;
mod suite;

use std::future::Future;

/// Runs a test's work as a daemon's: on one thread.
fn on_one_thread<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}
