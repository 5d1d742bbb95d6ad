//! From copied pieces to the one signed manifest: maps, file table, object table, manifest.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;

use bytes::Bytes;
use lifeboat_cluster::files::{Entry, Kind};
use lifeboat_environment::Environment;
use lifeboat_objects::Blocking;
use lifeboat_repository::ids::Digest;
use lifeboat_repository::keys::StreamKeys;
use lifeboat_repository::layout;
use lifeboat_repository::object::ObjectType;
use lifeboat_repository::regions::Regions;
use lifeboat_repository::tree::{
    Content, FileEntry, FileKind, FileTablePage, LeafRef, MapObject, ObjectEntry, Root, Run,
};
use lifeboat_telemetry::{Code, Failure, Outcome};

use crate::copy::{CopiedPiece, PieceContent};
use crate::frames::LocalRun;

/// Writes content-named metadata objects to every region and remembers them.
pub struct Commit<'a> {
    /// Time and chance.
    pub environment: &'a Environment,
    /// Runs store operations.
    pub blocking: &'a Blocking,
    /// Keys of the stream.
    pub keys: &'a StreamKeys,
    /// All repositories.
    pub regions: &'a mut Regions,
    /// Everything that the backup needs, packs included.
    pub objects: Vec<ObjectEntry>,
}

/// The written list of files.
pub struct WrittenTable {
    /// Pages of the file table.
    pub file_table: Vec<Digest>,
    /// Number of files.
    pub files: u64,
    /// Bytes of all files.
    pub logical_bytes: u64,
}

/// The list of files as the workers left it.
pub struct CopiedFiles<'a> {
    /// Files of the data directory, then those outside.
    pub entries: &'a [Entry],
    /// How many of them lie in the data directory.
    pub inside: usize,
    /// Block size.
    pub page_bytes: u32,
    /// What the workers did.
    pub pieces: Vec<CopiedPiece>,
    /// Names of the packs.
    pub packs: &'a BTreeMap<u32, Digest>,
    /// `global/pg_control` as it was read last.
    pub control: (usize, Vec<CopiedPiece>),
}

impl Commit<'_> {
    /// Stores an object of metadata and counts it as needed.
    fn store(&mut self, kind: ObjectType, bytes: &Bytes) -> Outcome<Digest> {
        let digest = Digest::of(bytes);
        let key = layout::content(self.keys.stream(), kind, &digest)?;
        self.blocking.run(self.regions.create(&key, bytes))?;
        if kind != ObjectType::ObjectTable {
            let size = bytes.len() as u64;
            self.objects.push(ObjectEntry { digest, kind, size, live: size });
        }
        Ok(digest)
    }

    /// Writes maps and file table.
    pub fn write_files(&mut self, copied: CopiedFiles<'_>) -> Outcome<WrittenTable> {
        let mut by_file: BTreeMap<usize, Vec<CopiedPiece>> = BTreeMap::new();
        let (control_file, control_pieces) = copied.control;
        for piece in copied.pieces {
            by_file.entry(piece.piece.file).or_default().push(piece);
        }
        by_file.insert(control_file, control_pieces);
        let order = path_order(copied.entries, copied.inside);
        let maps = self.write_maps(&order, &mut by_file, copied.packs)?;

        let mut table = WrittenTable { file_table: Vec::new(), files: 0, logical_bytes: 0 };
        let mut page = FileTablePage::default();
        for file in order {
            let entry = &copied.entries[file];
            let root = if file < copied.inside { Root::Data } else { Root::Outside };
            let pieces = by_file.get(&file).map(Vec::as_slice).unwrap_or_default();
            if pieces.iter().any(|piece| piece.content.is_none()) {
                // Dropped while the backup ran: replay drops it again.
                continue;
            }
            let mut stored = file_entry(entry, root, copied.page_bytes);
            stored.crc32c = whole_crc(pieces);
            stored.content = match maps.get(&file) {
                Some(leaves) => Content::Leaves(leaves.clone()),
                None => content_of(pieces, copied.packs)?,
            };
            if stored.kind == FileKind::File {
                table.files += 1;
                table.logical_bytes += stored.size;
            }
            page.add(&stored);
            if page.is_full() {
                let bytes = std::mem::take(&mut page).finish(self.keys, self.environment)?;
                table.file_table.push(self.store(ObjectType::FileTable, &bytes)?);
            }
        }
        if !page.is_empty() {
            let bytes = page.finish(self.keys, self.environment)?;
            table.file_table.push(self.store(ObjectType::FileTable, &bytes)?);
        }
        Ok(table)
    }

    /// Leaves of all files that have more than one.
    fn write_maps(
        &mut self,
        order: &[usize],
        by_file: &mut BTreeMap<usize, Vec<CopiedPiece>>,
        packs: &BTreeMap<u32, Digest>,
    ) -> Outcome<BTreeMap<usize, Vec<LeafRef>>> {
        let mut refs: BTreeMap<usize, Vec<LeafRef>> = BTreeMap::new();
        let mut map = MapObject::default();
        // Leaves of the open map: they get its name when it is closed.
        let mut waiting: Vec<(usize, u32)> = Vec::new();
        for file in order {
            let Some(pieces) = by_file.get_mut(file).filter(|pieces| pieces.len() > 1) else {
                continue;
            };
            pieces.sort_by_key(|piece| piece.piece.leaf);
            for piece in pieces.iter().filter_map(|piece| piece.content.as_ref()) {
                waiting.push((*file, map.add(&named_runs(&piece.runs, packs)?)));
                if map.is_full() {
                    self.close_map(&mut map, &mut waiting, &mut refs)?;
                }
            }
        }
        if !map.is_empty() {
            self.close_map(&mut map, &mut waiting, &mut refs)?;
        }
        Ok(refs)
    }

    fn close_map(
        &mut self,
        map: &mut MapObject,
        waiting: &mut Vec<(usize, u32)>,
        refs: &mut BTreeMap<usize, Vec<LeafRef>>,
    ) -> Outcome<()> {
        let bytes = std::mem::take(map).finish(self.keys, self.environment)?;
        let digest = self.store(ObjectType::Map, &bytes)?;
        for (file, leaf) in waiting.drain(..) {
            refs.entry(file).or_default().push(LeafRef { map: digest, leaf });
        }
        Ok(())
    }

    /// Writes the object table; nothing may be stored after it but the manifest.
    pub fn write_objects(&mut self) -> Outcome<Vec<Digest>> {
        use lifeboat_repository::tree::ObjectTable;
        let pages = ObjectTable::encode(self.keys, self.objects.clone());
        pages.iter().map(|page| self.store(ObjectType::ObjectTable, page)).collect()
    }
}

/// Directories and files sorted by root and path, so that readers meet a directory before what
/// lies in it.
fn path_order(entries: &[Entry], inside: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..entries.len()).collect();
    order.sort_by(|left, right| {
        let path = |index: usize| entries[index].path.as_os_str().as_bytes();
        (*left >= inside, path(*left)).cmp(&(*right >= inside, path(*right)))
    });
    order
}

fn file_entry(entry: &Entry, root: Root, page_bytes: u32) -> FileEntry {
    FileEntry {
        root,
        path: entry.path.as_os_str().as_bytes().to_vec(),
        kind: match entry.kind {
            Kind::Directory => FileKind::Directory,
            Kind::TablespaceLink => FileKind::Tablespace,
            _ => FileKind::File,
        },
        mode: entry.mode & 0o7777,
        modified: entry.modified.as_second(),
        size: if entry.is_file() { entry.size } else { 0 },
        page_bytes,
        crc32c: 0,
        boot: root == Root::Data && crate::schedule::is_boot(entry),
        content: Content::Nothing,
    }
}

fn whole_crc(pieces: &[CopiedPiece]) -> u32 {
    pieces.iter().fold(0, |crc, piece| {
        let own = piece.content.as_ref().map_or(0, |content| content.crc32c);
        crc32c::crc32c_combine(crc, own, piece.piece.bytes as usize)
    })
}

fn content_of(pieces: &[CopiedPiece], packs: &BTreeMap<u32, Digest>) -> Outcome<Content> {
    match pieces {
        [] => Ok(Content::Nothing),
        [CopiedPiece { content: Some(PieceContent { runs, .. }), .. }] => {
            Ok(Content::Runs(named_runs(runs, packs)?))
        }
        _ => Err(Failure::new(Code::Internal, "a file of several leaves has no map")),
    }
}

fn named_runs(runs: &[LocalRun], packs: &BTreeMap<u32, Digest>) -> Outcome<Vec<Run>> {
    runs.iter()
        .map(|run| {
            let pack = match run.pack {
                None => None,
                Some(number) => Some(*packs.get(&number).ok_or_else(|| {
                    Failure::new(Code::Internal, format!("pack {number} was not stored"))
                })?),
            };
            Ok(Run { pack, frame: run.frame, slot: run.slot, pages: run.pages })
        })
        .collect()
}
