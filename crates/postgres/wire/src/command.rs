//! The commands of a replication session and the shape of their answers.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use lifeboat_model::{Lsn, SystemIdentifier, Timeline};

use crate::{Error, Row};

/// What IDENTIFY_SYSTEM answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct System {
    /// Which cluster this is.
    pub identifier: SystemIdentifier,
    /// The timeline that it is on.
    pub timeline: Timeline,
    /// How far its WAL is flushed.
    pub flushed: Lsn,
}

impl System {
    pub(crate) fn read(rows: &[Row]) -> Result<Self, Error> {
        let row = only(rows)?;
        Ok(Self {
            identifier: row.parse(0)?,
            timeline: timeline(row.parse(1)?)?,
            flushed: row.parse(2)?,
        })
    }
}

/// The name of a replication slot: 1 to 63 lower-case letters, digits and underscores.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotName(String);

impl SlotName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SlotName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        match (1..=63).contains(&text.len()) && text.bytes().all(plain) {
            true => Ok(Self(text.to_owned())),
            false => Err(Error::Config(
                "a slot's name is 1 to 63 lower-case letters, digits and underscores".into(),
            )),
        }
    }
}

impl fmt::Display for SlotName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0)
    }
}

/// How to make a slot.
#[derive(Debug, Clone, Copy, Default)]
pub struct SlotOptions {
    /// Keep WAL from now on, not only from the first connection on.
    pub reserve_wal: bool,
    /// Drop it with this connection. PostgreSQL drops it with the first refusal on it, too.
    pub temporary: bool,
}

/// What READ_REPLICATION_SLOT answers for a physical slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// The oldest WAL that the slot keeps, and its timeline; nothing before the first use. It is
    /// a floor of what is kept: the server may still have older WAL.
    pub restart: Option<(Timeline, Lsn)>,
}

impl Slot {
    /// `None` if there is no such slot.
    pub(crate) fn read(rows: &[Row]) -> Result<Option<Self>, Error> {
        let row = only(rows)?;
        if row.bytes(0).is_none() {
            return Ok(None);
        }
        let restart = match row.bytes(1) {
            Some(_) => Some((timeline(row.parse(2)?)?, row.parse(1)?)),
            None => None,
        };
        Ok(Some(Self { restart }))
    }
}

/// A timeline's history file as the server has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryFile {
    /// The timeline.
    pub timeline: Timeline,
    /// Its content, for `lifeboat_cluster::wal::History::parse`.
    pub content: Bytes,
}

impl HistoryFile {
    pub(crate) fn read(timeline: Timeline, rows: &[Row]) -> Result<Self, Error> {
        let row = only(rows)?;
        let name = row.text(0)?;
        if name != format!("{:08X}.history", timeline.0) {
            return Err(Error::protocol("the history of another timeline came"));
        }
        let content = row.bytes(1).ok_or_else(|| Error::protocol("a history without content"))?;
        Ok(Self { timeline, content: content.clone() })
    }
}

/// Where a stream begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// The slot that remembers how far we are.
    pub slot: Option<SlotName>,
    /// The first position wanted.
    pub lsn: Lsn,
    /// The timeline to follow to its end.
    pub timeline: Timeline,
}

impl Start {
    pub(crate) fn text(&self) -> String {
        let Self { slot, lsn, timeline } = self;
        let slot = slot.as_ref().map_or_else(String::new, |slot| format!("SLOT \"{slot}\" "));
        format!("START_REPLICATION {slot}PHYSICAL {lsn} TIMELINE {timeline}")
    }
}

pub(crate) fn create_slot(name: &SlotName, options: SlotOptions) -> String {
    let temporary = if options.temporary { " TEMPORARY" } else { "" };
    let reserve = if options.reserve_wal { " RESERVE_WAL" } else { "" };
    format!("CREATE_REPLICATION_SLOT \"{name}\"{temporary} PHYSICAL{reserve}")
}

/// A setting's name reaches the command as it is.
pub(crate) fn show(setting: &str) -> Result<String, Error> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || matches!(byte, b'_' | b'.');
    match !setting.is_empty() && setting.bytes().all(plain) {
        true => Ok(format!("SHOW {setting}")),
        false => {
            Err(Error::Config("a setting's name is lower-case letters and underscores".into()))
        }
    }
}

pub(crate) fn only(rows: &[Row]) -> Result<&Row, Error> {
    match rows {
        [row] => Ok(row),
        _ => Err(Error::protocol("one row was expected")),
    }
}

pub(crate) fn timeline(number: u32) -> Result<Timeline, Error> {
    match number {
        0 => Err(Error::protocol("there is no timeline 0")),
        number => Ok(Timeline(number)),
    }
}
