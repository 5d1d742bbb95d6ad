//! The proof that a WAL file does not exist (FORMAT, "Absence").
//!
//! It rests on one repository, whose `format` must be readable and of the right vault, on a
//! listing, and on a second look. A hole is never absence: what lies behind it would be lost.

use lifeboat_model::{SegmentName, Timeline, WalFileName};
use lifeboat_objects::{Key, Store};
use lifeboat_repository::layout;
use lifeboat_repository::repository::Repository;
use lifeboat_telemetry::{Code, Failure, Outcome};

use crate::plan::RecoveryPlan;

/// What a missing file means.
pub(crate) enum Verdict {
    /// There is no such file, and nothing says that there should be.
    Absent(String),
    /// It should be there.
    Gap(Failure),
}

/// Judges a file that `store` does not have.
pub(crate) async fn judge(
    plan: &RecoveryPlan,
    store: &Store,
    name: WalFileName,
) -> Outcome<Verdict> {
    let repository = Repository::open(store.clone()).await?;
    if repository.vault().id != plan.vault {
        let place = store.location().display();
        let message = format!("{place} is not the repository that this restore was planned from");
        return Err(Failure::new(Code::VaultMismatch, message)
            .hint("Bring the old repository back, or run the restore again."));
    }
    let verdict = match name {
        WalFileName::Segment(segment) => judge_segment(plan, store, segment).await?,
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
) -> Outcome<Verdict> {
    let timeline = segment.timeline();
    let size = plan.segment_size()?;
    let stored = segments(plan, store, timeline).await?.into_iter().max();
    let frontier = stored.max(plan.frontier_of(timeline));
    let name = WalFileName::Segment(segment);
    Ok(match frontier {
        None => Verdict::Absent(format!("{segment}: timeline {timeline} has no segments")),
        Some(last) if segment.number(size) > last.number(size) => {
            Verdict::Absent(format!("{segment} is behind the last segment, {last}"))
        }
        Some(last) => gap(name, &format!("the archive goes on to {last}")),
    })
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
    let known = !segments(plan, store, timeline).await?.is_empty();
    if known || plan.frontier_of(timeline).is_some() {
        return Ok(gap(name, "the archive has segments of this timeline"));
    }
    let prefix = format!("{}wal/", layout::stream(plan.stream));
    let after = Key::new(format!("{prefix}{:08X}", timeline.0))?;
    let later = store.list_after(&prefix, &after).await?;
    let own = layout::wal_timeline(plan.stream, timeline.0);
    match later.iter().find(|(key, _)| !key.as_str().starts_with(&own)) {
        Some((key, _)) => Ok(gap(name, &format!("the archive has a later timeline: {key}"))),
        None => Ok(Verdict::Absent(format!("timeline {timeline} is not known"))),
    }
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
