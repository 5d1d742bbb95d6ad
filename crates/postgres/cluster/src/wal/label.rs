//! `backup_label`, and the `.backup` file that PostgreSQL archives when a backup ends.

use lifeboat_model::{Lsn, SegmentName, Timeline};

use super::WalError;

/// PostgreSQL limits a label to 1,024 bytes and a line to not much more.
const LONGEST: usize = 64 << 10;

/// Where a base backup starts and ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupLabel {
    /// Where replay starts.
    pub start: Lsn,
    /// The segment that holds it.
    pub start_segment: SegmentName,
    /// Where the backup ends; in `.backup` files only.
    pub stop: Option<Lsn>,
    /// The checkpoint that began the backup.
    pub checkpoint: Lsn,
    /// Whether the backup was taken from a standby.
    pub from_standby: bool,
    /// The time at which it started, in the server's time zone and words.
    pub start_time: String,
    /// The label that was given to it.
    pub label: String,
    /// The timeline on which it starts.
    pub timeline: Timeline,
    /// The timeline on which it ends; in `.backup` files only.
    pub stop_timeline: Option<Timeline>,
    /// Whether it is an incremental one, which cannot be restored by itself.
    pub incremental: bool,
}

impl BackupLabel {
    /// Reads either file.
    pub fn parse(content: &[u8]) -> Result<Self, WalError> {
        if content.len() > LONGEST {
            return Err(WalError::BadLine { line: 1, reason: "the file is too long" });
        }
        let text = String::from_utf8_lossy(content);
        let lines = Lines(&text);
        let (start, start_segment) = lines.location("START WAL LOCATION")?;
        let stop = lines.find("STOP WAL LOCATION").is_some();
        let stop = stop.then(|| lines.location("STOP WAL LOCATION")).transpose()?;
        // Servers before 13 did not write the timeline, but the segment's name holds it.
        let timeline = lines.timeline("START TIMELINE")?;
        if timeline.is_some_and(|timeline| timeline != start_segment.timeline()) {
            return Err(lines.bad("START TIMELINE", "it contradicts the start location"));
        }
        Ok(Self {
            start,
            start_segment,
            stop: stop.map(|(stop, _)| stop),
            checkpoint: lines
                .number("CHECKPOINT LOCATION")?
                .ok_or(WalError::LineMissing { name: "CHECKPOINT LOCATION" })?,
            from_standby: lines.text("BACKUP FROM") == "standby",
            start_time: lines.text("START TIME"),
            label: lines.text("LABEL"),
            timeline: start_segment.timeline(),
            stop_timeline: lines.timeline("STOP TIMELINE")?,
            incremental: lines.find("INCREMENTAL FROM LSN").is_some(),
        })
    }
}

struct Lines<'a>(&'a str);

impl<'a> Lines<'a> {
    /// The number and value of the first line `NAME: value`.
    fn find(&self, name: &str) -> Option<(usize, &'a str)> {
        (1..).zip(self.0.lines()).find_map(|(number, line)| {
            let value = line.strip_prefix(name)?.strip_prefix(": ")?;
            Some((number, value))
        })
    }

    fn text(&self, name: &str) -> String {
        self.find(name).map(|(_, value)| value.to_owned()).unwrap_or_default()
    }

    fn number<T: std::str::FromStr>(&self, name: &'static str) -> Result<Option<T>, WalError> {
        let value = self.find(name).map(|(_, value)| value.trim().parse());
        value.transpose().map_err(|_| self.bad(name, "its value cannot be read"))
    }

    fn timeline(&self, name: &'static str) -> Result<Option<Timeline>, WalError> {
        Ok(self.number(name)?.map(Timeline))
    }

    /// `0/1300028 (file 000000010000000000000013)`.
    fn location(&self, name: &'static str) -> Result<(Lsn, SegmentName), WalError> {
        let (_, value) = self.find(name).ok_or(WalError::LineMissing { name })?;
        let split = value.trim().strip_suffix(')').and_then(|it| it.split_once(" (file "));
        let parsed = split.and_then(|(lsn, file)| Some((lsn.parse().ok()?, file.parse().ok()?)));
        parsed.ok_or_else(|| self.bad(name, "it must hold a position and a file name"))
    }

    fn bad(&self, name: &str, reason: &'static str) -> WalError {
        WalError::BadLine { line: self.find(name).map_or(1, |(number, _)| number), reason }
    }
}
