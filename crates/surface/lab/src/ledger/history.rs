//! What the clients of the ledger noted, an answer a line.

use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;
use std::{fs, io};

use lifeboat_telemetry::Outcome;
use serde::{Deserialize, Serialize};

use crate::state::local;

/// How a client writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// Through the endpoint, one row a commit, connecting again whenever it must.
    Endpoint,
    /// One row a commit, in one long session.
    Single,
    /// Many commits sent before the first is answered, in one long session.
    Pipeline,
    /// A procedure that commits in a loop.
    Procedure,
}

/// What a client knows of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It was committed: the server said so.
    Acknowledged,
    /// It was not: the server said so.
    Refused,
    /// Nobody knows: no answer, or a wait that was cancelled.
    Unknown,
}

/// One write and its answer. Times are nanoseconds of CLOCK_BOOTTIME, one clock for all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What is known of it.
    pub answer: Answer,
    /// Who wrote.
    pub writer: String,
    /// How.
    pub way: Way,
    /// Which session of the writer.
    pub session: u64,
    /// Which row of the session.
    pub sequence: u64,
    /// The node that answered.
    pub node: Option<String>,
    /// Its cluster.
    pub system: Option<String>,
    /// Its timeline.
    pub timeline: Option<u32>,
    /// When it was sent.
    pub sent_ns: u64,
    /// When it was answered, or given up.
    pub done_ns: u64,
    /// Why it was refused, or is unknown.
    pub why: Option<String>,
}

/// All that was noted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// The answers, by when they came.
    pub entries: Vec<Entry>,
}

impl History {
    /// Reads what was noted so far. A line that is still being written is left out.
    pub fn read(path: &Path) -> Outcome<Self> {
        let text =
            fs::read_to_string(path).map_err(|error| local("cannot read", path).because(error))?;
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let mut entries = Vec::new();
        for line in whole.lines() {
            let entry: Entry = serde_json::from_str(line)
                .map_err(|error| local("a line cannot be read in", path).because(error))?;
            entries.push(entry);
        }
        entries.sort_by_key(|entry| entry.done_ns);
        Ok(Self { entries })
    }

    /// How many writes were acknowledged so far, and the last one; without reading all others.
    pub fn last_acknowledged(path: &Path) -> Option<(usize, Entry)> {
        let text = fs::read_to_string(path).ok()?;
        let (whole, _) = text.rsplit_once('\n')?;
        // As `note` writes them: the answer comes first.
        let mut lines =
            whole.lines().filter(|line| line.starts_with("{\"answer\":\"acknowledged\""));
        let last = lines.next_back()?;
        let entry = serde_json::from_str(last).ok()?;
        Some((lines.count() + 1, entry))
    }

    /// The acknowledged writes.
    pub fn acknowledged(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.answer == Answer::Acknowledged)
    }
}

/// Writes down what comes until nobody is left who sends.
pub(super) fn note(file: fs::File, entries: &Receiver<Entry>, flush: Duration) -> io::Result<()> {
    let mut writer = BufWriter::new(file);
    loop {
        match entries.recv_timeout(flush) {
            Ok(entry) => {
                serde_json::to_writer(&mut writer, &entry)?;
                writer.write_all(b"\n")?;
                // Whoever reads while it is being written waits no longer than this.
                while let Ok(entry) = entries.try_recv() {
                    serde_json::to_writer(&mut writer, &entry)?;
                    writer.write_all(b"\n")?;
                }
                writer.flush()?;
            }
            Err(RecvTimeoutError::Timeout) => writer.flush()?,
            Err(RecvTimeoutError::Disconnected) => return writer.flush(),
        }
    }
}
