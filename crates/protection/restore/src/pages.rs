//! A worker: finds out which pages of a batch are missing, fetches their frames in as few
//! requests as is sensible, opens each frame once and writes its pages where they belong.

use std::cell::RefCell;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use crossbeam_channel::Sender;
use futures::future::try_join_all;
use lifeboat_repository::pack::{FRAME_BYTES, FrameReader, decode_frame};
use lifeboat_telemetry::{Code, Failure, Outcome};
use nix::fcntl::OFlag;

use crate::batch::{Batch, Part, Piece, RestoredFile};
use crate::copy::Copying;
use crate::flush::Dirty;
use crate::local;
use crate::source::{OpenPack, Region};
use crate::sums::Sums;

/// Stored bytes that a worker holds at a time, and the largest request.
const FETCH_BYTES: u64 = 8 * 1024 * 1024;
/// Reading this much that nobody wants costs less than another request.
const GAP_BYTES: u64 = 64 * 1024;

/// One thread's buffers.
pub(crate) struct Worker<'a> {
    copying: &'a Copying<'a>,
    dirty: Sender<Dirty>,
    buffers: RefCell<Buffers>,
}

struct Buffers {
    frames: FrameReader,
    plain: Vec<u8>,
    existing: Vec<u8>,
}

/// Consecutive pages of a piece that lie in one frame, and are wanted from there.
#[derive(Debug, Clone, Copy)]
struct Extent {
    /// Index into the packs of the batch.
    pack: usize,
    frame: u32,
    slot: u32,
    pages: u32,
    /// Index into the pieces of the batch.
    piece: usize,
    page: u64,
}

/// Frames that are read in one request.
#[derive(Debug)]
struct Request {
    pack: usize,
    first_frame: u32,
    last_frame: u32,
    /// Of the batch's extents.
    extents: std::ops::Range<usize>,
    bytes: u64,
}

/// One attempt at a batch, from one region.
struct Attempt<'a> {
    worker: &'a Worker<'a>,
    region: &'a Region,
    batch: &'a Batch,
    packs: Vec<Arc<OpenPack>>,
    files: Vec<File>,
    sums: Vec<Sums>,
    extents: Vec<Extent>,
    kept: u64,
    fetched: u64,
}

/// What an attempt that succeeded leaves behind.
struct Restored {
    files: Vec<File>,
    sums: Vec<Sums>,
    kept: u64,
    fetched: u64,
}

impl<'a> Worker<'a> {
    pub(crate) fn new(copying: &'a Copying<'a>, dirty: Sender<Dirty>) -> Outcome<Self> {
        let buffers = Buffers {
            frames: FrameReader::new()?,
            plain: vec![0; FRAME_BYTES],
            existing: vec![0; FRAME_BYTES],
        };
        Ok(Self { copying, dirty, buffers: RefCell::new(buffers) })
    }

    /// Restores a batch. Nothing of an attempt that failed has to be undone: another region gives
    /// the same bytes.
    pub(crate) fn restore(&mut self, batch: &Batch) -> Outcome<()> {
        let source = self.copying.source;
        let restored = source.read_anywhere(|region| Attempt::new(self, region, batch)?.run())?;
        let Restored { files, sums, kept, fetched } = restored;
        for ((piece, file), sums) in batch.pieces.iter().zip(files).zip(sums) {
            self.end_piece(piece, file, sums)?;
        }
        self.copying.count(batch.bytes, kept, fetched)
    }

    fn end_piece(&self, piece: &Piece, file: File, sums: Sums) -> Outcome<()> {
        let RestoredFile { path, size, mode, .. } = &*piece.file;
        let (start, end) = piece.range();
        let crc = sums.total(start, end).ok_or_else(|| {
            Failure::new(Code::Internal, "a page was restored twice or not at all")
        })?;
        let complete = piece.file.end_piece(piece, crc)?;
        let shown = self.copying.target.shown(path);
        if complete {
            // Holes at the end, or what an old file had beyond it.
            file.set_len(*size).map_err(|error| local::failure("write", &shown, error))?;
            self.copying.target.hand_over(path, &file, *mode)?;
            self.copying.count_file(0);
        }
        // A closed queue means that a thread failed, and says why.
        let _ = self.dirty.send(Dirty { file, path: shown, complete });
        Ok(())
    }
}

impl<'a> Attempt<'a> {
    fn new(worker: &'a Worker<'a>, region: &'a Region, batch: &'a Batch) -> Outcome<Self> {
        let target = worker.copying.target;
        let open = |piece: &Piece| target.file(&piece.file.path, OFlag::empty());
        let files = batch.pieces.iter().map(open).collect::<Outcome<Vec<File>>>()?;
        let sums = batch.pieces.iter().map(|_| Sums::default()).collect();
        let (packs, extents) = (Vec::new(), Vec::new());
        Ok(Self { worker, region, batch, packs, files, sums, extents, kept: 0, fetched: 0 })
    }

    fn run(mut self) -> Outcome<Restored> {
        let batch = self.batch;
        for (index, piece) in batch.pieces.iter().enumerate() {
            self.locate(index, piece)?;
        }
        self.extents.sort_unstable_by_key(|extent| (extent.pack, extent.frame, extent.slot));
        let requests = self.requests()?;
        let mut next = requests.as_slice();
        while !next.is_empty() {
            let mut bytes = 0;
            let fit = next.iter().take_while(|request| {
                bytes += request.bytes;
                bytes <= FETCH_BYTES
            });
            let (now, later) = next.split_at(fit.count().max(1));
            self.worker.copying.check()?;
            for (request, stored) in now.iter().zip(self.fetch(now)?) {
                self.fetched += stored.len() as u64;
                self.write_frames(request, stored)?;
            }
            next = later;
        }
        let Self { files, sums, kept, fetched, .. } = self;
        Ok(Restored { files, sums, kept, fetched })
    }

    /// Finds the frames of a piece, and leaves out what the file holds already.
    fn locate(&mut self, index: usize, piece: &Piece) -> Outcome<()> {
        let mut page = piece.first_page;
        for part in &piece.parts {
            let pages = u64::from(part.pages);
            match part.run.pack {
                None => self.write_zeros(index, piece, page, pages)?,
                Some(digest) => {
                    let pack = self.pack(&digest)?;
                    self.locate_part(index, piece, page, part, pack)?;
                }
            }
            page += pages;
        }
        Ok(())
    }

    fn pack(&mut self, digest: &lifeboat_repository::ids::Digest) -> Outcome<usize> {
        if let Some(index) = self.packs.iter().rposition(|pack| pack.digest() == digest) {
            return Ok(index);
        }
        self.packs.push(self.worker.copying.source.pack(self.region, digest)?);
        Ok(self.packs.len() - 1)
    }

    /// Follows a run from frame to frame.
    fn locate_part(
        &mut self,
        index: usize,
        piece: &Piece,
        mut page: u64,
        part: &Part,
        pack: usize,
    ) -> Outcome<()> {
        let open = Arc::clone(&self.packs[pack]);
        let (mut frame, mut slot) = (part.run.frame, part.run.slot);
        let (mut skip, mut left) = (part.skip, part.pages);
        while left > 0 {
            let room = open.frame(frame)?.slots.saturating_sub(slot);
            let skipped = skip.min(room);
            let pages = left.min(room - skipped);
            if pages > 0 {
                let slot = slot + skipped;
                let extent = Extent { pack, frame, slot, pages, piece: index, page };
                self.want(piece, extent, &open)?;
            }
            skip -= skipped;
            left -= pages;
            page += u64::from(pages);
            frame = frame.saturating_add(1);
            slot = 0;
        }
        Ok(())
    }

    /// Asks for an extent, or for those pages of it that are not there yet.
    fn want(&mut self, piece: &Piece, extent: Extent, pack: &OpenPack) -> Outcome<()> {
        let file = &*piece.file;
        let shape = file.shape();
        let start = shape.offset(extent.page);
        if start >= file.existing {
            self.extents.push(extent);
            return Ok(());
        }
        let mut buffers = self.worker.buffers.borrow_mut();
        let bytes = shape.bytes(extent.page, extent.pages.into());
        let existing = self.read_existing(extent.piece, &mut buffers.existing, start, bytes)?;
        let keys = self.worker.copying.source.keys();
        let mut wanted: Option<Extent> = None;
        for number in 0..extent.pages {
            let page = extent.page + u64::from(number);
            let (from, length) = (shape.offset(page) - start, shape.bytes(page, 1));
            let slot = extent.slot + number;
            let there = existing.get(from as usize..(from + length) as usize);
            let stored = self.worker.copying.source.page(self.region, pack, extent.frame, slot)?;
            if let Some(there) = there.filter(|there| keys.page_id(there) == stored.id) {
                self.sums[extent.piece].add(start + from, there);
                self.kept += length;
                self.extents.extend(wanted.take());
            } else {
                wanted.get_or_insert(Extent { slot, page, pages: 0, ..extent }).pages += 1;
            }
        }
        self.extents.extend(wanted);
        Ok(())
    }

    /// What a file holds of a range; less where it ends.
    fn read_existing<'b>(
        &self,
        piece: usize,
        buffer: &'b mut Vec<u8>,
        start: u64,
        length: u64,
    ) -> Outcome<&'b [u8]> {
        let file = &self.batch.pieces[piece].file;
        let length = length.min(file.existing.saturating_sub(start)) as usize;
        buffer.resize(length.max(buffer.len()), 0);
        let buffer = &mut buffer[..length];
        self.files[piece].read_exact_at(buffer, start).map_err(|error| {
            local::failure("read", &self.worker.copying.target.shown(&file.path), error)
        })?;
        Ok(buffer)
    }

    /// Pages of zeros are holes in a new file; in an old one they are written where needed.
    fn write_zeros(&mut self, index: usize, piece: &Piece, page: u64, pages: u64) -> Outcome<()> {
        let shape = piece.file.shape();
        let (start, length) = (shape.offset(page), shape.bytes(page, pages));
        self.sums[index].add_zeros(start, length);
        let end = (start + length).min(piece.file.existing);
        let mut at = start;
        let mut buffers = self.worker.buffers.borrow_mut();
        while at < end {
            let part = (end - at).min(FRAME_BYTES as u64);
            let existing = self.read_existing(index, &mut buffers.existing, at, part)?;
            if existing.iter().any(|byte| *byte != 0) {
                buffers.existing[..part as usize].fill(0);
                self.files[index].write_all_at(&buffers.existing[..part as usize], at).map_err(
                    |error| {
                        let path = self.worker.copying.target.shown(&piece.file.path);
                        local::failure("write", &path, error)
                    },
                )?;
            } else {
                self.kept += part;
            }
            at += part;
        }
        Ok(())
    }

    /// Joins the frames of neighbouring extents.
    fn requests(&self) -> Outcome<Vec<Request>> {
        let mut requests: Vec<Request> = Vec::new();
        for (index, extent) in self.extents.iter().enumerate() {
            let pack = &self.packs[extent.pack];
            let frame = pack.frame(extent.frame)?;
            let end = u64::from(frame.offset) + u64::from(frame.stored_bytes);
            if let Some(last) = requests.last_mut().filter(|last| last.pack == extent.pack) {
                let first = pack.frame(last.first_frame)?;
                let before = pack.frame(last.last_frame)?;
                let gap = u64::from(frame.offset)
                    .saturating_sub(u64::from(before.offset) + u64::from(before.stored_bytes));
                let bytes = end - u64::from(first.offset);
                if last.last_frame == extent.frame || (gap <= GAP_BYTES && bytes <= FETCH_BYTES) {
                    last.last_frame = extent.frame;
                    last.bytes = bytes;
                    last.extents.end = index + 1;
                    continue;
                }
            }
            requests.push(Request {
                pack: extent.pack,
                first_frame: extent.frame,
                last_frame: extent.frame,
                extents: index..index + 1,
                bytes: frame.stored_bytes.into(),
            });
        }
        Ok(requests)
    }

    fn fetch(&self, requests: &[Request]) -> Outcome<Vec<Bytes>> {
        let store = self.region.store();
        let reads = requests.iter().map(|request| {
            let pack = self.packs[request.pack].reader();
            pack.fetch(store, request.first_frame, request.last_frame)
        });
        self.worker.copying.source.blocking().run(try_join_all(reads))
    }

    /// Opens the frames of a request one after the other.
    fn write_frames(&mut self, request: &Request, stored: Bytes) -> Outcome<()> {
        let pack = Arc::clone(&self.packs[request.pack]);
        let first = pack.frame(request.first_frame)?.offset;
        let mut stored = Vec::from(stored);
        let mut buffers = self.worker.buffers.borrow_mut();
        let Buffers { frames, plain, .. } = &mut *buffers;
        let (mut open, mut plain_bytes) = (None, 0);
        for index in request.extents.clone() {
            let extent = self.extents[index];
            if open != Some(extent.frame) {
                let frame = pack.frame(extent.frame)?;
                let start = (frame.offset - first) as usize;
                let end = start + frame.stored_bytes as usize;
                let bytes = stored.get_mut(start..end).ok_or_else(|| {
                    let message = format!("pack {} is shorter than it says", pack.digest());
                    Failure::new(Code::ObjectDamaged, message)
                })?;
                plain_bytes = decode_frame(pack.reader(), extent.frame, bytes, frames, plain)?;
                open = Some(extent.frame);
            }
            self.write_extent(&pack, extent, plain.get(..plain_bytes).unwrap_or_default())?;
        }
        Ok(())
    }

    fn write_extent(&mut self, pack: &OpenPack, extent: Extent, plain: &[u8]) -> Outcome<()> {
        let file = &self.batch.pieces[extent.piece].file;
        let shape = file.shape();
        let frame = pack.frame(extent.frame)?;
        let mut range: Option<std::ops::Range<usize>> = None;
        for number in 0..extent.pages {
            let slot = frame.slot_range(extent.slot + number);
            let length = shape.bytes(extent.page + u64::from(number), 1);
            let Some(slot) = slot.filter(|slot| slot.len() as u64 == length) else {
                let path = String::from_utf8_lossy(&file.path);
                let message = format!(
                    "frame {} of pack {} does not hold pages of {path}",
                    extent.frame,
                    pack.digest()
                );
                return Err(Failure::new(Code::ObjectDamaged, message));
            };
            range = Some(range.map_or(slot.start, |range| range.start)..slot.end);
        }
        let bytes = range.and_then(|range| plain.get(range)).unwrap_or_default();
        let start = shape.offset(extent.page);
        self.files[extent.piece].write_all_at(bytes, start).map_err(|error| {
            local::failure("write", &self.worker.copying.target.shown(&file.path), error)
        })?;
        self.sums[extent.piece].add(start, bytes);
        Ok(())
    }
}
