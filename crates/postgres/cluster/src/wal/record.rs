//! One WAL record: whom it is from, which blocks it changes, and what else it says.
//!
//! Sources of facts: PostgreSQL source, access/xlogrecord.h, access/xlogreader.c.

mod facts;
mod layout;

use std::ops::Range;

use lifeboat_model::Lsn;

use crate::Release;
use crate::bytes::{half, long, take, word};
use crate::files::Fork;
use layout::Layout;

pub use facts::{DatabaseOfTablespace, End, Fact, Locks, Oids, Relations, RowChange, RowsChanged};

/// Bytes before the parts of a record.
pub(super) const RECORD_HEADER: usize = 24;
/// Offset of the CRC, which covers all of the header before it.
const RECORD_CRC: usize = 20;

/// The name of a relation's files: where it lies, not what it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelationFile {
    /// OID of the tablespace.
    pub tablespace: u32,
    /// OID of the database; zero for shared relations.
    pub database: u32,
    /// The file number, which `pg_relation_filenode` gives.
    pub filenode: u32,
}

impl RelationFile {
    pub(super) const LENGTH: usize = 12;

    pub(super) fn parse(bytes: &[u8], at: usize) -> Option<Self> {
        Some(Self {
            tablespace: word(bytes, at)?,
            database: word(bytes, at + 4)?,
            filenode: word(bytes, at + 8)?,
        })
    }
}

/// A block that a record changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockReference {
    /// The relation.
    pub relation: RelationFile,
    /// The fork.
    pub fork: Fork,
    /// The block.
    pub block: u32,
    /// The record carries a full image of the page.
    pub has_image: bool,
    /// Replay makes the page anew.
    pub will_init: bool,
    /// Its number within the record.
    pub id: u8,
    /// Bytes of the image.
    image_bytes: u16,
    /// Where its own data lies within the record.
    data: Range<usize>,
}

/// A whole record, checked.
#[derive(Debug)]
pub struct Record<'a> {
    /// Where it starts.
    pub lsn: Lsn,
    /// Where the next one may start; behind a switch the start of the next segment.
    pub end: Lsn,
    /// Where the record before it starts. A recovery up to that position, inclusive, ends before
    /// this record.
    pub previous: Lsn,
    /// The transaction, or zero.
    pub xid: u32,
    /// The transaction above a subtransaction; only with `wal_level = logical`.
    pub top_xid: Option<u32>,
    /// Number of the resource manager.
    pub resource: u8,
    /// What the resource manager calls it, and flags.
    pub info: u8,
    /// Bytes of the record.
    pub length: u32,
    /// The blocks that it changes.
    pub blocks: &'a [BlockReference],
    /// What it says besides, if Lifeboat needs to know.
    pub fact: Option<Fact<'a>>,
    bytes: &'a [u8],
    data: Range<usize>,
}

impl<'a> Record<'a> {
    /// Changes relation files in a way that no block reference shows.
    pub fn is_special(&self) -> bool {
        self.info & 0x01 != 0
    }

    /// Its main data; of a record above 32 MiB only the beginning.
    pub fn data(&self) -> &'a [u8] {
        self.bytes.get(self.data.clone()).unwrap_or_default()
    }

    /// The data of one of its blocks, without the image.
    pub fn block_data(&self, block: &BlockReference) -> &'a [u8] {
        self.bytes.get(block.data.clone()).unwrap_or_default()
    }

    /// The rest of the segment is padding.
    pub fn is_switch(&self) -> bool {
        self.fact == Some(Fact::Switch)
    }

    /// Heap blocks whose bits in the visibility map were cleared. The map's own block is in no
    /// block reference.
    pub fn visibility_cleared(&self) -> impl Iterator<Item = (RelationFile, u32)> + '_ {
        let cleared = match &self.fact {
            Some(Fact::Rows(rows)) => rows.cleared,
            _ => [false; 2],
        };
        let block = |id: u8| self.blocks.iter().find(|block| block.id == id);
        let cleared = cleared.into_iter().zip(0_u8..).filter(|(cleared, _)| *cleared);
        // An update within one page refers to it once.
        cleared.filter_map(move |(_, id)| {
            block(id).or_else(|| block(0)).map(|block| (block.relation, block.block))
        })
    }

    /// Takes a record apart. `bytes` is the beginning of it where it is too long to be kept.
    pub(super) fn parse(
        bytes: &'a [u8],
        length: u32,
        place: Range<Lsn>,
        release: &'static Release,
        blocks: &'a mut Vec<BlockReference>,
    ) -> Option<Self> {
        let layout = Layout::of(release);
        let [info, resource] = take(bytes, 16)?;
        let mut parts = Parts { bytes, at: RECORD_HEADER, layout, relation: None, payload: 0 };
        blocks.clear();
        let (mut main, mut top_xid) = (0, None);
        // As the server does: headers go on until what is left is their payload.
        while parts.at.checked_add(parts.payload)? < length as usize {
            match parts.byte()? {
                255 => main = usize::from(parts.byte()?),
                254 => main = parts.word()? as usize,
                253 => drop(parts.half()?),
                252 => top_xid = Some(parts.word()?),
                id @ 0..=32 => {
                    let ordered = blocks.last().is_none_or(|last| last.id < id);
                    blocks.push(parts.block(id).filter(|_| ordered)?);
                    continue;
                }
                _ => return None,
            }
            if main > 0 {
                // The main data's header is the last one.
                parts.payload = parts.payload.checked_add(main)?;
                break;
            }
        }
        if parts.at.checked_add(parts.payload)? != length as usize {
            return None;
        }
        // Payloads follow the headers, each block's image before its data.
        let mut at = parts.at;
        for block in blocks.iter_mut() {
            let start = at.checked_add(usize::from(block.image_bytes))?;
            at = start.checked_add(block.data.len())?;
            block.data = start..at;
        }
        let mut record = Self {
            lsn: place.start,
            end: place.end,
            previous: Lsn(long(bytes, 8)?),
            xid: word(bytes, 4)?,
            top_xid,
            resource,
            info,
            length,
            blocks,
            fact: None,
            bytes,
            data: at..bytes.len(),
        };
        record.fact = facts::fact(&record, layout, bytes.len() == length as usize).ok()?;
        Some(record)
    }
}

/// Reads the headers of a record's parts.
struct Parts<'a> {
    bytes: &'a [u8],
    at: usize,
    layout: &'static Layout,
    /// The relation of the block before.
    relation: Option<RelationFile>,
    /// Bytes of all payloads so far.
    payload: usize,
}

impl Parts<'_> {
    /// One block's header. Where its data lies is known when all headers are read.
    fn block(&mut self, id: u8) -> Option<BlockReference> {
        const HAS_IMAGE: u8 = 0x10;
        const HAS_DATA: u8 = 0x20;
        const WILL_INIT: u8 = 0x40;
        const SAME_RELATION: u8 = 0x80;
        let flags = self.byte()?;
        let data = usize::from(self.half()?);
        if (flags & HAS_DATA != 0) != (data > 0) {
            return None;
        }
        let image = if flags & HAS_IMAGE == 0 { 0 } else { self.image()? };
        if flags & SAME_RELATION == 0 {
            self.relation = RelationFile::parse(self.bytes, self.at);
            self.at += RelationFile::LENGTH;
        }
        let fork = match flags & 0x0F {
            0 => Fork::Main,
            1 => Fork::FreeSpace,
            2 => Fork::Visibility,
            3 => Fork::Init,
            _ => return None,
        };
        self.payload = self.payload.checked_add(usize::from(image))?.checked_add(data)?;
        Some(BlockReference {
            relation: self.relation?,
            fork,
            block: self.word()?,
            has_image: flags & HAS_IMAGE != 0,
            will_init: flags & WILL_INIT != 0,
            id,
            image_bytes: image,
            data: 0..data,
        })
    }

    /// The header of a page's image; returns the image's length.
    fn image(&mut self) -> Option<u16> {
        const HAS_HOLE: u8 = 0x01;
        let length = self.half()?;
        self.half()?;
        let info = self.byte()?;
        if info & HAS_HOLE != 0 && info & self.layout.image_compressed != 0 {
            self.half()?;
        }
        Some(length)
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn half(&mut self) -> Option<u16> {
        let value = half(self.bytes, self.at)?;
        self.at += 2;
        Some(value)
    }

    fn word(&mut self) -> Option<u32> {
        let value = word(self.bytes, self.at)?;
        self.at += 4;
        Some(value)
    }
}

/// The CRC of a record, from that of what follows the header: data first, then the header.
pub(super) fn record_crc(record: &[u8], data: u32) -> Option<u32> {
    long(record, 0)?;
    Some(crc32c::crc32c_append(data, record.get(..RECORD_CRC)?))
}
