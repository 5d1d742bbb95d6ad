//! A store in one machine's files, for several processes at once and without a server.
//!
//! A folder with two files: `lock`, which is only locked, and `journal` ([`journal`]), which holds
//! what is and every change since. A commit is answered once it is on the disk. Whoever finds
//! changes that another process wrote makes them durable before it tells them: the other one may
//! have died between writing and syncing.
//!
//! Files are read and written on the caller's thread, so a disk that hangs holds up the daemon;
//! the guard's deadline does not depend on it.

mod journal;

use std::cell::RefCell;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::LocalBoxFuture;
use lifeboat_environment::{Environment, SystemTimer, Timer};
use lifeboat_telemetry::{Code, Failure, Outcome};

use crate::keyspace::Keyspace;
use crate::{Commit, Revision, Snapshot, Store, StoreError, Transaction};

/// How long a process waits before it tries to lock again.
const RETRY: Duration = Duration::from_millis(2);
/// What a journal may have grown to before it is written anew, if most of it is history.
const COMPACT_BYTES: u64 = 1 << 20;
/// More than this is no journal.
const MAX_JOURNAL_BYTES: u64 = 256 << 20;

/// A store of one machine. Belongs to one thread with a tokio runtime.
#[derive(Debug)]
pub struct LocalStore {
    folder: PathBuf,
    timeout: Duration,
    environment: Environment,
    state: RefCell<State>,
}

/// What was read of the journal.
#[derive(Debug)]
struct State {
    /// Open for as long as it is known, so that no other file can get its inode.
    file: Option<File>,
    id: Option<String>,
    /// Where its last good record ends.
    end: u64,
    /// Where its first record ends.
    first: u64,
    keys: Keyspace,
    regressed: Option<(Revision, Revision)>,
}

impl LocalStore {
    /// Opens the store in `folder`, or makes it there. `timeout` is how long a call waits for
    /// other processes.
    pub fn open(folder: &Path, timeout: Duration, environment: &Environment) -> Outcome<Self> {
        let store = Self {
            folder: folder.to_owned(),
            timeout,
            environment: environment.clone(),
            state: RefCell::new(State {
                file: None,
                id: None,
                end: 0,
                first: 0,
                keys: Keyspace::new(),
                regressed: None,
            }),
        };
        store.prepare().map_err(|error| {
            let what = format!("the quorum store in {} cannot be made", folder.display());
            Failure::new(Code::QuorumUnusable, what)
                .because(error)
                .hint("Give the folder to the user that the daemons run as.")
        })?;
        Ok(store)
    }

    fn journal(&self) -> PathBuf {
        self.folder.join("journal")
    }

    fn prepare(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let lock = self.lock_file()?;
        // Held for a moment only, by whoever makes the journal.
        lock.lock()?;
        if !self.journal().try_exists()? {
            let mut id = [0; 16];
            self.environment.random().fill(&mut id);
            self.replace(&journal::first(&hex::encode(id), &Keyspace::new()))?;
        }
        if let Some(parent) = self.folder.parent().filter(|parent| parent.is_dir()) {
            File::open(parent)?.sync_all()?;
        }
        Ok(())
    }

    fn lock_file(&self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).read(true).write(true).mode(0o600);
        options.open(self.folder.join("lock"))
    }

    /// Puts a whole journal in place, durable when this returns.
    fn replace(&self, bytes: &[u8]) -> io::Result<()> {
        let draft = self.folder.join("journal.new");
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(true).write(true).mode(0o600).open(&draft)?;
        file.write_all_at(bytes, 0)?;
        file.sync_all()?;
        self.hit("quorum.local.drafted")?;
        fs::rename(&draft, self.journal())?;
        self.hit("quorum.local.replaced")?;
        File::open(&self.folder)?.sync_all()
    }

    fn hit(&self, name: &str) -> io::Result<()> {
        self.environment.failpoints().hit(name).map_err(io::Error::other)
    }

    /// Locks against other processes, for reading or for writing.
    async fn lock(&self, write: bool) -> Result<File, StoreError> {
        let deadline = SystemTimer.elapsed().saturating_add(self.timeout);
        loop {
            let file = self.lock_file().map_err(|error| self.unavailable(&error))?;
            match if write { file.try_lock() } else { file.try_lock_shared() } {
                Ok(()) if self.is_in_place(&file) => return Ok(file),
                // Somebody removed the folder's files: what was locked is nothing any more.
                Ok(()) | Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(self.unavailable(&error)),
            }
            if SystemTimer.elapsed() >= deadline {
                let why = format!("another process holds {}", self.folder.display());
                return Err(StoreError::Unavailable(why));
            }
            SystemTimer.sleep(RETRY).await;
        }
    }

    fn is_in_place(&self, lock: &File) -> bool {
        let there = fs::metadata(self.folder.join("lock"));
        matches!((there, lock.metadata()), (Ok(there), Ok(held)) if same(&there, &held))
    }

    fn unavailable(&self, error: &io::Error) -> StoreError {
        StoreError::Unavailable(format!("{}: {error}", self.folder.display()))
    }

    async fn look(&self, prefix: &str, since: Revision) -> Result<Snapshot, StoreError> {
        let _lock = self.lock(false).await?;
        let mut state = self.state.borrow_mut();
        self.refresh(&mut state)?;
        Ok(state.keys.read(prefix, since))
    }

    async fn change(&self, transaction: Transaction) -> Result<Commit, StoreError> {
        transaction.check()?;
        let _lock = self.lock(true).await?;
        let mut state = self.state.borrow_mut();
        self.refresh(&mut state)?;
        if !state.keys.holds(&transaction.compares) {
            return Ok(Commit::Conflict);
        }
        if !state.keys.changes(&transaction.puts) {
            return Ok(Commit::Done(state.keys.revision()));
        }
        let revision = state.keys.revision().saturating_add(1);
        let record = journal::change(revision, &transaction.puts);
        self.append(&state, &record).map_err(|error| self.unavailable(&error))?;
        state.end = state.end.saturating_add(record.len() as u64);
        state.keys.apply(transaction.puts);
        self.compact(&mut state);
        Ok(Commit::Done(revision))
    }

    /// Writes a record behind the last good one. What fails is taken back, as far as that goes;
    /// what cannot be taken back counts as a commit whose outcome is not known.
    fn append(&self, state: &State, record: &[u8]) -> io::Result<()> {
        let Some(file) = &state.file else { return Err(io::Error::other("it is not open")) };
        // A process may have died while it wrote.
        if file.metadata()?.len() != state.end {
            file.set_len(state.end)?;
        }
        let written = self.hit("quorum.local.locked").and_then(|()| {
            let (start, rest) = record.split_at(record.len() / 2);
            file.write_all_at(start, state.end)?;
            self.hit("quorum.local.torn")?;
            file.write_all_at(rest, state.end.saturating_add(start.len() as u64))?;
            self.hit("quorum.local.written")?;
            file.sync_data()?;
            self.hit("quorum.local.synced")
        });
        if written.is_err() {
            let _ = file.set_len(state.end).and_then(|()| file.sync_data());
        }
        written
    }

    /// Leaves history behind, once there is much of it. What fails is tried again after the next
    /// commit: nothing is lost by a long journal.
    fn compact(&self, state: &mut State) {
        if state.end < COMPACT_BYTES || state.end / 4 < state.first {
            return;
        }
        let Some(id) = &state.id else { return };
        // Read again from its start by everybody, this process included.
        if self.replace(&journal::first(id, &state.keys)).is_ok() {
            state.file = None;
        }
    }

    /// Reads what was added since the last time, or all of another file.
    fn refresh(&self, state: &mut State) -> Result<(), StoreError> {
        if let Some((known, found)) = state.regressed {
            return Err(StoreError::Regressed { known, found });
        }
        let path = self.journal();
        let there = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(regress(state, 0));
            }
            Err(error) => return Err(self.unavailable(&error)),
        };
        let unavailable = |error: io::Error| self.unavailable(&error);
        let found = there.metadata().map_err(unavailable)?;
        let known = state.file.as_ref().map(File::metadata).transpose().map_err(unavailable)?;
        let goes_on = known.is_some_and(|known| same(&known, &found));
        let from = if goes_on { state.end } else { 0 };
        if found.len() < from {
            return Err(regress(state, 0));
        }
        if found.len() > MAX_JOURNAL_BYTES {
            return Err(self.damaged("it is longer than any journal"));
        }
        if found.len() == from {
            return Ok(());
        }
        let mut bytes = vec![0; usize::try_from(found.len() - from).unwrap_or(0)];
        there.read_exact_at(&mut bytes, from).map_err(unavailable)?;
        if goes_on {
            // After damage nothing is known of it; the next call begins at its start again.
            state.file = None;
            let end = journal::replay(&bytes, &mut state.keys);
            let end = end.map_err(|why| self.damaged(&why))?;
            state.end = from.saturating_add(end as u64);
        } else {
            let whole = journal::read(&bytes).map_err(|why| self.damaged(&why))?;
            let other = state.id.as_ref().is_some_and(|id| *id != whole.id);
            if other || whole.keys.revision() < state.keys.revision() {
                return Err(regress(state, whole.keys.revision()));
            }
            (state.end, state.first) = (whole.end as u64, whole.first as u64);
            (state.id, state.keys) = (Some(whole.id), whole.keys);
        }
        state.file = Some(there);
        // Told only once it is certain to stay.
        state.file.as_ref().map_or(Ok(()), File::sync_data).map_err(unavailable)
    }

    fn damaged(&self, why: &str) -> StoreError {
        let key = self.journal().display().to_string();
        StoreError::Damaged { key, why: why.to_owned() }
    }
}

impl Store for LocalStore {
    fn read<'a>(
        &'a self,
        prefix: &'a str,
        since: Revision,
    ) -> LocalBoxFuture<'a, Result<Snapshot, StoreError>> {
        Box::pin(self.look(prefix, since))
    }

    fn commit(&self, transaction: Transaction) -> LocalBoxFuture<'_, Result<Commit, StoreError>> {
        Box::pin(self.change(transaction))
    }
}

fn same(one: &fs::Metadata, other: &fs::Metadata) -> bool {
    one.dev() == other.dev() && one.ino() == other.ino()
}

fn regress(state: &mut State, found: Revision) -> StoreError {
    let known = state.keys.revision();
    state.regressed = Some((known, found));
    StoreError::Regressed { known, found }
}
