//! Fragments: pieces of a segment as a receiver ships them, named by what they cover.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use bytes::Bytes;
use lifeboat_environment::Environment;
use lifeboat_model::{Lsn, Timeline};
use lifeboat_objects::{Key, Store};
use lifeboat_telemetry::{Code, Failure, Outcome};

use crate::ids::StreamId;
use crate::keys::{ReadKey, StreamKeys};
use crate::layout;
use crate::object::ObjectType;
use crate::wal_file::{self, WalContent, WalHead};

/// Plain bytes of a fragment are never more.
pub const FRAGMENT_BYTES_MAX: u64 = 8 << 20;

/// What a fragment covers, and whose it is. In order of timeline and position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FragmentName {
    /// The timeline.
    pub timeline: Timeline,
    /// Its first position.
    pub start: Lsn,
    /// The position behind its last.
    pub end: Lsn,
    /// The writer epoch of the receiver that shipped it.
    pub epoch: u32,
}

impl FragmentName {
    /// How many bytes of WAL it holds.
    pub fn plain_bytes(&self) -> u64 {
        self.end.distance_from(self.start)
    }

    /// The name, if a fragment can have it.
    fn checked(self) -> Option<Self> {
        let length = 1..=FRAGMENT_BYTES_MAX;
        let legal = self.timeline.0 > 0 && self.epoch > 0 && length.contains(&self.plain_bytes());
        legal.then_some(self)
    }
}

impl fmt::Display for FragmentName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { timeline, start, end, epoch } = self;
        write!(formatter, "{:08X}/{:016x}-{:016x}-{epoch:08x}", timeline.0, start.0, end.0)
    }
}

/// A text that is no name of a fragment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the name of a fragment")]
pub struct InvalidFragmentName(String);

impl FromStr for FragmentName {
    type Err = InvalidFragmentName;

    fn from_str(text: &str) -> Result<Self, InvalidFragmentName> {
        let parse = || {
            let (timeline, rest) = text.split_once('/')?;
            let mut numbers = rest.split('-').map(|digits| u64::from_str_radix(digits, 16).ok());
            let mut next = || numbers.next().flatten();
            Self {
                timeline: Timeline(u32::from_str_radix(timeline, 16).ok()?),
                start: Lsn(next()?),
                end: Lsn(next()?),
                epoch: u32::try_from(next()?).ok()?,
            }
            .checked()
        };
        // One name, one text: the numbers alone would allow other cases and lengths.
        parse()
            .filter(|name| name.to_string() == text)
            .ok_or_else(|| InvalidFragmentName(text.chars().take(80).collect()))
    }
}

/// Builds a fragment and says where it belongs.
pub fn encode_fragment(
    keys: &StreamKeys,
    environment: &Environment,
    name: &FragmentName,
    level: i32,
    content: &WalContent<'_>,
) -> Outcome<(Key, Bytes)> {
    if name.checked().is_none() || content.plain.len() as u64 != name.plain_bytes() {
        let length = content.plain.len();
        let message = format!("{length} bytes cannot be the fragment {name}");
        return Err(Failure::new(Code::Internal, message));
    }
    let key = layout::fragment(keys.stream(), name)?;
    let kind = ObjectType::Fragment;
    let bytes = wal_file::encode(keys, environment, kind, &key, level, content)?;
    Ok((key, bytes))
}

/// Checks, opens and decompresses a fragment.
pub fn decode_fragment(
    keys: &StreamKeys,
    read_key: &ReadKey,
    name: &FragmentName,
    bytes: &Bytes,
) -> Outcome<(WalHead, Vec<u8>)> {
    let key = layout::fragment(keys.stream(), name)?;
    let (head, plain) = wal_file::decode(keys, read_key, ObjectType::Fragment, &key, bytes)?;
    if plain.len() as u64 != name.plain_bytes() {
        let message = format!("{key} is damaged: it holds {} bytes", plain.len());
        return Err(Failure::new(Code::ObjectDamaged, message));
    }
    Ok((head, plain))
}

/// The fragments of a timeline that begin in `span`, in order, with the size of each object.
pub async fn list_fragments(
    store: &Store,
    stream: StreamId,
    timeline: Timeline,
    span: Range<Lsn>,
) -> Outcome<Vec<(FragmentName, u64)>> {
    let Some(last) = span.end.0.checked_sub(1).filter(|last| *last >= span.start.0) else {
        return Ok(Vec::new());
    };
    // What all names in question share: of a segment's fragments nearly all digits.
    let (first, last) = (format!("{:016x}", span.start.0), format!("{last:016x}"));
    let same = first.bytes().zip(last.bytes()).take_while(|(one, other)| one == other).count();
    let folder = layout::fragments(stream, timeline);
    let shared = first.get(..same).unwrap_or_default();
    let after = Key::new(format!("{folder}{first}"))?;
    let listed = store.list_after(&format!("{folder}{shared}"), &after).await?;
    // What has another name is for `repo check` to tell.
    let root = layout::all_fragments(stream);
    let names = listed.into_iter().filter_map(|(key, stat)| {
        let name: FragmentName = key.as_str().strip_prefix(&root)?.parse().ok()?;
        span.contains(&name.start).then_some((name, stat.size))
    });
    Ok(names.collect())
}
