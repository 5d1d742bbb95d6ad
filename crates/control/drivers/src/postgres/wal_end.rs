//! Where the WAL of a stopped directory ends.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use lifeboat_cluster::ControlFile;
use lifeboat_cluster::control::State;
use lifeboat_cluster::wal::{Decoder, Source};
use lifeboat_model::{Lsn, SegmentName, Timeline};
use lifeboat_telemetry::{Code, Failure, Outcome};

const PIECE: usize = 1 << 18;

/// The end of the record at `start`: what a standby must have to have all of it.
pub(crate) fn end_of_record(data: &Path, control: &ControlFile, start: Lsn) -> Outcome<Lsn> {
    let mut found = None;
    follow(data, control, start, |record_start, end| {
        if record_start == start {
            found = Some(end);
        }
        found.is_none()
    })?;
    found.ok_or_else(|| {
        let message = format!("pg_wal of {} lacks the record at {start}", data.display());
        Failure::new(Code::WalInvalid, message)
            .hint("It is the last checkpoint's: see whether pg_wal is on a disk that was lost.")
    })
}

/// The end of the last whole record, from the last checkpoint on: what a crashed primary wrote.
/// WAL that was never flushed may count: nobody was told of it, and it is there.
pub(crate) fn end_of_wal(data: &Path, control: &ControlFile) -> Outcome<Lsn> {
    let mut last = control.redo;
    follow(data, control, control.redo, |_, end| {
        last = end;
        true
    })?;
    Ok(last)
}

/// Whether a standby's own WAL holds a whole record behind what it has replayed. What was received may
/// end in the middle of one, where its primary died: nobody replays that.
pub(crate) fn goes_on(
    data: &Path,
    control: &ControlFile,
    timeline: Timeline,
    replayed: Lsn,
) -> Outcome<bool> {
    let control = ControlFile { timeline, minimum_recovery_timeline: timeline, ..control.clone() };
    let mut found = false;
    follow(data, &control, replayed, |_, _| {
        found = true;
        false
    })?;
    Ok(found)
}

/// Where a stopped directory ends: a clean one by its checkpoint, another one by its WAL.
pub(crate) fn end(data: &Path, control: &ControlFile) -> Outcome<(Timeline, Lsn)> {
    match control.state {
        State::ShutDown => {
            Ok((control.timeline, end_of_record(data, control, control.checkpoint)?))
        }
        State::ShutDownInRecovery | State::ArchiveRecovery => Ok(recovered(control)),
        _ => Ok((newest(control), end_of_wal(data, control)?)),
    }
}

/// What a standby has replayed for sure.
pub(crate) fn recovered(control: &ControlFile) -> (Timeline, Lsn) {
    match control.minimum_recovery > control.checkpoint {
        true => (control.minimum_recovery_timeline, control.minimum_recovery),
        false => (control.timeline, control.checkpoint),
    }
}

/// A server that was promoted and died before its next checkpoint has its own timeline only here.
fn newest(control: &ControlFile) -> Timeline {
    control.timeline.max(control.minimum_recovery_timeline)
}

/// The file of a position; of the newest timeline that has one, as PostgreSQL reads it.
fn segment(data: &Path, control: &ControlFile, at: Lsn) -> PathBuf {
    let path = |timeline: u32| {
        let name = SegmentName::from_lsn(Timeline(timeline), at, control.wal_segment_size);
        data.join("pg_wal").join(name.to_string())
    };
    let (oldest, newest) = (control.timeline.0, newest(control).0);
    let mut known = (oldest..=newest).rev().map(path);
    known.find(|path| path.exists()).unwrap_or_else(|| path(newest))
}

/// Gives the start and the end of each record to `each`, until that says no or WAL ends.
fn follow(
    data: &Path,
    control: &ControlFile,
    start: Lsn,
    mut each: impl FnMut(Lsn, Lsn) -> bool,
) -> Outcome<()> {
    let size = control.wal_segment_size;
    let timeline = newest(control);
    let mut decoder = Decoder::new(
        Source {
            release: control.release,
            system: control.system,
            segment_size: size,
            block_size: control.wal_block_size,
            timeline,
        },
        start,
    );
    let mut buffer = vec![0; PIECE];
    let (mut at, mut wanted) = (start, true);
    while wanted {
        let path = segment(data, control, at);
        let unreadable = |error: std::io::Error| {
            Failure::new(Code::LocalFile, format!("cannot read {}", path.display())).because(error)
        };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(unreadable(error)),
        };
        let offset = size.offset_of(at);
        let left = usize::try_from(size.bytes() - offset).unwrap_or(PIECE).min(PIECE);
        let piece = buffer.get_mut(..left).unwrap_or_default();
        let read = file.read_at(piece, offset).map_err(unreadable)?;
        if read == 0 {
            return Ok(());
        }
        let decoded = decoder.push(piece.get(..read).unwrap_or_default(), |record| {
            wanted = wanted && each(record.lsn, record.end);
        });
        if decoded.is_err() {
            return Ok(());
        }
        at = Lsn(at.0.saturating_add(read as u64));
    }
    Ok(())
}
