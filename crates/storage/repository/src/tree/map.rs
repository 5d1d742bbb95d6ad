//! Maps say where each run of a file's pages lies.

use bytes::Bytes;
use lifeboat_environment::Environment;
use lifeboat_telemetry::Outcome;

use crate::cursor::{Cursor, put_varint};
use crate::ids::Digest;
use crate::keys::StreamKeys;
use crate::object::{Header, ObjectType, decode_content};

/// Pages that a leaf covers: 32 MiB of 8 KiB pages.
pub const LEAF_PAGES: u32 = 4096;
/// Upper limits that a reader enforces.
const PACKS_MAX: usize = 1 << 16;
const LEAVES_MAX: usize = 1 << 16;
/// Plain size at which a map object is closed.
pub const MAP_BYTES: usize = 1024 * 1024;
/// Decompression bound of any metadata object.
const METADATA_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Consecutive pages of a file, in consecutive slots of consecutive frames of one pack; or zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The pack; `None` for pages of zeros, which are not stored.
    pub pack: Option<Digest>,
    /// Frame of the first page.
    pub frame: u32,
    /// Slot of the first page.
    pub slot: u32,
    /// Number of pages.
    pub pages: u32,
}

/// Runs that cover up to [`LEAF_PAGES`] pages.
pub type Leaf = Vec<Run>;

/// A list of digests in which each stands once; runs name them by position.
#[derive(Default)]
pub(super) struct DigestList {
    digests: Vec<Digest>,
}

impl DigestList {
    /// The position of a digest. Neighbouring runs nearly always name the same pack, so the
    /// newest entries are looked at first.
    pub(super) fn position(&mut self, digest: Digest) -> u64 {
        if let Some(index) = self.digests.iter().rposition(|known| *known == digest) {
            return index as u64;
        }
        self.digests.push(digest);
        self.digests.len() as u64 - 1
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.digests.len() as u32).to_le_bytes());
        for digest in &self.digests {
            out.extend_from_slice(&digest.0);
        }
    }

    pub(super) fn decode(cursor: &mut Cursor<'_>) -> Outcome<Vec<Digest>> {
        let count = cursor.count(PACKS_MAX)?;
        (0..count).map(|_| Ok(Digest(cursor.array()?))).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.digests.len()
    }
}

pub(super) fn encode_runs(runs: &[Run], packs: &mut DigestList, out: &mut Vec<u8>) {
    put_varint(out, runs.len() as u64);
    for run in runs {
        match run.pack {
            None => put_varint(out, 0),
            Some(pack) => {
                put_varint(out, packs.position(pack) + 1);
                put_varint(out, u64::from(run.frame));
                put_varint(out, u64::from(run.slot));
            }
        }
        put_varint(out, u64::from(run.pages));
    }
}

pub(super) fn decode_runs(
    cursor: &mut Cursor<'_>,
    packs: &[Digest],
    pages_max: u32,
) -> Outcome<Vec<Run>> {
    let count = cursor.varint()?;
    if count > u64::from(pages_max) {
        return Err(cursor.damaged("it has more runs than pages"));
    }
    let mut runs = Vec::with_capacity(count as usize);
    let mut covered = 0u64;
    for _ in 0..count {
        let run = match cursor.varint()? {
            0 => Run { pack: None, frame: 0, slot: 0, pages: cursor.varint32()? },
            number => {
                let index = usize::try_from(number - 1).unwrap_or(usize::MAX);
                let Some(pack) = packs.get(index) else {
                    return Err(cursor.damaged("a run names no pack"));
                };
                let (frame, slot) = (cursor.varint32()?, cursor.varint32()?);
                Run { pack: Some(*pack), frame, slot, pages: cursor.varint32()? }
            }
        };
        covered += u64::from(run.pages);
        if run.pages == 0 || covered > u64::from(pages_max) {
            return Err(cursor.damaged("its runs cover an impossible number of pages"));
        }
        runs.push(run);
    }
    Ok(runs)
}

/// An object that holds leaves, perhaps of many files.
#[derive(Default)]
pub struct MapObject {
    packs: DigestList,
    leaves: Vec<u8>,
    count: u32,
}

impl MapObject {
    /// Adds a leaf and returns its number.
    pub fn add(&mut self, leaf: &[Run]) -> u32 {
        let mut encoded = Vec::new();
        encode_runs(leaf, &mut self.packs, &mut encoded);
        put_varint(&mut self.leaves, encoded.len() as u64);
        self.leaves.append(&mut encoded);
        self.count += 1;
        self.count - 1
    }

    /// Whether it should be closed.
    pub fn is_full(&self) -> bool {
        self.leaves.len() + 32 * self.packs.len() >= MAP_BYTES
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The object's bytes; their SHA-256 is its name.
    pub fn finish(&self, keys: &StreamKeys, environment: &Environment) -> Outcome<Bytes> {
        let mut plain = Vec::with_capacity(self.leaves.len() + 64);
        self.packs.encode(&mut plain);
        plain.extend_from_slice(&self.count.to_le_bytes());
        plain.extend_from_slice(&self.leaves);
        encode_metadata(keys, environment, ObjectType::Map, &plain)
    }

    /// Reads the leaves of a map object.
    pub fn decode(keys: &StreamKeys, digest: &Digest, bytes: &Bytes) -> Outcome<Vec<Leaf>> {
        let plain = decode_metadata(keys, ObjectType::Map, digest, bytes)?;
        let mut cursor = Cursor::new(&plain, "a map");
        let packs = DigestList::decode(&mut cursor)?;
        let count = cursor.count(LEAVES_MAX)?;
        let mut leaves = Vec::with_capacity(count);
        for _ in 0..count {
            let length = cursor.varint32()? as usize;
            let mut leaf = Cursor::new(cursor.take(length)?, "a map leaf");
            leaves.push(decode_runs(&mut leaf, &packs, LEAF_PAGES)?);
            leaf.end()?;
        }
        cursor.end()?;
        Ok(leaves)
    }
}

/// Compresses and seals a content-named metadata object.
pub(super) fn encode_metadata(
    keys: &StreamKeys,
    environment: &Environment,
    kind: ObjectType,
    plain: &[u8],
) -> Outcome<Bytes> {
    let mut packed = (plain.len() as u32).to_le_bytes().to_vec();
    let compressed = zstd::bulk::compress(plain, 3).unwrap_or_default();
    packed.extend_from_slice(&compressed);
    let body = keys.seal_metadata(environment, kind, b"", &packed)?;
    let mut header = keys.header(kind, 1);
    header.body_bytes = body.len() as u64;
    let mut out = header.encode().to_vec();
    out.extend_from_slice(&body);
    Ok(out.into())
}

/// Checks, opens and decompresses a content-named metadata object.
pub(super) fn decode_metadata(
    keys: &StreamKeys,
    kind: ObjectType,
    digest: &Digest,
    bytes: &Bytes,
) -> Outcome<Vec<u8>> {
    let (header, body): (Header, Bytes) = decode_content(kind, digest, bytes)?;
    keys.check(&header)?;
    let packed = keys.open_metadata(kind, b"", &body)?;
    let mut cursor = Cursor::new(&packed, "a metadata object");
    let plain_bytes = cursor.count(METADATA_BYTES_MAX)?;
    let damaged = cursor.damaged("it does not decompress to its recorded length");
    match zstd::bulk::decompress(cursor.rest(), plain_bytes) {
        Ok(plain) if plain.len() == plain_bytes => Ok(plain),
        _ => Err(damaged),
    }
}
