//! Change map and time index from WAL as it passes.

use lifeboat_cluster::wal::{DecodeError, Decoder, Source};
use lifeboat_model::{Lsn, Timeline};

use super::map::ChangeMap;
use super::times::TimeIndex;

/// Collects from contiguous WAL, split in any way.
#[derive(Debug)]
pub struct Collector {
    decoder: Decoder,
    map: ChangeMap,
    times: TimeIndex,
    timeline: Timeline,
}

impl Collector {
    /// Collects what starts at `from` or later. The bytes come from `start` on, the start of a
    /// segment, page or record; a receiver that begins again at the start of a segment passes over
    /// what it collected before.
    pub fn new(source: Source, start: Lsn, from: Lsn) -> Self {
        let timeline = source.timeline;
        Self {
            decoder: Decoder::new(source, start),
            map: ChangeMap::starting(from, timeline),
            times: TimeIndex::starting(from, timeline),
            timeline,
        }
    }

    /// Takes the next bytes. After an error nothing more can be collected; what was, holds.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        let Self { decoder, map, times, .. } = self;
        decoder.push(bytes, |record| {
            map.note(record);
            times.note(record);
        })
    }

    /// Where the next span will start.
    pub fn collected(&self) -> Lsn {
        self.decoder.decoded().max(self.map.span().from)
    }

    /// Ends the span with the last whole record and begins the next one. Adjacent spans of one
    /// collector merge.
    pub fn cut(&mut self) -> (ChangeMap, TimeIndex) {
        let (to, timeline) = (self.collected(), self.decoder.timeline().unwrap_or(self.timeline));
        let next = (ChangeMap::starting(to, timeline), self.times.next(to, timeline));
        let mut map = std::mem::replace(&mut self.map, next.0);
        let mut times = std::mem::replace(&mut self.times, next.1);
        map.finish(to, timeline);
        times.finish(to, timeline);
        (map, times)
    }
}
