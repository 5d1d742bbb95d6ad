//! From the file table to batches: small files are written at once, the rest is cut into pieces.

use std::sync::Arc;

use crossbeam_channel::Sender;
use lifeboat_repository::ids::Digest;
use lifeboat_repository::object::ObjectType;
use lifeboat_repository::tree::{
    Content, FileEntry, FileKind, LEAF_PAGES, Leaf, LeafRef, MapObject, Root, Run,
};
use lifeboat_telemetry::{Code, Failure, Outcome};
use nix::fcntl::OFlag;
use nix::sys::stat::SFlag;

use crate::batch::{Batch, Piece, RestoredFile, Shape, cut, wrong_content};
use crate::copy::Copying;
use crate::flush::Dirty;
use crate::lanes::Feed;
use crate::long::LongFile;
use crate::source::Source;
use crate::survey::Survey;
use crate::table::{FileTable, destination};

/// Decoded maps that are kept: neighbouring files mostly share one, and after incrementals a few.
const OPEN_MAPS: usize = 4;

/// Reads the table and feeds the workers.
pub(crate) fn fill(
    copying: &Copying<'_>,
    table: FileTable<'_>,
    survey: &Survey,
    feed: Feed,
    dirty: &Sender<Dirty>,
) -> Outcome<()> {
    let maps = Maps { source: copying.source, open: Vec::new() };
    let batch = Batch::default();
    let mut queue = Queue { copying, survey, feed, dirty, batch, long: Vec::new(), maps };
    table.each(|entry| queue.add(entry))?;
    queue.send()?;
    while !queue.long.is_empty() {
        queue.feed_long()?;
    }
    Ok(())
}

struct Queue<'a> {
    copying: &'a Copying<'a>,
    survey: &'a Survey,
    feed: Feed,
    dirty: &'a Sender<Dirty>,
    batch: Batch,
    /// Files of many batches that are under way, at most one a lane.
    long: Vec<LongFile>,
    maps: Maps<'a>,
}

impl Queue<'_> {
    fn add(&mut self, entry: FileEntry) -> Outcome<()> {
        self.copying.check()?;
        let Some(path) = destination(&entry).filter(|_| entry.kind == FileKind::File) else {
            return Ok(());
        };
        if entry.root == Root::Data && self.survey.is_superseded(&path) {
            return Ok(());
        }
        match &entry.content {
            Content::Nothing if entry.size == 0 => self.write(&entry, &path, &[]),
            Content::Nothing => Err(wrong_content(&path)),
            Content::Inline(bytes) => self.write(&entry, &path, bytes),
            Content::Runs(runs) => {
                let file = self.file(&entry, path)?;
                for piece in pieces(&file, 0, runs)? {
                    self.batch.add(piece);
                    if self.batch.is_full() {
                        self.send()?;
                    }
                }
                Ok(())
            }
            Content::Leaves(leaves) => {
                let file = self.file(&entry, path)?;
                self.begin_long(file, leaves.clone())
            }
        }
    }

    /// Gives a file of many batches a lane, as soon as one is free.
    fn begin_long(&mut self, file: Arc<RestoredFile>, leaves: Vec<LeafRef>) -> Outcome<()> {
        loop {
            let taken = |lane: &usize| self.long.iter().any(|long| long.lane == *lane);
            if let Some(lane) = (0..self.feed.lanes()).find(|lane| !taken(lane)) {
                self.long.push(LongFile::new(file, lane, leaves));
                return Ok(());
            }
            self.feed_long()?;
        }
    }

    /// Puts the next batch of a long file into whichever lane has room first.
    fn feed_long(&mut self) -> Outcome<()> {
        self.copying.check()?;
        for long in &mut self.long {
            if let Some((number, leaf)) = long.wanted() {
                let runs = self.maps.leaf(&leaf)?;
                long.add(pieces(&long.file, number * u64::from(LEAF_PAGES), &runs)?);
            }
        }
        if !self.long.is_empty() {
            let index = self.feed.room(self.long.iter().map(|long| long.lane));
            let long = &mut self.long[index];
            let batch = long.batch();
            if !batch.pieces.is_empty() {
                self.feed.send_in(long.lane, batch);
            }
        }
        self.long.retain(|long| !long.is_done());
        Ok(())
    }

    /// A file whose bytes are at hand.
    fn write(&self, entry: &FileEntry, path: &[u8], bytes: &[u8]) -> Outcome<()> {
        use std::io::Write;

        if bytes.len() as u64 != entry.size || crc32c::crc32c(bytes) != entry.crc32c {
            return Err(wrong_content(path));
        }
        let target = self.copying.target;
        self.existing(path)?;
        let mut file = target.file(path, OFlag::O_TRUNC)?;
        let shown = target.shown(path);
        file.write_all(bytes).map_err(|error| crate::local::failure("write", &shown, error))?;
        target.hand_over(path, &file, entry.mode)?;
        self.copying.count_file(entry.size);
        // A closed queue means that a thread failed, and says why.
        let _ = self.dirty.send(Dirty { file, path: shown, complete: true });
        Ok(())
    }

    fn file(&self, entry: &FileEntry, path: Vec<u8>) -> Outcome<Arc<RestoredFile>> {
        let existing = self.existing(&path)?;
        let shape = Shape { size: entry.size, page_bytes: entry.page_bytes };
        if shape.pages() == 0 {
            return Err(wrong_content(&path));
        }
        Ok(Arc::new(RestoredFile::new(path, shape, entry.mode, entry.crc32c, existing)))
    }

    /// How much of a file is there already. A file with a second name is somebody else's, too,
    /// and is written anew.
    fn existing(&self, path: &[u8]) -> Outcome<u64> {
        if !self.copying.compare {
            return Ok(0);
        }
        let target = self.copying.target;
        let Some(found) = target.stat(path)? else {
            return Ok(0);
        };
        let regular = SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG;
        if !regular || found.st_nlink > 1 {
            target.remove(path)?;
            return Ok(0);
        }
        Ok(u64::try_from(found.st_size).unwrap_or(0))
    }

    fn send(&mut self) -> Outcome<()> {
        self.copying.check()?;
        let batch = std::mem::take(&mut self.batch);
        if !batch.pieces.is_empty() {
            self.feed.send(batch);
        }
        Ok(())
    }
}

/// Cuts a leaf, which must cover exactly what its file has left or a whole leaf of it.
fn pieces(file: &Arc<RestoredFile>, first_page: u64, runs: &[Run]) -> Outcome<Vec<Piece>> {
    let covered: u64 = runs.iter().map(|run| u64::from(run.pages)).sum();
    let expected = file.shape().pages().saturating_sub(first_page).min(u64::from(LEAF_PAGES));
    if covered != expected {
        let path = String::from_utf8_lossy(&file.path);
        let message = format!("the map of {path} covers {covered} pages instead of {expected}");
        return Err(Failure::new(Code::ObjectDamaged, message));
    }
    Ok(cut(file, first_page, runs))
}

/// The maps that were read last.
struct Maps<'a> {
    source: &'a Source,
    open: Vec<(Digest, Vec<Leaf>)>,
}

impl Maps<'_> {
    fn leaf(&mut self, leaf: &LeafRef) -> Outcome<Leaf> {
        let index = self.open.iter().position(|(digest, _)| *digest == leaf.map);
        let (digest, leaves) = match index {
            Some(index) => self.open.remove(index),
            None => {
                self.open.truncate(OPEN_MAPS - 1);
                let decode = |bytes: &_| MapObject::decode(self.source.keys(), &leaf.map, bytes);
                (leaf.map, self.source.metadata(ObjectType::Map, &leaf.map, decode)?)
            }
        };
        let found = leaves.get(leaf.leaf as usize).cloned();
        self.open.insert(0, (digest, leaves));
        found.ok_or_else(|| {
            let message = format!("map {} has no leaf {}", leaf.map, leaf.leaf);
            Failure::new(Code::ObjectDamaged, message)
        })
    }
}
