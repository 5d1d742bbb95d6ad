//! Headers of WAL pages, checked while the bytes pass and before they are acknowledged.
//!
//! Records are checked on the other thread, when they are shipped: a commit does not wait for that.

use lifeboat_cluster::Release;
use lifeboat_cluster::wal::PageHeader;
use lifeboat_model::{Lsn, SegmentSize, SystemIdentifier, Timeline};
use lifeboat_telemetry::{Code, Failure, Outcome};

/// Bytes of a header on a segment's first page, and on any other.
const LONG: usize = 40;
const SHORT: usize = 24;

/// Checks one stretch of WAL, which begins at the start of a segment.
pub(crate) struct Pages {
    system: SystemIdentifier,
    size: SegmentSize,
    timeline: Timeline,
    at: Lsn,
    /// What the first page says: magic number and bytes in a page.
    first: Option<(u16, u64)>,
    /// A header that has not come whole yet.
    header: Vec<u8>,
    /// The server has switched to the next segment: zeros follow up to there.
    padding: bool,
}

impl Pages {
    pub(crate) fn new(
        system: SystemIdentifier,
        size: SegmentSize,
        timeline: Timeline,
        start: Lsn,
    ) -> Self {
        let (first, header, padding) = (None, Vec::with_capacity(LONG), false);
        Self { system, size, timeline, at: start, first, header, padding }
    }

    /// Takes the next bytes, split in any way.
    pub(crate) fn push(&mut self, mut bytes: &[u8]) -> Outcome<()> {
        while !bytes.is_empty() {
            let taken = self.step(bytes)?;
            bytes = bytes.get(taken..).unwrap_or_default();
            self.at = Lsn(self.at.0.saturating_add(taken as u64));
        }
        Ok(())
    }

    fn step(&mut self, bytes: &[u8]) -> Outcome<usize> {
        if self.padding {
            return self.pad(bytes);
        }
        let page = self.first.map_or_else(|| self.size.bytes(), |(_, block)| block);
        let within = self.at.0 % page;
        if within == 0 || !self.header.is_empty() {
            let start = Lsn(self.at.0.saturating_sub(self.header.len() as u64));
            let needed = if self.size.offset_of(start) == 0 { LONG } else { SHORT };
            let taken = bytes.len().min(needed.saturating_sub(self.header.len()));
            self.header.extend(bytes.iter().take(taken));
            if self.header.len() == needed {
                self.padding = needed == SHORT && self.header.iter().all(|byte| *byte == 0);
                if !self.padding {
                    self.check(start)?;
                }
                self.header.clear();
            }
            return Ok(taken);
        }
        Ok(bytes.len().min(usize::try_from(page - within).unwrap_or(usize::MAX)))
    }

    /// A page without a header is padding behind a switch, and all that follows is.
    fn pad(&mut self, bytes: &[u8]) -> Outcome<usize> {
        let left = self.size.bytes() - self.size.offset_of(self.at);
        let taken = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if bytes.iter().take(taken).any(|byte| *byte != 0) {
            return Err(wrong(self.at, "it follows a page without a header"));
        }
        self.padding = (taken as u64) < left;
        Ok(taken)
    }

    fn check(&mut self, start: Lsn) -> Outcome<()> {
        let header =
            PageHeader::parse(&self.header).ok_or_else(|| wrong(start, "it is cut off"))?;
        let begins_segment = self.size.offset_of(start) == 0;
        if header.address != start {
            return Err(wrong(start, &format!("it says that it is {}", header.address)));
        }
        if header.timeline > self.timeline {
            return Err(wrong(start, &format!("it is of timeline {}", header.timeline)));
        }
        if header.long.is_some() != begins_segment {
            return Err(wrong(start, "its header is not that of its place"));
        }
        if let Some(long) = header.long {
            if long.system != self.system {
                let message = format!("the page at {start} is of cluster {}", long.system);
                return Err(Failure::new(Code::ClusterMismatch, message)
                    .hint("Nothing of it was acknowledged. Find out which server answers there."));
            }
            let block = u64::from(long.block_size);
            let possible = block.is_power_of_two() && (1 << 10..=1 << 16).contains(&block);
            if u64::from(long.segment_size) != self.size.bytes() || !possible {
                return Err(wrong(start, "it names other sizes of segment or page"));
            }
            if Release::of_wal_magic(header.magic).is_none() {
                return Err(wrong(start, &format!("its magic number is {:04X}", header.magic)));
            }
            self.first.get_or_insert((header.magic, block));
        }
        match self.first {
            Some((magic, _)) if magic == header.magic => Ok(()),
            _ => Err(wrong(start, &format!("its magic number is {:04X}", header.magic))),
        }
    }
}

fn wrong(start: Lsn, why: &str) -> Failure {
    let message = format!("the server sent a WAL page for {start} that is none: {why}");
    Failure::new(Code::WalInvalid, message).hint(
        "Nothing of it was acknowledged. The server's disk or memory, or what lies between, \
         damages data: check the server's log and `pg_waldump` there.",
    )
}
