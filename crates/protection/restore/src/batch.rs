//! What a worker takes at once: consecutive pieces of files.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use lifeboat_repository::tree::{LEAF_PAGES, Run};
use lifeboat_telemetry::{Code, Failure, Outcome};

use crate::sums::Sums;

/// Plain bytes of one batch.
const BATCH_BYTES: u64 = 16 * 1024 * 1024;
/// Each piece of a batch keeps a file open: all workers together stay below the usual limit of
/// 1,024.
const BATCH_PIECES: usize = 64;

/// A file that is being restored, by several workers if it is large.
#[derive(Debug)]
pub(crate) struct RestoredFile {
    /// Where it goes, below the target.
    pub path: Vec<u8>,
    pub size: u64,
    pub page_bytes: u32,
    pub mode: u32,
    pub crc32c: u32,
    /// So many of its bytes were there before: they are compared, the rest is written.
    pub existing: u64,
    sums: Mutex<Sums>,
    open_pieces: AtomicUsize,
}

impl RestoredFile {
    pub(crate) fn new(path: Vec<u8>, shape: Shape, mode: u32, crc32c: u32, existing: u64) -> Self {
        let Shape { size, page_bytes } = shape;
        let open_pieces = AtomicUsize::new(shape.pieces() as usize);
        let sums = Mutex::default();
        Self { path, size, page_bytes, mode, crc32c, existing, sums, open_pieces }
    }

    pub(crate) fn shape(&self) -> Shape {
        Shape { size: self.size, page_bytes: self.page_bytes }
    }

    /// Takes the checksum of a piece that is written. `true` if it was the last one.
    pub(crate) fn end_piece(&self, piece: &Piece, crc: u32) -> Outcome<bool> {
        let (start, end) = piece.range();
        let mut sums = self.sums.lock().unwrap_or_else(PoisonError::into_inner);
        sums.add_sum(start, end - start, crc);
        if self.open_pieces.fetch_sub(1, Ordering::Relaxed) > 1 {
            return Ok(false);
        }
        if std::mem::take(&mut *sums).total(0, self.size) == Some(self.crc32c) {
            return Ok(true);
        }
        Err(wrong_content(&self.path))
    }
}

/// Bytes other than those that the backup read would be restored.
pub(crate) fn wrong_content(path: &[u8]) -> Failure {
    let path = String::from_utf8_lossy(path);
    let message = format!("{path} does not get the checksum that it had when it was backed up");
    Failure::new(Code::ObjectDamaged, message)
        .hint("Run `lifeboat repo check --read-data`, and choose another backup with --backup.")
}

/// The size of a file and of its pages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub size: u64,
    pub page_bytes: u32,
}

impl Shape {
    pub(crate) fn pages(self) -> u64 {
        self.size.div_ceil(u64::from(self.page_bytes.max(1)))
    }

    /// Where a page begins; the end of the file for the page after the last.
    pub(crate) fn offset(self, page: u64) -> u64 {
        page.saturating_mul(u64::from(self.page_bytes)).min(self.size)
    }

    /// Bytes of consecutive pages.
    pub(crate) fn bytes(self, page: u64, count: u64) -> u64 {
        self.offset(page.saturating_add(count)) - self.offset(page)
    }

    /// A power of two that divides [`LEAF_PAGES`], so that no piece lies in two leaves.
    fn piece_pages(self) -> u64 {
        let fit = (BATCH_BYTES / u64::from(self.page_bytes.max(1))).clamp(1, LEAF_PAGES.into());
        1 << fit.ilog2()
    }

    fn pieces(self) -> u64 {
        self.pages().div_ceil(self.piece_pages())
    }
}

/// A part of a run: run lengths in frames are known only once its pack is open.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    pub run: Run,
    /// Pages of the run before this part.
    pub skip: u32,
    pub pages: u32,
}

/// Consecutive pages of one file.
#[derive(Debug)]
pub(crate) struct Piece {
    pub file: Arc<RestoredFile>,
    pub first_page: u64,
    pub pages: u64,
    pub parts: Vec<Part>,
}

impl Piece {
    /// First byte and the byte after the last.
    pub(crate) fn range(&self) -> (u64, u64) {
        let shape = self.file.shape();
        (shape.offset(self.first_page), shape.offset(self.first_page + self.pages))
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.file.shape().bytes(self.first_page, self.pages)
    }
}

/// Cuts a leaf, whose pages begin at `first_page`, into pieces.
pub(crate) fn cut(file: &Arc<RestoredFile>, first_page: u64, leaf: &[Run]) -> Vec<Piece> {
    let most = file.shape().piece_pages();
    let mut pieces: Vec<Piece> = Vec::new();
    let mut page = first_page;
    for run in leaf {
        let mut skip = 0;
        while skip < run.pages {
            let full = pieces.last().is_none_or(|piece| piece.pages >= most);
            if full {
                let file = Arc::clone(file);
                pieces.push(Piece { file, first_page: page, pages: 0, parts: Vec::new() });
            }
            let Some(piece) = pieces.last_mut() else {
                break;
            };
            let room = u32::try_from(most - piece.pages).unwrap_or(u32::MAX);
            let pages = room.min(run.pages - skip);
            piece.parts.push(Part { run: *run, skip, pages });
            piece.pages += u64::from(pages);
            page += u64::from(pages);
            skip += pages;
        }
    }
    pieces
}

/// Pieces that one worker handles together, so that a frame that they share is opened once.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub pieces: Vec<Piece>,
    pub bytes: u64,
}

impl Batch {
    pub(crate) fn add(&mut self, piece: Piece) {
        self.bytes += piece.bytes();
        self.pieces.push(piece);
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= BATCH_BYTES || self.pieces.len() >= BATCH_PIECES
    }
}
