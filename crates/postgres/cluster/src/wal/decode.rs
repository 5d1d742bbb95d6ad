//! A push parser: WAL bytes go in, split in any way, and whole checked records come out.
//!
//! Sources of facts: PostgreSQL source, access/xlogreader.c, access/xlog_internal.h. What a page
//! header promises is asserted, each record's CRC-32C is computed, and each record must link to
//! the one before. So WAL of another cluster, place or time, and WAL that changed on the way, is
//! an error that says where, and never a wrong record.

use lifeboat_model::{Lsn, SegmentSize, SystemIdentifier, Timeline};
use thiserror::Error;

use super::header::{PageHeader, SegmentIdentity};
use super::record::{BlockReference, Fact, RECORD_HEADER, Record, record_crc};
use crate::Release;
use crate::bytes::{long, word};

/// PostgreSQL makes no longer ones.
const LONGEST_RECORD: u32 = 1020 << 20;
/// What is kept of one record. Longer ones are logical messages, and commits of millions of
/// subtransactions; their CRC is checked all the same.
const KEPT: usize = 32 << 20;
/// Records and the rest of one lie on such boundaries.
const ALIGNMENT: u64 = 8;

/// What the pages of a stretch of WAL must agree with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// The version that writes it.
    pub release: &'static Release,
    /// The cluster that writes it.
    pub system: SystemIdentifier,
    /// The cluster's segment size.
    pub segment_size: SegmentSize,
    /// Bytes in a WAL page.
    pub block_size: u32,
    /// The timeline that is followed. Pages may be of earlier ones, never of later ones.
    pub timeline: Timeline,
}

impl Source {
    /// The source of a segment that was identified, when `timeline` is followed.
    pub fn of(identity: &SegmentIdentity, timeline: Timeline) -> Self {
        let SegmentIdentity { release, system, segment_size, block_size, .. } = *identity;
        Self { release, system, segment_size, block_size, timeline }
    }
}

/// Why WAL cannot be decoded any further, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{fault} at {at}")]
pub struct DecodeError {
    /// The page or the record that is wrong.
    pub at: Lsn,
    /// What is wrong.
    pub fault: Fault,
}

/// What can be wrong with WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Fault {
    /// Zeros where a record or a page should start: nothing was written here, at least not yet.
    #[error("there is no record")]
    Unwritten,
    /// A page of another version, or no page.
    #[error("a page has the magic number {0:04X}")]
    Magic(u16),
    /// Flags that no version sets, or a long header in the wrong place.
    #[error("a page has the flags {0:04X}")]
    Flags(u16),
    /// A page of another place, as in a recycled file.
    #[error("a page says that it is {0}")]
    Address(Lsn),
    /// A page or record of a later timeline than is followed, or of an earlier one than before.
    #[error("what stands there is of timeline {0}")]
    Timeline(Timeline),
    /// A page of another cluster.
    #[error("a page is of cluster {0}")]
    System(SystemIdentifier),
    /// A page of a cluster with other sizes of segments or pages.
    #[error("a page names other sizes of segment or block")]
    Sizes,
    /// A page says that another number of bytes is to come of the record that runs on to it.
    #[error("a page continues with {found} bytes of a record, {expected} are missing")]
    Remainder {
        /// What is missing of the record.
        expected: u32,
        /// What the page promises.
        found: u32,
    },
    /// No record is so short or so long.
    #[error("a record has {0} bytes")]
    Length(u32),
    /// The record does not follow the one before it.
    #[error("a record says that it follows {0}")]
    Link(Lsn),
    /// The record is not what was written.
    #[error("a record has a wrong checksum")]
    Checksum,
    /// The record's parts do not fit into it. Its checksum is right, so that this is a layout that
    /// Lifeboat does not know.
    #[error("a record has an unknown layout")]
    Layout,
}

/// Decodes contiguous WAL.
#[derive(Debug)]
pub struct Decoder {
    source: Source,
    /// Where the next byte lies.
    at: Lsn,
    part: Part,
    /// The page header that is being read.
    header: Vec<u8>,
    /// The timeline of what was read last.
    timeline: Option<Timeline>,
    /// The start of the last record.
    previous: Option<Lsn>,
    /// The end of the last record.
    decoded: Lsn,
    /// The record that is being read: as much as is kept, what came, where it starts, its CRC.
    kept: Vec<u8>,
    received: u32,
    start: Lsn,
    crc: u32,
    blocks: Vec<BlockReference>,
    failed: Option<DecodeError>,
}

/// What the next byte belongs to, page headers aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Nothing was read yet; the first page may start with the rest of a record.
    First,
    /// The padding before a record, or a record of which nothing came yet.
    Between,
    /// A record.
    Record,
    /// So many bytes of a record that began before the start.
    Rest(u32),
    /// The padding behind a switch, to the end of the segment.
    Switched,
}

impl Decoder {
    /// Starts at `start`, which is the start of a page or of a record.
    pub fn new(source: Source, start: Lsn) -> Self {
        Self {
            source,
            at: start,
            part: Part::First,
            header: Vec::new(),
            timeline: None,
            previous: None,
            decoded: start,
            kept: Vec::new(),
            received: 0,
            start,
            crc: 0,
            blocks: Vec::new(),
            failed: None,
        }
    }

    /// Where the next byte must come from.
    pub fn position(&self) -> Lsn {
        self.at
    }

    /// The timeline of what was read last.
    pub fn timeline(&self) -> Option<Timeline> {
        self.timeline
    }

    /// Where the last record that was given out ends; behind a switch that is the next segment. A
    /// decoder that starts here goes on with the next record.
    pub fn decoded(&self) -> Lsn {
        self.decoded
    }

    /// Takes the next bytes and gives each record that they complete to `each`. After an error
    /// the decoder stays where it is and repeats it.
    pub fn push(
        &mut self,
        mut bytes: &[u8],
        mut each: impl FnMut(&Record<'_>),
    ) -> Result<(), DecodeError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        while !bytes.is_empty() {
            match self.step(bytes, &mut each) {
                Ok(taken) => {
                    bytes = bytes.get(taken..).unwrap_or_default();
                    self.at = Lsn(self.at.0.saturating_add(taken as u64));
                }
                Err(error) => {
                    self.failed = Some(error);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Takes some bytes; says how many.
    fn step(
        &mut self,
        bytes: &[u8],
        each: &mut impl FnMut(&Record<'_>),
    ) -> Result<usize, DecodeError> {
        let segment_size = self.source.segment_size.bytes();
        if self.part == Part::Switched {
            if !self.at.0.is_multiple_of(segment_size) {
                return Ok(until(self.at, segment_size, bytes));
            }
            self.part = Part::Between;
        }
        let block_size = u64::from(self.source.block_size);
        if self.at.0.is_multiple_of(block_size) || !self.header.is_empty() {
            return self.page_header(bytes);
        }
        let left = until(self.at, block_size, bytes);
        let bytes = bytes.get(..left).unwrap_or_default();
        match self.part {
            Part::Rest(missing) => {
                let taken = bytes.len().min(missing as usize);
                let missing = missing.saturating_sub(u32::try_from(taken).unwrap_or(u32::MAX));
                self.part = if missing == 0 { Part::Between } else { Part::Rest(missing) };
                Ok(taken)
            }
            Part::Record => self.more(bytes, each),
            _ if !self.at.0.is_multiple_of(ALIGNMENT) => Ok(until(self.at, ALIGNMENT, bytes)),
            _ => self.begin(bytes, each),
        }
    }

    fn page_header(&mut self, bytes: &[u8]) -> Result<usize, DecodeError> {
        let needed = match PageHeader::parse(&self.header) {
            Some(header) => header.length(),
            // A long header cannot be parsed from the length of a short one.
            None if self.header.len() >= PageHeader::SHORT => PageHeader::LONG,
            None => PageHeader::SHORT,
        };
        let taken = bytes.len().min(needed.saturating_sub(self.header.len()));
        self.header.extend_from_slice(bytes.get(..taken).unwrap_or_default());
        if let Some(header) = PageHeader::parse(&self.header) {
            let page = self.page_start();
            self.page(page, header).map_err(|fault| DecodeError { at: page, fault })?;
            self.header.clear();
        }
        Ok(taken)
    }

    fn page_start(&self) -> Lsn {
        Lsn(self.at.0 - self.at.0 % u64::from(self.source.block_size))
    }

    fn page(&mut self, at: Lsn, header: PageHeader) -> Result<(), Fault> {
        self.check_page(at, &header)?;
        self.timeline = Some(header.timeline);
        let missing = match self.part {
            // Where nothing is known of a record, what the page says is taken for granted.
            Part::First if header.continues_record() => header.remaining,
            Part::First | Part::Between | Part::Switched => 0,
            Part::Record => self.total().saturating_sub(self.received),
            Part::Rest(missing) => missing,
        };
        if header.overwrites_record() {
            // A crash cut the record off. What follows on this page replaces it.
            self.part = Part::Between;
            return Ok(());
        }
        let found = header.remaining;
        if found != missing || header.continues_record() != (found > 0) {
            return Err(Fault::Remainder { expected: missing, found });
        }
        if self.part == Part::First {
            self.part = if missing == 0 { Part::Between } else { Part::Rest(missing) };
        }
        Ok(())
    }

    fn check_page(&self, at: Lsn, header: &PageHeader) -> Result<(), Fault> {
        let source = &self.source;
        if header.magic == 0 && header.address == Lsn::ZERO {
            return Err(Fault::Unwritten);
        }
        if header.magic != source.release.wal_magic {
            return Err(Fault::Magic(header.magic));
        }
        let starts_segment = at.0.is_multiple_of(source.segment_size.bytes());
        if header.has_unknown_flags() || header.long.is_some() != starts_segment {
            return Err(Fault::Flags(header.flags));
        }
        if header.address != at {
            return Err(Fault::Address(header.address));
        }
        let known = self.timeline.unwrap_or(Timeline(0));
        if header.timeline > source.timeline || header.timeline < known {
            return Err(Fault::Timeline(header.timeline));
        }
        let Some(long) = header.long else { return Ok(()) };
        if long.system != source.system {
            return Err(Fault::System(long.system));
        }
        if u64::from(long.segment_size) != source.segment_size.bytes()
            || long.block_size != source.block_size
        {
            return Err(Fault::Sizes);
        }
        Ok(())
    }

    /// A record starts here. Most lie within one page and within what was pushed: they are read
    /// where they are.
    fn begin(
        &mut self,
        bytes: &[u8],
        each: &mut impl FnMut(&Record<'_>),
    ) -> Result<usize, DecodeError> {
        (self.start, self.received, self.crc) = (self.at, 0, 0);
        self.kept.clear();
        self.part = Part::Record;
        let Some(total) = word(bytes, 0) else { return self.more(bytes, each) };
        self.check_length(total)?;
        let Some(record) = bytes.get(..total as usize) else { return self.more(bytes, each) };
        self.crc = crc32c::crc32c(record.get(RECORD_HEADER..).unwrap_or_default());
        let taken = record.len();
        self.finish(record, total, Lsn(self.at.0.saturating_add(taken as u64)), each)?;
        Ok(taken)
    }

    /// Takes more of a record that lies on several pages, or that came in pieces.
    fn more(
        &mut self,
        bytes: &[u8],
        each: &mut impl FnMut(&Record<'_>),
    ) -> Result<usize, DecodeError> {
        // The length comes first. It lies on one page, for both are aligned.
        let total = if self.received < 4 { 4 } else { self.total() };
        let taken = bytes.len().min(total.saturating_sub(self.received) as usize);
        let piece = bytes.get(..taken).unwrap_or_default();
        let header = RECORD_HEADER.saturating_sub(self.received as usize);
        self.crc = crc32c::crc32c_append(self.crc, piece.get(header..).unwrap_or_default());
        let room = KEPT.saturating_sub(self.kept.len());
        self.kept.extend_from_slice(piece.get(..taken.min(room)).unwrap_or_default());
        self.received = self.received.saturating_add(u32::try_from(taken).unwrap_or(u32::MAX));
        if self.received == 4 {
            self.check_length(self.total())?;
        } else if self.received == total {
            let record = std::mem::take(&mut self.kept);
            let end = Lsn(self.at.0.saturating_add(taken as u64));
            self.finish(&record, total, end, each)?;
            // The room is used again; that of a giant is given back.
            self.kept = record;
            self.kept.clear();
            self.kept.shrink_to(1 << 20);
        }
        Ok(taken)
    }

    /// The length of the record that is being read.
    fn total(&self) -> u32 {
        word(&self.kept, 0).unwrap_or_default()
    }

    fn check_length(&self, total: u32) -> Result<(), DecodeError> {
        let fault = match total {
            0 => Fault::Unwritten,
            _ if total > LONGEST_RECORD || (total as usize) < RECORD_HEADER => Fault::Length(total),
            _ => return Ok(()),
        };
        Err(self.at_record(fault))
    }

    /// Gives out a record whose last byte lies before `end`.
    fn finish(
        &mut self,
        kept: &[u8],
        total: u32,
        end: Lsn,
        each: &mut impl FnMut(&Record<'_>),
    ) -> Result<(), DecodeError> {
        let link = Lsn(long(kept, 8).unwrap_or_default());
        if self.previous.is_some_and(|previous| previous != link) {
            return Err(self.at_record(Fault::Link(link)));
        }
        if record_crc(kept, self.crc) != word(kept, 20) {
            return Err(self.at_record(Fault::Checksum));
        }
        let end = Lsn(end.0.next_multiple_of(ALIGNMENT));
        let release = self.source.release;
        let record = Record::parse(kept, total, self.start..end, release, &mut self.blocks);
        let Some(mut record) = record else { return Err(self.at_record(Fault::Layout)) };
        if let Some(timeline) = record.fact.as_ref().and_then(Fact::timeline) {
            if timeline > self.source.timeline {
                return Err(self.at_record(Fault::Timeline(timeline)));
            }
            self.timeline = Some(timeline);
        }
        self.previous = Some(self.start);
        self.part = Part::Between;
        if record.is_switch() {
            self.part = Part::Switched;
            record.end = Lsn(end.0.next_multiple_of(self.source.segment_size.bytes()));
        }
        self.decoded = record.end;
        each(&record);
        Ok(())
    }

    fn at_record(&self, fault: Fault) -> DecodeError {
        DecodeError { at: self.start, fault }
    }
}

/// How many of `bytes`, which lie at `at`, lie before the next multiple of `size`.
fn until(at: Lsn, size: u64, bytes: &[u8]) -> usize {
    let left = size - at.0 % size;
    bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX))
}
