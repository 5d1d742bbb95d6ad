//! A backup is not good before the WAL between start and stop is in a repository.

use std::time::Duration;

use lifeboat_repository::manifest::WalSpan;
use lifeboat_repository::regions::Regions;
use lifeboat_telemetry::{Code, Failure, Outcome};
use lifeboat_wal::Needed;

use crate::open::Opened;
use crate::receivers;
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
    let needed = Needed {
        timeline: wal.timeline,
        start: wal.start,
        stop: wal.stop,
        segment_size: control.wal_segment_size,
    };
    // A standby's own segments are not closed by this backup: there, only receivers help.
    let alone = !request.receivers.is_empty() && !source.facts().in_recovery;
    if alone && !receivers::is_running(request, context, source)? {
        receivers::bring(request, context, regions, source, needed)?;
    } else {
        match wait(request, context, regions, source, needed) {
            Err(failure) if alone && failure.code() == Code::WalNotArchived => {
                context.reporter.warn(format!("the receivers do not bring it: {failure}"));
                receivers::bring(request, context, regions, source, needed)?;
            }
            waited => waited?,
        }
    }
    lifeboat_wal::bring_to_all(context.blocking, regions, context.stream.keys.stream(), needed)
}

fn wait(
    request: &BackupRequest,
    context: &BackupContext<'_>,
    regions: &Regions,
    source: &Source,
    needed: Needed,
) -> Outcome<()> {
    let mut watch = Watch::default();
    lifeboat_wal::wait_until_archived(
        context.environment,
        context.blocking,
        regions,
        context.stream.keys.stream(),
        needed,
        request.wal_deadline,
        || {
            context.cancel.check()?;
            watch.look(request, context, source)
        },
    )
}

/// How often the archiver is asked how it does.
const WATCH_EVERY: Duration = Duration::from_secs(2);

/// Says at once when nobody brings the WAL, instead of letting a person wait for the deadline.
#[derive(Default)]
struct Watch {
    looked: Option<Duration>,
    told: Option<String>,
}

impl Watch {
    fn look(
        &mut self,
        request: &BackupRequest,
        context: &BackupContext<'_>,
        source: &Source,
    ) -> Outcome<()> {
        let now = context.environment.clock().elapsed();
        if self.looked.is_some_and(|looked| now.saturating_sub(looked) < WATCH_EVERY) {
            return Ok(());
        }
        self.looked = Some(now);
        if !request.archiving {
            if !source.facts().in_recovery && !receivers::is_running(request, context, source)? {
                let message = "no receiver runs any more";
                return Err(Failure::new(Code::WalNotArchived, message));
            }
            return Ok(());
        }
        // A server that does not answer now is found out by the steps that need it.
        let Ok(Some(failed)) = context.blocking.run(source.failing_segment()) else {
            return Ok(());
        };
        if self.told.as_ref() != Some(&failed) {
            context.reporter.warn(format!(
                "PostgreSQL cannot archive {failed}: see the server's log for what archive_command \
                 said",
            ));
            self.told = Some(failed);
        }
        Ok(())
    }
}
