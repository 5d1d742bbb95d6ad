//! What the first thread knows: how far it came, and what it has to tell.

use std::collections::BTreeSet;
use std::time::Duration;

use lifeboat_audit::Act;
use lifeboat_model::{Lsn, SegmentSize, SystemIdentifier, Timeline};
use lifeboat_repository::regions::Regions;
use lifeboat_repository::repository::Repository;
use lifeboat_telemetry::{Code, Failure, Outcome, bytes};

use super::folder::{Folder, least_limit};
use super::ledger::Ledger;
use super::reopen::{Extent, reopen, whole_records};
use super::resume::{Position, Stored};
use super::seal;
use super::sender::Greeting;
use super::ship::passes;
use super::spool::Spool;
use super::{Gap, ReceiveRequest};

/// The receiver of one database in one region.
pub(crate) struct Receiver<'a> {
    pub(crate) request: &'a ReceiveRequest<'a>,
    pub(crate) folder: &'a Folder,
    pub(crate) ledger: &'a Ledger,
    /// What the repository holds; not known before the segment size is.
    stored: Option<Stored>,
    /// The newest position that is held anywhere.
    newest: Option<Position>,
    /// Where to begin behind a gap.
    behind_gap: Option<Position>,
    histories: BTreeSet<Timeline>,
    abandoned: BTreeSet<Timeline>,
    pub(crate) gaps: Vec<Gap>,
    /// WAL came at least once.
    pub(crate) was_attached: bool,
}

impl<'a> Receiver<'a> {
    /// Looks at what the spool and the repository hold, and hands the shipper what is to do.
    pub(crate) fn open(
        request: &'a ReceiveRequest<'a>,
        folder: &'a Folder,
        ledger: &'a Ledger,
    ) -> Outcome<Self> {
        let mut receiver = Self {
            request,
            folder,
            ledger,
            stored: None,
            newest: None,
            behind_gap: None,
            histories: BTreeSet::new(),
            abandoned: BTreeSet::new(),
            gaps: Vec::new(),
            was_attached: false,
        };
        let system = SystemIdentifier(request.stream.system_identifier);
        let held = reopen(folder, system)?;
        for timeline in folder.histories()? {
            ledger.add_history(timeline);
        }
        let (Some(size), Some(first)) = (held.size, held.extents.first()) else {
            return Ok(receiver);
        };
        let from = Position { timeline: first.timeline, lsn: first.start };
        receiver.read_stored(size, Some(from))?;
        let mut found = 0;
        for extent in held.extents {
            let (shipped, stored) = receiver.reach(&extent, size);
            found += extent.end.distance_from(shipped);
            ledger.add(size, extent, shipped, stored);
            receiver.grown();
        }
        if found > 0 {
            receiver.note(format!("the spool holds {} that are not shipped yet", bytes(found)));
        }
        Ok(receiver)
    }

    fn read_stored(&mut self, size: SegmentSize, from: Option<Position>) -> Outcome<()> {
        let repository = (self.request.open)()?;
        let stream = self.request.stream.keys.stream();
        let stored = Stored::read(&repository, stream, size, from);
        let stored = self.request.blocking.run(stored)?;
        self.newest = self.newest.max(stored.end(size));
        self.stored = Some(stored);
        Ok(())
    }

    fn reach(&self, extent: &Extent, size: SegmentSize) -> (Lsn, Lsn) {
        let stored = self.stored.as_ref();
        stored.map_or((extent.start, extent.start), |stored| stored.reach(extent, size))
    }

    /// The end of what is held, from where on the next WAL is wanted.
    pub(crate) fn end(&mut self, size: SegmentSize) -> Outcome<Option<Position>> {
        if self.stored.is_none() {
            self.read_stored(size, None)?;
        }
        self.grown();
        Ok(self.behind_gap.or(self.newest))
    }

    /// Takes note of what was flushed.
    pub(crate) fn grown(&mut self) {
        let end = self.ledger.end().map(|(timeline, lsn)| Position { timeline, lsn });
        self.newest = self.newest.max(end);
        if self.newest > self.behind_gap {
            self.behind_gap = None;
        }
    }

    /// The spool from `begin` on. What it holds of the timeline either leads there, or is shipped
    /// and removed first: two pieces with a hole must never lie beside each other.
    pub(crate) fn spool(&mut self, begin: Position, size: SegmentSize) -> Outcome<Spool<'a>> {
        let Position { timeline, lsn } = begin;
        self.folder.set_limit(least_limit(self.request.spool_limit, size));
        let leads = |extent: &Extent| (extent.start..=extent.end).contains(&lsn);
        if let Some(extent) = self.ledger.newest(timeline).filter(leads) {
            return Ok(Spool::begin(self.folder, size, timeline, lsn, Some(extent.end)));
        }
        self.ledger.close();
        while self.ledger.holds(timeline) {
            self.request.cancel.check()?;
            if self.ledger.is_done() {
                return Err(Failure::new(Code::Interrupted, "shipping has ended"));
            }
            self.ledger.wait(Duration::from_millis(100));
        }
        for name in self.folder.segments(timeline)? {
            self.folder.retire(name)?;
        }
        let extent = Extent { timeline, start: lsn, end: lsn };
        let (shipped, stored) = self.reach(&extent, size);
        self.ledger.add(size, extent, shipped, stored);
        Ok(Spool::begin(self.folder, size, timeline, lsn, None))
    }

    /// Keeps a history until it is shipped, once a run.
    pub(crate) fn keep_history(&mut self, timeline: Timeline, content: &[u8]) -> Outcome<()> {
        if self.histories.insert(timeline) {
            self.folder.put_history(timeline, content)?;
            self.ledger.add_history(timeline);
        }
        Ok(())
    }

    /// The stream has begun.
    pub(crate) fn attached(&mut self, place: &str, begin: Position) {
        self.was_attached = true;
        let Position { timeline, lsn } = begin;
        self.note(format!("receiving from {place}, timeline {timeline}, from {lsn} on"));
    }

    /// The server's history leaves out what is held of an older timeline.
    pub(crate) fn abandoned(&mut self, from: Position, to: Lsn) {
        let Position { timeline, lsn } = from;
        if self.abandoned.insert(timeline) {
            self.warn(format!(
                "{}: the server's history leaves timeline {timeline} at {lsn}, and this region \
                 holds it up to {to}: commits in between are not in the server. They stay in the \
                 repository.",
                Code::SplitBrain
            ));
        }
    }

    /// The server no longer has what follows: a person must know, and take a backup.
    pub(crate) fn gap(&mut self, wanted: Position, earliest: Position, greeting: &Greeting) {
        let size = greeting.segment_size;
        let flushed = greeting.system.flushed;
        let next = if earliest > wanted && self.behind_gap != Some(earliest) {
            earliest
        } else {
            let lsn = Lsn(flushed.0 - size.offset_of(flushed));
            Position { timeline: greeting.system.timeline, lsn }
        };
        let from = self.newest.unwrap_or(wanted);
        self.behind_gap = Some(next);
        let gap = Gap {
            timeline: from.timeline,
            from: from.lsn,
            to_timeline: next.timeline,
            to: next.lsn,
        };
        let database = self.request.database;
        self.warn(format!(
            "{}: {gap} of {database} is lost: the server removed it before it was received. Take a \
             backup now: no moment from the gap on can be restored without it.",
            Code::WalGap
        ));
        self.record("wal gap", &gap);
        self.gaps.push(gap);
    }

    fn record(&self, act: &str, gap: &Gap) {
        let facts = [
            ("region", self.request.region.to_owned()),
            ("timeline", gap.timeline.to_string()),
            ("from", gap.from.to_string()),
            ("to_timeline", gap.to_timeline.to_string()),
            ("to", gap.to.to_string()),
        ];
        let facts = facts.map(|(name, value)| (name.to_owned(), value)).into();
        let subject = self.request.database.to_owned();
        let done = Act { act: act.to_owned(), subject, facts };
        let environment = self.request.environment;
        let recorded = (self.request.open)()
            .and_then(|repository| Regions::new(vec![repository], Vec::new()))
            .and_then(|mut regions| {
                let writer = self.request.writer;
                let entry = lifeboat_audit::record(environment, &mut regions, writer, done);
                self.request.blocking.run(entry)
            });
        if let Err(failure) = recorded {
            self.warn(format!("the gap is not in the audit log: {failure}"));
        }
    }

    /// Refuses to receive once another incarnation of the cluster was made the source. A store
    /// that does not answer forbids nothing: commits may be waiting.
    pub(crate) fn check_binding(&self) -> Outcome<()> {
        let (database, known) = (self.request.database, self.request.stream.binding);
        let ask = |repository: Repository| {
            self.request.blocking.run(async {
                match repository.binding_number(database, known.saturating_add(1)).await? {
                    None => Ok(None),
                    Some(_) => repository.binding(database).await,
                }
            })
        };
        let binding = match (self.request.open)().and_then(ask) {
            Err(failure) if passes(failure.code()) => return Ok(()),
            answer => answer?,
        };
        let stream = self.request.stream.keys.stream();
        let Some(binding) = binding.filter(|binding| binding.body.stream != stream) else {
            return Ok(());
        };
        let incarnation = binding.body.incarnation.0;
        let message = format!("incarnation {incarnation} of {database} is the source now");
        Err(Failure::new(Code::CloneRefused, message).hint(
            "Run `lifeboat key enroll` here: the receiver then follows that one. What it received \
             so far stays.",
        ))
    }

    /// Refuses to work for an epoch that is sealed.
    pub(crate) fn check_seal(&self) -> Outcome<()> {
        let path = self.folder.path();
        if seal::is_wanted(path) {
            seal::carry_out(path, self.ledger.end().map(|end| self.whole(end)))?;
            self.request.environment.failpoints().hit("receive.sealed")?;
        }
        match seal::read(path)?.filter(|seal| seal.forbids(self.request.epoch)) {
            Some(seal) => Err(seal::refusal(&seal, self.request.database, self.request.region)),
            None => Ok(()),
        }
    }

    /// The end of the last whole record of what is durable. A seal does not fail over it.
    fn whole(&self, (timeline, flushed): (Timeline, Lsn)) -> (Timeline, Lsn) {
        let system = SystemIdentifier(self.request.stream.system_identifier);
        let size = self.ledger.size();
        let end =
            size.and_then(|size| whole_records(self.folder, system, size, (timeline, flushed)));
        (timeline, end.unwrap_or(flushed))
    }

    /// The end of what is durable.
    pub(crate) fn held(&self) -> Option<(Timeline, Lsn)> {
        self.newest.map(|newest| (newest.timeline, newest.lsn))
    }

    /// Says a sentence.
    pub(crate) fn note(&self, message: String) {
        self.request.reporter.note(message);
    }

    /// Says what a person should know.
    pub(crate) fn warn(&self, message: String) {
        self.request.reporter.warn(message);
    }
}
