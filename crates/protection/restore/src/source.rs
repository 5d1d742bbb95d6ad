//! Where a restore reads from: repositories in order of preference, and the keys that open them.
//!
//! Every repository holds the same bytes. What one does not give, or gives damaged, is read from
//! the next; the restore fails only if none has it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use lifeboat_objects::{Blocking, Store};
use lifeboat_repository::ids::Digest;
use lifeboat_repository::keys::{ReadKey, StreamKeys};
use lifeboat_repository::layout;
use lifeboat_repository::object::ObjectType;
use lifeboat_repository::pack::{FrameEntry, PackReader, PageEntry};
use lifeboat_repository::regions::Regions;
use lifeboat_telemetry::{Code, Failure, Outcome, Reporter};

/// Open packs a region keeps. Each takes some KiB, and half a MiB once its pages are compared.
const OPEN_PACKS: usize = 48;

/// The repositories and keys of one stream.
pub struct Source {
    blocking: Blocking,
    regions: Vec<Region>,
    /// The region that is asked first; moves on when a store stops answering.
    preferred: AtomicUsize,
    keys: StreamKeys,
    read_key: ReadKey,
    reporter: Reporter,
}

/// One repository.
pub(crate) struct Region {
    name: String,
    store: Store,
    packs: Mutex<Vec<Arc<OpenPack>>>,
}

/// A pack with its directory, and its page table once somebody asked for it.
pub(crate) struct OpenPack {
    reader: PackReader,
    /// Number of the first slot of each frame in the page table.
    first_slots: Vec<u32>,
    pages: OnceLock<Vec<PageEntry>>,
}

impl Source {
    /// Reads from all `regions` that answered, nearest first.
    pub fn new(
        blocking: Blocking,
        regions: &Regions,
        keys: StreamKeys,
        read_key: ReadKey,
        reporter: Reporter,
    ) -> Self {
        let regions = regions.all().iter().map(|repository| Region {
            name: repository.region().to_owned(),
            store: repository.store().clone(),
            packs: Mutex::new(Vec::new()),
        });
        let (regions, preferred) = (regions.collect(), AtomicUsize::new(0));
        Self { blocking, regions, preferred, keys, read_key, reporter }
    }

    /// Keys of the stream.
    pub fn keys(&self) -> &StreamKeys {
        &self.keys
    }

    /// The key that reads pages and WAL.
    pub fn read_key(&self) -> &ReadKey {
        &self.read_key
    }

    /// The regions, in the order in which they are asked.
    pub(crate) fn region_names(&self) -> Vec<String> {
        let first = self.preferred.load(Ordering::Relaxed);
        let names = self.regions.iter().cycle().skip(first).take(self.regions.len());
        names.map(|region| region.name.clone()).collect()
    }

    /// Asks this region first from now on.
    pub(crate) fn prefer(&self, name: &str) {
        if let Some(index) = self.regions.iter().position(|region| region.name == name) {
            self.preferred.store(index, Ordering::Relaxed);
        }
    }

    pub(crate) fn blocking(&self) -> &Blocking {
        &self.blocking
    }

    /// Reads a metadata object; `decode` checks its digest.
    pub(crate) fn metadata<T>(
        &self,
        kind: ObjectType,
        digest: &Digest,
        decode: impl Fn(&Bytes) -> Outcome<T>,
    ) -> Outcome<T> {
        let key = layout::content(self.keys.stream(), kind, digest)?;
        self.read_anywhere(|region| {
            decode(&self.blocking.run(region.store.get(&key))?)
                .map_err(|failure| failure.within(format!("{key} in region {}", region.name)))
        })
    }

    /// Does `act` with the first region that lets it succeed.
    pub(crate) fn read_anywhere<T>(&self, act: impl Fn(&Region) -> Outcome<T>) -> Outcome<T> {
        let count = self.regions.len();
        let first = self.preferred.load(Ordering::Relaxed);
        let mut failed: Option<Failure> = None;
        for index in (first..first + count).map(|index| index % count) {
            let region = &self.regions[index];
            match act(region) {
                Ok(done) => {
                    if let Some(failure) = failed {
                        let name = &region.name;
                        self.reporter.warn(format!("{failure}; region {name} had it"));
                    }
                    return Ok(done);
                }
                Err(failure) if !another_may_help(failure.code()) => return Err(failure),
                Err(failure) => {
                    if failure.code() == Code::StoreUnavailable {
                        self.preferred.store((index + 1) % count, Ordering::Relaxed);
                    }
                    // The first cause is the one to mend; the others often follow from it.
                    failed.get_or_insert(failure);
                }
            }
        }
        Err(failed.unwrap_or_else(|| {
            Failure::new(Code::StoreUnavailable, "no repository is left to read from")
        }))
    }

    /// An open pack of a region.
    pub(crate) fn pack(&self, region: &Region, digest: &Digest) -> Outcome<Arc<OpenPack>> {
        if let Some(open) = region.find(digest) {
            return Ok(open);
        }
        let opening = PackReader::open(&region.store, &self.keys, Some(&self.read_key), digest);
        let reader = self.blocking.run(opening).map_err(|failure| {
            failure.within(format!("pack {digest} in region {}", region.name))
        })?;
        Ok(region.keep(OpenPack::new(reader)))
    }

    /// What the page table says of a slot.
    pub(crate) fn page(
        &self,
        region: &Region,
        pack: &OpenPack,
        frame: u32,
        slot: u32,
    ) -> Outcome<PageEntry> {
        let pages = match pack.pages.get() {
            Some(pages) => pages,
            None => {
                let read = self.blocking.run(pack.reader.pages(&region.store))?;
                pack.pages.get_or_init(|| read)
            }
        };
        let first = pack.first_slots.get(frame as usize).copied();
        let index = first.and_then(|first| first.checked_add(slot));
        index.and_then(|index| pages.get(index as usize)).copied().ok_or_else(|| {
            let message = format!("the page table of pack {} is too short", pack.digest());
            Failure::new(Code::ObjectDamaged, message)
        })
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = self.regions.iter().map(|region| region.name.as_str());
        formatter.debug_list().entries(names).finish()
    }
}

impl Region {
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    fn find(&self, digest: &Digest) -> Option<Arc<OpenPack>> {
        let mut packs = self.packs.lock().unwrap_or_else(PoisonError::into_inner);
        let index = packs.iter().rposition(|pack| pack.digest() == digest)?;
        let pack = packs.remove(index);
        packs.push(Arc::clone(&pack));
        Some(pack)
    }

    fn keep(&self, pack: OpenPack) -> Arc<OpenPack> {
        let pack = Arc::new(pack);
        let mut packs = self.packs.lock().unwrap_or_else(PoisonError::into_inner);
        if packs.len() >= OPEN_PACKS {
            packs.remove(0);
        }
        packs.push(Arc::clone(&pack));
        pack
    }
}

impl OpenPack {
    fn new(reader: PackReader) -> Self {
        let mut next = 0u32;
        let first_slots = reader.frames().iter().map(|frame| {
            let first = next;
            next = next.saturating_add(frame.slots);
            first
        });
        Self { first_slots: first_slots.collect(), pages: OnceLock::new(), reader }
    }

    pub(crate) fn digest(&self) -> &Digest {
        self.reader.digest()
    }

    pub(crate) fn reader(&self) -> &PackReader {
        &self.reader
    }

    pub(crate) fn frame(&self, number: u32) -> Outcome<&FrameEntry> {
        self.reader.frame(number)
    }
}

/// Whether the failure is one of a repository and not of this machine or this key.
fn another_may_help(code: Code) -> bool {
    matches!(
        code,
        Code::StoreUnavailable
            | Code::StoreDenied
            | Code::ObjectMissing
            | Code::ObjectDamaged
            | Code::LimitExceeded
            | Code::FormatNewer
    )
}
