//! Reading packs: the directory first, then only the frames that are wanted.

use std::sync::Arc;

use bytes::Bytes;
use lifeboat_objects::Store;
use lifeboat_telemetry::{Code, Failure, Outcome};

use crate::crypt::{Aead, WRAPPED_BYTES, Wrapped};
use crate::cursor::Cursor;
use crate::ids::{Digest, PageId};
use crate::keys::{Encryption, ReadKey, StreamKeys};
use crate::layout;
use crate::object::{HEADER_BYTES, Header, ObjectType};
use crate::pack::{
    FRAMES_MAX, FrameEntry, PREFIX_BYTES, PageEntry, TRAILER_BYTES, TRAILER_MAGIC, frame_position,
};

/// Read from the end of a pack in the first request: trailer and, nearly always, directory.
const TAIL_BYTES: u64 = 16 * 1024;

/// An open pack: its key and its directory.
pub struct PackReader {
    digest: Digest,
    keys: StreamKeys,
    aead: Option<Aead>,
    frames: Vec<FrameEntry>,
    table: std::ops::Range<u64>,
    slots: u32,
    /// Only where nothing is sealed: what frames are checked against instead of a tag.
    pages: Option<Vec<PageEntry>>,
}

struct Trailer {
    directory: std::ops::Range<u64>,
    table: std::ops::Range<u64>,
    frames: u32,
    slots: u32,
}

impl PackReader {
    /// Opens a pack in a store. Without a read key only directory and page table can be read.
    pub async fn open(
        store: &Store,
        keys: &StreamKeys,
        read_key: Option<&ReadKey>,
        digest: &Digest,
    ) -> Outcome<Self> {
        let key = layout::content(keys.stream(), ObjectType::Pack, digest)?;
        let prefix = store.get_range(&key, 0..PREFIX_BYTES as u64).await?;
        let (size, tail) = store.get_tail(&key, TAIL_BYTES).await?;
        let trailer = parse_trailer(digest, size, &tail)?;
        let tail_start = size - tail.len() as u64;
        let directory = if trailer.directory.start >= tail_start {
            let start = (trailer.directory.start - tail_start) as usize;
            tail.slice(start..start + (trailer.directory.end - trailer.directory.start) as usize)
        } else {
            store.get_range(&key, trailer.directory.clone()).await?
        };
        let mut pack = Self::assemble(keys, read_key, digest, &prefix, &directory, trailer)
            .map_err(|failure| failure.within(format!("pack {digest}")))?;
        if keys.vault().encryption == Encryption::None {
            pack.pages = Some(pack.pages(store).await?);
        }
        Ok(pack)
    }

    fn assemble(
        keys: &StreamKeys,
        read_key: Option<&ReadKey>,
        digest: &Digest,
        prefix: &[u8],
        directory: &[u8],
        trailer: Trailer,
    ) -> Outcome<Self> {
        let header = Header::decode(prefix)?;
        let mut cursor = Cursor::new(&prefix[HEADER_BYTES..], "a pack");
        if header.kind != ObjectType::Pack {
            return Err(cursor.damaged("it is another type of object"));
        }
        keys.check(&header)?;
        let wrapped = Wrapped { ephemeral: cursor.array()?, key: cursor.array::<WRAPPED_BYTES>()? };
        let aead = match read_key {
            Some(read_key) => read_key.open(keys.vault(), &wrapped)?,
            None => None,
        };
        let plain = keys.open_metadata(ObjectType::Pack, b"directory", directory)?;
        let mut cursor = Cursor::new(&plain, "a pack directory");
        let mut frames = Vec::with_capacity(trailer.frames as usize);
        let mut offset = PREFIX_BYTES as u32;
        let mut slots = 0u64;
        for _ in 0..trailer.frames {
            let frame = FrameEntry::decode(&mut cursor, offset)?;
            slots += u64::from(frame.slots);
            offset = offset
                .checked_add(frame.stored_bytes)
                .filter(|end| u64::from(*end) <= trailer.directory.start)
                .ok_or_else(|| cursor.damaged("its frames are longer than the pack"))?;
            frames.push(frame);
        }
        cursor.end()?;
        if slots != u64::from(trailer.slots) {
            return Err(cursor.damaged("its slots do not add up"));
        }
        let (keys, slots) = (keys.clone(), trailer.slots);
        let table = trailer.table;
        Ok(Self { digest: *digest, keys, aead, frames, table, slots, pages: None })
    }

    /// The pack's name.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// All frames, in order.
    pub fn frames(&self) -> &[FrameEntry] {
        &self.frames
    }

    /// One frame.
    pub fn frame(&self, number: u32) -> Outcome<&FrameEntry> {
        self.frames.get(number as usize).ok_or_else(|| {
            let message = format!("pack {} has no frame {number}", self.digest);
            Failure::new(Code::ObjectDamaged, message)
        })
    }

    /// Reads the page table: the identities of all slots, frame after frame.
    pub async fn pages(&self, store: &Store) -> Outcome<Vec<PageEntry>> {
        let key = layout::content(self.keys.stream(), ObjectType::Pack, &self.digest)?;
        let sealed = store.get_range(&key, self.table.clone()).await?;
        let plain = self.keys.open_metadata(ObjectType::Pack, b"pages", &sealed)?;
        let mut cursor = Cursor::new(&plain, "a page table");
        // The claimed number of slots is believed only as far as there are bytes for them.
        let mut pages = Vec::with_capacity(plain.len() / 20);
        for _ in 0..self.slots {
            pages.push(PageEntry { id: PageId(cursor.array()?), crc32c: cursor.u32()? });
        }
        cursor.end()?;
        Ok(pages)
    }

    /// Reads the stored bytes of frames `first..=last` in one request.
    pub async fn fetch(&self, store: &Store, first: u32, last: u32) -> Outcome<Bytes> {
        let key = layout::content(self.keys.stream(), ObjectType::Pack, &self.digest)?;
        let start = self.frame(first)?.offset;
        let end = self.frame(last)?;
        let range = u64::from(start)..u64::from(end.offset) + u64::from(end.stored_bytes);
        store.get_range(&key, range).await
    }
}

fn parse_trailer(digest: &Digest, size: u64, tail: &[u8]) -> Outcome<Trailer> {
    let damaged =
        |why: &str| Failure::new(Code::ObjectDamaged, format!("pack {digest} is damaged: {why}"));
    let start = tail.len().checked_sub(TRAILER_BYTES).ok_or_else(|| damaged("it is too short"))?;
    let mut cursor = Cursor::new(&tail[start..], "a pack trailer");
    let directory_offset = cursor.u64()?;
    let directory_bytes = cursor.u64()?;
    let table_bytes = cursor.u64()?;
    let frames = cursor.count(FRAMES_MAX)? as u32;
    let slots = cursor.u32()?;
    if cursor.rest() != TRAILER_MAGIC {
        return Err(damaged("its end is not a pack's end"));
    }
    let directory_end = directory_offset.checked_add(directory_bytes);
    let table_end = directory_end.and_then(|end| end.checked_add(table_bytes));
    let (Some(directory_end), Some(table_end)) = (directory_end, table_end) else {
        return Err(damaged("its trailer has impossible lengths"));
    };
    let fits = directory_offset >= PREFIX_BYTES as u64
        && table_end.checked_add(TRAILER_BYTES as u64) == Some(size)
        && size <= lifeboat_objects::MAX_OBJECT;
    if !fits {
        return Err(damaged("its trailer does not fit its size"));
    }
    let (directory, table) = (directory_offset..directory_end, directory_end..table_end);
    Ok(Trailer { directory, table, frames, slots })
}

/// Opens and decompresses one frame whose stored bytes stand in `stored`; tells how many bytes of
/// `plain` it fills, which has to have room for [`crate::pack::FRAME_BYTES`].
pub fn decode_frame(
    pack: &PackReader,
    number: u32,
    stored: &mut [u8],
    decompressor: &mut FrameReader,
    plain: &mut [u8],
) -> Outcome<usize> {
    let frame = pack.frame(number)?;
    let damaged = |why: &str| {
        let message = format!("frame {number} of pack {} is damaged: {why}", pack.digest);
        Failure::new(Code::ObjectDamaged, message)
    };
    let sealed = pack.keys.vault().encryption == Encryption::Aes256Gcm;
    let body: &[u8] = match &pack.aead {
        Some(aead) => {
            let position = frame_position(number, frame.plain_bytes, frame.compressed);
            let aad = pack.keys.aad(ObjectType::Pack, &position);
            aead.open(number, &aad, stored).ok_or_else(|| damaged("it does not authenticate"))?
        }
        None if sealed => {
            return Err(Failure::new(Code::KeyUnavailable, "no key that reads pages is open"));
        }
        None => stored,
    };
    let plain_bytes = frame.plain_bytes as usize;
    let plain = plain.get_mut(..plain_bytes).ok_or_else(|| damaged("it is too large"))?;
    if !frame.compressed {
        if body.len() != plain_bytes {
            return Err(damaged("its length is not the one recorded"));
        }
        plain.copy_from_slice(body);
    } else if decompressor.decompress(body, plain).map_err(damaged)? != plain_bytes {
        return Err(damaged("its length is not the one recorded"));
    }
    if let Some(pages) = &pack.pages {
        let before: u32 = pack.frames.iter().take(number as usize).map(|frame| frame.slots).sum();
        for slot in 0..frame.slots {
            let page = frame.slot_range(slot).and_then(|range| plain.get(range));
            let entry = pages.get((before + slot) as usize);
            if page.map(crc32c::crc32c) != entry.map(|entry| entry.crc32c) {
                return Err(damaged("a page does not match its CRC-32C"));
            }
        }
    }
    Ok(plain_bytes)
}

/// A reusable zstd context; one a thread.
pub struct FrameReader {
    context: zstd::bulk::Decompressor<'static>,
}

impl FrameReader {
    /// A decompressor.
    pub fn new() -> Outcome<Self> {
        zstd::bulk::Decompressor::new()
            .map(|context| Self { context })
            .map_err(|error| Failure::new(Code::Internal, "zstd cannot be set up").because(error))
    }

    /// Never writes more than `plain` has room for, whatever the input claims.
    fn decompress(&mut self, body: &[u8], plain: &mut [u8]) -> Result<usize, &'static str> {
        self.context.decompress_to_buffer(body, plain).map_err(|_| "it does not decompress")
    }
}

/// Keeps the most recently used packs open.
pub struct PackCache {
    store: Store,
    keys: StreamKeys,
    read_key: Option<ReadKey>,
    capacity: usize,
    open: tokio::sync::Mutex<Vec<Arc<PackReader>>>,
}

impl PackCache {
    /// A cache of `capacity` open packs (about 4 KiB each).
    pub fn new(store: Store, keys: StreamKeys, read_key: Option<ReadKey>, capacity: usize) -> Self {
        let open = tokio::sync::Mutex::new(Vec::with_capacity(capacity));
        Self { store, keys, read_key, capacity, open }
    }

    /// The store that packs are read from.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// An open pack.
    pub async fn get(&self, digest: &Digest) -> Outcome<Arc<PackReader>> {
        {
            let mut open = self.open.lock().await;
            if let Some(index) = open.iter().position(|pack| pack.digest() == digest) {
                let pack = open.remove(index);
                open.push(Arc::clone(&pack));
                return Ok(pack);
            }
        }
        let pack =
            PackReader::open(&self.store, &self.keys, self.read_key.as_ref(), digest).await?;
        let pack = Arc::new(pack);
        let mut open = self.open.lock().await;
        if open.len() >= self.capacity {
            open.remove(0);
        }
        open.push(Arc::clone(&pack));
        Ok(pack)
    }
}
