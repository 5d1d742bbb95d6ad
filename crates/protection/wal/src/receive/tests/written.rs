//! WAL that no server wrote, and that decodes: records of chosen lengths, commits among them.

use lifeboat_model::{Lsn, SegmentSize, Timeline};

use crate::tests::world::SYSTEM;

pub const PAGE: u64 = 8192;
pub const SEGMENT: u64 = 1 << 20;
/// Version 15.
const MAGIC: u16 = 0xD110;
const RECORD: usize = 24;

pub fn size() -> SegmentSize {
    SegmentSize::new(SEGMENT).unwrap()
}

/// A timeline as its server has it.
#[derive(Debug, Clone)]
pub struct Wal {
    pub timeline: Timeline,
    pub start: Lsn,
    pub bytes: Vec<u8>,
    /// Where each record ends.
    pub ends: Vec<Lsn>,
    previous: u64,
    seed: u64,
}

impl Wal {
    /// An empty timeline from the start of a segment on.
    pub fn new(timeline: u32, start: u64, seed: u64) -> Self {
        assert!(start.is_multiple_of(SEGMENT));
        let (bytes, ends) = (Vec::new(), Vec::new());
        Self { timeline: Timeline(timeline), start: Lsn(start), bytes, ends, previous: 0, seed }
    }

    /// Another timeline that branches off at the end of a record.
    pub fn branch(&self, timeline: u32, at: Lsn, seed: u64) -> Self {
        let begin = Lsn(at.0 - at.0 % SEGMENT);
        let mut branch = self.clone();
        branch.bytes.truncate((at.0 - self.start.0) as usize);
        branch.bytes.drain(..(begin.0 - self.start.0) as usize);
        branch.ends.retain(|end| *end <= at);
        // Where the last record starts, which the next one links to.
        branch.previous = self.starts_before(at);
        (branch.timeline, branch.start, branch.seed) = (Timeline(timeline), begin, seed);
        branch
    }

    fn starts_before(&self, at: Lsn) -> u64 {
        let place = self.ends.iter().position(|end| *end == at).unwrap();
        let start = if place == 0 { self.start } else { self.ends[place - 1] };
        // The record begins behind the header of a page that begins there.
        start.0 + header_at(start.0)
    }

    pub fn end(&self) -> Lsn {
        Lsn(self.start.0 + self.bytes.len() as u64)
    }

    /// The end of the last record at or before `at`.
    pub fn whole(&self, at: Lsn) -> Lsn {
        self.ends.iter().copied().filter(|end| *end <= at).max().unwrap_or(self.start)
    }

    pub fn slice(&self, from: Lsn, to: Lsn) -> &[u8] {
        &self.bytes[(from.0 - self.start.0) as usize..(to.0 - self.start.0) as usize]
    }

    fn random(&mut self) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed
    }

    /// Writes records until there are so many bytes.
    pub fn grow(&mut self, bytes: u64) -> &mut Self {
        let end = self.bytes.len() as u64 + bytes;
        while (self.bytes.len() as u64) < end {
            match self.random() % 8 {
                0 => self.commit(),
                1 => self.record(0, 0x20, 9000 + self.seed as usize % 30_000),
                _ => self.record(0, 0x20, self.seed as usize % 700),
            }
        }
        self
    }

    /// A commit with a time that grows with the position.
    pub fn commit(&mut self) {
        let time = self.bytes.len() as u64;
        self.put(1, 0x00, &time.to_le_bytes());
    }

    fn record(&mut self, resource: u8, info: u8, length: usize) {
        let fill = self.random() as u8;
        self.put(resource, info, &vec![fill; length]);
    }

    /// Closes the segment, as `pg_switch_wal` does.
    pub fn switch(&mut self) {
        self.put(0, 0x40, &[]);
        let end = (self.bytes.len() as u64).next_multiple_of(SEGMENT);
        self.bytes.resize(end as usize, 0);
        *self.ends.last_mut().unwrap() = self.end();
    }

    fn put(&mut self, resource: u8, info: u8, data: &[u8]) {
        let mut record = vec![0; RECORD];
        match data.len() {
            0 => {}
            length @ 1..=255 => record.extend([255, length as u8]),
            length => {
                record.push(254);
                record.extend((length as u32).to_le_bytes());
            }
        }
        record.extend(data);
        let total = record.len() as u32;
        record[0..4].copy_from_slice(&total.to_le_bytes());
        record[4..8].copy_from_slice(&7_u32.to_le_bytes());
        record[8..16].copy_from_slice(&self.previous.to_le_bytes());
        record[16] = info;
        record[17] = resource;
        let crc = crc32c::crc32c(&record[RECORD..]);
        let crc = crc32c::crc32c_append(crc, &record[..20]);
        record[20..24].copy_from_slice(&crc.to_le_bytes());
        self.header(0);
        self.previous = self.end().0;
        let mut rest = &record[..];
        while !rest.is_empty() {
            let left = PAGE - self.end().0 % PAGE;
            let (now, later) = rest.split_at(rest.len().min(left as usize));
            self.bytes.extend(now);
            rest = later;
            if !rest.is_empty() {
                self.header(rest.len() as u32);
            }
        }
        while !self.end().0.is_multiple_of(8) {
            self.bytes.push(0);
        }
        self.ends.push(self.end());
    }

    /// The header of a page, if one begins here.
    fn header(&mut self, remaining: u32) {
        let at = self.end().0;
        if header_at(at) == 0 {
            return;
        }
        let long = at.is_multiple_of(SEGMENT);
        let flags = u16::from(remaining > 0) | if long { 2 } else { 0 };
        self.bytes.extend(MAGIC.to_le_bytes());
        self.bytes.extend(flags.to_le_bytes());
        self.bytes.extend(self.timeline.0.to_le_bytes());
        self.bytes.extend(at.to_le_bytes());
        self.bytes.extend(remaining.to_le_bytes());
        self.bytes.extend([0; 4]);
        if long {
            self.bytes.extend(SYSTEM.to_le_bytes());
            self.bytes.extend((SEGMENT as u32).to_le_bytes());
            self.bytes.extend((PAGE as u32).to_le_bytes());
        }
    }
}

fn header_at(at: u64) -> u64 {
    match at {
        at if at.is_multiple_of(SEGMENT) => 40,
        at if at.is_multiple_of(PAGE) => 24,
        _ => 0,
    }
}
