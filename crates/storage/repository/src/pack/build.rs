//! Writing packs.

use bytes::Bytes;
use lifeboat_environment::Environment;
use lifeboat_telemetry::{Code, Failure, Outcome};

use crate::crypt::Aead;
use crate::ids::Digest;
use crate::keys::{Recipient, StreamKeys};
use crate::object::ObjectType;
use crate::pack::{
    FRAME_BYTES, FrameEntry, PACK_BYTES, PREFIX_BYTES, PageEntry, TRAILER_BYTES, TRAILER_MAGIC,
    frame_position,
};

/// Reusable zstd contexts; one set a thread.
pub struct FrameCompressor {
    rows: zstd::bulk::Compressor<'static>,
    numbers: zstd::bulk::Compressor<'static>,
}

impl FrameCompressor {
    /// A compressor of the given zstd level (1 to 19).
    pub fn new(level: i32) -> Outcome<Self> {
        Ok(Self { rows: compressor(level)?, numbers: number_compressor(level)? })
    }

    /// Compresses into `out`; `false` (and `out` unchanged) where that would not save a byte.
    fn compress(&mut self, plain: &[u8], page_bytes: u32, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        out.resize(start + plain.len(), 0);
        let context = match is_index(plain, page_bytes) {
            true => &mut self.numbers,
            false => &mut self.rows,
        };
        match context.compress_to_buffer(plain, &mut out[start..]) {
            Ok(length) if length < plain.len() => {
                out.truncate(start + length);
                true
            }
            // zstd says "destination too small" for what does not compress.
            _ => {
                out.truncate(start);
                false
            }
        }
    }
}

/// Whether the first page looks like one of an index: those keep a special area at their end. A
/// wrong guess costs some bytes, nothing else.
fn is_index(plain: &[u8], page_bytes: u32) -> bool {
    let Some(header) = plain.get(16..20) else { return false };
    let special = u32::from(u16::from_le_bytes([header[0], header[1]]));
    let size = u32::from(u16::from_le_bytes([header[2], header[3]]) & 0xff00);
    size == page_bytes && special > 24 && special < page_bytes
}

/// zstd of a level as it is.
pub(crate) fn compressor(level: i32) -> Outcome<zstd::bulk::Compressor<'static>> {
    zstd::bulk::Compressor::new(level).map_err(unusable)
}

/// zstd for what is full of small numbers, as index pages are. At level 1 matches count
/// from five bytes on instead of six or seven: an index of pgbench takes 28 % less, at the same
/// speed. Rows, which repeat longer pieces, would take 2 to 5 % more.
fn number_compressor(level: i32) -> Outcome<zstd::bulk::Compressor<'static>> {
    let mut context = compressor(level)?;
    if level == 1 {
        context.set_parameter(zstd::zstd_safe::CParameter::MinMatch(5)).map_err(unusable)?;
    }
    Ok(context)
}

fn unusable(error: std::io::Error) -> Failure {
    Failure::new(Code::Internal, "zstd cannot be set up").because(error)
}

/// Where a frame went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackedFrame {
    /// Number of the frame in its pack.
    pub frame: u32,
    /// Bytes that it takes there.
    pub stored_bytes: u32,
}

/// A pack that is being filled; it lives in memory until it is finished.
pub struct PackBuilder {
    keys: StreamKeys,
    aead: Option<Aead>,
    buffer: Vec<u8>,
    frames: Vec<FrameEntry>,
    pages: Vec<PageEntry>,
}

/// A finished pack: immutable bytes and their name.
#[derive(Debug, Clone)]
pub struct FinishedPack {
    /// SHA-256 of the bytes.
    pub digest: Digest,
    /// The bytes.
    pub bytes: Bytes,
    /// Number of frames.
    pub frames: u32,
    /// Stored bytes of all frames: what is live while all of them are used.
    pub frame_bytes: u64,
}

impl PackBuilder {
    /// An empty pack with a key of its own.
    pub fn new(keys: &StreamKeys, environment: &Environment) -> Outcome<Self> {
        let sealed = keys.new_object_key(environment, Recipient::Restore)?;
        let mut buffer = Vec::with_capacity(PACK_BYTES + PACK_BYTES / 16 + FRAME_BYTES);
        buffer.resize(crate::object::HEADER_BYTES, 0);
        buffer.extend_from_slice(&sealed.wrapped.ephemeral);
        buffer.extend_from_slice(&sealed.wrapped.key);
        let keys = keys.clone();
        Ok(Self { keys, aead: sealed.aead, buffer, frames: Vec::new(), pages: Vec::new() })
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Whether the pack has reached its size.
    pub fn is_full(&self) -> bool {
        self.buffer.len() >= PACK_BYTES
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Compresses, seals and appends a frame of `pages` whose bytes stand in `plain`, one after
    /// the other, each `page_bytes` long unless `lengths` says otherwise.
    pub fn add_frame(
        &mut self,
        compressor: &mut FrameCompressor,
        plain: &[u8],
        page_bytes: u32,
        lengths: Option<&[u32]>,
        pages: &[PageEntry],
    ) -> Outcome<PackedFrame> {
        if plain.len() > FRAME_BYTES || pages.is_empty() {
            return Err(Failure::new(Code::Internal, "a frame has an impossible size"));
        }
        let frame = self.frames.len() as u32;
        let start = self.buffer.len();
        let compressed = compressor.compress(plain, page_bytes, &mut self.buffer);
        if !compressed {
            self.buffer.extend_from_slice(plain);
        }
        if let Some(aead) = &self.aead {
            let position = frame_position(frame, plain.len() as u32, compressed);
            let aad = self.keys.aad(ObjectType::Pack, &position);
            let tag = aead.seal_slice(frame, &aad, &mut self.buffer[start..])?;
            self.buffer.extend_from_slice(&tag);
        }
        let stored_bytes = (self.buffer.len() - start) as u32;
        self.frames.push(FrameEntry {
            offset: start as u32,
            stored_bytes,
            plain_bytes: plain.len() as u32,
            compressed,
            page_bytes,
            slots: pages.len() as u32,
            odd_slots: lengths.map(<[u32]>::to_vec),
        });
        self.pages.extend_from_slice(pages);
        Ok(PackedFrame { frame, stored_bytes })
    }

    /// Writes directory, page table and trailer, and names the pack.
    pub fn finish(mut self, environment: &Environment) -> Outcome<FinishedPack> {
        let frame_bytes = (self.buffer.len() - PREFIX_BYTES) as u64;
        let mut directory = Vec::new();
        for frame in &self.frames {
            frame.encode(&mut directory);
        }
        let mut table = Vec::with_capacity(self.pages.len() * 20);
        for page in &self.pages {
            table.extend_from_slice(&page.id.0);
            table.extend_from_slice(&page.crc32c.to_le_bytes());
        }
        let keys = self.keys.clone();
        let seal = |position: &[u8], plain: &[u8]| {
            keys.seal_metadata(environment, ObjectType::Pack, position, plain)
        };
        let directory = seal(b"directory", &directory)?;
        let table = seal(b"pages", &table)?;
        let directory_offset = self.buffer.len() as u64;
        self.buffer.extend_from_slice(&directory);
        self.buffer.extend_from_slice(&table);
        let trailer_start = self.buffer.len();
        self.buffer.extend_from_slice(&directory_offset.to_le_bytes());
        self.buffer.extend_from_slice(&(directory.len() as u64).to_le_bytes());
        self.buffer.extend_from_slice(&(table.len() as u64).to_le_bytes());
        self.buffer.extend_from_slice(&(self.frames.len() as u32).to_le_bytes());
        self.buffer.extend_from_slice(&(self.pages.len() as u32).to_le_bytes());
        self.buffer.extend_from_slice(TRAILER_MAGIC);
        debug_assert_eq!(self.buffer.len() - trailer_start, TRAILER_BYTES);

        let mut header = self.keys.header(ObjectType::Pack, 1);
        header.body_bytes = (self.buffer.len() - crate::object::HEADER_BYTES) as u64;
        self.buffer[..crate::object::HEADER_BYTES].copy_from_slice(&header.encode());
        let frames = self.frames.len() as u32;
        let bytes = Bytes::from(self.buffer);
        Ok(FinishedPack { digest: Digest::of(&bytes), bytes, frames, frame_bytes })
    }
}
