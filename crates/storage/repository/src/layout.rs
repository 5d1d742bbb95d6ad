//! Where each object lies below the root of a repository.

use lifeboat_model::Timeline;
use lifeboat_objects::Key;
use lifeboat_telemetry::Outcome;

use crate::changes::ChangesName;
use crate::fragment::FragmentName;
use crate::ids::{Digest, StreamId};
use crate::object::ObjectType;

/// `format`.
pub fn format() -> Outcome<Key> {
    Key::new("format")
}

/// `keys/slot-00000001`.
pub fn slot(number: u32) -> Outcome<Key> {
    Key::new(format!("keys/slot-{number:08x}"))
}

/// `keys/slot-00000001-removed`.
pub fn slot_removal(number: u32) -> Outcome<Key> {
    Key::new(format!("keys/slot-{number:08x}-removed"))
}

/// `keys/writer-00000001`.
pub fn certificate(number: u32) -> Outcome<Key> {
    Key::new(format!("keys/writer-{number:08x}"))
}

/// `bindings/payments/ledger/00000001`.
pub fn binding(database: &str, number: u32) -> Outcome<Key> {
    Key::new(format!("bindings/{database}/{number:08x}"))
}

/// `epochs/payments/00000007`.
pub fn epoch(service: &str, number: u32) -> Outcome<Key> {
    Key::new(format!("{}{number:08x}", epochs(service)))
}

/// The folder of a service's epochs.
pub fn epochs(service: &str) -> String {
    format!("epochs/{service}/")
}

/// `streams/STREAM/`.
pub fn stream(stream: StreamId) -> String {
    format!("streams/{stream}/")
}

/// A content-named object: `streams/STREAM/packs/ab/abcdef…`.
pub fn content(stream: StreamId, kind: ObjectType, digest: &Digest) -> Outcome<Key> {
    let folder = if kind == ObjectType::Pack { "packs" } else { "maps" };
    let name = digest.to_string();
    Key::new(format!("streams/{stream}/{folder}/{}/{name}", &name[..2]))
}

/// `streams/STREAM/manifests/00000005-00000001`.
pub fn manifest(stream: StreamId, name: &str) -> Outcome<Key> {
    Key::new(format!("streams/{stream}/manifests/{name}"))
}

/// `streams/STREAM/sessions/00000005-00000001`.
pub fn session(stream: StreamId, name: &str) -> Outcome<Key> {
    Key::new(format!("streams/{stream}/sessions/{name}"))
}

/// `streams/STREAM/wal/00000001/000000010000000000000007`, also `….partial` and `….backup`.
pub fn wal(stream: StreamId, file: &str) -> Outcome<Key> {
    let timeline = file.get(..8).unwrap_or_default();
    Key::new(format!("streams/{stream}/wal/{timeline}/{file}"))
}

/// A part of a large segment: `….part-00000000`.
pub fn wal_part(stream: StreamId, file: &str, part: u32) -> Outcome<Key> {
    let timeline = file.get(..8).unwrap_or_default();
    Key::new(format!("streams/{stream}/wal/{timeline}/{file}.part-{part:08x}"))
}

/// The folder of a timeline's WAL.
pub fn wal_timeline(stream: StreamId, timeline: u32) -> String {
    format!("streams/{stream}/wal/{timeline:08X}/")
}

/// A fragment: `streams/STREAM/fragments/00000001/START-END-EPOCH`.
pub fn fragment(stream: StreamId, name: &FragmentName) -> Outcome<Key> {
    Key::new(format!("streams/{stream}/fragments/{name}"))
}

/// The folder of a timeline's fragments.
pub fn fragments(stream: StreamId, timeline: Timeline) -> String {
    format!("streams/{stream}/fragments/{:08X}/", timeline.0)
}

/// The folder of all fragments.
pub fn all_fragments(stream: StreamId) -> String {
    format!("streams/{stream}/fragments/")
}

/// A run of a receiver: `streams/STREAM/receivers/00000001`.
pub fn receiver(stream: StreamId, epoch: u32) -> Outcome<Key> {
    Key::new(format!("streams/{stream}/receivers/{epoch:08x}"))
}

/// The folder of all runs of receivers.
pub fn receivers(stream: StreamId) -> String {
    format!("streams/{stream}/receivers/")
}

/// What the WAL of a segment changed: `streams/STREAM/changes/00000001/SEGMENT-EPOCH`.
pub fn changes(stream: StreamId, name: &ChangesName) -> Outcome<Key> {
    Key::new(format!("{}{name}", all_changes(stream)))
}

/// The folder of all of these.
pub fn all_changes(stream: StreamId) -> String {
    format!("streams/{stream}/changes/")
}
