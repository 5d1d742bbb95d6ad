//! A look at the whole file table before the first byte is written: what a hostile or damaged
//! table could do is refused here.

use std::collections::{BTreeMap, HashSet};

use lifeboat_repository::crypt::sha256;
use lifeboat_repository::manifest::Description;
use lifeboat_repository::pack::FRAME_BYTES;
use lifeboat_repository::tree::{FileEntry, FileKind, Root};
use lifeboat_telemetry::{Code, Failure, Outcome};

use crate::table::{CONFIGURATION, CONTROL, FileTable, destination};

/// `NAME_MAX` of every file system that PostgreSQL runs on.
const NAME_BYTES_MAX: usize = 255;
/// pg_control has 8 KiB; anything larger is none.
const CONTROL_BYTES_MAX: u64 = 64 * 1024;
/// Configuration files are read whole.
const OUTSIDE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What the file table holds.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// Files that will be written.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of each tablespace, by OID.
    pub tablespace_bytes: BTreeMap<u32, u64>,
    /// Directories with their permission bits.
    pub directories: BTreeMap<Vec<u8>, u32>,
    /// Files, by digest of their path: a few bytes each, however long their names are.
    known_files: HashSet<[u8; 16]>,
    /// Directories that hold something.
    parents: HashSet<[u8; 16]>,
    /// OIDs of the tablespace links.
    links: HashSet<u32>,
    /// Where configuration from outside goes. It wins over an old copy of it in the data directory.
    outside: HashSet<Vec<u8>>,
    last: Option<(Root, Vec<u8>)>,
    has_control: bool,
    has_version: bool,
}

impl Survey {
    /// Reads the table and checks it as a whole.
    pub(crate) fn of(table: FileTable<'_>, description: &Description) -> Outcome<Self> {
        let mut survey = Self::default();
        let outside = description.outside.iter();
        survey.outside =
            outside.map(|file| [CONFIGURATION.as_bytes(), file.path.as_bytes()].concat()).collect();
        table.each(|entry| survey.add(&entry, description))?;
        for (what, found) in [(CONTROL, survey.has_control), ("PG_VERSION", survey.has_version)] {
            if !found {
                return Err(damaged(&format!("it has no {what}")));
            }
        }
        if let Some(lost) =
            description.tablespaces.iter().find(|one| !survey.links.contains(&one.oid))
        {
            return Err(damaged(&format!("tablespace {} has no link", lost.oid)));
        }
        Ok(survey)
    }

    /// Whether the target shall hold this file.
    pub(crate) fn knows_file(&self, path: &[u8]) -> bool {
        self.known_files.contains(&name_of(path))
    }

    /// Whether the target shall hold this directory, and nothing in it.
    pub(crate) fn is_empty_directory(&self, path: &[u8]) -> bool {
        self.directories.contains_key(path) && !self.parents.contains(&name_of(path))
    }

    /// Whether a file of the data directory gives way to configuration from outside.
    pub(crate) fn is_superseded(&self, path: &[u8]) -> bool {
        self.outside.contains(path)
    }

    fn add(&mut self, entry: &FileEntry, description: &Description) -> Outcome<()> {
        self.check_order(entry)?;
        check_shape(entry)?;
        let Some(path) = destination(entry) else {
            return Ok(());
        };
        if entry.root == Root::Data && self.is_superseded(&path) {
            return Ok(());
        }
        match entry.root {
            Root::Outside => self.make_parents(&path),
            Root::Data => self.check_parent(&path)?,
        }
        let place = tablespace_of(&path).filter(|oid| is_tablespace(*oid, description));
        match entry.kind {
            FileKind::Tablespace => self.add_link(&path, place)?,
            _ if place.is_some() => {
                return Err(damaged(&format!("{} should be a tablespace", shown(entry))));
            }
            FileKind::Directory => {
                self.directories.insert(path, entry.mode);
            }
            FileKind::File => self.add_file(entry, path)?,
        }
        Ok(())
    }

    /// Entries come sorted, so that none can come twice.
    fn check_order(&mut self, entry: &FileEntry) -> Outcome<()> {
        let this = (entry.root, entry.path.clone());
        if self.last.as_ref().is_some_and(|last| *last >= this) {
            return Err(damaged(&format!("{} is listed twice or out of order", shown(entry))));
        }
        self.last = Some(this);
        Ok(())
    }

    fn make_parents(&mut self, path: &[u8]) {
        let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        for (at, _) in slashes {
            let parent = path[..at].to_vec();
            self.parents.insert(name_of(&parent));
            self.directories.entry(parent).or_insert(0o700);
        }
    }

    /// Whatever a path goes through is a directory or a tablespace of this very table.
    fn check_parent(&mut self, path: &[u8]) -> Outcome<()> {
        let Some(at) = path.iter().rposition(|byte| *byte == b'/') else {
            return Ok(());
        };
        let parent = &path[..at];
        let known = self.directories.contains_key(parent)
            || tablespace_of(parent).is_some_and(|oid| self.links.contains(&oid));
        if !known {
            let path = String::from_utf8_lossy(path);
            return Err(unsafe_path(&path, "what it lies in is not listed as a directory"));
        }
        self.parents.insert(name_of(parent));
        Ok(())
    }

    fn add_link(&mut self, path: &[u8], place: Option<u32>) -> Outcome<()> {
        let Some(oid) = place else {
            let path = String::from_utf8_lossy(path);
            return Err(unsafe_path(&path, "it is a link, and no tablespace of the backup"));
        };
        self.links.insert(oid);
        self.tablespace_bytes.entry(oid).or_insert(0);
        Ok(())
    }

    fn add_file(&mut self, entry: &FileEntry, path: Vec<u8>) -> Outcome<()> {
        self.files += 1;
        let too_much = || damaged("its sizes add up to more than a disk can hold");
        self.bytes = self.bytes.checked_add(entry.size).ok_or_else(too_much)?;
        let tablespace = path.strip_prefix(b"pg_tblspc/").and_then(|rest| {
            let name = rest.split(|byte| *byte == b'/').next()?;
            self.tablespace_bytes.get_mut(&number(name)?)
        });
        if let Some(bytes) = tablespace {
            *bytes += entry.size;
        }
        if entry.root == Root::Data && entry.path == CONTROL.as_bytes() {
            self.has_control = entry.size > 0 && entry.size <= CONTROL_BYTES_MAX;
        }
        self.has_version |= entry.root == Root::Data && entry.path == b"PG_VERSION";
        self.known_files.insert(name_of(&path));
        Ok(())
    }
}

/// What an entry may be, by itself.
fn check_shape(entry: &FileEntry) -> Outcome<()> {
    // Decoding checked it; a table must not depend on who decoded it.
    if !entry.path_is_safe() {
        return Err(unsafe_path(&shown(entry), "it leaves its root"));
    }
    if entry.path.split(|byte| *byte == b'/').any(|part| part.len() > NAME_BYTES_MAX) {
        return Err(unsafe_path(&shown(entry), "a part of it is too long"));
    }
    if entry.root == Root::Outside
        && (entry.kind != FileKind::File || entry.size > OUTSIDE_BYTES_MAX)
    {
        return Err(damaged(&format!("{} is no configuration file", shown(entry))));
    }
    let pages_fit = entry.size == 0 || (1..=FRAME_BYTES as u32).contains(&entry.page_bytes);
    if !pages_fit || i64::try_from(entry.size).is_err() {
        return Err(damaged(&format!("{} has an impossible size", shown(entry))));
    }
    Ok(())
}

fn is_tablespace(oid: u32, description: &Description) -> bool {
    description.tablespaces.iter().any(|known| known.oid == oid)
}

/// The OID of `pg_tblspc/OID`.
pub(crate) fn tablespace_of(path: &[u8]) -> Option<u32> {
    number(path.strip_prefix(b"pg_tblspc/")?)
}

fn number(name: &[u8]) -> Option<u32> {
    let digits = name.iter().all(u8::is_ascii_digit) && !name.starts_with(b"0");
    digits.then(|| std::str::from_utf8(name).ok()?.parse().ok()).flatten()
}

fn name_of(path: &[u8]) -> [u8; 16] {
    let mut name = [0; 16];
    name.copy_from_slice(&sha256(path)[..16]);
    name
}

fn shown(entry: &FileEntry) -> String {
    String::from_utf8_lossy(&entry.path).into_owned()
}

fn damaged(why: &str) -> Failure {
    Failure::new(Code::ObjectDamaged, format!("the list of files makes no sense: {why}"))
        .hint("Choose an older backup with --backup, and run `lifeboat repo check --read-data`.")
}

fn unsafe_path(path: &str, why: &str) -> Failure {
    Failure::new(Code::PathUnsafe, format!("the stored path {path:?} is not safe: {why}"))
        .hint("Do not use this backup. Find out which host wrote it.")
}
