//! Filling the target with files: one thread reads the table, workers fetch and decompress, a few
//! threads wait for the disk.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use lifeboat_environment::Environment;
use lifeboat_telemetry::{Cancel, Code, Failure, Outcome, Reporter};

use crate::batch::Batch;
use crate::flush;
use crate::lanes::{Intake, lanes};
use crate::pages::Worker;
use crate::queue;
use crate::source::Source;
use crate::survey::Survey;
use crate::table::FileTable;
use crate::target::Target;

/// What all threads of a restore share.
pub(crate) struct Copying<'a> {
    pub environment: &'a Environment,
    pub source: &'a Source,
    pub target: &'a Target,
    pub reporter: &'a Reporter,
    pub cancel: &'a Cancel,
    /// Whether files may be there whose pages are to be compared.
    pub compare: bool,
    pub total_bytes: u64,
    counters: Counters,
    failure: Mutex<Option<Failure>>,
    failed: AtomicBool,
}

#[derive(Default)]
struct Counters {
    files: AtomicU64,
    done: AtomicU64,
    kept: AtomicU64,
    fetched: AtomicU64,
    half: AtomicBool,
}

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Copied {
    /// Files that are complete.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that were there already.
    pub kept_bytes: u64,
    /// Stored bytes that were read.
    pub fetched_bytes: u64,
}

impl<'a> Copying<'a> {
    pub(crate) fn new(
        environment: &'a Environment,
        source: &'a Source,
        target: &'a Target,
        reporter: &'a Reporter,
        cancel: &'a Cancel,
    ) -> Self {
        Self {
            environment,
            source,
            target,
            reporter,
            cancel,
            compare: false,
            total_bytes: 0,
            counters: Counters::default(),
            failure: Mutex::new(None),
            failed: AtomicBool::new(false),
        }
    }

    /// Restores every file of the table.
    pub(crate) fn run(
        &self,
        table: FileTable<'_>,
        survey: &Survey,
        workers: usize,
    ) -> Outcome<Copied> {
        let (dirty, waiting_files) = flush::queue();
        let workers = match workers {
            0 => thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        };
        let (feed, intakes) = lanes(workers);
        thread::scope(|scope| {
            for _ in 0..flush::THREADS {
                scope.spawn(|| self.keep(flush::work(&waiting_files, || self.stop())));
            }
            for intake in intakes {
                let dirty = dirty.clone();
                scope.spawn(move || {
                    let outcome = Worker::new(self, dirty).and_then(|mut worker| {
                        self.each_batch(intake, |batch| worker.restore(batch))
                    });
                    self.keep(outcome);
                });
            }
            self.keep(queue::fill(self, table, survey, feed, &dirty));
            drop(dirty);
        });
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        match failure {
            Some(failure) => Err(self.incomplete(failure, survey.files)),
            None => Ok(self.copied()),
        }
    }

    fn each_batch(
        &self,
        mut intake: Intake,
        mut restore: impl FnMut(&Batch) -> Outcome<()>,
    ) -> Outcome<()> {
        while let Some(batch) = intake.next() {
            if self.failed.load(Ordering::Relaxed) {
                return Ok(());
            }
            self.cancel.check()?;
            restore(&batch)?;
        }
        Ok(())
    }

    /// Fails once somebody asked to stop, or another thread failed.
    pub(crate) fn check(&self) -> Outcome<()> {
        if self.failed.load(Ordering::Relaxed) {
            // Never shown: the failure that came first is kept.
            return Err(Failure::new(Code::RestoreIncomplete, "another thread failed"));
        }
        self.cancel.check()
    }

    /// Counts bytes of pieces that are restored.
    pub(crate) fn count(&self, bytes: u64, kept: u64, fetched: u64) -> Outcome<()> {
        self.counters.kept.fetch_add(kept, Ordering::Relaxed);
        self.counters.fetched.fetch_add(fetched, Ordering::Relaxed);
        let done = self.counters.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.reporter.advance(bytes);
        if done >= self.total_bytes / 2 && !self.counters.half.swap(true, Ordering::Relaxed) {
            self.environment.failpoints().hit("restore.half")?;
        }
        Ok(())
    }

    /// Counts a file that is complete; its bytes too where they came with the table.
    pub(crate) fn count_file(&self, bytes: u64) {
        self.counters.files.fetch_add(1, Ordering::Relaxed);
        self.counters.done.fetch_add(bytes, Ordering::Relaxed);
    }

    fn stop(&self) {
        self.failed.store(true, Ordering::Relaxed);
    }

    /// Keeps the first failure and stops the other threads.
    fn keep(&self, outcome: Outcome<()>) {
        if let Err(failure) = outcome {
            let mut first = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert(failure);
            self.stop();
        }
    }

    fn copied(&self) -> Copied {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Copied {
            files: read(&self.counters.files),
            bytes: read(&self.counters.done),
            kept_bytes: read(&self.counters.kept),
            fetched_bytes: read(&self.counters.fetched),
        }
    }

    /// Says how far it came. Damage, a full disk and an interruption keep their own codes, which
    /// say what to do.
    fn incomplete(&self, failure: Failure, files: u64) -> Failure {
        let progress = format!("{} of {files} files are restored", self.copied().files);
        match failure.code() {
            Code::StoreUnavailable | Code::StoreDenied | Code::LocalFile => {
                let hint = failure.hint_text().unwrap_or_default().to_owned();
                Failure::new(Code::RestoreIncomplete, progress).because(failure).hint(
                    format!("{hint} Run the same command again; it goes on where it stopped.")
                        .trim_start()
                        .to_owned(),
                )
            }
            _ => failure.within(progress),
        }
    }
}
