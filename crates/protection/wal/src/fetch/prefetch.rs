//! Fetching ahead while PostgreSQL replays: a process of its own, small and soon over.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use lifeboat_environment::Environment;
use lifeboat_model::{SegmentName, WalFileName};
use lifeboat_telemetry::{Cancel, Code, Failure, Outcome};

use super::archive::Archive;
use super::queue::Queue;
use crate::plan::RecoveryPlan;

const THREADS: usize = 2;
/// A recovery that takes nothing for so long can start the process again.
const IDLE: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(3);

/// What the process that fetches ahead needs to know.
pub struct PrefetchRequest<'a> {
    /// Time, chance, failpoints.
    pub environment: &'a Environment,
    /// Set when somebody wants the process to end.
    pub cancel: &'a Cancel,
    /// Where WAL comes from.
    pub plan: &'a RecoveryPlan,
    /// The segment that PostgreSQL got last.
    pub after: &'a str,
    /// When the process ends in any case.
    pub deadline: Duration,
}

/// Fetches what follows `after`, until the queue is full and nobody takes from it, nothing
/// follows, or the deadline has come. Returns how many segments it fetched.
pub fn prefetch(request: &PrefetchRequest<'_>) -> Outcome<u64> {
    let after: SegmentName = request.after.parse()?;
    let Some(queue) = Queue::of(request.plan) else {
        return Ok(0);
    };
    let Some(_lock) = queue.lock() else {
        return Ok(0);
    };
    queue.clear_all_but_after(after);
    let end = request.environment.clock().elapsed().saturating_add(request.deadline);
    let archive = Archive::open(request.environment, request.plan, Some(&queue), end)?;
    let size = request.plan.segment_size()?;
    let worker = Worker {
        request,
        queue: &queue,
        archive: &archive,
        end,
        next: AtomicU64::new(after.number(size).saturating_add(1)),
        over: AtomicBool::new(false),
        fetched: AtomicU64::new(0),
    };
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| worker.run(after));
        }
    });
    Ok(worker.fetched.into_inner())
}

struct Worker<'a> {
    request: &'a PrefetchRequest<'a>,
    queue: &'a Queue,
    archive: &'a Archive<'a>,
    end: Duration,
    next: AtomicU64,
    over: AtomicBool,
    fetched: AtomicU64,
}

impl Worker<'_> {
    fn run(&self, after: SegmentName) {
        while self.wait_for_room() {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let size = self.request.plan.segment_size().ok();
            let name = size.and_then(|size| SegmentName::new(after.timeline(), number, size));
            match name.map(|name| self.fetch(name)) {
                Some(Ok(true)) => drop(self.fetched.fetch_add(1, Ordering::Relaxed)),
                Some(Ok(false)) => {}
                // Nothing follows, or something is wrong: `wal fetch` itself will find out.
                Some(Err(_)) | None => self.over.store(true, Ordering::Relaxed),
            }
        }
    }

    /// Waits until the queue has room; `false` when it is time to end.
    fn wait_for_room(&self) -> bool {
        let clock = self.request.environment.clock();
        let mut since = clock.elapsed();
        let mut before = usize::MAX;
        loop {
            let now = clock.elapsed();
            let stop = self.request.cancel.is_requested() || self.over.load(Ordering::Relaxed);
            if stop || now >= self.end {
                return false;
            }
            let waiting = self.queue.waiting().len();
            // Each thread may be about to add one.
            if waiting + THREADS <= self.queue.capacity().max(THREADS) {
                return true;
            }
            if waiting != before {
                (before, since) = (waiting, now);
            }
            if now.saturating_sub(since) >= IDLE {
                return false;
            }
            clock.sleep(POLL);
        }
    }

    fn fetch(&self, name: SegmentName) -> Outcome<bool> {
        let (path, staged) = (self.queue.path(name), self.queue.staged(name));
        if path.exists() {
            return Ok(false);
        }
        let unwritable = |error: std::io::Error| {
            Failure::new(Code::LocalFile, format!("cannot write {}", path.display())).because(error)
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&staged)
            .map_err(unwritable)?;
        let copied = self.archive.copy_ahead(WalFileName::Segment(name), &mut file);
        let done = copied.and_then(|()| std::fs::rename(&staged, &path).map_err(unwritable));
        if done.is_err() {
            let _ = std::fs::remove_file(&staged);
        }
        done.map(|()| true)
    }
}
