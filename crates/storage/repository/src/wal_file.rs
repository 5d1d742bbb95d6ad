//! WAL files as objects: segments, parts of large segments, history files.

use std::cell::Cell;

use bytes::Bytes;
use lifeboat_environment::Environment;
use lifeboat_model::{Lsn, Timeline};
use lifeboat_objects::Key;
use lifeboat_telemetry::{Code, Failure, Outcome};
use serde::{Deserialize, Serialize};

use crate::crypt::{WRAPPED_BYTES, Wrapped};
use crate::cursor::Cursor;
use crate::keys::{Encryption, ReadKey, Recipient, StreamKeys};
use crate::object::{ObjectType, decode_named, encode_named};

/// A file above this size is stored in parts of this size.
pub const PART_BYTES: usize = 32 * 1024 * 1024;
/// Plain bytes of one frame of a WAL file. Beginning anew costs time; a reader pays for each page
/// of the memory that a frame needs.
const FRAME_BYTES: usize = 4 * 1024 * 1024;
/// What the first writers put into a frame.
const SMALL_FRAME_BYTES: usize = 1024 * 1024;
const FRAMES_MAX: usize = PART_BYTES / SMALL_FRAME_BYTES;
const FACTS_BYTES_MAX: usize = 1024 * 1024;
/// Enough to read name, lengths and keyed digest of any WAL object.
pub const WAL_HEAD_BYTES: u64 = 2048;

thread_local! {
    /// Room for a frame. To get 4 MiB anew for every segment costs 1,024 page faults.
    static ROOM: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// What the WAL says of itself; sealed with the stream's metadata key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WalFacts {
    /// Commit time of the first commit, microseconds since 1970.
    pub first_commit_us: Option<i64>,
    /// Commit time of the last commit.
    pub last_commit_us: Option<i64>,
    /// Where the last whole record begins: the last position that recovery can stop at.
    pub last_record: Option<Lsn>,
    /// Named restore points.
    pub restore_points: Vec<RestorePoint>,
    /// Of a timeline history file: the ancestors, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ancestors: Vec<Ancestor>,
}

/// A timeline that another one descends from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ancestor {
    /// Its number.
    pub timeline: Timeline,
    /// Where its successor branched off.
    pub end: Lsn,
}

/// A named restore point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestorePoint {
    /// Where its record ends.
    pub lsn: Lsn,
    /// When it was made, microseconds since 1970.
    pub time_us: i64,
    /// Its name.
    pub name: String,
}

/// What can be read of a WAL object without opening it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalHead {
    /// Plain bytes of this object.
    pub plain_bytes: u64,
    /// Keyed digest of the plain bytes; of a segment in parts: of its parts' digests in order.
    pub digest: [u8; 32],
    /// The sealed facts.
    pub facts: WalFacts,
}

/// What goes into a WAL object.
pub struct WalContent<'a> {
    /// The bytes of the file, of one part of it, or of a [`Parts`] list.
    pub plain: &'a [u8],
    /// What a re-push is compared with: see [`WalHead::digest`].
    pub digest: [u8; 32],
    /// What the WAL says of itself.
    pub facts: &'a WalFacts,
}

/// Builds the object of a WAL file or of one part of it.
pub fn encode(
    keys: &StreamKeys,
    environment: &Environment,
    kind: ObjectType,
    key: &Key,
    level: i32,
    file: &WalContent<'_>,
) -> Outcome<Bytes> {
    let WalContent { plain, digest, facts } = *file;
    if plain.len() > PART_BYTES {
        return Err(Failure::new(Code::ObjectTooLarge, format!("{key} is too large for a part")));
    }
    let internal = |what: &str| Failure::new(Code::Internal, format!("{what} failed"));
    let sealed = keys.new_object_key(environment, Recipient::Wal)?;
    let facts = serde_json::to_vec(facts).map_err(|_| internal("encoding WAL facts"))?;
    let facts = keys.seal_metadata(environment, kind, key.as_str().as_bytes(), &facts)?;
    let mut compressor = crate::pack::compressor(level)?;

    let mut body = Vec::with_capacity(plain.len() / 2 + facts.len() + 256);
    body.extend_from_slice(&(plain.len() as u64).to_le_bytes());
    body.extend_from_slice(&digest);
    body.extend_from_slice(&sealed.wrapped.ephemeral);
    body.extend_from_slice(&sealed.wrapped.key);
    body.extend_from_slice(&(facts.len() as u32).to_le_bytes());
    body.extend_from_slice(&facts);
    body.extend_from_slice(&(plain.len().div_ceil(FRAME_BYTES) as u32).to_le_bytes());
    let mut room = take_room(FRAME_BYTES.min(plain.len()));
    for (number, frame) in plain.chunks(FRAME_BYTES).enumerate() {
        room.clear();
        let (stored, compressed) = match compressor.compress_to_buffer(frame, &mut room) {
            Ok(length) if length < frame.len() => (room.as_slice(), true),
            _ => (frame, false),
        };
        let tag_bytes = if sealed.aead.is_some() { crate::crypt::TAG_BYTES } else { 0 };
        body.extend_from_slice(&((stored.len() + tag_bytes) as u32).to_le_bytes());
        body.push(u8::from(compressed));
        let start = body.len();
        body.extend_from_slice(stored);
        if let Some(aead) = &sealed.aead {
            let aad = frame_aad(keys, kind, key, number as u32, frame.len(), compressed);
            let tag = aead.seal_slice(number as u32, &aad, &mut body[start..])?;
            body.extend_from_slice(&tag);
        }
    }
    ROOM.set(room);
    Ok(encode_named(keys.header(kind, 1), key, &body, None))
}

/// The thread's room, for at least so many bytes.
fn take_room(bytes: usize) -> Vec<u8> {
    let mut room = ROOM.take();
    room.clear();
    room.reserve(bytes);
    room
}

fn unusable(error: std::io::Error) -> Failure {
    Failure::new(Code::Internal, "zstd cannot be set up").because(error)
}

fn frame_aad(
    keys: &StreamKeys,
    kind: ObjectType,
    key: &Key,
    number: u32,
    plain_bytes: usize,
    compressed: bool,
) -> Vec<u8> {
    let mut aad = keys.aad(kind, key.as_str().as_bytes());
    aad.extend_from_slice(&number.to_le_bytes());
    aad.extend_from_slice(&(plain_bytes as u32).to_le_bytes());
    aad.push(u8::from(compressed));
    aad
}

fn read_head(
    keys: &StreamKeys,
    kind: ObjectType,
    key: &Key,
    cursor: &mut Cursor<'_>,
) -> Outcome<(WalHead, Wrapped)> {
    let plain_bytes = cursor.u64()?;
    if plain_bytes > PART_BYTES as u64 {
        return Err(cursor.damaged("it claims to be longer than a part may be"));
    }
    let digest = cursor.array()?;
    let wrapped = Wrapped { ephemeral: cursor.array()?, key: cursor.array::<WRAPPED_BYTES>()? };
    let facts_bytes = cursor.count(FACTS_BYTES_MAX)?;
    let sealed = cursor.take(facts_bytes)?;
    let facts = keys.open_metadata(kind, key.as_str().as_bytes(), sealed)?;
    let facts: WalFacts = serde_json::from_slice(&facts)
        .map_err(|_| cursor.damaged("its facts are not well formed"))?;
    Ok((WalHead { plain_bytes, digest, facts }, wrapped))
}

/// Reads the head from the first bytes of an object ([`WAL_HEAD_BYTES`], or all of it where
/// many restore points make the facts longer: the caller then reads the whole object).
pub fn decode_head(
    keys: &StreamKeys,
    kind: ObjectType,
    key: &Key,
    bytes: &[u8],
) -> Outcome<WalHead> {
    let header = crate::object::Header::decode(bytes).map_err(|failure| failure.within(key))?;
    keys.check(&header)?;
    let mut cursor = Cursor::new(bytes, "a WAL object");
    cursor.take(crate::object::HEADER_BYTES)?;
    let name_bytes = cursor.u16()? as usize;
    cursor.u8()?;
    if header.kind != kind || cursor.take(name_bytes)? != key.as_str().as_bytes() {
        return Err(cursor.damaged("it was stored under another name"));
    }
    read_head(keys, kind, key, &mut cursor).map(|(head, _)| head)
}

/// How many bytes of an object [`decode_digest`] needs; every WAL object is longer.
pub fn digest_end(key: &Key) -> u64 {
    (crate::object::HEADER_BYTES + 3 + key.as_str().len() + 8 + 32) as u64
}

/// Reads type and keyed digest from the first [`digest_end`] bytes of an object. They prove
/// nothing alone: before a difference raises an alarm, the whole object is to be checked.
pub fn decode_digest(
    keys: &StreamKeys,
    key: &Key,
    bytes: &[u8],
) -> Outcome<(ObjectType, [u8; 32])> {
    let header = crate::object::Header::decode(bytes).map_err(|failure| failure.within(key))?;
    keys.check(&header)?;
    let mut cursor = Cursor::new(bytes, "a WAL object");
    cursor.take(crate::object::HEADER_BYTES)?;
    let name_bytes = cursor.u16()? as usize;
    cursor.u8()?;
    if cursor.take(name_bytes)? != key.as_str().as_bytes() {
        return Err(cursor.damaged("it was stored under another name"));
    }
    cursor.u64()?;
    Ok((header.kind, cursor.array()?))
}

/// The plain size of a segment from its first bytes; `None` for other objects. Needs no key.
pub fn plain_bytes(bytes: &[u8]) -> Option<u64> {
    let header = crate::object::Header::decode(bytes).ok()?;
    let mut cursor = Cursor::new(bytes, "a WAL object");
    cursor.take(crate::object::HEADER_BYTES).ok()?;
    let name_bytes = cursor.u16().ok()? as usize;
    cursor.take(1 + name_bytes).ok()?;
    let plain_bytes = cursor.u64().ok()?;
    (header.kind == ObjectType::Segment).then_some(plain_bytes)
}

/// Checks, opens and decompresses a WAL object into memory.
pub fn decode(
    keys: &StreamKeys,
    read_key: &ReadKey,
    kind: ObjectType,
    key: &Key,
    bytes: &Bytes,
) -> Outcome<(WalHead, Vec<u8>)> {
    let mut plain = Vec::new();
    let head = decode_to(keys, read_key, kind, key, bytes, |frame| {
        plain.extend_from_slice(frame);
        Ok(())
    })?;
    Ok((head, plain))
}

/// Checks, opens and decompresses a WAL object frame by frame. What `out` got is good only if
/// this succeeds.
pub fn decode_to(
    keys: &StreamKeys,
    read_key: &ReadKey,
    kind: ObjectType,
    key: &Key,
    bytes: &Bytes,
    mut out: impl FnMut(&[u8]) -> Outcome<()>,
) -> Outcome<WalHead> {
    let named = decode_named(kind, key, bytes)?;
    keys.check(&named.header)?;
    let mut cursor = Cursor::new(&named.body, "a WAL object");
    let (head, wrapped) = read_head(keys, kind, key, &mut cursor)?;
    let aead = read_key.open(keys.vault(), &wrapped)?;
    if aead.is_none() && keys.vault().encryption != Encryption::None {
        return Err(Failure::new(Code::KeyUnavailable, "no key that reads WAL is open"));
    }
    let total = head.plain_bytes as usize;
    let frames = cursor.count(FRAMES_MAX)?;
    let mut sizes = [FRAME_BYTES, SMALL_FRAME_BYTES].into_iter();
    let Some(frame_bytes) = sizes.find(|size| total.div_ceil(*size) == frames) else {
        return Err(cursor.damaged("its frames do not add up"));
    };
    let mut decompressor = zstd::bulk::Decompressor::new().map_err(unusable)?;
    let (mut stored, mut plain) = (Vec::new(), take_room(frame_bytes.min(total)));
    let mut hasher = keys.content_hasher();
    let mut done = 0;
    for number in 0..frames {
        let stored_bytes = cursor.u32()? as usize;
        let compressed = cursor.u8()? == 1;
        stored.clear();
        stored.extend_from_slice(cursor.take(stored_bytes)?);
        let length = frame_bytes.min(total - done);
        let body = match &aead {
            None => Some(stored.as_mut_slice()),
            Some(aead) => {
                let aad = frame_aad(keys, kind, key, number as u32, length, compressed);
                aead.open(number as u32, &aad, &mut stored)
            }
        };
        let Some(body) = body else {
            return Err(cursor.damaged("a frame does not authenticate"));
        };
        let frame: &[u8] = if compressed {
            plain.clear();
            let written = decompressor.decompress_to_buffer(body, &mut plain);
            written.map_or(&[], |_| plain.as_slice())
        } else {
            body
        };
        if frame.len() != length || length == 0 {
            return Err(cursor.damaged("a frame does not decompress to its length"));
        }
        if aead.is_none() {
            hasher.update(frame);
        }
        out(frame)?;
        done += length;
    }
    ROOM.set(plain);
    cursor.end()?;
    // What is sealed was authenticated frame by frame.
    let of_content = kind != ObjectType::SegmentHead;
    let wrong = aead.is_none() && of_content && *hasher.finalize().as_bytes() != head.digest;
    if done != total || wrong {
        let message = format!("{key} is damaged: wrong content");
        return Err(Failure::new(Code::ObjectDamaged, message));
    }
    Ok(head)
}

/// The head object of a segment that is stored in parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parts {
    /// SHA-256 of each part's object, in order.
    pub parts: Vec<crate::ids::Digest>,
}
