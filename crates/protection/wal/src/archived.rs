//! Waiting until the WAL of a backup is durable in a repository.

use std::time::Duration;

use lifeboat_environment::Environment;
use lifeboat_model::{Lsn, SegmentName, SegmentSize, Timeline};
use lifeboat_objects::{Blocking, Key};
use lifeboat_repository::ids::StreamId;
use lifeboat_repository::layout;
use lifeboat_repository::regions::Regions;
use lifeboat_repository::repository::Repository;
use lifeboat_telemetry::{Code, Failure, Outcome, duration};

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
        let key = layout::wal(stream, &segment.to_string())?;
        loop {
            watch()?;
            let stored = regions.all().iter().any(|repository| {
                matches!(blocking.run(repository.store().stat(&key)), Ok(Some(_)))
            });
            if stored {
                break;
            }
            if environment.clock().elapsed().saturating_sub(began) > deadline {
                let waited = duration(deadline);
                let message = format!("segment {segment} is not in a repository after {waited}");
                return Err(Failure::new(Code::WalNotArchived, message).hint(
                    "Look at pg_stat_archiver and the server's log: archive_command must run \
                     `lifeboat … wal push \"%p\"` for this database.",
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
        let key = layout::wal(stream, &segment.to_string())?;
        let holds = |repository: &Repository| blocking.run(repository.store().stat(&key));
        let lacks = |repository: &Repository| !matches!(holds(repository), Ok(Some(_)));
        if !regions.all().iter().any(lacks) {
            continue;
        }
        let holder = regions.all().iter().find(|repository| !lacks(repository));
        let Some(store) = holder.map(|repository| repository.store().clone()) else {
            continue;
        };
        // A segment exists when its head does: the parts come first.
        let mut keys: Vec<Key> = blocking
            .run(store.list(&format!("{key}.part-")))?
            .into_iter()
            .map(|(part, _)| part)
            .collect();
        keys.sort();
        keys.push(key);
        for key in keys {
            let bytes = blocking.run(store.get(&key))?;
            blocking.run(regions.create(&key, &bytes))?;
        }
    }
    Ok(())
}
