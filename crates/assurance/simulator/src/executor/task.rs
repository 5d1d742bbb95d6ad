//! Tasks and their queue.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};

use super::ProcessId;

/// A task; its number tells it from an earlier one in the same place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TaskId {
    pub place: usize,
    pub number: u64,
}

/// Tasks that can go on. Wakers must be `Send`, so a mutex that nobody ever waits for.
#[derive(Debug, Default)]
pub(super) struct Ready {
    queue: Mutex<Vec<TaskId>>,
}

impl Ready {
    pub fn push(&self, task: TaskId) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if !queue.contains(&task) {
            queue.push(task);
        }
    }

    /// One of those that wait, chosen by `choose` from their number.
    pub fn take(&self, choose: impl FnOnce(usize) -> usize) -> Option<TaskId> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        match queue.len() {
            0 => None,
            1 => queue.pop(),
            length => Some(queue.remove(choose(length))),
        }
    }
}

type Life = Pin<Box<dyn Future<Output = ()>>>;

pub(super) struct Task {
    pub id: TaskId,
    pub process: ProcessId,
    future: Option<Life>,
    waker: Waker,
}

impl Task {
    pub fn new(id: TaskId, process: ProcessId, future: Life, ready: Arc<Ready>) -> Self {
        Self {
            id,
            process,
            future: Some(future),
            waker: Waker::from(Arc::new(Wakes { id, ready })),
        }
    }

    /// Takes the future out, so that it can be polled while the list of tasks is free.
    pub fn begin(&mut self) -> Option<(Life, Waker)> {
        Some((self.future.take()?, self.waker.clone()))
    }

    pub fn end(&mut self, future: Life) {
        self.future = Some(future);
    }
}

struct Wakes {
    id: TaskId,
    ready: Arc<Ready>,
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.ready.push(self.id);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ready.push(self.id);
    }
}
