//! Cuts the list of files into units of work: boot set first, then everything else in order.

use lifeboat_cluster::files::{Entry, Kind};
use lifeboat_repository::pack::FRAME_BYTES;
use lifeboat_repository::tree::LEAF_PAGES;

/// A unit of small files is closed at this many bytes or files.
const UNIT_BYTES: u64 = 8 * 1024 * 1024;
const UNIT_FILES: usize = 512;

/// Pages of one file that one worker reads in one go: at most one leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Index of the file in the list.
    pub file: usize,
    /// Number of the leaf in the file.
    pub leaf: u32,
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub bytes: u64,
}

/// What a worker takes at once; its frames lie together in one pack or two.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unit {
    /// Whether PostgreSQL reads this before it accepts connections.
    pub boot: bool,
    /// Parts of files, in order.
    pub pieces: Vec<Piece>,
}

/// Whether a file belongs to the boot set: all that is no relation, and relations of one frame.
pub fn is_boot(entry: &Entry) -> bool {
    let global = entry.path.starts_with("global");
    match entry.kind {
        Kind::Directory | Kind::TablespaceLink => false,
        Kind::Relation(_) => global || entry.size <= FRAME_BYTES as u64,
        Kind::Slru | Kind::Config | Kind::Control => true,
        // Logs and strangers' files in the data directory are not read by PostgreSQL.
        Kind::Other => global || entry.size <= FRAME_BYTES as u64,
    }
}

/// The units of a backup. `page_bytes` is the block size of the cluster. The control file is not
/// among them: it is read last, by itself.
pub fn units(entries: &[Entry], page_bytes: u32) -> Vec<Unit> {
    let mut units = Vec::new();
    for boot in [true, false] {
        let mut unit = Unit { boot, ..Unit::default() };
        let mut unit_bytes = 0;
        let files = entries.iter().enumerate().filter(|(_, entry)| {
            entry.is_file() && entry.kind != Kind::Control && is_boot(entry) == boot
        });
        for (file, entry) in files {
            for piece in pieces(file, entry.size, page_bytes) {
                unit_bytes += piece.bytes;
                unit.pieces.push(piece);
                if unit_bytes >= UNIT_BYTES || unit.pieces.len() >= UNIT_FILES {
                    units.push(std::mem::replace(&mut unit, Unit { boot, pieces: Vec::new() }));
                    unit_bytes = 0;
                }
            }
        }
        if !unit.pieces.is_empty() {
            units.push(unit);
        }
    }
    units
}

fn pieces(file: usize, size: u64, page_bytes: u32) -> impl Iterator<Item = Piece> {
    let leaf_bytes = u64::from(LEAF_PAGES) * u64::from(page_bytes);
    (0..size.div_ceil(leaf_bytes)).map(move |leaf| {
        let offset = leaf * leaf_bytes;
        Piece { file, leaf: leaf as u32, offset, bytes: leaf_bytes.min(size - offset) }
    })
}
