//! What an object is, by its name.

use lifeboat_objects::Key;

use crate::changes::ChangesName;
use crate::fragment::FragmentName;
use crate::ids::{Digest, StreamId};

/// The place of an object in the layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// `format`.
    Format,
    /// Below `keys/`.
    Key,
    /// A binding of a database, with its number.
    Binding(String, u32),
    /// An epoch of a service, by its number.
    Epoch(String, u32),
    /// Below `audit/`.
    Audit,
    /// A probe's object.
    Probe,
    /// A pack (`packs`) or metadata (`maps`).
    Content(StreamId, &'static str, Digest),
    /// A manifest, by name.
    Manifest(StreamId, String),
    /// A session, by name.
    Session(StreamId, String),
    /// A WAL file or a part of one, by file name.
    Wal(StreamId, String),
    /// A fragment.
    Fragment(StreamId, FragmentName),
    /// A run of a receiver, by its epoch.
    Receiver(StreamId, u32),
    /// What the WAL of a segment changed.
    Changes(StreamId, ChangesName),
}

impl Place {
    /// The stream that the object belongs to.
    pub fn stream(&self) -> Option<StreamId> {
        match self {
            Self::Content(stream, ..)
            | Self::Manifest(stream, _)
            | Self::Session(stream, _)
            | Self::Wal(stream, _)
            | Self::Fragment(stream, _)
            | Self::Receiver(stream, _)
            | Self::Changes(stream, _) => Some(*stream),
            _ => None,
        }
    }
}

/// Finds the place of a key; `None` for names that the layout does not have.
pub fn classify(key: &Key) -> Option<Place> {
    let parts: Vec<&str> = key.as_str().split('/').collect();
    match parts.as_slice() {
        ["format"] => Some(Place::Format),
        ["keys", name] => is_key(name).then_some(Place::Key),
        ["bindings", service, database, number] => {
            Some(Place::Binding(format!("{service}/{database}"), hex32(number)?))
        }
        ["epochs", service, number] => {
            let number = hex32(number).filter(|number| *number > 0)?;
            Some(Place::Epoch((*service).to_owned(), number))
        }
        ["audit", _, number] => hex32(number).map(|_| Place::Audit),
        ["probe", ..] => Some(Place::Probe),
        ["streams", stream, rest @ ..] => in_stream(StreamId::parse(stream)?, rest),
        _ => None,
    }
}

fn in_stream(stream: StreamId, rest: &[&str]) -> Option<Place> {
    match rest {
        [folder @ ("packs" | "maps"), shard, name] => {
            let folder = if *folder == "packs" { "packs" } else { "maps" };
            let digest = Digest::parse(name).filter(|_| name.starts_with(shard))?;
            (shard.len() == 2).then_some(Place::Content(stream, folder, digest))
        }
        ["manifests", name] => {
            crate::session::epoch_of(name)?;
            Some(Place::Manifest(stream, (*name).to_owned()))
        }
        ["sessions", name] => {
            crate::session::epoch_of(name)?;
            Some(Place::Session(stream, (*name).to_owned()))
        }
        ["wal", timeline, file] => {
            let well_formed = timeline.len() == 8 && file.starts_with(timeline);
            well_formed.then(|| Place::Wal(stream, (*file).to_owned()))
        }
        ["fragments", timeline, name] => {
            let name = format!("{timeline}/{name}").parse().ok()?;
            Some(Place::Fragment(stream, name))
        }
        ["changes", timeline, name] => {
            let name = format!("{timeline}/{name}").parse().ok()?;
            Some(Place::Changes(stream, name))
        }
        ["receivers", epoch] => Some(Place::Receiver(stream, hex32(epoch)?)),
        _ => None,
    }
}

fn is_key(name: &str) -> bool {
    let digits = name
        .strip_prefix("slot-")
        .map(|rest| rest.trim_end_matches("-removed"))
        .or_else(|| name.strip_prefix("writer-"));
    digits.and_then(hex32).is_some()
}

fn hex32(digits: &str) -> Option<u32> {
    u32::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 8)
}
