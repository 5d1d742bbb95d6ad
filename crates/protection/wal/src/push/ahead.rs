//! Pushing what PostgreSQL will ask for next, while it waits for the file it asked for.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lifeboat_cluster::wal::History;
use lifeboat_model::WalFileName;
use lifeboat_telemetry::Failure;

use super::identity::Source;
use super::spool::{FileIdentity, Spool};

/// How much one call pushes besides the file that it was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Ahead {
    /// So many files at most.
    pub files: usize,
    /// No further file is begun after this time.
    pub time: Duration,
}

impl Default for Ahead {
    /// PostgreSQL's archiver looks at 64 files at a time.
    fn default() -> Self {
        Self { files: 64, time: Duration::from_secs(10) }
    }
}

/// The files to push ahead, shared by the threads that do it.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<WalFileName>,
    pushed: Vec<String>,
    trouble: Option<String>,
}

impl Queue {
    /// Everything that is ready in `source`, oldest first, except `asked` and what was pushed.
    pub(crate) fn of(source: &Source, asked: WalFileName, spool: &Spool<'_>, most: usize) -> Self {
        let ready = ready(source);
        for name in spool.acknowledged() {
            let parsed = name.parse().ok();
            let wanted = parsed.is_some_and(|name| match name {
                // The histories of ancestors are remembered for good: nobody asks for them.
                WalFileName::History(_) => true,
                other => ready.contains(&other),
            });
            if !wanted {
                spool.forget(&name);
            }
        }
        let is_new = |name: &WalFileName| {
            *name != asked
                && std::fs::metadata(source.directory.join("pg_wal").join(name.to_string()))
                    .is_ok_and(|file| {
                        !spool.is_acknowledged(&name.to_string(), &FileIdentity::of(&file))
                    })
        };
        let waiting = histories(source).into_iter().chain(ready).filter(is_new).take(most);
        let state = State { waiting: waiting.collect(), ..State::default() };
        Self { state: Mutex::new(state) }
    }

    pub(crate) fn next(&self) -> Option<WalFileName> {
        self.state().waiting.pop_front()
    }

    pub(crate) fn pushed(&self, name: WalFileName) {
        self.state().pushed.push(name.to_string());
    }

    /// A failure of a file that nobody asked for is noted, not answered; its own call will tell.
    pub(crate) fn stop(&self, name: WalFileName, failure: &Failure) {
        let mut state = self.state();
        state.waiting.clear();
        state.trouble.get_or_insert_with(|| format!("{name}: {failure}"));
    }

    /// Takes back what is left; nothing further is begun.
    pub(crate) fn clear(&self) {
        self.state().waiting.clear();
    }

    /// What was pushed, and what went wrong.
    pub(crate) fn finish(self) -> (Vec<String>, Option<String>) {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        (state.pushed, state.trouble)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What PostgreSQL says is ready, in the order in which it will ask: histories first.
fn ready(source: &Source) -> Vec<WalFileName> {
    let folder = source.directory.join("pg_wal/archive_status");
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<WalFileName> = entries
        .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".ready")?.parse().ok())
        .collect();
    let is_segment = |name: &WalFileName| !matches!(name, WalFileName::History(_));
    names.sort_by_cached_key(|name| (is_segment(name), name.to_string()));
    names
}

/// The timeline's own history and those of its ancestors. A standby that was promoted without
/// ever archiving, and a cluster that is new to Lifeboat, have histories that PostgreSQL will not
/// ask for, and a missing one ends a recovery to the latest timeline too early.
fn histories(source: &Source) -> Vec<WalFileName> {
    let timeline = source.control.timeline;
    let name = WalFileName::History(timeline);
    let path = source.directory.join("pg_wal").join(name.to_string());
    let content = std::fs::read(Path::new(&path)).unwrap_or_default();
    let Ok(history) = History::parse(timeline, &content) else {
        return Vec::new();
    };
    let ancestors = history.ancestors.iter().map(|entry| WalFileName::History(entry.timeline));
    ancestors.chain([name]).collect()
}
