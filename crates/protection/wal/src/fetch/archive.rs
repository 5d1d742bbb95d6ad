//! Reading WAL files out of repositories, the planned one first.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use lifeboat_cluster::wal::{History, identify_segment};
use lifeboat_environment::Environment;
use lifeboat_model::{SegmentName, SegmentSize, WalFileName};
use lifeboat_objects::{Blocking, Key, Options, Store};
use lifeboat_repository::ids::Digest;
use lifeboat_repository::keys::WalReadKey;
use lifeboat_repository::layout;
use lifeboat_repository::object::{Header, ObjectType};
use lifeboat_repository::wal_file::{PART_BYTES, Parts, WalFacts, decode_head, decode_to};
use lifeboat_telemetry::{Code, Failure, Outcome};

use super::absence::{self, Verdict};
use super::queue::Queue;
use crate::durable;
use crate::plan::RecoveryPlan;

/// Short, for the next attempt or the next region may do better.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
const ATTEMPTS: u32 = 3;

/// The archive of a plan.
pub(crate) struct Archive<'a> {
    pub(super) environment: &'a Environment,
    pub(super) plan: &'a RecoveryPlan,
    blocking: Blocking,
    queue: Option<&'a Queue>,
    /// The planned region's first.
    pub(super) stores: Vec<(String, Store)>,
    /// Loaded only when there is something to open: absence is proved without it.
    key: OnceLock<WalReadKey>,
    /// The moment, as `Clock::elapsed` counts, at which all must be done.
    pub(super) end: Duration,
}

/// How an attempt ended.
pub(crate) enum Attempt {
    /// The file was written.
    Written {
        /// Where it came from.
        region: String,
        /// Whether all of it was; the last segment may grow under the same name.
        whole: bool,
    },
    /// It is proved absent.
    Absent(String),
}

impl<'a> Archive<'a> {
    pub(crate) fn open(
        environment: &'a Environment,
        plan: &'a RecoveryPlan,
        queue: Option<&'a Queue>,
        end: Duration,
    ) -> Outcome<Self> {
        let left = end.saturating_sub(environment.clock().elapsed());
        let options = Options {
            attempt_timeout: ATTEMPT_TIMEOUT.min(left),
            deadline: (ATTEMPT_TIMEOUT * 2).min(left),
            attempts: ATTEMPTS,
            ..Options::default()
        };
        let stores = plan.stores(environment, &options)?;
        let (blocking, key) = (Blocking::new()?, OnceLock::new());
        Ok(Self { environment, plan, blocking, queue, stores, key, end })
    }

    /// Writes `name` into `file`, from the first region that gives it whole and right.
    pub(crate) fn attempt(&self, name: WalFileName, file: &mut File) -> Outcome<Attempt> {
        let planned = self.planned()?;
        let region = planned.0.clone();
        if self.planned_rests()
            && let Some(other) = self.copy_from_others(name, file)
        {
            return Ok(whole(other));
        }
        let trouble = match self.copy(planned, name, file) {
            Ok(()) => return Ok(whole(region)),
            // Nobody can say which history is meant: not even a whole copy elsewhere.
            Err(failure) if failure.code() == Code::SplitBrain => return Err(failure),
            // Only the planned repository can prove that a file does not exist.
            Err(failure) if failure.code() == Code::ObjectMissing => {
                let open = |key: &Key, bytes: &Bytes| self.open_facts(key, bytes);
                match self.wait(absence::judge(self.plan, &planned.1, name, &open))? {
                    Verdict::Absent(reason) => return Ok(Attempt::Absent(reason)),
                    Verdict::Tail(segment) => {
                        self.write_tail(planned, segment, file)?;
                        return Ok(Attempt::Written { region, whole: false });
                    }
                    Verdict::Gap(failure) => failure,
                }
            }
            Err(failure) => failure,
        };
        if let Some(other) = self.copy_from_others(name, file) {
            if let (Code::StoreUnavailable, Some(queue)) = (trouble.code(), self.queue) {
                queue.rest(&region);
            }
            return Ok(whole(other));
        }
        match name {
            WalFileName::Segment(segment) => match self.assemble_from_all(segment, file) {
                Ok(regions) => Ok(whole(regions)),
                Err(failure) if failure.code() == Code::SplitBrain => Err(failure),
                Err(_) => Err(trouble),
            },
            _ => Err(trouble),
        }
    }

    /// The region that had the file, if any but the planned one did.
    fn copy_from_others(&self, name: WalFileName, file: &mut File) -> Option<String> {
        let mut others = self.stores.iter().skip(1);
        let found = others.find(|other| self.copy(other, name, file).is_ok());
        found.map(|(region, _)| region.clone())
    }

    fn planned_rests(&self) -> bool {
        let now = self.environment.clock().now();
        self.planned()
            .is_ok_and(|(region, _)| self.queue.is_some_and(|queue| queue.rests(region, now)))
    }

    /// Writes a file as one repository has it, whole.
    fn copy(&self, place: &(String, Store), name: WalFileName, file: &mut File) -> Outcome<()> {
        match (self.copy_object(&place.1, name, file), name) {
            (Err(failure), WalFileName::Segment(segment))
                if failure.code() == Code::ObjectMissing =>
            {
                self.assemble(place, segment, file)
            }
            (copied, _) => copied,
        }
    }

    fn copy_object(&self, store: &Store, name: WalFileName, file: &mut File) -> Outcome<()> {
        let key = layout::wal(self.plan.stream, &name.to_string())?;
        let bytes = self.wait(store.get(&key))?;
        self.environment.failpoints().hit("fetch.read")?;
        let kind = Header::decode(&bytes).map_err(|failure| failure.within(&key))?.kind;
        let expected = match name {
            WalFileName::Segment(_) | WalFileName::Partial(_) => ObjectType::Segment,
            WalFileName::History(_) | WalFileName::Backup { .. } => ObjectType::History,
        };
        let in_parts = kind == ObjectType::SegmentHead && expected == ObjectType::Segment;
        let object = if in_parts { kind } else { expected };
        restart(file)?;
        if in_parts {
            let mut list = Vec::new();
            self.open_object(object, &key, &bytes, &mut list)?;
            self.copy_parts(store, name, &key, &list, file)?;
        } else {
            self.open_object(object, &key, &bytes, file)?;
        }
        self.verify(name, file)
    }

    fn copy_parts(
        &self,
        store: &Store,
        name: WalFileName,
        key: &Key,
        list: &[u8],
        file: &mut File,
    ) -> Outcome<()> {
        let damaged =
            |why: &str| Failure::new(Code::ObjectDamaged, format!("{key} is damaged: {why}"));
        let list: Parts = serde_json::from_slice(list).map_err(|_| damaged("no list of parts"))?;
        if list.parts.len() as u64 != self.plan.wal_segment_bytes.div_ceil(PART_BYTES as u64) {
            return Err(damaged("it names too few or too many parts"));
        }
        for (number, digest) in (0..).zip(&list.parts) {
            let part = layout::wal_part(self.plan.stream, &name.to_string(), number)?;
            let bytes = match self.wait(store.get(&part)) {
                // The head is there, so the segment exists: this is damage, not absence.
                Err(failure) if failure.code() == Code::ObjectMissing => {
                    return Err(damaged(&format!("{part} is missing")));
                }
                bytes => bytes?,
            };
            if Digest::of(&bytes) != *digest {
                return Err(damaged(&format!("{part} is not the part that it names")));
            }
            self.open_object(ObjectType::SegmentPart, &part, &bytes, file)?;
        }
        Ok(())
    }

    fn open_object(
        &self,
        kind: ObjectType,
        key: &Key,
        bytes: &Bytes,
        out: &mut impl Write,
    ) -> Outcome<()> {
        let WalReadKey { keys, read_key } = self.read_key()?;
        let write = |frame: &[u8]| out.write_all(frame).map_err(unwritable);
        decode_to(keys, read_key, kind, key, bytes, write).map(drop)
    }

    fn open_facts(&self, key: &Key, bytes: &Bytes) -> Outcome<WalFacts> {
        let head = decode_head(&self.read_key()?.keys, ObjectType::History, key, bytes)?;
        Ok(head.facts)
    }

    pub(super) fn read_key(&self) -> Outcome<&WalReadKey> {
        let key = match self.key.get() {
            Some(key) => key,
            None => {
                let loaded = WalReadKey::load(&self.plan.read_key_file)?;
                self.key.get_or_init(|| loaded)
            }
        };
        if key.keys.vault().id != self.plan.vault || key.keys.stream() != self.plan.stream {
            let shown = self.plan.read_key_file.display();
            let message = format!("the WAL-read key {shown} is of another vault or database");
            return Err(Failure::new(Code::KeyUnavailable, message)
                .hint("It belongs to another restore: run this one again."));
        }
        Ok(key)
    }

    /// The last look before PostgreSQL gets the file.
    pub(super) fn verify(&self, name: WalFileName, file: &File) -> Outcome<()> {
        match name {
            WalFileName::Segment(segment) | WalFileName::Partial(segment) => {
                check_segment(self.plan, segment, file)
            }
            WalFileName::History(timeline) => {
                let length = file.metadata().map_err(unwritable)?.len();
                let mut content = vec![0; usize::try_from(length).unwrap_or_default()];
                file.read_exact_at(&mut content, 0).map_err(unwritable)?;
                let parsed = History::parse(timeline, &content);
                parsed.map(drop).map_err(|error| error.at(name))
            }
            WalFileName::Backup { .. } => Ok(()),
        }
    }

    pub(super) fn wait<T>(&self, work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
        let left = self.end.saturating_sub(self.environment.clock().elapsed());
        let timed = self.blocking.run(async { tokio::time::timeout(left, work).await });
        timed.unwrap_or_else(|_| {
            Err(Failure::new(Code::DeadlineExceeded, "the archive did not answer in time")
                .hint("See whether the repository can be reached; `--deadline` allows more time."))
        })
    }

    /// Writes a file from the region that is to be asked first, for what may wait if that fails.
    pub(crate) fn copy_ahead(&self, name: WalFileName, file: &mut File) -> Outcome<()> {
        if self.planned_rests() && self.copy_from_others(name, file).is_some() {
            return Ok(());
        }
        self.copy(self.planned()?, name, file)
    }

    fn planned(&self) -> Outcome<&(String, Store)> {
        let first = self.stores.first();
        first.ok_or_else(|| Failure::new(Code::Internal, "a plan without repositories"))
    }
}

fn whole(region: String) -> Attempt {
    Attempt::Written { region, whole: true }
}

/// Checks that a file holds the segment that its name promises, of this plan's cluster.
pub(crate) fn check_segment(plan: &RecoveryPlan, name: SegmentName, file: &File) -> Outcome<()> {
    let mut first = [0; 64];
    let read = file.read_at(&mut first, 0).map_err(unwritable)?;
    let found = identify_segment(first.get(..read).unwrap_or_default(), name)
        .map_err(|error| error.at(name))?;
    if found.system != plan.system_identifier {
        let message = format!("{name} is of cluster {}", found.system);
        return Err(Failure::new(Code::ClusterMismatch, message));
    }
    let size: SegmentSize = plan.segment_size()?;
    if found.segment_size != size {
        let message = format!("{name} is of a cluster with other segments than {}", size.bytes());
        return Err(Failure::new(Code::WalInvalid, message));
    }
    let length = file.metadata().map_err(unwritable)?.len();
    found.check_length(length).map_err(|error| error.at(name))
}

pub(super) fn restart(file: &mut File) -> Outcome<()> {
    use std::io::Seek;
    file.set_len(0).and_then(|()| file.rewind()).map_err(unwritable)
}

pub(super) fn unwritable(error: std::io::Error) -> Failure {
    durable::unwritable("the fetched file", error)
}
