//! Data pages: header, LSN and checksum.
//!
//! The checksum is 32 FNV-1a hashes side by side, folded into 16 bits with the block number
//! mixed in. It is pure data parallelism, so it is compiled once for each vector width.

use lifeboat_model::Lsn;
use multiversion::multiversion;
use thiserror::Error;

use crate::bytes;

/// The usual block size (`BLCKSZ`); the control file tells the true one.
pub const BLOCK_SIZE: usize = 8192;

const VALID_FLAGS: u16 = 0x0007;
const LAYOUT_VERSION: u16 = 4;
const LANES: usize = 32;
const ROW: usize = LANES * 4;
const PRIME: u32 = 16_777_619;

/// Start values of the lanes, as PostgreSQL chose them.
const OFFSETS: [u32; LANES] = [
    0x5B1F_36E9,
    0xB852_5960,
    0x02AB_50AA,
    0x1DE6_6D2A,
    0x79FF_467A,
    0x9BB9_F8A3,
    0x217E_7CD2,
    0x83E1_3D2C,
    0xF8D4_474F,
    0xE39E_B970,
    0x42C6_AE16,
    0x9932_16FA,
    0x7B09_3B5D,
    0x98DA_FF3C,
    0xF718_902A,
    0x0B1C_9CDB,
    0xE58F_764B,
    0x1876_36BC,
    0x5D7B_3BB1,
    0xE73D_E7DE,
    0x92BE_C979,
    0xCCA6_C0B2,
    0x304A_0979,
    0x85AA_43D4,
    0x7831_25BB,
    0x6CA8_EAA2,
    0xE407_EAC6,
    0x4B5C_FC3E,
    0x9FBF_8C76,
    0x15CA_20BE,
    0xF2CA_9FD3,
    0x959B_D756,
];

/// What a page is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageState {
    /// All bytes are zero: a page that was allocated and never written. It is valid.
    Zero,
    /// The header makes sense and, where checksums are on, the checksum holds.
    Valid,
    /// The page is not what PostgreSQL wrote, or not at this place.
    BadChecksum {
        /// What the header says.
        stored: u16,
        /// What the bytes give.
        computed: u16,
    },
    /// PostgreSQL would refuse the page for its header.
    BadHeader(HeaderFault),
}

impl PageState {
    /// A page that PostgreSQL reads without complaint.
    pub fn is_good(self) -> bool {
        matches!(self, Self::Zero | Self::Valid)
    }
}

/// Why a header makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HeaderFault {
    /// Not a block: PostgreSQL's block sizes are powers of two from 1 to 32 KiB.
    #[error("the page has an impossible length")]
    Length,
    /// The header says "new" and other bytes are set.
    #[error("the page is marked as new but is not empty")]
    NewButNotZero,
    /// Flag bits that no version knows.
    #[error("the page has unknown flags")]
    Flags,
    /// lower, upper, special and the end of the page are out of order, or special is unaligned.
    #[error("the page's free space pointers are out of order")]
    Pointers,
    /// The header names another page size or layout version.
    #[error("the page's size or layout version is wrong")]
    Layout,
}

/// Judges one page that lies at `block` of its relation's fork, counted over all segments.
pub fn check_page(page: &[u8], block: u32, checksums_on: bool) -> PageState {
    if !(1024..=32768).contains(&page.len()) || !page.len().is_power_of_two() {
        return PageState::BadHeader(HeaderFault::Length);
    }
    if is_new(page) {
        return if is_zero(page) {
            PageState::Zero
        } else {
            PageState::BadHeader(HeaderFault::NewButNotZero)
        };
    }
    if checksums_on {
        let (stored, computed) = (half(page, 8), checksum(page, block));
        if stored != computed {
            return PageState::BadChecksum { stored, computed };
        }
    }
    match header_fault(page) {
        None => PageState::Valid,
        Some(fault) => PageState::BadHeader(fault),
    }
}

/// The checksum that belongs into a page at `block`; the stored one does not count. `page` is a
/// whole block.
pub fn checksum(page: &[u8], block: u32) -> u16 {
    let mixed = fold(page) ^ block;
    // At most 65535, so that it fits and zero never occurs.
    (mixed % 65535 + 1) as u16
}

/// LSN of the last change of the page that was logged.
pub fn page_lsn(page: &[u8]) -> Lsn {
    Lsn(u64::from(word(page, 0)) << 32 | u64::from(word(page, 4)))
}

/// Whether the header says that the page was never initialised.
pub fn is_new(page: &[u8]) -> bool {
    half(page, 14) == 0
}

/// Whether no bit is set.
pub fn is_zero(bytes: &[u8]) -> bool {
    // Whole rows first: the compiler turns them into vector code.
    let (rows, rest) = bytes.as_chunks::<ROW>();
    rows.iter().all(|row| row.iter().fold(0, |all, byte| all | byte) == 0)
        && rest.iter().all(|byte| *byte == 0)
}

fn header_fault(page: &[u8]) -> Option<HeaderFault> {
    let (flags, lower, upper, special) =
        (half(page, 10), half(page, 12), half(page, 14), half(page, 16));
    let layout = half(page, 18);
    if flags & !VALID_FLAGS != 0 {
        return Some(HeaderFault::Flags);
    }
    let ordered = lower <= upper
        && upper <= special
        && usize::from(special) <= page.len()
        && special.is_multiple_of(8);
    if !ordered {
        return Some(HeaderFault::Pointers);
    }
    if usize::from(layout & 0xFF00) != page.len() || layout & 0x00FF != LAYOUT_VERSION {
        return Some(HeaderFault::Layout);
    }
    None
}

#[multiversion(targets("x86_64+avx2", "x86_64+sse4.1", "aarch64+neon"))]
fn fold(page: &[u8]) -> u32 {
    let mut sums = OFFSETS;
    let (rows, _) = page.as_chunks::<ROW>();
    let (first, others) = match rows.split_first() {
        Some((first, others)) => (*first, others),
        None => ([0; ROW], rows),
    };
    // The first row holds the stored checksum, which counts as zero.
    let mut first = first;
    first[8] = 0;
    first[9] = 0;
    let empty = [0; ROW];
    for row in std::iter::once(&first).chain(others).chain([&empty, &empty]) {
        let (words, _) = row.as_chunks::<4>();
        for (sum, word) in sums.iter_mut().zip(words) {
            let mixed = *sum ^ u32::from_le_bytes(*word);
            *sum = mixed.wrapping_mul(PRIME) ^ (mixed >> 17);
        }
    }
    sums.iter().fold(0, |all, sum| all ^ sum)
}

fn half(page: &[u8], at: usize) -> u16 {
    bytes::half(page, at).unwrap_or_default()
}

fn word(page: &[u8], at: usize) -> u32 {
    bytes::word(page, at).unwrap_or_default()
}

#[cfg(test)]
mod tests;
