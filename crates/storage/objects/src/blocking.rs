//! The way into a store from threads that compute.

use std::future::Future;
use std::sync::Arc;

use lifeboat_telemetry::{Code, Failure, Outcome};
use tokio::runtime::{Builder, Handle, Runtime};

/// A runtime for store operations; clones share it. One a process is enough.
#[derive(Debug, Clone)]
pub struct Blocking {
    handle: Handle,
    _runtime: Arc<Owned>,
}

/// `None` only while it is dropped.
#[derive(Debug)]
struct Owned(Option<Runtime>);

impl Drop for Owned {
    /// Does not wait: a thread may hang in a file system that does not answer.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Blocking {
    /// Starts the runtime's two threads.
    pub fn new() -> Outcome<Self> {
        let built = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("lifeboat-store")
            .enable_all()
            .build();
        let runtime = built.map_err(|error| {
            Failure::new(Code::Internal, "cannot start the threads of the store").because(error)
        })?;
        let handle = runtime.handle().clone();
        Ok(Self { handle, _runtime: Arc::new(Owned(Some(runtime))) })
    }

    /// Waits for `future` on this thread, which must not itself belong to a runtime.
    pub fn run<F: Future>(&self, future: F) -> F::Output {
        self.handle.block_on(future)
    }
}
