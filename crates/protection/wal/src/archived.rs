//! Waiting until the WAL of a backup is durable in a repository.

use std::collections::BTreeSet;
use std::time::Duration;

use lifeboat_environment::Environment;
use lifeboat_model::{Lsn, SegmentName, SegmentSize, Timeline};
use lifeboat_objects::{Blocking, Key};
use lifeboat_repository::fragment::{FragmentName, list_fragments};
use lifeboat_repository::ids::StreamId;
use lifeboat_repository::layout;
use lifeboat_repository::regions::Regions;
use lifeboat_repository::repository::Repository;
use lifeboat_telemetry::{Code, Failure, Outcome, duration};

use crate::coverage::{Assembly, bounds};

const POLL: Duration = Duration::from_millis(100);

/// A span of WAL that something depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needed {
    /// Its timeline.
    pub timeline: Timeline,
    /// First byte.
    pub start: Lsn,
    /// The byte after the last.
    pub stop: Lsn,
    /// Size of a segment.
    pub segment_size: SegmentSize,
}

impl Needed {
    /// The segments that hold the span.
    pub fn segments(&self) -> Vec<SegmentName> {
        let last = Lsn(self.stop.0.saturating_sub(1).max(self.start.0));
        let first = self.segment_size.number_of(self.start);
        (first..=self.segment_size.number_of(last))
            .filter_map(|number| SegmentName::new(self.timeline, number, self.segment_size))
            .collect()
    }

    /// Whether a repository has what is needed of a segment.
    async fn is_held(
        &self,
        repository: &Repository,
        stream: StreamId,
        segment: SegmentName,
    ) -> Outcome<bool> {
        let key = layout::wal(stream, &segment.to_string())?;
        if repository.store().stat(&key).await?.is_some() {
            return Ok(true);
        }
        Ok(self.fragments(repository, stream, segment).await?.is_some())
    }

    /// The fragments that hold what is needed of a segment; `None` if they do not hold all of it.
    async fn fragments(
        &self,
        repository: &Repository,
        stream: StreamId,
        segment: SegmentName,
    ) -> Outcome<Option<Vec<FragmentName>>> {
        let Some((start, end)) = bounds(segment.number(self.segment_size), self.segment_size)
        else {
            return Ok(None);
        };
        let listed = list_fragments(repository.store(), stream, self.timeline, start..end).await?;
        let names: Vec<FragmentName> = listed.into_iter().map(|(name, _)| name).collect();
        let assembly = Assembly::of(&names, start);
        let enough = assembly.filter(|assembly| assembly.end >= self.stop.min(end));
        Ok(enough.map(|assembly| assembly.pieces))
    }
}

/// Waits until every segment is in at least one repository that answers. `watch` is called at
/// every look: it may end the wait, or tell a person why it takes so long.
pub fn wait_until_archived(
    environment: &Environment,
    blocking: &Blocking,
    regions: &Regions,
    stream: StreamId,
    needed: Needed,
    deadline: Duration,
    mut watch: impl FnMut() -> Outcome<()>,
) -> Outcome<()> {
    let began = environment.clock().elapsed();
    for segment in needed.segments() {
        loop {
            watch()?;
            let held = regions.all().iter().any(|repository| {
                matches!(blocking.run(needed.is_held(repository, stream, segment)), Ok(true))
            });
            if held {
                break;
            }
            if environment.clock().elapsed().saturating_sub(began) > deadline {
                let waited = duration(deadline);
                let message = format!("segment {segment} is not in a repository after {waited}");
                return Err(Failure::new(Code::WalNotArchived, message).hint(
                    "Look at pg_stat_archiver and the server's log: archive_command must run \
                     `lifeboat … wal push \"%p\"` for this database, or a receiver must stream.",
                ));
            }
            environment.clock().sleep(POLL);
        }
    }
    Ok(())
}

/// Brings the segments into every region: what a region missed while it was away or rested, it
/// gets from one that has it. A region that does not take it is left out from then on, and named.
pub fn bring_to_all(
    blocking: &Blocking,
    regions: &mut Regions,
    stream: StreamId,
    needed: Needed,
) -> Outcome<()> {
    for segment in needed.segments() {
        let lacks = |repository: &Repository| {
            !matches!(blocking.run(needed.is_held(repository, stream, segment)), Ok(true))
        };
        if !regions.all().iter().any(lacks) {
            continue;
        }
        let holder = regions.all().iter().find(|repository| !lacks(repository)).cloned();
        let Some(holder) = holder else { continue };
        let key = layout::wal(stream, &segment.to_string())?;
        if blocking.run(holder.store().stat(&key))?.is_some() {
            bring_segment(blocking, regions, &holder, key)?;
        } else if let Some(fragments) = blocking.run(needed.fragments(&holder, stream, segment))? {
            bring_fragments(blocking, regions, &holder, stream, &fragments)?;
        }
    }
    Ok(())
}

/// A segment exists when its head does: the parts come first. Where a name is taken, a receiver of
/// that region stores the segment at this moment. It goes on by itself: a head that names our
/// parts must not stand before its own.
fn bring_segment(
    blocking: &Blocking,
    regions: &mut Regions,
    holder: &Repository,
    key: Key,
) -> Outcome<()> {
    let store = holder.store();
    let parts = blocking.run(store.list(&format!("{key}.part-")))?;
    let mut keys: Vec<Key> = parts.into_iter().map(|(part, _)| part).collect();
    keys.sort();
    keys.push(key);
    let mut taken = BTreeSet::new();
    for key in keys {
        let bytes = blocking.run(store.get(&key))?;
        let created = regions.ask(async |repository| {
            if taken.contains(repository.region()) {
                return Ok(None);
            }
            match repository.store().create_seen(&key, bytes.clone()).await {
                Err(failure) if failure.code() == Code::ObjectConflict => {
                    Ok(Some(repository.region().to_owned()))
                }
                created => created.map(|_| None),
            }
        });
        taken.extend(blocking.run(created)?.into_iter().flatten());
    }
    Ok(())
}

/// Fragments go with the receivers that made them. Where a name is taken, a receiver of that region
/// has the epoch, and has shipped the same bytes itself.
fn bring_fragments(
    blocking: &Blocking,
    regions: &mut Regions,
    holder: &Repository,
    stream: StreamId,
    fragments: &[FragmentName],
) -> Outcome<()> {
    let epochs: BTreeSet<u32> = fragments.iter().map(|name| name.epoch).collect();
    let receivers = epochs.into_iter().map(|epoch| layout::receiver(stream, epoch));
    let fragments = fragments.iter().map(|name| layout::fragment(stream, name));
    for key in receivers.chain(fragments) {
        let key = key?;
        let bytes = blocking.run(holder.store().get(&key))?;
        match blocking.run(regions.create(&key, &bytes)) {
            Err(failure) if failure.code() != Code::ObjectConflict => return Err(failure),
            _ => {}
        }
    }
    Ok(())
}
