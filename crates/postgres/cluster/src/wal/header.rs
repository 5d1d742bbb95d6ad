//! Headers of WAL pages, and what the first one says about its segment.

use lifeboat_model::{Lsn, SegmentName, SegmentSize, SystemIdentifier, Timeline};

use super::WalError;
use crate::Release;
use crate::bytes::{half, long, word};

const FIRST_IS_CONTINUATION: u16 = 0x0001;
const LONG_HEADER: u16 = 0x0002;
const FIRST_OVERWRITES: u16 = 0x0008;
const ALL_FLAGS: u16 = 0x000F;

/// The header of one WAL page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageHeader {
    /// Tells the version.
    pub magic: u16,
    /// Flag bits.
    pub flags: u16,
    /// Timeline of the page's first record.
    pub timeline: Timeline,
    /// Where the page lies in the WAL.
    pub address: Lsn,
    /// Bytes that are still to come of a record that started on an earlier page.
    pub remaining: u32,
    /// Present on the first page of a segment.
    pub long: Option<LongHeader>,
}

/// What the first page of a segment tells in addition, unchecked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LongHeader {
    /// The cluster.
    pub system: SystemIdentifier,
    /// Bytes in a segment.
    pub segment_size: u32,
    /// Bytes in a WAL page.
    pub block_size: u32,
}

impl PageHeader {
    /// Bytes of the header of most pages, padded to a multiple of 8.
    pub(super) const SHORT: usize = 24;
    /// Bytes of the header of a segment's first page.
    pub(super) const LONG: usize = 40;

    /// Reads the header at the start of a page; nothing is judged. `None` if the page is too
    /// short.
    pub fn parse(page: &[u8]) -> Option<Self> {
        let flags = half(page, 2)?;
        page.get(..Self::SHORT)?;
        let long = if flags & LONG_HEADER == 0 {
            None
        } else {
            Some(LongHeader {
                system: SystemIdentifier(long(page, 24)?),
                segment_size: word(page, 32)?,
                block_size: word(page, 36)?,
            })
        };
        Some(Self {
            magic: half(page, 0)?,
            flags,
            timeline: Timeline(word(page, 4)?),
            address: Lsn(self::long(page, 8)?),
            remaining: word(page, 16)?,
            long,
        })
    }

    /// Bytes before the page's data.
    pub fn length(&self) -> usize {
        if self.long.is_some() { Self::LONG } else { Self::SHORT }
    }

    /// Flags that no version sets.
    pub(super) fn has_unknown_flags(&self) -> bool {
        self.flags & !ALL_FLAGS != 0
    }

    /// The page starts with the rest of a record.
    pub fn continues_record(&self) -> bool {
        self.flags & FIRST_IS_CONTINUATION != 0
    }

    /// The page starts with a record that replaces the rest of one, which a crash cut off.
    pub fn overwrites_record(&self) -> bool {
        self.flags & FIRST_OVERWRITES != 0
    }
}

/// What the first page of a segment says, verified against the segment's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentIdentity {
    /// The version that wrote it.
    pub release: &'static Release,
    /// The cluster that wrote it.
    pub system: SystemIdentifier,
    /// The cluster's segment size.
    pub segment_size: SegmentSize,
    /// Bytes in a WAL page.
    pub block_size: u32,
    /// Timeline of the first record; the name's or an earlier one.
    pub timeline: Timeline,
    /// Where the segment starts in the WAL.
    pub start: Lsn,
}

impl SegmentIdentity {
    /// Where the next segment starts.
    pub fn end(&self) -> Lsn {
        self.start.checked_add(self.segment_size.bytes()).unwrap_or(Lsn::MAX)
    }

    /// Checks that the whole file has `length` bytes.
    pub fn check_length(&self, length: u64) -> Result<(), WalError> {
        let expected = self.segment_size.bytes();
        if length == expected {
            Ok(())
        } else {
            Err(WalError::WrongLength { expected, found: length })
        }
    }
}

/// Reads the first page of a segment, at least 40 bytes of it, and compares it with the name.
pub fn identify_segment(first_page: &[u8], name: SegmentName) -> Result<SegmentIdentity, WalError> {
    let header =
        PageHeader::parse(first_page).ok_or(WalError::TooShort { length: first_page.len() })?;
    if first_page.iter().take(PageHeader::LONG).all(|byte| *byte == 0) {
        return Err(WalError::ZeroPage);
    }
    let release =
        Release::of_wal_magic(header.magic).ok_or(WalError::WrongMagic { magic: header.magic })?;
    if header.has_unknown_flags() {
        return Err(WalError::UnknownFlags { flags: header.flags });
    }
    let long = header.long.ok_or(WalError::NotSegmentStart)?;
    let segment_size = SegmentSize::new(u64::from(long.segment_size))
        .ok_or(WalError::ImpossibleSize { what: "segment size", size: long.segment_size })?;
    if !(1 << 10..=1 << 16).contains(&long.block_size) || !long.block_size.is_power_of_two() {
        return Err(WalError::ImpossibleSize { what: "block size", size: long.block_size });
    }
    let start = name.start(segment_size).ok_or(WalError::ImpossibleName { name })?;
    if header.address != start {
        return Err(WalError::WrongAddress { expected: start, found: header.address });
    }
    if header.timeline > name.timeline() {
        return Err(WalError::LaterTimeline { name: name.timeline(), page: header.timeline });
    }
    Ok(SegmentIdentity {
        release,
        system: long.system,
        segment_size,
        block_size: long.block_size,
        timeline: header.timeline,
        start,
    })
}
