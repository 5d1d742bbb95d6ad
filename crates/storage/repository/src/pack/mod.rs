//! Packs: about 32 MiB of sealed frames, with a directory of frames and a table of pages.
//!
//! `header | one-time key | wrapped key | frames … | directory | page table | trailer`

mod build;
mod read;

use lifeboat_telemetry::Outcome;

use crate::cursor::Cursor;
use crate::ids::PageId;

pub(crate) use build::compressor;
pub use build::{FinishedPack, FrameCompressor, PackBuilder, PackedFrame};
pub use read::{FrameReader, PackCache, PackReader, decode_frame};

/// A frame holds at most this many plain bytes.
pub const FRAME_BYTES: usize = 256 * 1024;
/// A pack is closed when it reaches this size.
pub const PACK_BYTES: usize = 32 * 1024 * 1024;
/// Upper limits that a reader enforces.
const FRAMES_MAX: usize = 1 << 16;
const SLOTS_PER_FRAME_MAX: usize = 1 << 14;
/// Header, one-time public key and wrapped key.
const PREFIX_BYTES: usize = crate::object::HEADER_BYTES + 32 + crate::crypt::WRAPPED_BYTES;
/// The last bytes of a pack.
const TRAILER_BYTES: usize = 40;
const TRAILER_MAGIC: &[u8; 8] = b"LBPACKv1";
const FLAG_COMPRESSED: u8 = 1;
const FLAG_ODD_SLOTS: u8 = 2;

/// One page as the page table knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageEntry {
    /// Keyed identity.
    pub id: PageId,
    /// CRC-32C of the page's bytes.
    pub crc32c: u32,
}

/// One frame as the directory knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameEntry {
    /// Where its stored bytes begin in the pack.
    pub offset: u32,
    /// Stored bytes, tag included.
    pub stored_bytes: u32,
    /// Plain bytes.
    pub plain_bytes: u32,
    /// Whether the stored bytes are compressed.
    pub compressed: bool,
    /// Size of every slot but perhaps the last ones.
    pub page_bytes: u32,
    /// Number of slots.
    pub slots: u32,
    /// Lengths of all slots, where they are not all `page_bytes`.
    pub odd_slots: Option<Vec<u32>>,
}

impl FrameEntry {
    /// Where a slot lies in the plain frame.
    pub fn slot_range(&self, slot: u32) -> Option<std::ops::Range<usize>> {
        if slot >= self.slots {
            return None;
        }
        let index = slot as usize;
        match &self.odd_slots {
            None => {
                let start = index * self.page_bytes as usize;
                Some(start..start + self.page_bytes as usize)
            }
            Some(lengths) => {
                let start: usize = lengths.iter().take(index).map(|length| *length as usize).sum();
                Some(start..start + *lengths.get(index)? as usize)
            }
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.stored_bytes.to_le_bytes());
        out.extend_from_slice(&self.plain_bytes.to_le_bytes());
        out.extend_from_slice(&self.slots.to_le_bytes());
        out.extend_from_slice(&self.page_bytes.to_le_bytes());
        let odd = if self.odd_slots.is_some() { FLAG_ODD_SLOTS } else { 0 };
        let compressed = if self.compressed { FLAG_COMPRESSED } else { 0 };
        out.push(compressed | odd);
        for length in self.odd_slots.iter().flatten() {
            out.extend_from_slice(&length.to_le_bytes());
        }
    }

    fn decode(cursor: &mut Cursor<'_>, offset: u32) -> Outcome<Self> {
        let stored_bytes = cursor.u32()?;
        let plain_bytes = cursor.u32()?;
        let slots = cursor.count(SLOTS_PER_FRAME_MAX)? as u32;
        let page_bytes = cursor.u32()?;
        let flags = cursor.u8()?;
        let odd_slots = if flags & FLAG_ODD_SLOTS == 0 {
            None
        } else {
            Some((0..slots).map(|_| cursor.u32()).collect::<Outcome<Vec<u32>>>()?)
        };
        let total: u64 = match &odd_slots {
            None => u64::from(slots) * u64::from(page_bytes),
            Some(lengths) => lengths.iter().map(|length| u64::from(*length)).sum(),
        };
        let legal = flags & !(FLAG_COMPRESSED | FLAG_ODD_SLOTS) == 0
            && plain_bytes as usize <= FRAME_BYTES
            && total == u64::from(plain_bytes);
        if !legal {
            return Err(cursor.damaged("a frame has impossible lengths"));
        }
        let compressed = flags & FLAG_COMPRESSED != 0;
        Ok(Self { offset, stored_bytes, plain_bytes, compressed, page_bytes, slots, odd_slots })
    }
}

/// Associated data of a frame: its position in the pack and its plain size.
fn frame_position(frame: u32, plain_bytes: u32, compressed: bool) -> [u8; 9] {
    let mut position = [0; 9];
    position[..4].copy_from_slice(&frame.to_le_bytes());
    position[4..8].copy_from_slice(&plain_bytes.to_le_bytes());
    position[8] = u8::from(compressed);
    position
}
