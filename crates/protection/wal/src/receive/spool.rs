//! Writing what the server sends: contiguous or not at all, and durable before it is acknowledged.

use std::fs::File;
use std::os::unix::fs::FileExt;

use lifeboat_model::{Lsn, SegmentName, SegmentSize, Timeline};
use lifeboat_telemetry::{Code, Failure, Outcome};

use super::folder::{Folder, failed};

/// Enough to compare with, not so much that it counts.
const COMPARE: usize = 1 << 16;

/// One timeline of the spool, being written.
pub(crate) struct Spool<'a> {
    folder: &'a Folder,
    size: SegmentSize,
    timeline: Timeline,
    /// The segment that holds `at`, if something of it was written or compared.
    file: Option<File>,
    /// Where the next byte must come from.
    at: Lsn,
    /// Where what the spool holds ends: ahead of `at` while bytes come again.
    end: Lsn,
    /// What is on disk for sure.
    flushed: Lsn,
}

impl<'a> Spool<'a> {
    /// Begins at the start of a segment. The spool holds the timeline up to `held` durably, or
    /// nothing of it.
    pub(crate) fn begin(
        folder: &'a Folder,
        size: SegmentSize,
        timeline: Timeline,
        start: Lsn,
        held: Option<Lsn>,
    ) -> Self {
        let end = held.map_or(start, |held| held.max(start));
        Self { folder, size, timeline, file: None, at: start, end, flushed: end }
    }

    /// The timeline.
    pub(crate) fn timeline(&self) -> Timeline {
        self.timeline
    }

    /// Everything before this was received on this connection, or is known to be the same.
    pub(crate) fn written(&self) -> Lsn {
        self.at
    }

    /// Everything before this is durable and was confirmed by the server that sends.
    pub(crate) fn flushed(&self) -> Lsn {
        self.flushed.min(self.at)
    }

    /// Whether the next bytes find a place.
    pub(crate) fn prepare(&self) -> Outcome<bool> {
        self.folder.prepare(self.size)
    }

    /// Takes the bytes that lie at `start`, which must be where the last ones ended.
    pub(crate) fn append(&mut self, start: Lsn, mut bytes: &[u8]) -> Outcome<()> {
        if start != self.at {
            let message = format!("the server sent WAL from {start} instead of {}", self.at);
            return Err(Failure::new(Code::WalInvalid, message)
                .hint("Nothing of it was acknowledged; the receiver asks again from there."));
        }
        while !bytes.is_empty() {
            let offset = self.size.offset_of(self.at);
            let left = usize::try_from(self.size.bytes() - offset).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(left.min(bytes.len()));
            self.take(offset, now)?;
            bytes = later;
            if self.size.offset_of(self.at) == 0 {
                // Whoever opens the spool again relies on it: a file with a next one is whole.
                self.flush()?;
                self.file = None;
            }
        }
        Ok(())
    }

    /// Takes bytes that lie in one segment.
    fn take(&mut self, offset: u64, bytes: &[u8]) -> Outcome<()> {
        let name = SegmentName::from_lsn(self.timeline, self.at, self.size);
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert(self.folder.open_segment(name)?),
        };
        let known = usize::try_from(self.end.distance_from(self.at)).unwrap_or(usize::MAX);
        let (again, new) = bytes.split_at(known.min(bytes.len()));
        let path = || self.folder.segment(name);
        if !is_same(file, offset, again).map_err(|error| failed("cannot read", &path(), error))? {
            return Err(split_brain(self.at, self.timeline));
        }
        file.write_all_at(new, offset.saturating_add(again.len() as u64))
            .map_err(|error| failed("cannot write", &path(), error))?;
        self.at = Lsn(self.at.0.saturating_add(bytes.len() as u64));
        self.end = self.end.max(self.at);
        Ok(())
    }

    /// Makes everything durable. After a failure nobody knows what the disk holds, and a second
    /// attempt would lie: the run ends.
    pub(crate) fn flush(&mut self) -> Outcome<()> {
        if self.flushed < self.end
            && let Some(file) = &self.file
        {
            let name = SegmentName::from_lsn(self.timeline, Lsn(self.at.0 - 1), self.size);
            file.sync_data()
                .map_err(|error| failed("cannot flush", &self.folder.segment(name), error))?;
        }
        self.flushed = self.end;
        Ok(())
    }
}

fn is_same(file: &File, offset: u64, bytes: &[u8]) -> std::io::Result<bool> {
    let mut buffer = [0; COMPARE];
    let mut at = offset;
    for piece in bytes.chunks(COMPARE) {
        let held = buffer.get_mut(..piece.len()).unwrap_or_default();
        file.read_exact_at(held, at)?;
        if *held != *piece {
            return Ok(false);
        }
        at = at.saturating_add(piece.len() as u64);
    }
    Ok(true)
}

/// The server sends other WAL than it, or another one, sent before.
pub(crate) fn split_brain(at: Lsn, timeline: Timeline) -> Failure {
    let message =
        format!("the server sends other WAL near {at} of timeline {timeline} than before");
    Failure::new(Code::SplitBrain, message).hint(
        "Two servers have written this part of the history, or the server was set back to an \
         older state. Nothing was acknowledged since. Find the second server and stop one of them.",
    )
}
