//! The search for a loss: archived WAL is read segment by segment and decoded.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use jiff::Timestamp;
use lifeboat_cluster::wal::{DecodeError, Decoder, Fault, Source, identify_segment};
use lifeboat_environment::Environment;
use lifeboat_model::{Lsn, SegmentName, Timeline};
use lifeboat_telemetry::{Cancel, Code, Failure, Outcome, Reporter};

use crate::changes::{Loss, LossScan};
use crate::fetch::{FetchRequest, Fetched, fetch};
use crate::plan::RecoveryPlan;
use crate::status::Inventory;

/// More than a person reads.
const MAX_LOSSES: usize = 10_000;
/// So much of a segment is decoded at a time.
const PIECE: usize = 1 << 20;
const STEP: &str = "reading WAL";

/// What is searched.
pub struct SearchRequest<'a> {
    /// Time, chance, failpoints.
    pub environment: &'a Environment,
    /// Set when somebody wants the search to end.
    pub cancel: &'a Cancel,
    /// Hears how far it is.
    pub reporter: &'a Reporter,
    /// Where WAL comes from.
    pub plan: &'a RecoveryPlan,
    /// What there is.
    pub inventory: &'a Inventory<'a>,
    /// The timeline whose history is searched, up to its end.
    pub timeline: Timeline,
    /// Nothing earlier is wanted.
    pub since: Option<Timestamp>,
    /// Nothing later is wanted.
    pub until: Option<Timestamp>,
    /// A `DELETE` of fewer rows is not told.
    pub fewest_rows: u64,
    /// A directory of this search alone, for one segment at a time.
    pub folder: &'a Path,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Searched {
    /// The losses, in order.
    pub losses: Vec<Loss>,
    /// How many there were besides.
    pub more: u64,
    /// Where the search began, and where it ended; `None` if there was nothing to read.
    pub span: Option<(Lsn, Lsn)>,
    /// WAL in between that could not be read, and why.
    pub unread: Vec<String>,
}

/// Searches for losses that are `wanted`.
pub fn search(request: &SearchRequest<'_>, wanted: impl Fn(&Loss) -> bool) -> Outcome<Searched> {
    let mut search = Search {
        request,
        wanted,
        scan: LossScan::new(request.fewest_rows),
        decoder: None,
        found: Searched::default(),
    };
    let names = search.names()?;
    let size = request.plan.segment_size()?;
    request.reporter.start(STEP, size.bytes().saturating_mul(names.len() as u64));
    for name in names {
        request.cancel.check()?;
        search.read(name)?;
        request.reporter.advance(size.bytes());
        if request.until.is_some_and(|until| search.scan.time() > until) {
            break;
        }
    }
    request.reporter.finish(STEP);
    Ok(search.found)
}

struct Search<'a, W> {
    request: &'a SearchRequest<'a>,
    wanted: W,
    scan: LossScan,
    /// Goes on from segment to segment while nothing is missing.
    decoder: Option<Decoder>,
    found: Searched,
}

impl<W: Fn(&Loss) -> bool> Search<'_, W> {
    /// The segments to read, oldest first.
    fn names(&self) -> Outcome<Vec<SegmentName>> {
        let SearchRequest { inventory, timeline, since, .. } = *self.request;
        let size = self.request.plan.segment_size()?;
        let start = match since {
            None => Lsn::ZERO,
            Some(since) => match inventory.locate(timeline, since)? {
                Some(located) => located.start,
                None => return Ok(Vec::new()),
            },
        };
        let pieces = inventory.lineage(timeline).into_iter().map(|piece| piece.span(size));
        let wanted = pieces.filter(|(_, _, end)| *end > start);
        let mut names: Vec<_> = wanted
            .map(|(timeline, start, _)| SegmentName::from_lsn(timeline, start, size))
            .collect();
        names.dedup();
        Ok(names)
    }

    /// Fetches a segment and decodes it. What cannot be read is noted and passed over.
    fn read(&mut self, name: SegmentName) -> Outcome<()> {
        let SearchRequest { environment, cancel, reporter, plan, folder, .. } = *self.request;
        let path = folder.join("segment");
        let fetched = fetch(&FetchRequest {
            environment,
            cancel,
            reporter,
            plan,
            file: &name.to_string(),
            destination: &path,
            working_directory: folder,
            deadline: plan.fetch_deadline(),
        });
        let trouble = match fetched {
            Ok(Fetched::Done { .. }) => match self.decode(name, &path) {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            },
            Ok(Fetched::Absent { reason }) => Failure::new(Code::WalAbsent, reason),
            Err(failure) => failure,
        };
        if trouble.code() == Code::Interrupted {
            return Err(trouble);
        }
        self.decoder = None;
        self.found.unread.push(format!("{name}: {}", trouble.full_message()));
        Ok(())
    }

    fn decode(&mut self, name: SegmentName, path: &Path) -> Outcome<()> {
        let unreadable = |error: std::io::Error| {
            Failure::new(Code::LocalFile, format!("cannot read {}", path.display())).because(error)
        };
        let mut file = File::open(path).map_err(unreadable)?;
        let mut piece = Vec::with_capacity(PIECE);
        let (mut decoder, mut first) = (self.decoder.take(), true);
        loop {
            piece.clear();
            file.by_ref().take(PIECE as u64).read_to_end(&mut piece).map_err(unreadable)?;
            if piece.is_empty() {
                break;
            }
            if std::mem::take(&mut first) {
                decoder = Some(self.decoder_for(name, &piece, decoder)?);
            }
            let Some(decoder) = &mut decoder else { break };
            if let Err(error) = self.push(decoder, &piece) {
                // Where nothing was written yet, the archive ends.
                let end = error.fault == Fault::Unwritten;
                let message = format!("{name} cannot be decoded");
                let failure = || Failure::new(Code::WalInvalid, message).because(error);
                return if end { Ok(()) } else { Err(failure()) };
            }
        }
        self.decoder = decoder;
        Ok(())
    }

    /// The decoder that came here, or a new one where WAL is missing before.
    fn decoder_for(
        &mut self,
        name: SegmentName,
        content: &[u8],
        former: Option<Decoder>,
    ) -> Outcome<Decoder> {
        let identity = identify_segment(content, name).map_err(|error| error.at(name))?;
        let (from, _) = *self.found.span.get_or_insert((identity.start, identity.start));
        self.found.span = Some((from, identity.end()));
        let follows = former.filter(|decoder| decoder.position() == identity.start);
        let source = Source::of(&identity, self.request.timeline);
        Ok(follows.unwrap_or_else(|| Decoder::new(source, identity.start)))
    }

    fn push(&mut self, decoder: &mut Decoder, piece: &[u8]) -> Result<(), DecodeError> {
        let Self { request, wanted, scan, found, .. } = self;
        decoder.push(piece, |record| {
            scan.note(record, |loss| {
                let early = request.since.is_some_and(|since| loss.time < since);
                let late = request.until.is_some_and(|until| loss.time > until);
                if early || late || !wanted(&loss) {
                    return;
                }
                if found.losses.len() < MAX_LOSSES {
                    found.losses.push(loss);
                } else {
                    found.more += 1;
                }
            });
        })
    }
}
