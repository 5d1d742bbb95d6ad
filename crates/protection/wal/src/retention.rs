//! Which WAL nobody needs any more, for `repo prune`.
//!
//! A backup needs every segment from its start on; a fragment is needed until a segment of the
//! same repository holds its bytes. Whatever is not known for sure (a timeline without history, a
//! damaged manifest, a backup that is being made) keeps what it might need.

mod needed;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use lifeboat_model::{SegmentName, SegmentSize, Timeline, WalFileName};
use lifeboat_objects::{Blocking, Key, Stat};
use lifeboat_repository::check::{Place, classify};
use lifeboat_repository::keys::StreamKeys;
use lifeboat_repository::layout;
use lifeboat_repository::repository::Repository;
use lifeboat_repository::session::{SESSION_LIFE, SessionBody};
use lifeboat_telemetry::Outcome;

use crate::status::Inventory;
pub use needed::{Histories, Needed};

/// WAL that no backup needs is left for as long. It is longer than a session lives, so that what a
/// backup in the making might need is there when it commits.
pub const GRACE: Duration = Duration::from_secs(SESSION_LIFE.as_secs() + 3600);
/// Covered fragments are left for as long: whoever listed them has read them by then.
pub const GRACE_OF_FRAGMENTS: Duration = Duration::from_secs(3600);

/// Why an object can go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Every backup begins behind it.
    BeforeBackups,
    /// A segment holds its bytes.
    Covered,
}

/// What one repository could do without.
#[derive(Debug, Default)]
pub struct Superfluous {
    /// What can go now.
    pub objects: Vec<(Key, Stat, Reason)>,
    /// How many objects can go when they are old enough.
    pub young: u64,
    /// The first segment of each timeline that backups need.
    pub needed: Vec<SegmentName>,
    /// Why nothing goes that is not covered.
    pub held: Option<String>,
}

/// A WAL object, and the segment that its bytes belong to.
struct Held {
    key: Key,
    stat: Stat,
    timeline: Timeline,
    number: u64,
    is_fragment: bool,
}

/// Finds what `repository` could do without at `now`, which is to be its store's own time.
pub fn superfluous(
    blocking: &Blocking,
    repository: &Repository,
    keys: &StreamKeys,
    now: Timestamp,
) -> Outcome<Superfluous> {
    let inventory = Inventory::read(blocking, repository, keys)?;
    let size = inventory.segment_size_of_stream();
    let listed = blocking.run(repository.store().list(&layout::stream(keys.stream())))?;
    let mut found = Superfluous {
        held: held(blocking, repository, &inventory, &listed, now)?,
        ..Superfluous::default()
    };
    let needed = if found.held.is_none() { needed(&inventory) } else { None };
    let first = needed.iter().flat_map(Needed::first);
    found.needed = first.filter_map(|(one, from)| SegmentName::new(one, from, size)).collect();

    let objects: Vec<Held> = listed.into_iter().filter_map(|one| wal_object(one, size)).collect();
    let covers = covering(&inventory, &objects, now);
    for Held { key, stat, timeline, number, is_fragment } in objects {
        let before = needed.as_ref().is_some_and(|needed| !needed.contains(timeline, number));
        let (reason, grace) = match before {
            true => (Reason::BeforeBackups, GRACE),
            false if is_fragment && covers.contains(&(timeline, number)) => {
                (Reason::Covered, GRACE_OF_FRAGMENTS)
            }
            false => continue,
        };
        if is_older(&stat, now, grace) {
            found.objects.push((key, stat, reason));
        } else {
            found.young += 1;
        }
    }
    Ok(found)
}

/// Why WAL before the backups is to be left alone: what cannot be read may need it.
fn held(
    blocking: &Blocking,
    repository: &Repository,
    inventory: &Inventory<'_>,
    listed: &[(Key, Stat)],
    now: Timestamp,
) -> Outcome<Option<String>> {
    if let Some(problem) = inventory.problems().first() {
        return Ok(Some(problem.clone()));
    }
    let done: BTreeSet<String> = listed
        .iter()
        .filter_map(|(key, _)| match classify(key) {
            Some(Place::Manifest(_, name)) => Some(name),
            _ => None,
        })
        .collect();
    for (key, _) in listed {
        let Some(Place::Session(_, name)) = classify(key) else {
            continue;
        };
        if done.contains(&name) {
            continue;
        }
        let bytes = blocking.run(repository.store().get(key))?;
        let session = SessionBody::decode(key, &bytes)?;
        if session.expires_at > now {
            let until = session.expires_at;
            return Ok(Some(format!("backup {name} may still be in the making, until {until}")));
        }
    }
    if inventory.backups().is_empty() {
        return Ok(Some("there is no backup yet".to_owned()));
    }
    Ok(None)
}

/// What the backups of an inventory need. One that lacks WAL counts as well: a copy may come.
pub(crate) fn needed(inventory: &Inventory<'_>) -> Option<Needed> {
    let histories = inventory.timelines().filter_map(|timeline| {
        let ancestors = inventory.ancestors(timeline)?;
        Some((timeline, ancestors.to_vec()))
    });
    let wal = inventory.backups().iter().map(|backup| &backup.description.wal);
    let starts: Vec<_> = wal.map(|wal| (wal.timeline, wal.start)).collect();
    Needed::by(&starts, histories.collect(), inventory.segment_size_of_stream())
}

/// Where an object's bytes belong. Histories are not among them: they are small and say where
/// timelines come from.
fn wal_object((key, stat): (Key, Stat), size: SegmentSize) -> Option<Held> {
    let (timeline, number, is_fragment) = match classify(&key)? {
        Place::Fragment(_, name) => (name.timeline, size.number_of(name.start), true),
        Place::Changes(_, name) => (name.segment.timeline(), name.segment.number(size), false),
        Place::Wal(_, file) => {
            let name = file.split_once(".part-").map_or(file.as_str(), |(segment, _)| segment);
            let segment = match name.parse().ok()? {
                WalFileName::Segment(segment) | WalFileName::Partial(segment) => segment,
                WalFileName::Backup { segment, .. } => segment,
                WalFileName::History(_) => return None,
            };
            (segment.timeline(), segment.number(size), false)
        }
        _ => return None,
    };
    Some(Held { key, stat, timeline, number, is_fragment })
}

/// Segments that are there, old enough for fragments to go, and what their names say.
fn covering(
    inventory: &Inventory<'_>,
    objects: &[Held],
    now: Timestamp,
) -> BTreeSet<(Timeline, u64)> {
    let mut wanted: BTreeMap<(Timeline, u64), bool> = BTreeMap::new();
    for one in objects.iter().filter(|one| one.is_fragment) {
        wanted.entry((one.timeline, one.number)).or_insert(false);
    }
    for one in objects.iter().filter(|one| !one.is_fragment) {
        // Not `.partial`, `.backup` or a part: a segment exists when the object of its name does.
        let name = one.key.as_str().rsplit('/').next().unwrap_or_default();
        let whole = name.parse::<SegmentName>().is_ok();
        if let Some(covered) = wanted.get_mut(&(one.timeline, one.number)) {
            *covered |= whole && is_older(&one.stat, now, GRACE_OF_FRAGMENTS);
        }
    }
    wanted.retain(|(timeline, number), covered| {
        *covered && inventory.facts(*timeline, *number).is_ok()
    });
    wanted.into_keys().collect()
}

fn is_older(stat: &Stat, now: Timestamp, age: Duration) -> bool {
    now.checked_sub(age).is_ok_and(|then| stat.modified < then)
}

#[cfg(test)]
mod tests;
