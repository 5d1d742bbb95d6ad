//! The list of a backup's files, in pages that can be read one at a time.

use bytes::Bytes;
use lifeboat_environment::Environment;
use lifeboat_telemetry::{Code, Failure, Outcome};

use crate::cursor::{Cursor, put_varint};
use crate::ids::Digest;
use crate::keys::StreamKeys;
use crate::object::ObjectType;
use crate::tree::map::{DigestList, MAP_BYTES, decode_metadata, decode_runs, encode_metadata};
use crate::tree::{LEAF_PAGES, Run};

/// Longest path in bytes, as PATH_MAX.
const PATH_BYTES_MAX: usize = 4096;
/// Small files lie in the table itself.
pub const INLINE_BYTES_MAX: usize = 128;
const ENTRIES_MAX: usize = 1 << 16;
const LEAVES_PER_FILE_MAX: u64 = 1 << 20;

/// What a path is relative to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Root {
    /// The data directory.
    Data,
    /// The file system: configuration outside the data directory, by absolute path.
    Outside,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A tablespace link `pg_tblspc/OID`; its target stands in the manifest.
    Tablespace,
}

/// Where a file's leaf lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeafRef {
    /// The map object.
    pub map: Digest,
    /// The leaf's number in it.
    pub leaf: u32,
}

/// Where a file's bytes lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Nothing: a directory, a link, an empty file.
    Nothing,
    /// Here.
    Inline(Vec<u8>),
    /// In these runs: files of one leaf.
    Runs(Vec<Run>),
    /// In these leaves, each but the last [`LEAF_PAGES`] pages.
    Leaves(Vec<LeafRef>),
}

/// One file, directory or link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// What the path is relative to.
    pub root: Root,
    /// The path; any bytes but NUL, checked by [`FileEntry::path_is_safe`].
    pub path: Vec<u8>,
    /// What it is.
    pub kind: FileKind,
    /// Permission bits.
    pub mode: u32,
    /// Modification time, seconds since 1970.
    pub modified: i64,
    /// Size in bytes.
    pub size: u64,
    /// Size of its pages; the last one may be shorter.
    pub page_bytes: u32,
    /// CRC-32C of its bytes.
    pub crc32c: u32,
    /// Whether PostgreSQL reads it before it accepts connections.
    pub boot: bool,
    /// Its bytes.
    pub content: Content,
}

impl FileEntry {
    /// Whether the path stays below its root: no empty, `.` or `..` parts, no NUL, and relative
    /// exactly where it should be.
    pub fn path_is_safe(&self) -> bool {
        let path = match self.root {
            Root::Data => self.path.as_slice(),
            Root::Outside => match self.path.strip_prefix(b"/") {
                Some(rest) => rest,
                None => return false,
            },
        };
        !path.is_empty()
            && path.len() <= PATH_BYTES_MAX
            && !path.contains(&0)
            && path.split(|byte| *byte == b'/').all(|part| !matches!(part, b"" | b"." | b".."))
    }

    /// Number of pages, the short last one included.
    pub fn pages(&self) -> u64 {
        self.size.div_ceil(u64::from(self.page_bytes.max(1)))
    }

    fn encode(&self, packs: &mut DigestList, maps: &mut DigestList, out: &mut Vec<u8>) {
        out.push(match self.root {
            Root::Data => 0,
            Root::Outside => 1,
        });
        out.push(match self.kind {
            FileKind::Directory => 0,
            FileKind::File => 1,
            FileKind::Tablespace => 2,
        });
        out.push(u8::from(self.boot));
        put_varint(out, self.path.len() as u64);
        out.extend_from_slice(&self.path);
        put_varint(out, u64::from(self.mode));
        out.extend_from_slice(&self.modified.to_le_bytes());
        put_varint(out, self.size);
        put_varint(out, u64::from(self.page_bytes));
        out.extend_from_slice(&self.crc32c.to_le_bytes());
        match &self.content {
            Content::Nothing => out.push(0),
            Content::Inline(bytes) => {
                out.push(1);
                put_varint(out, bytes.len() as u64);
                out.extend_from_slice(bytes);
            }
            Content::Runs(runs) => {
                out.push(2);
                crate::tree::map::encode_runs(runs, packs, out);
            }
            Content::Leaves(leaves) => {
                out.push(3);
                put_varint(out, leaves.len() as u64);
                for leaf in leaves {
                    put_varint(out, maps.position(leaf.map));
                    put_varint(out, u64::from(leaf.leaf));
                }
            }
        }
    }

    fn decode(cursor: &mut Cursor<'_>, packs: &[Digest], maps: &[Digest]) -> Outcome<Self> {
        let root = match cursor.u8()? {
            0 => Root::Data,
            1 => Root::Outside,
            _ => return Err(cursor.damaged("an entry has no known root")),
        };
        let kind = match cursor.u8()? {
            0 => FileKind::Directory,
            1 => FileKind::File,
            2 => FileKind::Tablespace,
            _ => return Err(cursor.damaged("an entry has no known kind")),
        };
        let boot = cursor.u8()? == 1;
        let path_bytes = cursor.varint()?;
        if path_bytes > PATH_BYTES_MAX as u64 {
            return Err(cursor.damaged("a path is too long"));
        }
        let path = cursor.take(path_bytes as usize)?.to_vec();
        let mode = cursor.varint32()?;
        let modified = i64::from_le_bytes(cursor.array()?);
        let size = cursor.varint()?;
        let page_bytes = cursor.varint32()?;
        let crc32c = cursor.u32()?;
        let mut entry = Self {
            root,
            path,
            kind,
            mode,
            modified,
            size,
            page_bytes,
            crc32c,
            boot,
            content: Content::Nothing,
        };
        if !entry.path_is_safe() {
            let shown = String::from_utf8_lossy(&entry.path).into_owned();
            let message = format!("the stored path {shown:?} points outside its root");
            return Err(Failure::new(Code::PathUnsafe, message));
        }
        entry.content = decode_content(cursor, &entry, packs, maps)?;
        Ok(entry)
    }
}

fn decode_content(
    cursor: &mut Cursor<'_>,
    entry: &FileEntry,
    packs: &[Digest],
    maps: &[Digest],
) -> Outcome<Content> {
    let pages = entry.pages();
    match cursor.u8()? {
        0 if entry.size == 0 || entry.kind != FileKind::File => Ok(Content::Nothing),
        1 => {
            let length = cursor.varint()?;
            if length > INLINE_BYTES_MAX as u64 || length != entry.size {
                return Err(cursor.damaged("an inline file has an impossible length"));
            }
            Ok(Content::Inline(cursor.take(length as usize)?.to_vec()))
        }
        2 => {
            let runs = decode_runs(cursor, packs, LEAF_PAGES)?;
            let covered: u64 = runs.iter().map(|run| u64::from(run.pages)).sum();
            if covered != pages {
                return Err(cursor.damaged("a file's runs do not cover it"));
            }
            Ok(Content::Runs(runs))
        }
        3 => {
            let count = cursor.varint()?;
            if count > LEAVES_PER_FILE_MAX || count != pages.div_ceil(u64::from(LEAF_PAGES)) {
                return Err(cursor.damaged("a file has an impossible number of leaves"));
            }
            let mut leaves = Vec::with_capacity(count as usize);
            for _ in 0..count {
                let map = cursor.varint32()? as usize;
                let leaf = cursor.varint32()?;
                let Some(map) = maps.get(map) else {
                    return Err(cursor.damaged("a leaf names no map"));
                };
                leaves.push(LeafRef { map: *map, leaf });
            }
            Ok(Content::Leaves(leaves))
        }
        _ => Err(cursor.damaged("an entry has impossible content")),
    }
}

/// A part of the list that fits one object.
#[derive(Default)]
pub struct FileTablePage {
    packs: DigestList,
    maps: DigestList,
    entries: Vec<u8>,
    count: u32,
}

impl FileTablePage {
    /// Adds an entry; entries are added in order of root and path.
    pub fn add(&mut self, entry: &FileEntry) {
        entry.encode(&mut self.packs, &mut self.maps, &mut self.entries);
        self.count += 1;
    }

    /// Whether it should be closed.
    pub fn is_full(&self) -> bool {
        let lists = 32 * (self.packs.len() + self.maps.len());
        self.entries.len() + lists >= MAP_BYTES || self.count as usize >= ENTRIES_MAX
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The object's bytes.
    pub fn finish(&self, keys: &StreamKeys, environment: &Environment) -> Outcome<Bytes> {
        let mut plain = Vec::with_capacity(self.entries.len() + 64);
        self.packs.encode(&mut plain);
        self.maps.encode(&mut plain);
        plain.extend_from_slice(&self.count.to_le_bytes());
        plain.extend_from_slice(&self.entries);
        encode_metadata(keys, environment, ObjectType::FileTable, &plain)
    }

    /// Reads the entries of a page.
    pub fn decode(keys: &StreamKeys, digest: &Digest, bytes: &Bytes) -> Outcome<Vec<FileEntry>> {
        let plain = decode_metadata(keys, ObjectType::FileTable, digest, bytes)?;
        let mut cursor = Cursor::new(&plain, "a file table");
        let packs = DigestList::decode(&mut cursor)?;
        let maps = DigestList::decode(&mut cursor)?;
        let count = cursor.count(ENTRIES_MAX)?;
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            entries.push(FileEntry::decode(&mut cursor, &packs, &maps)?);
        }
        cursor.end()?;
        Ok(entries)
    }
}
