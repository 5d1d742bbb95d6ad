//! What the records of a fragment say: whole ones, commit times, restore points.

use lifeboat_cluster::wal::{Decoder, Fact, Fault, Record, Source, identify_segment};
use lifeboat_model::{Lsn, SegmentName, SegmentSize, SystemIdentifier, Timeline};
use lifeboat_repository::wal_file::{RestorePoint, WalFacts};
use lifeboat_telemetry::{Code, Failure, Outcome};

use super::folder::Folder;

const PIECE: u64 = 1 << 20;
/// Enough to know a segment by.
const FIRST: usize = 40;

/// Where a fragment may end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whole {
    /// Here a record ends.
    UpTo(Lsn),
    /// Nowhere: one record has begun and not ended.
    Nothing,
    /// Only the padding behind a switch follows: the whole segment will soon be there.
    Padding,
}

/// Decodes what is about to be shipped, once.
pub(crate) struct Facts<'a> {
    folder: &'a Folder,
    system: SystemIdentifier,
    decoding: Option<Decoding>,
}

struct Decoding {
    timeline: Timeline,
    decoder: Decoder,
    /// Of all records from what was shipped last to what was decoded.
    facts: WalFacts,
    /// Where the last whole record ends, as far as it was looked.
    whole: Lsn,
}

impl<'a> Facts<'a> {
    pub(crate) fn new(folder: &'a Folder, system: SystemIdentifier) -> Self {
        Self { folder, system, decoding: None }
    }

    /// Decodes up to `end`. Says where the last whole record behind `start` ends.
    pub(crate) fn whole_records(
        &mut self,
        timeline: Timeline,
        size: SegmentSize,
        start: Lsn,
        end: Lsn,
    ) -> Outcome<Whole> {
        let segment = SegmentName::from_lsn(timeline, start, size);
        let begin = segment.start(size).unwrap_or(start);
        if end.distance_from(begin) < FIRST as u64 {
            return Ok(Whole::Nothing);
        }
        let goes_on = |decoding: &Decoding| {
            let at = decoding.decoder.position();
            decoding.timeline == timeline && (begin..=end).contains(&at)
        };
        let decoding = match &mut self.decoding {
            Some(decoding) if goes_on(decoding) => decoding,
            decoding => decoding.insert(begin_at(self.folder, self.system, segment, begin)?),
        };
        let mut buffer = Vec::new();
        while decoding.decoder.position() < end {
            let at = decoding.decoder.position();
            let length = end.distance_from(at).min(PIECE);
            buffer.resize(usize::try_from(length).unwrap_or_default(), 0);
            self.folder.read(timeline, size, at, &mut buffer)?;
            let Decoding { decoder, facts, whole, .. } = decoding;
            let pushed = decoder.push(&buffer, |record| {
                if record.end > start {
                    note(facts, record);
                }
                *whole = record.end;
            });
            match pushed {
                // The server knows a layout that this version does not: the bytes still count.
                Err(error) if error.fault == Fault::Layout => {
                    self.decoding = None;
                    return Ok(Whole::UpTo(end));
                }
                Err(error) => return Err(not_wal(error)),
                Ok(()) => {}
            }
        }
        Ok(match decoding.whole {
            whole if whole > end => Whole::Padding,
            whole if whole > start => Whole::UpTo(whole),
            _ => Whole::Nothing,
        })
    }

    /// The facts of what ends at `end`.
    pub(crate) fn of(&self, end: Lsn) -> WalFacts {
        let decoding = self.decoding.as_ref().filter(|decoding| decoding.whole <= end);
        decoding.map(|decoding| decoding.facts.clone()).unwrap_or_default()
    }

    /// What ends at `end` is shipped.
    pub(crate) fn forget(&mut self, end: Lsn) {
        if let Some(decoding) = self.decoding.as_mut().filter(|decoding| decoding.whole <= end) {
            decoding.facts = WalFacts::default();
        }
    }
}

fn begin_at(
    folder: &Folder,
    system: SystemIdentifier,
    segment: SegmentName,
    begin: Lsn,
) -> Outcome<Decoding> {
    let decoder = Decoder::new(source(folder, system, segment)?, begin);
    let (timeline, facts) = (segment.timeline(), WalFacts::default());
    Ok(Decoding { timeline, decoder, facts, whole: begin })
}

/// What the first page of a segment in the spool says of who wrote it.
pub(crate) fn source(
    folder: &Folder,
    system: SystemIdentifier,
    segment: SegmentName,
) -> Outcome<Source> {
    let mut first = [0; FIRST];
    // Only the name matters for the place: a size is not known before the page was read.
    let path = folder.segment(segment);
    let read = std::fs::File::open(&path)
        .and_then(|file| std::os::unix::fs::FileExt::read_exact_at(&file, &mut first, 0));
    read.map_err(|error| super::folder::failed("cannot read", &path, error))?;
    let identity = identify_segment(&first, segment).map_err(|error| error.at(segment))?;
    if identity.system != system {
        let message = format!("{segment} is of cluster {}", identity.system);
        return Err(Failure::new(Code::ClusterMismatch, message));
    }
    Ok(Source::of(&identity, segment.timeline()))
}

fn note(facts: &mut WalFacts, record: &Record<'_>) {
    facts.last_record = Some(record.lsn);
    match &record.fact {
        Some(Fact::End(ended)) if ended.committed => {
            let time = ended.time.as_microsecond();
            facts.first_commit_us = Some(facts.first_commit_us.map_or(time, |it| it.min(time)));
            facts.last_commit_us = facts.last_commit_us.max(Some(time));
        }
        Some(Fact::RestorePoint { time, name }) => facts.restore_points.push(RestorePoint {
            lsn: record.end,
            time_us: time.as_microsecond(),
            name: name.clone(),
        }),
        _ => {}
    }
}

fn not_wal(error: lifeboat_cluster::wal::DecodeError) -> Failure {
    Failure::new(Code::WalInvalid, "the server sent WAL that does not hold").because(error).hint(
        "Acknowledging stopped. Run `pg_waldump` on the server's own segment: if that fails \
             too, its disk or memory is damaged; take a backup of a standby.",
    )
}
