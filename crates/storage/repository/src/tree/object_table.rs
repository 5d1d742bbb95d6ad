//! The list of every object that a backup needs: readable with no key, for checks and prune.

use bytes::Bytes;
use lifeboat_telemetry::Outcome;

use crate::cursor::Cursor;
use crate::ids::Digest;
use crate::keys::StreamKeys;
use crate::object::{Coding, Header, ObjectType, decode_content};

const ENTRIES_PER_PAGE: usize = 16 * 1024;

/// One object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectEntry {
    /// Its name.
    pub digest: Digest,
    /// Pack, map or file table.
    pub kind: ObjectType,
    /// Its size.
    pub size: u64,
    /// Bytes of it that this backup uses.
    pub live: u64,
}

/// Writes and reads the pages of an object table.
pub struct ObjectTable;

impl ObjectTable {
    /// The pages of a table; entries come out sorted by digest.
    pub fn encode(keys: &StreamKeys, mut entries: Vec<ObjectEntry>) -> Vec<Bytes> {
        entries.sort_unstable();
        entries.dedup_by_key(|entry| entry.digest);
        entries.chunks(ENTRIES_PER_PAGE).map(|page| encode_page(keys, page)).collect()
    }

    /// Reads a page; needs no key.
    pub fn decode(digest: &Digest, bytes: &Bytes) -> Outcome<Vec<ObjectEntry>> {
        let (_, body) = decode_content(ObjectType::ObjectTable, digest, bytes)?;
        let mut cursor = Cursor::new(&body, "an object table");
        let count = cursor.count(ENTRIES_PER_PAGE)?;
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            let digest = Digest(cursor.array()?);
            let kind = match cursor.u8()? {
                7 => ObjectType::Pack,
                8 => ObjectType::Map,
                9 => ObjectType::FileTable,
                _ => return Err(cursor.damaged("an entry has no known type")),
            };
            entries.push(ObjectEntry { digest, kind, size: cursor.u64()?, live: cursor.u64()? });
        }
        cursor.end()?;
        Ok(entries)
    }
}

fn encode_page(keys: &StreamKeys, entries: &[ObjectEntry]) -> Bytes {
    let mut body = (entries.len() as u32).to_le_bytes().to_vec();
    for entry in entries {
        body.extend_from_slice(&entry.digest.0);
        body.push(entry.kind as u16 as u8);
        body.extend_from_slice(&entry.size.to_le_bytes());
        body.extend_from_slice(&entry.live.to_le_bytes());
    }
    let header = Header {
        kind: ObjectType::ObjectTable,
        vault: keys.vault().id,
        stream: keys.stream(),
        coding: Coding::PLAIN,
        body_bytes: body.len() as u64,
    };
    let mut out = header.encode().to_vec();
    out.append(&mut body);
    out.into()
}
