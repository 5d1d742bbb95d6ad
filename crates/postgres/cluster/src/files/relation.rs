//! Names of relation files: `base/5/16384_vm.1` and the like.

use crate::Release;

/// OID of the default tablespace, which is `base`.
const DEFAULT_TABLESPACE: u32 = 1663;
/// OID of the shared tablespace, which is `global`.
const SHARED_TABLESPACE: u32 = 1664;

/// Which relation a file belongs to, and which part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Relation {
    /// OID of the tablespace.
    pub tablespace: u32,
    /// OID of the database; zero for shared relations.
    pub database: u32,
    /// The file number, which `pg_relation_filenode` gives.
    pub filenode: u32,
    /// The fork.
    pub fork: Fork,
    /// The number behind the dot; zero for the first file.
    pub segment: u32,
}

/// What a relation's files hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fork {
    /// The data.
    Main,
    /// The free space map.
    FreeSpace,
    /// The visibility map.
    Visibility,
    /// What an unlogged relation is reset to after a crash.
    Init,
}

impl Relation {
    /// The block number of the file's first page, for a cluster with `segment_blocks` pages in a
    /// segment file. `None` if there can be no such block.
    pub fn first_block(&self, segment_blocks: u32) -> Option<u32> {
        relation_file_offset_block(self.segment, segment_blocks)
    }
}

/// The block number at which a segment file starts: numbers continue over all segments.
pub fn relation_file_offset_block(segment: u32, segment_blocks: u32) -> Option<u32> {
    segment.checked_mul(segment_blocks)
}

/// A directory that holds relations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Home {
    tablespace: u32,
    database: u32,
}

impl Home {
    /// Whether the path, as names below the data directory, is such a directory.
    pub(super) fn of(names: &[&[u8]], release: &Release) -> Option<Self> {
        match names {
            [b"global"] => Some(Self { tablespace: SHARED_TABLESPACE, database: 0 }),
            [b"base", database] => {
                Some(Self { tablespace: DEFAULT_TABLESPACE, database: number(database)? })
            }
            [b"pg_tblspc", tablespace, version, database]
                if *version == release.tablespace_directory().as_bytes() =>
            {
                Some(Self { tablespace: number(tablespace)?, database: number(database)? })
            }
            _ => None,
        }
    }

    /// Whether unlogged and temporary relations can lie here.
    pub(super) fn is_database(self) -> bool {
        self.database != 0
    }

    /// The relation that a file here belongs to.
    pub(super) fn relation(self, name: &[u8]) -> Option<Relation> {
        let (name, segment) = match split_at(name, b'.') {
            // `16384.0` does not exist: the first segment has no number.
            Some((name, segment)) => (name, number(segment).filter(|segment| *segment > 0)?),
            None => (name, 0),
        };
        let (filenode, fork) = match split_at(name, b'_') {
            Some((filenode, fork)) => (filenode, fork_of(fork)?),
            None => (name, Fork::Main),
        };
        let filenode = number(filenode).filter(|filenode| *filenode > 0)?;
        let Self { tablespace, database } = self;
        Some(Relation { tablespace, database, filenode, fork, segment })
    }
}

/// Whether the name is that of a temporary relation's file: `t3_16384`, also with fork and
/// segment.
pub(super) fn is_temporary(name: &[u8]) -> bool {
    let Some((backend, rest)) = name.strip_prefix(b"t").and_then(|name| split_at(name, b'_'))
    else {
        return false;
    };
    let (rest, segment) =
        split_at(rest, b'.').map_or((rest, None), |(rest, segment)| (rest, Some(segment)));
    let (filenode, fork) =
        split_at(rest, b'_').map_or((rest, None), |(file, fork)| (file, Some(fork)));
    is_digits(backend)
        && is_digits(filenode)
        && fork.is_none_or(|fork| fork_of(fork).is_some())
        && segment.is_none_or(is_digits)
}

fn fork_of(name: &[u8]) -> Option<Fork> {
    match name {
        b"fsm" => Some(Fork::FreeSpace),
        b"vm" => Some(Fork::Visibility),
        b"init" => Some(Fork::Init),
        _ => None,
    }
}

/// A number as PostgreSQL writes it into names: digits without leading zeros.
pub(super) fn number(digits: &[u8]) -> Option<u32> {
    let plain = is_digits(digits) && (digits.len() == 1 || !digits.starts_with(b"0"));
    plain.then(|| std::str::from_utf8(digits).ok()?.parse().ok()).flatten()
}

fn is_digits(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(u8::is_ascii_digit)
}

fn split_at(bytes: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|byte| *byte == separator)?;
    Some((bytes.get(..at)?, bytes.get(at + 1..)?))
}
