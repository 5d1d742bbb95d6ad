//! Files go to disk while others are still being decompressed: a few threads do nothing but wait
//! for the disk.

use std::fs::File;
use std::path::PathBuf;

use crossbeam_channel::{Receiver, Sender, bounded};
use lifeboat_telemetry::Outcome;

use crate::local;

/// Enough that a file system joins their commits.
pub(crate) const THREADS: usize = 4;
/// Files that may wait, each of them open.
const WAITING: usize = 64;

/// A file with something new in it.
pub(crate) struct Dirty {
    pub file: File,
    pub path: PathBuf,
    /// Whether nothing more will be written to it.
    pub complete: bool,
}

/// The two ends of the queue.
pub(crate) fn queue() -> (Sender<Dirty>, Receiver<Dirty>) {
    bounded(WAITING)
}

/// Works until the queue is closed. Goes on after a failure, so that nobody waits for room in the
/// queue forever.
pub(crate) fn work(queue: &Receiver<Dirty>, failed: impl Fn()) -> Outcome<()> {
    let mut outcome = Ok(());
    for dirty in queue {
        if outcome.is_err() {
            continue;
        }
        let synced = if dirty.complete { dirty.file.sync_all() } else { dirty.file.sync_data() };
        if let Err(error) = synced {
            outcome = Err(local::failure("sync", &dirty.path, error));
            failed();
        }
    }
    outcome
}
