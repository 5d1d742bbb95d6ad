//! The wish to stop, as it travels from a signal to the flow that honours it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::{Code, Failure, Outcome};

/// A flag that flows poll between steps; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// A flag that nothing has set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the flow to stop at its next safe place.
    pub fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether somebody asked.
    pub fn is_requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Fails with `Code::Interrupted` once somebody asked.
    pub fn check(&self) -> Outcome<()> {
        if self.is_requested() {
            return Err(Failure::new(Code::Interrupted, "interrupted on request")
                .hint("Run the same command again; it continues where it can."));
        }
        Ok(())
    }

    /// The flag itself, for a signal handler, which may do no more than set it.
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}
