//! What two sound copies of a page may differ in.
//!
//! The rules are those of PostgreSQL's `wal_consistency_checking` (bufmask.c and the mask function
//! of each access method): hint bits, unused space and the like change without WAL, so that a
//! replayed page lacks them. Access methods are told apart by their special space.

/// The size of a page; other block sizes are not built by any packager.
pub const PAGE: usize = 8192;
pub(super) const HEADER: usize = 24;

/// Sets everything to zero that may differ. A page whose header makes no sense is left as it is.
pub fn mask(page: &mut [u8; PAGE], block: u32) {
    // The LSN differs where a full-page image was written for a hint bit; the checksum covers all
    // that is masked here.
    page[0..10].fill(0);
    let lower = usize::from(read_u16(page, 12));
    let upper = usize::from(read_u16(page, 14));
    let special = usize::from(read_u16(page, 16));
    if lower < HEADER || lower > upper || upper > special || special > PAGE {
        return;
    }
    // Flags: free line pointers, page full and all visible are hints; pd_prune_xid is one too.
    page[10] &= !0b111;
    page[20..24].fill(0);
    match kind(page, special) {
        Kind::Heap => heap(page, lower, upper, block),
        Kind::Sequence => sequence(page, lower, upper),
        Kind::Btree => btree(page, lower, upper, special),
        Kind::Hash => hash(page, lower, upper, special),
        Kind::Gist => gist(page, lower, upper, special),
        Kind::Gin => gin(page, lower, upper, special),
        Kind::Brin => brin(page, lower, upper, special),
        Kind::SpGist => sp_gist(page, lower, upper, special),
        Kind::Other => page[lower..upper].fill(0),
    }
}

/// Sets what may differ in a visibility map to zero: its bits are all logged.
pub fn mask_map(page: &mut [u8; PAGE]) {
    page[0..10].fill(0);
}

enum Kind {
    Heap,
    Sequence,
    Btree,
    Hash,
    Gist,
    Gin,
    Brin,
    SpGist,
    Other,
}

fn kind(page: &[u8; PAGE], special: usize) -> Kind {
    // Every access method but B-tree and GIN ends its special space in a number of its own; a
    // B-tree keeps a vacuum cycle there, which stays below those numbers, and GIN small flags.
    let last = read_u16(page, PAGE - 2);
    match (PAGE - special, last) {
        (0, _) => Kind::Heap,
        (8, 0xf091..=0xf093) => Kind::Brin,
        (8, 0xff82) => Kind::SpGist,
        (8, 0) if read_u16(page, special) == 0x1717 => Kind::Sequence,
        (8, _) => Kind::Gin,
        (16, 0xff80) => Kind::Hash,
        (16, 0xff81) => Kind::Gist,
        (16, _) => Kind::Btree,
        _ => Kind::Other,
    }
}

fn heap(page: &mut [u8; PAGE], lower: usize, upper: usize, block: u32) {
    page[lower..upper].fill(0);
    for item in items(page, lower) {
        if item.flags == 1 && item.length >= 23 {
            tuple(page, &item, block);
        }
        // Padding after a tuple is whatever the buffer held.
        let end = item.offset + item.length;
        let aligned = end.next_multiple_of(8).min(PAGE);
        if item.length > 0 && end <= aligned {
            page[end..aligned].fill(0);
        }
    }
}

/// Hint bits and the command id, which replay sets to zero.
fn tuple(page: &mut [u8; PAGE], item: &Item, block: u32) {
    const FROZEN: u16 = 0x0300;
    const XMAX_COMMITTED_OR_INVALID: u16 = 0x0c00;
    const TRANSACTION_BITS: u16 = 0xfff0;
    const SPECULATIVE: u16 = 0xfffe;
    let at = item.offset;
    let bits = read_u16(page, at + 20);
    let hints = if bits & FROZEN == FROZEN { XMAX_COMMITTED_OR_INVALID } else { TRANSACTION_BITS };
    write_u16(page, at + 20, bits & !hints);
    page[at + 8..at + 12].fill(0);
    // INSERT ... ON CONFLICT writes a token of its process in place of the tuple's own address.
    if read_u16(page, at + 16) == SPECULATIVE {
        let [high, low] = [(block >> 16) as u16, (block & 0xffff) as u16];
        write_u16(page, at + 12, high);
        write_u16(page, at + 14, low);
        write_u16(page, at + 16, item.number);
    }
}

/// WAL runs up to 32 values ahead of a sequence, so its only tuple may differ in last_value,
/// log_cnt and is_called.
fn sequence(page: &mut [u8; PAGE], lower: usize, upper: usize) {
    page[lower..upper].fill(0);
    for item in items(page, lower).into_iter().filter(|item| item.flags == 1) {
        let header = usize::from(page[item.offset + 22]);
        let end = (item.offset + item.length).min(PAGE);
        if item.offset + header <= end {
            page[item.offset + header..end].fill(0);
        }
        page[item.offset + 8..item.offset + 12].fill(0);
    }
}

fn btree(page: &mut [u8; PAGE], lower: usize, upper: usize, special: usize) {
    const LEAF: u16 = 1;
    const DELETED: u16 = 4;
    const SPLIT_END_AND_GARBAGE: u16 = 32 | 64;
    let flags = read_u16(page, special + 12);
    page[lower..upper].fill(0);
    if flags & DELETED != 0 {
        return contents(page);
    }
    if flags & LEAF != 0 {
        forget_dead_items(page, lower);
    }
    write_u16(page, special + 12, flags & !SPLIT_END_AND_GARBAGE);
    write_u16(page, special + 14, 0); // The vacuum cycle.
}

fn hash(page: &mut [u8; PAGE], lower: usize, upper: usize, special: usize) {
    const BUCKET_OR_OVERFLOW: u16 = 3;
    const PAGE_TYPE: u16 = 15;
    const HAS_DEAD_TUPLES: u16 = 128;
    let flags = read_u16(page, special + 12);
    page[lower..upper].fill(0);
    if flags & PAGE_TYPE == 0 {
        return contents(page); // Unused.
    }
    if flags & BUCKET_OR_OVERFLOW != 0 {
        forget_dead_items(page, lower);
    }
    write_u16(page, special + 12, flags & !HAS_DEAD_TUPLES);
}

fn gist(page: &mut [u8; PAGE], lower: usize, upper: usize, special: usize) {
    const LEAF: u16 = 1;
    const FOLLOW_RIGHT_AND_GARBAGE: u16 = 8 | 16;
    let flags = read_u16(page, special + 12);
    page[lower..upper].fill(0);
    page[special..special + 8].fill(0); // The node sequence number is an LSN.
    if flags & LEAF != 0 {
        forget_dead_items(page, lower);
    }
    write_u16(page, special + 12, flags & !FOLLOW_RIGHT_AND_GARBAGE);
}

fn gin(page: &mut [u8; PAGE], lower: usize, upper: usize, special: usize) {
    const DELETED: u16 = 4;
    if read_u16(page, special + 6) & DELETED != 0 {
        contents(page);
    } else if lower > HEADER {
        page[lower..upper].fill(0);
    }
}

fn brin(page: &mut [u8; PAGE], lower: usize, upper: usize, special: usize) {
    const REVMAP: u16 = 0xf092;
    const EVACUATE: u16 = 1;
    let map = read_u16(page, special + 6) == REVMAP;
    if !map && lower > HEADER {
        page[lower..upper].fill(0);
    }
    let flags = read_u16(page, special + 4);
    write_u16(page, special + 4, flags & !EVACUATE);
}

fn sp_gist(page: &mut [u8; PAGE], lower: usize, upper: usize, special: usize) {
    const META: u16 = 1;
    page[lower..upper].fill(0);
    if read_u16(page, special) & META != 0 {
        // After its magic number the page remembers where there was room, which is never logged.
        page[(HEADER + 4).min(lower)..lower].fill(0);
    }
}

/// Everything after the header, and the bounds of what was in use: replay makes such a page anew.
fn contents(page: &mut [u8; PAGE]) {
    page[12..16].fill(0);
    page[HEADER..].fill(0);
}

/// A scan marks index entries as dead without WAL.
fn forget_dead_items(page: &mut [u8; PAGE], lower: usize) {
    for at in (HEADER..lower.saturating_sub(3)).step_by(4) {
        let item = read_u32(page, at);
        page[at..at + 4].copy_from_slice(&(item & !(0b11 << 15)).to_le_bytes());
    }
}

struct Item {
    number: u16,
    offset: usize,
    flags: u32,
    length: usize,
}

/// Line pointers that lead into the page.
fn items(page: &[u8; PAGE], lower: usize) -> Vec<Item> {
    let mut found = Vec::new();
    for (at, number) in (HEADER..lower.saturating_sub(3)).step_by(4).zip(1_u16..) {
        let item = read_u32(page, at);
        let (offset, length) = ((item & 0x7fff) as usize, (item >> 17) as usize);
        if offset >= HEADER && offset + length.max(24) <= PAGE {
            found.push(Item { number, offset, flags: (item >> 15) & 0b11, length });
        }
    }
    found
}

fn read_u16(page: &[u8; PAGE], at: usize) -> u16 {
    u16::from_le_bytes([page[at], page[at + 1]])
}

fn read_u32(page: &[u8; PAGE], at: usize) -> u32 {
    u32::from_le_bytes([page[at], page[at + 1], page[at + 2], page[at + 3]])
}

fn write_u16(page: &mut [u8; PAGE], at: usize, value: u16) {
    page[at..at + 2].copy_from_slice(&value.to_le_bytes());
}
