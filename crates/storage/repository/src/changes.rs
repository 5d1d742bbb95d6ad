//! What the WAL of a segment changed, and when: noted by a receiver while it passed.
//!
//! To this crate both are bytes; `lifeboat-wal` knows what they mean.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use lifeboat_environment::Environment;
use lifeboat_model::{SegmentName, Timeline};
use lifeboat_objects::{Key, Store};
use lifeboat_telemetry::{Code, Failure, Outcome};

use crate::cursor::Cursor;
use crate::ids::StreamId;
use crate::keys::StreamKeys;
use crate::layout;
use crate::object::{ObjectType, decode_named, encode_named};

/// Map and index of a segment are never larger, before compression.
const PLAIN_BYTES_MAX: usize = 32 << 20;

/// The segment that passed last, and the receiver that noted it. In order of timeline and number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChangesName {
    /// The segment.
    pub segment: SegmentName,
    /// The writer epoch of the receiver.
    pub epoch: u32,
}

impl fmt::Display for ChangesName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { segment, epoch } = self;
        write!(formatter, "{:08X}/{segment}-{epoch:08x}", segment.timeline().0)
    }
}

/// A text that is no such name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the name of a change map")]
pub struct InvalidChangesName(String);

impl FromStr for ChangesName {
    type Err = InvalidChangesName;

    fn from_str(text: &str) -> Result<Self, InvalidChangesName> {
        let parse = || {
            let (segment, epoch) = text.split_once('/')?.1.split_once('-')?;
            let epoch = u32::from_str_radix(epoch, 16).ok().filter(|epoch| *epoch > 0)?;
            Some(Self { segment: segment.parse().ok()?, epoch })
        };
        // One name, one text: the number alone would allow other cases and lengths.
        parse()
            .filter(|name| name.to_string() == text)
            .ok_or_else(|| InvalidChangesName(text.chars().take(80).collect()))
    }
}

/// What passed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// The change map.
    pub map: Vec<u8>,
    /// The time index.
    pub times: Vec<u8>,
}

/// Builds the object and says where it belongs.
pub fn encode_changes(
    keys: &StreamKeys,
    environment: &Environment,
    name: &ChangesName,
    changes: &Changes,
) -> Outcome<(Key, Bytes)> {
    let key = layout::changes(keys.stream(), name)?;
    let mut plain = (changes.map.len() as u32).to_le_bytes().to_vec();
    plain.extend_from_slice(&changes.map);
    plain.extend_from_slice(&changes.times);
    if plain.len() > PLAIN_BYTES_MAX {
        return Err(Failure::new(Code::ObjectTooLarge, format!("{key} is too large")));
    }
    let mut packed = (plain.len() as u32).to_le_bytes().to_vec();
    let compressed = zstd::bulk::compress(&plain, 3)
        .map_err(|error| Failure::new(Code::Internal, "zstd failed").because(error))?;
    packed.extend_from_slice(&compressed);
    let kind = ObjectType::Changes;
    let body = keys.seal_metadata(environment, kind, key.as_str().as_bytes(), &packed)?;
    let bytes = encode_named(keys.header(kind, 1), &key, &body, None);
    Ok((key, bytes))
}

/// Checks, opens and decompresses the object.
pub fn decode_changes(keys: &StreamKeys, name: &ChangesName, bytes: &Bytes) -> Outcome<Changes> {
    let key = layout::changes(keys.stream(), name)?;
    let kind = ObjectType::Changes;
    let named = decode_named(kind, &key, bytes)?;
    keys.check(&named.header)?;
    let packed = keys.open_metadata(kind, key.as_str().as_bytes(), &named.body)?;
    let mut cursor = Cursor::new(&packed, "a change map");
    let plain_bytes = cursor.count(PLAIN_BYTES_MAX)?;
    let damaged = cursor.damaged("it does not decompress to its recorded length");
    let plain = match zstd::bulk::decompress(cursor.rest(), plain_bytes) {
        Ok(plain) if plain.len() == plain_bytes => plain,
        _ => return Err(damaged),
    };
    let mut cursor = Cursor::new(&plain, "a change map");
    let map_bytes = cursor.count(plain_bytes)?;
    let map = cursor.take(map_bytes)?.to_vec();
    Ok(Changes { map, times: cursor.rest().to_vec() })
}

/// What was noted of a timeline, in order.
pub async fn list_changes(
    store: &Store,
    stream: StreamId,
    timeline: Timeline,
) -> Outcome<Vec<ChangesName>> {
    let root = layout::all_changes(stream);
    let listed = store.list(&format!("{root}{:08X}/", timeline.0)).await?;
    // What has another name is for `repo check` to tell.
    let names =
        listed.into_iter().filter_map(|(key, _)| key.as_str().strip_prefix(&root)?.parse().ok());
    Ok(names.collect())
}
