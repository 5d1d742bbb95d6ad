//! A backup is not good before the WAL between start and stop is in a repository.

use std::time::Duration;

use lifeboat_repository::manifest::WalSpan;
use lifeboat_repository::regions::Regions;
use lifeboat_telemetry::Outcome;

use crate::open::Opened;
use crate::run::{BackupContext, BackupRequest};
use crate::source::{Source, switch_wal};

/// Waits for the WAL, and sees to it that every region that will hold the backup has it. An idle
/// primary would let a standby's backup wait for ever: it is asked to finish its segment.
pub fn wait_for_wal(
    request: &BackupRequest,
    context: &BackupContext<'_>,
    regions: &mut Regions,
    opened: &Opened,
    wal: WalSpan,
) -> Outcome<()> {
    let Opened { control, source } = opened;
    context.reporter.note("waiting for the WAL of the backup in the repository");
    if source.facts().in_recovery {
        let switched = request
            .other_connections
            .iter()
            .any(|other| context.blocking.run(switch_wal(other)).unwrap_or(false));
        if !switched {
            context.reporter.warn(
                "the primary could not be asked to switch WAL: waiting until it does by itself",
            );
        }
    }
    let needed = lifeboat_wal::Needed {
        timeline: wal.timeline,
        start: wal.start,
        stop: wal.stop,
        segment_size: control.wal_segment_size,
    };
    let stream = context.stream.keys.stream();
    let deadline = request.wal_deadline;
    let mut watch = Watch::default();
    lifeboat_wal::wait_until_archived(
        context.environment,
        context.blocking,
        regions,
        stream,
        needed,
        deadline,
        || {
            watch.look(context, source);
            context.cancel.check()
        },
    )?;
    lifeboat_wal::bring_to_all(context.blocking, regions, stream, needed)
}

/// How often the archiver is asked how it does.
const WATCH_EVERY: Duration = Duration::from_secs(2);

/// Says at once when the archiver fails, instead of letting a person wait for the deadline.
#[derive(Default)]
struct Watch {
    looked: Option<Duration>,
    told: Option<String>,
}

impl Watch {
    fn look(&mut self, context: &BackupContext<'_>, source: &Source) {
        let now = context.environment.clock().elapsed();
        if self.looked.is_some_and(|looked| now.saturating_sub(looked) < WATCH_EVERY) {
            return;
        }
        self.looked = Some(now);
        // A server that does not answer now is found out by the steps that need it.
        let Ok(Some(failed)) = context.blocking.run(source.failing_segment()) else { return };
        if self.told.as_ref() != Some(&failed) {
            context.reporter.warn(format!(
                "PostgreSQL cannot archive {failed}: see the server's log for what archive_command said",
            ));
            self.told = Some(failed);
        }
    }
}
