//! Timeline history files: from where to where each ancestor counts.

use std::fmt;

use lifeboat_model::{Lsn, Timeline};

use super::WalError;

/// A promotion adds a line of some forty bytes; this is more than can happen.
const LONGEST: usize = 1 << 20;

/// The history of one timeline. The first timeline has none; its history is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// The timeline whose history this is.
    pub timeline: Timeline,
    /// Its ancestors, oldest first.
    pub ancestors: Vec<HistoryEntry>,
}

/// One ancestor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// The ancestor.
    pub timeline: Timeline,
    /// Where it ends and its successor begins.
    pub switch: Lsn,
    /// Why, in PostgreSQL's words.
    pub reason: String,
}

impl History {
    /// The history of a timeline without ancestors.
    pub fn root(timeline: Timeline) -> Self {
        Self { timeline, ancestors: Vec::new() }
    }

    /// Reads the content of `timeline`'s history file.
    pub fn parse(timeline: Timeline, content: &[u8]) -> Result<Self, WalError> {
        if content.len() > LONGEST {
            return Err(WalError::BadLine { line: 1, reason: "the file is too long" });
        }
        let mut history = Self::root(timeline);
        for (number, line) in (1..).zip(String::from_utf8_lossy(content).lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let bad = |reason| WalError::BadLine { line: number, reason };
            let entry = HistoryEntry::parse(line).map_err(bad)?;
            if history.ancestors.last().is_some_and(|last| last.timeline >= entry.timeline) {
                return Err(bad("timelines must grow"));
            }
            if history.ancestors.last().is_some_and(|last| last.switch > entry.switch) {
                return Err(bad("switch positions must grow"));
            }
            if entry.timeline >= timeline {
                return Err(bad("an ancestor is not older than the timeline itself"));
            }
            history.ancestors.push(entry);
        }
        Ok(history)
    }

    /// The timeline that wrote the byte at `lsn`, as this history sees it.
    pub fn timeline_of(&self, lsn: Lsn) -> Timeline {
        let ancestor = self.ancestors.iter().find(|ancestor| lsn < ancestor.switch);
        ancestor.map_or(self.timeline, |ancestor| ancestor.timeline)
    }

    /// Where `timeline` ends in this history: `None` for the newest and for strangers.
    pub fn switch_of(&self, timeline: Timeline) -> Option<Lsn> {
        let mut ancestors = self.ancestors.iter();
        ancestors.find(|ancestor| ancestor.timeline == timeline).map(|ancestor| ancestor.switch)
    }

    /// Whether a state at `lsn` of `timeline` can be rolled forward along this history: it is the
    /// newest timeline, or an ancestor that had not yet ended.
    pub fn contains(&self, timeline: Timeline, lsn: Lsn) -> bool {
        timeline == self.timeline || self.switch_of(timeline).is_some_and(|switch| lsn <= switch)
    }

    /// Each timeline with where it begins and, except for the newest, ends; oldest first.
    pub fn spans(&self) -> impl Iterator<Item = (Timeline, Lsn, Option<Lsn>)> {
        let ends = self.ancestors.iter().map(|ancestor| (ancestor.timeline, Some(ancestor.switch)));
        let starts = self.ancestors.iter().map(|ancestor| ancestor.switch);
        ends.chain([(self.timeline, None)])
            .zip([Lsn::ZERO].into_iter().chain(starts))
            .map(|((timeline, end), start)| (timeline, start, end))
    }
}

impl HistoryEntry {
    fn parse(line: &str) -> Result<Self, &'static str> {
        let mut fields = line.splitn(3, '\t').map(str::trim);
        let timeline = fields.next().and_then(|field| field.parse().ok());
        let timeline = timeline.filter(|it| *it > 0).ok_or("it must start with a timeline")?;
        let switch = fields.next().and_then(|field| field.parse().ok());
        Ok(Self {
            timeline: Timeline(timeline),
            switch: switch.ok_or("a WAL position must follow the timeline")?,
            reason: fields.next().unwrap_or_default().to_owned(),
        })
    }
}

/// The content of the file, as PostgreSQL writes it.
impl fmt::Display for History {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, ancestor) in self.ancestors.iter().enumerate() {
            let gap = if index == 0 { "" } else { "\n" };
            let HistoryEntry { timeline, switch, reason } = ancestor;
            writeln!(formatter, "{gap}{timeline}\t{switch}\t{reason}")?;
        }
        Ok(())
    }
}
