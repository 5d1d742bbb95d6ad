//! What one repository holds of a stream: names of WAL files, histories, backups.

use std::collections::{BTreeMap, BTreeSet};

use lifeboat_model::{Lsn, SegmentName, SegmentSize, Timeline, WalFileName};
use lifeboat_objects::{Blocking, Key};
use lifeboat_repository::fragment::{FragmentName, list_fragments};
use lifeboat_repository::keys::StreamKeys;
use lifeboat_repository::layout;
use lifeboat_repository::manifest::Description;
use lifeboat_repository::object::{Header, ObjectType};
use lifeboat_repository::receiver::{Receiver, receivers};
use lifeboat_repository::repository::Repository;
use lifeboat_repository::spans::Spans;
use lifeboat_repository::wal_file::{
    Ancestor, PART_BYTES, WAL_HEAD_BYTES, WalFacts, WalHead, decode_head,
};
use lifeboat_telemetry::{Code, Failure, Kind, Outcome};

use crate::coverage::{Coverage, bounds};

/// What one repository holds of a stream.
pub struct Inventory<'a> {
    pub(super) blocking: &'a Blocking,
    pub(super) repository: &'a Repository,
    keys: &'a StreamKeys,
    pub(super) size: SegmentSize,
    pub(super) timelines: BTreeMap<Timeline, Segments>,
    /// Fragments where no segment is, and of the newest segment; with the size of each object.
    pub(super) fragments: BTreeMap<FragmentName, u64>,
    pub(super) coverage: Coverage,
    receivers: Vec<Receiver>,
    /// Ancestors of each timeline whose history is there.
    histories: BTreeMap<Timeline, Vec<Ancestor>>,
    backups: Vec<Backup>,
    problems: Vec<String>,
}

/// The segments of a timeline by number, with the size of each object.
pub(super) type Segments = BTreeMap<u64, u64>;

/// A backup of the stream.
#[derive(Debug, Clone)]
pub struct Backup {
    /// The manifest's name.
    pub name: String,
    /// What it is.
    pub description: Description,
}

/// The names below `wal/`.
#[derive(Default)]
struct Listing {
    segments: BTreeMap<SegmentName, u64>,
    parts: BTreeMap<SegmentName, u64>,
    histories: BTreeSet<Timeline>,
}

impl<'a> Inventory<'a> {
    /// Lists the stream in a repository. What is damaged is a problem of its own; the rest is
    /// still told.
    pub fn read(
        blocking: &'a Blocking,
        repository: &'a Repository,
        keys: &'a StreamKeys,
    ) -> Outcome<Self> {
        let mut inventory = Self {
            blocking,
            repository,
            keys,
            size: SegmentSize::DEFAULT,
            timelines: BTreeMap::new(),
            fragments: BTreeMap::new(),
            coverage: Coverage::new(SegmentSize::DEFAULT, [], [], BTreeMap::new()),
            receivers: Vec::new(),
            histories: BTreeMap::new(),
            backups: Vec::new(),
            problems: Vec::new(),
        };
        inventory.read_backups()?;
        let listing = inventory.list()?;
        inventory.size = inventory.segment_size(&listing)?;
        for (name, bytes) in listing.segments {
            if name.fits(inventory.size) {
                let segments = inventory.timelines.entry(name.timeline()).or_default();
                segments.insert(name.number(inventory.size), bytes);
            } else {
                inventory.problems.push(format!("{name} does not fit the segment size"));
            }
        }
        for timeline in listing.histories {
            inventory.timelines.entry(timeline).or_default();
            match inventory.read_history(timeline) {
                Ok(facts) => drop(inventory.histories.insert(timeline, facts.ancestors)),
                Err(failure) => inventory.problems.push(failure.to_string()),
            }
        }
        inventory.read_streamed()?;
        Ok(inventory)
    }

    fn read_backups(&mut self) -> Outcome<()> {
        let manifests = match self.blocking.run(self.repository.manifests(self.keys.stream())) {
            Ok(manifests) => manifests,
            // A damaged certificate: nobody's signature can be trusted.
            Err(failure) if failure.kind() == Kind::Damage => {
                self.problems.push(failure.to_string());
                return Ok(());
            }
            Err(failure) => return Err(failure),
        };
        self.problems.extend(manifests.damaged.iter().map(|(_, failure)| failure.to_string()));
        for manifest in manifests.sound {
            let name = manifest.body.name.clone();
            match manifest.description(self.keys) {
                Ok(description) => self.backups.push(Backup { name, description }),
                Err(failure) => self.problems.push(failure.to_string()),
            }
        }
        Ok(())
    }

    fn list(&self) -> Outcome<Listing> {
        let prefix = format!("{}wal/", layout::stream(self.keys.stream()));
        let listed = self.blocking.run(self.repository.store().list(&prefix))?;
        let mut listing = Listing::default();
        for (key, stat) in listed {
            let name = key.as_str().rsplit('/').next().unwrap_or_default();
            if let Some((segment, _)) = name.split_once(".part-") {
                if let Ok(segment) = segment.parse() {
                    *listing.parts.entry(segment).or_default() += 1;
                }
                continue;
            }
            match name.parse() {
                Ok(WalFileName::Segment(segment)) => {
                    listing.segments.insert(segment, stat.size);
                }
                Ok(WalFileName::History(timeline)) => drop(listing.histories.insert(timeline)),
                _ => {}
            }
        }
        Ok(listing)
    }

    /// From a backup, else from a segment.
    fn segment_size(&self, listing: &Listing) -> Outcome<SegmentSize> {
        let of_backup = self.backups.last().and_then(|backup| {
            SegmentSize::new(u64::from(backup.description.cluster.wal_segment_bytes))
        });
        let Some((name, bytes)) = listing.segments.last_key_value() else {
            return Ok(of_backup.unwrap_or(SegmentSize::DEFAULT));
        };
        if let Some(size) = of_backup {
            return Ok(size);
        }
        let bytes = match listing.parts.get(name) {
            Some(parts) => parts.saturating_mul(PART_BYTES as u64),
            None => self.head(&name.to_string(), *bytes)?.plain_bytes,
        };
        SegmentSize::new(bytes).ok_or_else(|| {
            let message = format!("{name} has {bytes} bytes, which no segment has");
            Failure::new(Code::ObjectDamaged, message)
        })
    }

    fn read_history(&self, timeline: Timeline) -> Outcome<WalFacts> {
        let name = WalFileName::History(timeline).to_string();
        self.head(&name, u64::MAX).map(|head| head.facts)
    }

    /// What receivers shipped. Fragments stay until they are pruned: those that a segment has
    /// replaced are not even listed.
    fn read_streamed(&mut self) -> Outcome<()> {
        let (store, stream) = (self.repository.store(), self.keys.stream());
        let backups = self.backups.iter().map(|backup| backup.description.wal.timeline);
        let known: BTreeSet<Timeline> =
            self.timelines.keys().copied().chain(backups).chain([Timeline::FIRST]).collect();
        for timeline in known {
            let segments = self.timelines.get(&timeline).into_iter().flatten();
            let mut stored = Spans::default();
            for (start, end) in segments.filter_map(|(number, _)| bounds(*number, self.size)) {
                stored.insert(start, end);
            }
            let mut open = stored.holes_from(Lsn::ZERO);
            // With the last segment, so that it can be told how far each receiver is.
            let newest = stored.last().unwrap_or_default();
            open.push((Lsn(newest.0.saturating_sub(self.size.bytes())), Lsn::MAX));
            for (from, to) in open {
                let listed = list_fragments(store, stream, timeline, from..to);
                self.fragments.extend(self.blocking.run(listed)?);
            }
        }
        for name in self.fragments.keys() {
            self.timelines.entry(name.timeline).or_default();
        }
        let segments = self.timelines.iter().flat_map(|(timeline, segments)| {
            segments.keys().filter_map(|number| SegmentName::new(*timeline, *number, self.size))
        });
        let fragments = self.fragments.keys().copied();
        let histories = self.histories.clone();
        self.coverage = Coverage::new(self.size, segments, fragments, histories);
        match self.blocking.run(receivers(self.repository, stream)) {
            Ok(receivers) => {
                let damaged = receivers.damaged.iter().map(|(_, failure)| failure.to_string());
                self.problems.extend(damaged);
                self.receivers = receivers.sound;
            }
            // A damaged certificate, which was named above.
            Err(failure) if failure.kind() == Kind::Damage => {}
            Err(failure) => return Err(failure),
        }
        Ok(())
    }

    /// The head of a stored file. Where many restore points make it long, the object is read.
    fn head(&self, name: &str, object_bytes: u64) -> Outcome<WalHead> {
        self.head_of(layout::wal(self.keys.stream(), name)?, object_bytes)
    }

    fn head_of(&self, key: Key, object_bytes: u64) -> Outcome<WalHead> {
        let store = self.repository.store();
        let open = |bytes: &[u8]| {
            let kind: ObjectType =
                Header::decode(bytes).map_err(|failure| failure.within(&key))?.kind;
            decode_head(self.keys, kind, &key, bytes)
        };
        // Small objects are read whole at once.
        if object_bytes > WAL_HEAD_BYTES && object_bytes != u64::MAX {
            let bytes = self.blocking.run(store.get_range(&key, 0..WAL_HEAD_BYTES))?;
            if let Ok(head) = open(&bytes) {
                return Ok(head);
            }
        }
        open(&self.blocking.run(store.get(&key))?)
    }

    /// What a stored segment says of itself.
    pub(crate) fn facts(&self, timeline: Timeline, number: u64) -> Outcome<WalFacts> {
        let name = self.name(timeline, number)?.to_string();
        let bytes = self.timelines.get(&timeline).and_then(|segments| segments.get(&number));
        self.head(&name, bytes.copied().unwrap_or(u64::MAX)).map(|head| head.facts)
    }

    /// What a fragment says of itself.
    pub(super) fn fragment_facts(&self, name: &FragmentName) -> Outcome<WalFacts> {
        let key = layout::fragment(self.keys.stream(), name)?;
        let bytes = self.fragments.get(name).copied().unwrap_or(u64::MAX);
        self.head_of(key, bytes).map(|head| head.facts)
    }

    /// The name of a segment.
    pub(super) fn name(&self, timeline: Timeline, number: u64) -> Outcome<SegmentName> {
        SegmentName::new(timeline, number, self.size).ok_or_else(|| {
            Failure::new(Code::Internal, format!("segment number {number} cannot be named"))
        })
    }

    /// The region.
    pub fn region(&self) -> &str {
        self.repository.region()
    }

    /// The cluster's segment size; the usual one where nothing is stored.
    pub fn segment_size_of_stream(&self) -> SegmentSize {
        self.size
    }

    /// Every backup, oldest first.
    pub fn backups(&self) -> &[Backup] {
        &self.backups
    }

    /// Every timeline of which anything is stored.
    pub fn timelines(&self) -> impl Iterator<Item = Timeline> {
        self.timelines.keys().copied()
    }

    /// What is damaged.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// The ancestors of a timeline, oldest first; `None` without a history file.
    pub fn ancestors(&self, timeline: Timeline) -> Option<&[Ancestor]> {
        self.histories.get(&timeline).map(Vec::as_slice)
    }

    /// The timeline that `timeline` branched off from, and where.
    pub fn parent(&self, timeline: Timeline) -> Option<(Timeline, Lsn)> {
        self.ancestors(timeline)?.last().map(|parent| (parent.timeline, parent.end))
    }

    /// Which WAL is there, as segments or as fragments.
    pub fn coverage(&self) -> &Coverage {
        &self.coverage
    }

    /// The runs of receivers that ship into this repository, by epoch.
    pub fn receivers(&self) -> &[Receiver] {
        &self.receivers
    }

    /// How many segments of a timeline are stored.
    pub fn count(&self, timeline: Timeline) -> u64 {
        self.timelines.get(&timeline).map_or(0, |segments| segments.len() as u64)
    }

    /// The frontier of every timeline, for a recovery plan.
    pub fn frontier(&self) -> Vec<SegmentName> {
        self.timelines().filter_map(|timeline| self.coverage.last(timeline)).collect()
    }

    /// Timelines that others depend on and whose history file is missing.
    pub(super) fn missing_histories(&self) -> Vec<String> {
        let oldest = self.timelines.keys().next().copied();
        let missing = self.timelines().filter(|timeline| {
            // The oldest may have begun before Lifeboat came; nothing leads to it.
            Some(*timeline) != oldest && !self.histories.contains_key(timeline)
        });
        missing
            .map(|timeline| {
                let name = WalFileName::History(timeline);
                format!("{name} is missing: no recovery can go on to timeline {timeline}")
            })
            .collect()
    }
}
