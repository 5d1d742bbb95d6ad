//! The second thread: what is flushed goes to the repository, oldest first, until it is there.
//!
//! It reads from the spool, so that a slow store costs no memory, and it alone talks to the store.

use std::path::Path;
use std::time::Duration;

use lifeboat_model::{Lsn, SegmentName, SegmentSize, SystemIdentifier, Timeline, WalFileName};
use lifeboat_objects::Key;
use lifeboat_repository::changes::ChangesName;
use lifeboat_repository::fragment::{FragmentName, encode_fragment};
use lifeboat_repository::layout;
use lifeboat_repository::receiver::{Durable, ReceiverBody, claim_epoch};
use lifeboat_repository::regions::Regions;
use lifeboat_repository::repository::Repository;
use lifeboat_repository::wal_file::{WalContent, decode_digest, digest_end};
use lifeboat_telemetry::{Code, Failure, Outcome};

use super::ReceiveRequest;
use super::facts::{Facts, Whole};
use super::folder::Folder;
use super::ledger::{Ledger, SHIP_AT_ONCE, Work};
use super::passing::Passing;
use super::pause::Pause;
use super::reopen::Extent;
use super::spool::split_brain;
use crate::push::file::{Origin, read};
use crate::push::parts::place;
use crate::push::place::Places;

/// How long one attempt to store a file may take.
const ATTEMPT: Duration = Duration::from_secs(60);
/// So many fragments are compared, the newest ones: two histories that differ differ from there on.
const COMPARED_MAX: usize = 8;
/// How long a receiver that was asked to end goes on trying.
const FAREWELL: Duration = Duration::from_secs(20);

/// What ships.
pub(crate) struct Shipper<'a> {
    request: &'a ReceiveRequest<'a>,
    folder: &'a Folder,
    ledger: &'a Ledger,
    repository: Option<Regions>,
    epoch: Option<u32>,
    facts: Facts<'a>,
    passing: Passing,
    /// The timeline whose earlier fragments were compared.
    compared: Option<Timeline>,
    /// When somebody asked for the end.
    asked: Option<Duration>,
}

impl<'a> Shipper<'a> {
    pub(crate) fn new(
        request: &'a ReceiveRequest<'a>,
        folder: &'a Folder,
        ledger: &'a Ledger,
    ) -> Self {
        let facts = Facts::new(folder, SystemIdentifier(request.stream.system_identifier));
        let (repository, epoch, passing) = (None, None, Passing::default());
        let (compared, asked) = (None, None);
        Self { request, folder, ledger, repository, epoch, facts, passing, compared, asked }
    }

    /// Ships until there is nothing left and nothing more to come.
    pub(crate) fn run(self) {
        // Also after a panic nothing may be acknowledged on the strength of this thread.
        let ledger = self.ledger;
        let _done = Done(ledger);
        self.work();
    }

    fn work(mut self) {
        let clock = self.request.environment.clock();
        loop {
            let work = self.ledger.next(clock);
            if work == Work::Nothing {
                return self.ledger.done(None);
            }
            if let Err(failure) = self.patiently(work) {
                return self.ledger.done(Some(failure));
            }
        }
    }

    /// A store that does not answer is asked for ever: the spool holds what waits.
    fn patiently(&mut self, work: Work) -> Outcome<()> {
        let mut pause = Pause::new(Duration::from_millis(250), Duration::from_secs(15));
        let region = self.request.region;
        loop {
            let failure = match self.ship(work) {
                Ok(()) if pause.is_used() => {
                    self.request.reporter.note(format!("the repository of {region} answers again"));
                    return Ok(());
                }
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            };
            if !passes(failure.code()) || self.is_over() {
                return Err(failure);
            }
            if !pause.is_used() {
                self.request.reporter.warn(format!(
                    "the repository of {region} takes nothing, the spool does: {failure}"
                ));
            }
            pause.wait(self.request.environment, || self.is_over());
        }
    }

    /// Whether it is time to give up: some while after somebody asked for the end.
    fn is_over(&mut self) -> bool {
        let now = self.request.environment.clock().elapsed();
        // Draining is what somebody asked for.
        let ending = self.ledger.is_ending() && !self.request.drain;
        if self.request.cancel.is_requested() || ending {
            self.asked.get_or_insert(now);
        }
        self.asked.is_some_and(|asked| now.saturating_sub(asked) > FAREWELL)
    }

    fn ship(&mut self, work: Work) -> Outcome<()> {
        match work {
            Work::History(timeline) => self.history(timeline),
            Work::Segment(name) => self.segment(name),
            Work::Fragment { extent, start, end, last } => self.fragment(extent, start, end, last),
            Work::Forget(extent) => {
                self.folder.retire_extent(extent, self.ledger.size()?)?;
                self.ledger.forgotten(extent);
                Ok(())
            }
            Work::Nothing => Ok(()),
        }
    }

    /// The repository; the first time it also learns of this run.
    fn repository(&mut self) -> Outcome<(&Regions, u32)> {
        if self.repository.is_none() {
            let repository = (self.request.open)()?;
            self.repository = Some(Regions::new(vec![repository], Vec::new())?);
        }
        let epoch = match (self.epoch, &self.repository) {
            (Some(epoch), _) => epoch,
            (None, Some(regions)) => {
                let epoch = claim(self.request, regions.nearest())?;
                *self.epoch.insert(epoch)
            }
            (None, None) => 0,
        };
        match &self.repository {
            Some(regions) => Ok((regions, epoch)),
            None => Err(Failure::new(Code::Internal, "the repository is not open")),
        }
    }

    /// Once a run and timeline: what was received again from the start of a segment must be what
    /// earlier runs, also those of other hosts, shipped of it.
    fn compare(&mut self, timeline: Timeline, begin: Lsn, end: Lsn) -> Outcome<()> {
        if self.compared == Some(timeline) {
            return Ok(());
        }
        let (request, folder, size) = (self.request, self.folder, self.ledger.size()?);
        let (regions, own) = self.repository()?;
        let (store, keys) = (regions.nearest().store(), &request.stream.keys);
        let root = layout::fragments(keys.stream(), timeline);
        let after = Key::new(format!("{root}{:016x}", begin.0))?;
        let all = layout::all_fragments(keys.stream());
        let listed = request.blocking.run(store.list_after(&root, &after))?;
        let earlier = listed.into_iter().rev().filter_map(|(key, _)| {
            let name: FragmentName = key.as_str().strip_prefix(&all)?.parse().ok()?;
            (name.end <= end && name.epoch != own).then_some((key, name))
        });
        for (key, name) in earlier.take(COMPARED_MAX) {
            let head = request.blocking.run(store.get_range(&key, 0..digest_end(&key)))?;
            let (_, digest) = decode_digest(keys, &key, &head)?;
            let mut plain = vec![0; usize::try_from(name.plain_bytes()).unwrap_or_default()];
            folder.read(timeline, size, name.start, &mut plain)?;
            if keys.content_digest(&plain) != digest {
                return Err(split_brain(name.start, timeline));
            }
        }
        self.compared = Some(timeline);
        Ok(())
    }

    fn history(&mut self, timeline: Timeline) -> Outcome<()> {
        let path = self.folder.history(timeline);
        self.store_file(&path, WalFileName::History(timeline), SegmentSize::DEFAULT)?;
        self.folder.forget_history(timeline);
        self.ledger.shipped_history(timeline);
        Ok(())
    }

    /// Stores a whole segment under its own name, as `wal push` would.
    fn segment(&mut self, name: SegmentName) -> Outcome<()> {
        let size = self.ledger.size()?;
        let path = self.folder.segment(name);
        let begin = name.start(size).unwrap_or_default();
        let end = begin.checked_add(size.bytes()).unwrap_or(Lsn::MAX);
        self.compare(name.timeline(), begin, end)?;
        self.store_file(&path, WalFileName::Segment(name), size)?;
        self.request.environment.failpoints().hit("receive.consolidated")?;
        self.note_changes(name, size)?;
        self.ledger.stored(name, self.request.environment.clock());
        // The one before is kept until now: records run on from it, which a crash asks about.
        if let Some(before) = name.number(size).checked_sub(1)
            && let Some(before) = SegmentName::new(name.timeline(), before, size)
        {
            self.folder.retire(before)?;
        }
        Ok(())
    }

    /// Stores what changed, before the file goes that says so.
    fn note_changes(&mut self, segment: SegmentName, size: SegmentSize) -> Outcome<()> {
        let (request, folder) = (self.request, self.folder);
        let mut passing = std::mem::take(&mut self.passing);
        let (regions, epoch) = self.repository()?;
        let name = ChangesName { segment, epoch };
        let noted = passing.store(request, folder, regions.nearest(), name, size);
        self.passing = passing;
        noted
    }

    fn store_file(
        &mut self,
        path: &Path,
        name: WalFileName,
        segment_size: SegmentSize,
    ) -> Outcome<()> {
        let request = self.request;
        let (environment, keys) = (request.environment, &request.stream.keys);
        let end = environment.clock().elapsed().saturating_add(ATTEMPT);
        let (regions, _) = self.repository()?;
        let system = SystemIdentifier(request.stream.system_identifier);
        let file = read(path, name, Origin { system, segment_size }, keys)?;
        let places = Places::new(environment, request.blocking, keys, regions, end);
        place(&places, path, &file, request.level).map(drop)
    }

    /// Stores bytes of an unfinished segment, up to the end of a record if one ends there.
    fn fragment(&mut self, extent: Extent, start: Lsn, end: Lsn, last: bool) -> Outcome<()> {
        let (request, clock) = (self.request, self.request.environment.clock());
        let size = self.ledger.size()?;
        self.compare(extent.timeline, Lsn(start.0 - size.offset_of(start)), extent.end)?;
        let whole = self.facts.whole_records(extent.timeline, size, start, end)?;
        let end = match whole {
            Whole::UpTo(end) => end,
            Whole::Nothing if last || end.distance_from(start) >= SHIP_AT_ONCE => end,
            Whole::Padding if last => end,
            Whole::Nothing | Whole::Padding => {
                self.ledger.nothing_whole(extent.end, clock);
                return Ok(());
            }
        };
        let (_, epoch) = self.repository()?;
        let name = FragmentName { timeline: extent.timeline, start, end, epoch };
        let mut plain = vec![0; usize::try_from(name.plain_bytes()).unwrap_or_default()];
        self.folder.read(extent.timeline, size, start, &mut plain)?;
        let keys = &request.stream.keys;
        let facts = self.facts.of(end);
        let content =
            WalContent { plain: &plain, digest: keys.content_digest(&plain), facts: &facts };
        let (key, bytes) =
            encode_fragment(keys, request.environment, &name, request.level, &content)?;
        let (regions, _) = self.repository()?;
        let store = regions.nearest().store();
        request.blocking.run(store.create_seen(&key, bytes))?;
        request.environment.failpoints().hit("receive.shipped")?;
        self.facts.forget(end);
        self.ledger.shipped(extent, end, clock);
        Ok(())
    }
}

/// Tells the other thread that shipping has ended.
struct Done<'a>(&'a Ledger);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        if !self.0.is_done() {
            let message = "the thread that ships has ended unexpectedly";
            self.0.done(Some(Failure::new(Code::Internal, message)));
        }
    }
}

fn claim(request: &ReceiveRequest<'_>, repository: &Repository) -> Outcome<u32> {
    let body = ReceiverBody {
        writer: request.writer.label().to_owned(),
        region: request.region.to_owned(),
        host: request.host.to_owned(),
        control_epoch: request.epoch,
        started_at: request.environment.clock().now(),
        durable: Durable::from(request.durable),
    };
    let stream = request.stream.keys.stream();
    request.blocking.run(claim_epoch(repository, stream, &request.writer.signing()?, &body))
}

/// Whether a failure of the store may pass by itself.
pub(crate) fn passes(code: Code) -> bool {
    matches!(
        code,
        Code::StoreUnavailable
            | Code::StoreDenied
            | Code::StoreFull
            | Code::RepositoryMissing
            | Code::DeadlineExceeded
    )
}
