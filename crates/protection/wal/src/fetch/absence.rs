//! The proof that a WAL file does not exist (FORMAT, "Absence").
//!
//! It rests on one repository, whose `format` must be readable and of the right vault, on a
//! listing, and on a second look. A hole is never absence: what lies behind it would be lost.

use std::collections::BTreeMap;

use bytes::Bytes;
use lifeboat_model::{Lsn, SegmentName, SegmentSize, Timeline, WalFileName};
use lifeboat_objects::{Key, Store};
use lifeboat_repository::fragment::list_fragments;
use lifeboat_repository::layout;
use lifeboat_repository::repository::Repository;
use lifeboat_repository::spans::Spans;
use lifeboat_repository::wal_file::WalFacts;
use lifeboat_telemetry::{Code, Failure, Outcome};

use crate::coverage::Coverage;
use crate::plan::RecoveryPlan;

/// What a missing file means.
pub(crate) enum Verdict {
    /// There is no such file, and nothing says that there should be.
    Absent(String),
    /// It is the last segment of its timeline, and fragments hold its beginning.
    Tail(SegmentName),
    /// It should be there.
    Gap(Failure),
}

/// Reads what an object says of itself.
pub(crate) type OpenFacts<'a> = &'a dyn Fn(&Key, &Bytes) -> Outcome<WalFacts>;

/// Judges a file that `store` does not have as a whole.
pub(crate) async fn judge(
    plan: &RecoveryPlan,
    store: &Store,
    name: WalFileName,
    open: OpenFacts<'_>,
) -> Outcome<Verdict> {
    let repository = Repository::open(store.clone()).await?;
    if repository.vault().id != plan.vault {
        let place = store.location().display();
        let message = format!("{place} is not the repository that this restore was planned from");
        return Err(Failure::new(Code::VaultMismatch, message)
            .hint("Bring the old repository back, or run the restore again."));
    }
    let verdict = match name {
        WalFileName::Segment(segment) => judge_segment(plan, store, segment, open).await?,
        WalFileName::History(timeline) => judge_history(plan, store, timeline).await?,
        WalFileName::Partial(_) | WalFileName::Backup { .. } => {
            gap(name, "recovery does not need such files")
        }
    };
    let key = layout::wal(plan.stream, &name.to_string())?;
    if matches!(verdict, Verdict::Absent(_)) && store.stat(&key).await?.is_some() {
        // It arrived in between; the next attempt will read it.
        return Ok(gap(name, "it was not there a moment ago"));
    }
    Ok(verdict)
}

async fn judge_segment(
    plan: &RecoveryPlan,
    store: &Store,
    segment: SegmentName,
    open: OpenFacts<'_>,
) -> Outcome<Verdict> {
    let timeline = segment.timeline();
    let held = held(plan, store, timeline, open).await?;
    let frontier = held.last(timeline).max(plan.frontier_of(timeline));
    let size = plan.segment_size()?;
    let number = segment.number(size);
    let name = WalFileName::Segment(segment);
    Ok(match frontier {
        None => Verdict::Absent(format!("{segment}: timeline {timeline} has no segments")),
        Some(last) if number > last.number(size) => {
            Verdict::Absent(format!("{segment} is behind the last segment, {last}"))
        }
        Some(last) if number == last.number(size) && is_tail(&held, segment, size) => {
            Verdict::Tail(segment)
        }
        Some(last) => gap(name, &format!("the archive goes on to {last}")),
    })
}

/// Whether all that is there of a segment is its beginning.
fn is_tail(held: &Coverage, segment: SegmentName, size: SegmentSize) -> bool {
    let timeline = segment.timeline();
    let assembly = held.assembly(timeline, segment.number(size));
    let last = held.spans(timeline).and_then(Spans::last);
    assembly.is_some_and(|assembly| Some(assembly.end) == last)
}

/// What a repository holds at the end of a timeline: its segments, and fragments from the last of
/// them on.
async fn held(
    plan: &RecoveryPlan,
    store: &Store,
    timeline: Timeline,
    open: OpenFacts<'_>,
) -> Outcome<Coverage> {
    let size = plan.segment_size()?;
    let segments = segments(plan, store, timeline).await?;
    let last = segments.iter().max().and_then(|last| last.start(size)).unwrap_or_default();
    let fragments = list_fragments(store, plan.stream, timeline, last..Lsn::MAX).await?;
    let fragments: Vec<_> = fragments.into_iter().map(|(name, _)| name).collect();
    let mut histories = BTreeMap::new();
    // A timeline may have begun with a copy of its parent's last segment, which holds nothing new.
    if segments.is_empty() && !fragments.is_empty() && timeline > plan.timeline {
        let key = layout::wal(plan.stream, &WalFileName::History(timeline).to_string())?;
        histories.insert(timeline, open(&key, &store.get(&key).await?)?.ancestors);
    }
    Ok(Coverage::new(size, segments, fragments, histories))
}

/// PostgreSQL looks for the newest timeline by asking for one history after the other, and stops
/// at the first that is absent.
async fn judge_history(plan: &RecoveryPlan, store: &Store, timeline: Timeline) -> Outcome<Verdict> {
    let name = WalFileName::History(timeline);
    // The recovery starts on a timeline that it knows by the backup. Clusters that were promoted
    // before they met Lifeboat have no history of it, and none is needed.
    if timeline <= plan.timeline {
        return Ok(Verdict::Absent(format!("{name}: the recovery starts on {}", plan.timeline)));
    }
    let fragments = list_fragments(store, plan.stream, timeline, Lsn::ZERO..Lsn::MAX).await?;
    let known = !fragments.is_empty() || !segments(plan, store, timeline).await?.is_empty();
    if known || plan.frontier_of(timeline).is_some() {
        return Ok(gap(name, "the archive has segments of this timeline"));
    }
    let folders = [
        (
            format!("{}wal/", layout::stream(plan.stream)),
            layout::wal_timeline(plan.stream, timeline.0),
        ),
        (layout::all_fragments(plan.stream), layout::fragments(plan.stream, timeline)),
    ];
    for (prefix, own) in folders {
        let after = Key::new(format!("{prefix}{:08X}", timeline.0))?;
        let later = store.list_after(&prefix, &after).await?;
        if let Some((key, _)) = later.iter().find(|(key, _)| !key.as_str().starts_with(&own)) {
            return Ok(gap(name, &format!("the archive has a later timeline: {key}")));
        }
    }
    Ok(Verdict::Absent(format!("timeline {timeline} is not known")))
}

/// The segments of a timeline.
async fn segments(
    plan: &RecoveryPlan,
    store: &Store,
    timeline: Timeline,
) -> Outcome<Vec<SegmentName>> {
    let prefix = layout::wal_timeline(plan.stream, timeline.0);
    let listed = store.list(&prefix).await?;
    let names = listed.iter().filter_map(|(key, _)| key.as_str().strip_prefix(&prefix));
    Ok(names.filter_map(|name| name.parse().ok()).collect())
}

fn gap(name: WalFileName, why: &str) -> Verdict {
    let failure = Failure::new(Code::WalGap, format!("{name} is missing, and {why}"));
    Verdict::Gap(failure.hint(
        "`lifeboat wal status` shows the gap. Recover to a target before it, or find the file: \
         another region or the old server may have it.",
    ))
}
