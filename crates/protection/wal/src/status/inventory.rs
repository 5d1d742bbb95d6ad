//! What one repository holds of a stream: names of WAL files, histories, backups.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use lifeboat_model::{Lsn, SegmentName, SegmentSize, Timeline, WalFileName};
use lifeboat_objects::Blocking;
use lifeboat_repository::keys::StreamKeys;
use lifeboat_repository::layout;
use lifeboat_repository::manifest::Description;
use lifeboat_repository::object::{Header, ObjectType};
use lifeboat_repository::repository::Repository;
use lifeboat_repository::wal_file::{
    Ancestor, PART_BYTES, WAL_HEAD_BYTES, WalFacts, WalHead, decode_head,
};
use lifeboat_telemetry::{Code, Failure, Outcome};

/// What one repository holds of a stream.
pub struct Inventory<'a> {
    pub(super) blocking: &'a Blocking,
    pub(super) repository: &'a Repository,
    keys: &'a StreamKeys,
    pub(super) size: SegmentSize,
    pub(super) timelines: BTreeMap<Timeline, Segments>,
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
        Ok(inventory)
    }

    fn read_backups(&mut self) -> Outcome<()> {
        let manifests = match self.blocking.run(self.repository.manifests(self.keys.stream())) {
            Ok(manifests) => manifests,
            // A damaged certificate: nobody's signature can be trusted.
            Err(failure) if failure.kind() == lifeboat_telemetry::Kind::Damage => {
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

    /// The head of a stored file. Where many restore points make it long, the object is read.
    fn head(&self, name: &str, object_bytes: u64) -> Outcome<WalHead> {
        let key = layout::wal(self.keys.stream(), name)?;
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

    /// The first segment of a timeline.
    pub fn first(&self, timeline: Timeline) -> Option<SegmentName> {
        let (number, _) = self.timelines.get(&timeline)?.first_key_value()?;
        SegmentName::new(timeline, *number, self.size)
    }

    /// The last segment of a timeline: its frontier.
    pub fn last(&self, timeline: Timeline) -> Option<SegmentName> {
        let (number, _) = self.timelines.get(&timeline)?.last_key_value()?;
        SegmentName::new(timeline, *number, self.size)
    }

    /// How many segments of a timeline are stored.
    pub fn count(&self, timeline: Timeline) -> u64 {
        self.timelines.get(&timeline).map_or(0, |segments| segments.len() as u64)
    }

    /// The frontier of every timeline, for a recovery plan.
    pub fn frontier(&self) -> Vec<SegmentName> {
        self.timelines().filter_map(|timeline| self.last(timeline)).collect()
    }

    /// The last segment that contiguous WAL leads to from `number`, if that one is stored.
    pub(super) fn end_of_run(&self, timeline: Timeline, number: u64) -> Option<u64> {
        let segments = self.timelines.get(&timeline)?;
        segments.get(&number)?;
        let later = segments.range((Bound::Excluded(number), Bound::Unbounded));
        let mut end = number;
        for (next, _) in later {
            if *next != end + 1 {
                break;
            }
            end = *next;
        }
        Some(end)
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
