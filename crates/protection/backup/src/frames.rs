//! One worker's way from pages to packs: zeros are skipped, the rest is gathered into frames.

use std::sync::atomic::{AtomicU32, Ordering};

use lifeboat_cluster::page::is_zero;
use lifeboat_environment::Environment;
use lifeboat_repository::keys::StreamKeys;
use lifeboat_repository::pack::{
    FRAME_BYTES, FinishedPack, FrameCompressor, PackBuilder, PageEntry,
};
use lifeboat_telemetry::Outcome;

/// A run whose pack has no name yet, only a number within this backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalRun {
    /// Number of the pack in this backup; `None` for zeros.
    pub pack: Option<u32>,
    /// Frame of the first page.
    pub frame: u32,
    /// Slot of the first page.
    pub slot: u32,
    /// Number of pages.
    pub pages: u32,
}

/// Takes the packs that a worker finishes.
pub trait PackSink: Sync {
    /// Stores a pack; waits while too many are under way.
    fn take(&self, number: u32, pack: FinishedPack, boot: Option<BootFrames>) -> Outcome<()>;
}

/// The frames of a pack that belong to the boot set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootFrames {
    /// First frame.
    pub first: u32,
    /// Number of frames.
    pub count: u32,
}

/// Gathers pages into frames and frames into packs.
pub struct FrameWriter<'a, S> {
    environment: &'a Environment,
    keys: &'a StreamKeys,
    sink: &'a S,
    numbers: &'a AtomicU32,
    page_bytes: usize,
    compressor: FrameCompressor,
    pack: Option<(u32, PackBuilder)>,
    boot: Option<BootFrames>,
    in_boot_set: bool,
    next_frame: u32,
    plain: Vec<u8>,
    pages: Vec<PageEntry>,
    lengths: Vec<u32>,
}

impl<'a, S: PackSink> FrameWriter<'a, S> {
    /// A writer with no pack yet. `numbers` counts the packs of all workers.
    pub fn new(
        environment: &'a Environment,
        keys: &'a StreamKeys,
        sink: &'a S,
        numbers: &'a AtomicU32,
        page_bytes: u32,
        level: i32,
    ) -> Outcome<Self> {
        Ok(Self {
            environment,
            keys,
            sink,
            numbers,
            page_bytes: page_bytes as usize,
            compressor: FrameCompressor::new(level)?,
            pack: None,
            boot: None,
            in_boot_set: false,
            next_frame: 0,
            plain: Vec::with_capacity(FRAME_BYTES),
            pages: Vec::with_capacity(FRAME_BYTES / 512),
            lengths: Vec::new(),
        })
    }

    /// Adds consecutive pages of a file; the last one may be short. Appends to `runs`.
    pub fn add(&mut self, bytes: &[u8], runs: &mut Vec<LocalRun>) -> Outcome<()> {
        for page in bytes.chunks(self.page_bytes) {
            if is_zero(page) {
                match runs.last_mut() {
                    Some(run) if run.pack.is_none() => run.pages += 1,
                    _ => runs.push(LocalRun { pack: None, frame: 0, slot: 0, pages: 1 }),
                }
                continue;
            }
            if self.plain.len() + page.len() > FRAME_BYTES {
                self.flush_frame()?;
            }
            let number = self.open_pack()?;
            match runs.last_mut() {
                // Pages that follow each other in a file follow each other in the pack, also
                // over the end of a frame, unless zeros or another pack lie between them.
                Some(run) if run.pack == Some(number) => run.pages += 1,
                _ => runs.push(LocalRun {
                    pack: Some(number),
                    frame: self.next_frame,
                    slot: self.pages.len() as u32,
                    pages: 1,
                }),
            }
            self.pages
                .push(PageEntry { id: self.keys.page_id(page), crc32c: crc32c::crc32c(page) });
            self.lengths.push(page.len() as u32);
            self.plain.extend_from_slice(page);
        }
        Ok(())
    }

    /// Ends a unit: its last frame is closed, so that units never share one.
    pub fn end_unit(&mut self) -> Outcome<()> {
        self.flush_frame()
    }

    /// Says whether what follows belongs to the boot set.
    pub fn set_boot(&mut self, boot: bool) {
        self.in_boot_set = boot;
    }

    /// Closes the last pack.
    pub fn finish(mut self) -> Outcome<()> {
        self.flush_frame()?;
        self.close_pack()
    }

    fn open_pack(&mut self) -> Outcome<u32> {
        if let Some((number, _)) = &self.pack {
            return Ok(*number);
        }
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        self.pack = Some((number, PackBuilder::new(self.keys, self.environment)?));
        self.next_frame = 0;
        self.boot = None;
        Ok(number)
    }

    fn flush_frame(&mut self) -> Outcome<()> {
        if self.pages.is_empty() {
            return Ok(());
        }
        let even = self.lengths.iter().all(|length| *length as usize == self.page_bytes);
        let lengths = (!even).then_some(self.lengths.as_slice());
        let Some((_, pack)) = &mut self.pack else {
            return Ok(());
        };
        let added = pack.add_frame(
            &mut self.compressor,
            &self.plain,
            self.page_bytes as u32,
            lengths,
            &self.pages,
        )?;
        if self.in_boot_set {
            let boot = self.boot.get_or_insert(BootFrames { first: added.frame, count: 0 });
            boot.count += 1;
        }
        self.next_frame = added.frame + 1;
        self.plain.clear();
        self.pages.clear();
        self.lengths.clear();
        if pack.is_full() { self.close_pack() } else { Ok(()) }
    }

    fn close_pack(&mut self) -> Outcome<()> {
        match self.pack.take() {
            None => Ok(()),
            Some((number, pack)) => {
                self.sink.take(number, pack.finish(self.environment)?, self.boot.take())
            }
        }
    }
}
