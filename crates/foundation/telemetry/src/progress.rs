//! One stream of events for every long operation; a bar and a JSON writer are two readers of it.

use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

/// Something that happened during a long operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A step began. A total of zero means that the total is not known.
    Started {
        /// What is being done, as in `copying files`.
        step: String,
        /// Bytes that the step will handle.
        total_bytes: u64,
    },
    /// More bytes of the current step are done.
    Advanced {
        /// Bytes since the last event.
        bytes: u64,
    },
    /// The current step ended well.
    Finished {
        /// The step that ended.
        step: String,
    },
    /// How far a receiver of WAL is; every second or so.
    Streamed {
        /// The timeline.
        timeline: u32,
        /// Everything before this position was written.
        received_lsn: String,
        /// Everything before this position is on disk.
        durable_lsn: String,
        /// Everything before this position is in the repository.
        shipped_lsn: String,
        /// Bytes that only the spool holds.
        waiting_bytes: u64,
        /// Bytes that came per second since the last event.
        bytes_per_second: u64,
    },
    /// Something worth a line.
    Note {
        /// A sentence.
        message: String,
    },
    /// Something that a person should know although the operation goes on.
    Warning {
        /// A sentence.
        message: String,
    },
}

/// A reader of events.
pub trait Progress: Send + Sync {
    /// Takes one event; must be cheap, for `Advanced` comes often.
    fn event(&self, event: Event);
}

/// What flows hold: a cheap handle on whoever listens.
#[derive(Clone)]
pub struct Reporter(Arc<dyn Progress>);

impl Reporter {
    /// A reporter that hands events to `progress`.
    pub fn new(progress: impl Progress + 'static) -> Self {
        Self(Arc::new(progress))
    }

    /// A reporter that nobody listens to.
    pub fn silent() -> Self {
        Self::new(Silent)
    }

    /// Begins a step.
    pub fn start(&self, step: &str, total_bytes: u64) {
        self.0.event(Event::Started { step: step.to_owned(), total_bytes });
    }

    /// Counts bytes of the current step.
    pub fn advance(&self, bytes: u64) {
        self.0.event(Event::Advanced { bytes });
    }

    /// Says how far a receiver is.
    pub fn streamed(&self, event: Event) {
        self.0.event(event);
    }

    /// Ends a step.
    pub fn finish(&self, step: &str) {
        self.0.event(Event::Finished { step: step.to_owned() });
    }

    /// Says a sentence.
    pub fn note(&self, message: impl Into<String>) {
        self.0.event(Event::Note { message: message.into() });
    }

    /// Warns in a sentence.
    pub fn warn(&self, message: impl Into<String>) {
        self.0.event(Event::Warning { message: message.into() });
    }
}

impl std::fmt::Debug for Reporter {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Reporter")
    }
}

/// Drops every event.
#[derive(Debug, Clone, Copy)]
pub struct Silent;

impl Progress for Silent {
    fn event(&self, _event: Event) {}
}

/// Keeps every event, for tests; clones share the list.
#[derive(Debug, Clone, Default)]
pub struct Recorder(Arc<Mutex<Vec<Event>>>);

impl Recorder {
    /// What was told so far.
    pub fn events(&self) -> Vec<Event> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Progress for Recorder {
    fn event(&self, event: Event) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }
}
