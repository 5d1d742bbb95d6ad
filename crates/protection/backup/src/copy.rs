//! The workers: each takes units until none are left, reads, checks, packs.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::thread;

use lifeboat_cluster::files::Entry;
use lifeboat_environment::Environment;
use lifeboat_model::Lsn;
use lifeboat_repository::keys::StreamKeys;
use lifeboat_repository::manifest::DamagedPage;
use lifeboat_repository::pack::FRAME_BYTES;
use lifeboat_telemetry::{Cancel, Code, Failure, Outcome, Reporter};

use crate::frames::{FrameWriter, LocalRun, PackSink};
use crate::read::{self, PageRules};
use crate::schedule::{Piece, Unit};
use crate::throttle::Throttle;

/// What the workers need to know.
pub struct CopyJob<'a> {
    /// Time, chance, failpoints.
    pub environment: &'a Environment,
    /// Keys of the stream.
    pub keys: &'a StreamKeys,
    /// Absolute path of each file.
    pub paths: &'a [PathBuf],
    /// The list.
    pub entries: &'a [Entry],
    /// Block size of the cluster.
    pub page_bytes: u32,
    /// Pages in a full segment of a relation.
    pub segment_blocks: u32,
    /// Whether pages carry checksums.
    pub data_checksums: bool,
    /// Where the backup began.
    pub start: Lsn,
    /// zstd level.
    pub level: i32,
    /// Number of workers.
    pub workers: usize,
    /// The rate limit.
    pub throttle: &'a Throttle,
    /// Who listens.
    pub reporter: &'a Reporter,
    /// Who may stop it.
    pub cancel: &'a Cancel,
}

/// What became of a piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopiedPiece {
    /// The piece.
    pub piece: Piece,
    /// Where its pages are; `None` if the file vanished.
    pub content: Option<PieceContent>,
}

/// The pages of a piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PieceContent {
    /// Where they are.
    pub runs: Vec<LocalRun>,
    /// CRC-32C over the piece.
    pub crc32c: u32,
}

/// What all workers did.
#[derive(Debug, Default)]
pub struct Copied {
    /// Every piece, in no order.
    pub pieces: Vec<CopiedPiece>,
    /// Pages that are damaged in the source.
    pub damaged: Vec<DamagedPage>,
}

/// Copies all units; packs go to `sink`.
pub fn copy(
    job: &CopyJob<'_>,
    units: &[Unit],
    sink: &impl PackSink,
    numbers: &AtomicU32,
) -> Outcome<Copied> {
    let next = AtomicUsize::new(0);
    let failed = Cancel::new();
    let outcomes = thread::scope(|scope| {
        let workers: Vec<_> = (0..job.workers.max(1))
            .map(|_| {
                scope.spawn(|| {
                    let outcome = work(job, units, sink, &next, numbers, &failed);
                    if outcome.is_err() {
                        // The others need not read on for a backup that will not be.
                        failed.request();
                    }
                    outcome
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join()).collect::<Vec<_>>()
    });
    let mut all = Copied::default();
    for outcome in outcomes {
        let copied = outcome
            .map_err(|_| Failure::new(Code::Internal, "a worker of the backup panicked"))??;
        all.pieces.extend(copied.pieces);
        all.damaged.extend(copied.damaged);
    }
    Ok(all)
}

fn work(
    job: &CopyJob<'_>,
    units: &[Unit],
    sink: &impl PackSink,
    next: &AtomicUsize,
    numbers: &AtomicU32,
    failed: &Cancel,
) -> Outcome<Copied> {
    let mut writer =
        FrameWriter::new(job.environment, job.keys, sink, numbers, job.page_bytes, job.level)?;
    let mut copied = Copied::default();
    let mut buffer = vec![0; FRAME_BYTES];
    while let Some(unit) = units.get(next.fetch_add(1, Ordering::Relaxed)) {
        writer.set_boot(unit.boot);
        for piece in &unit.pieces {
            if failed.is_requested() {
                return Ok(copied);
            }
            job.cancel.check()?;
            job.environment.failpoints().hit("backup.piece")?;
            let content = copy_piece(job, piece, &mut writer, &mut buffer, &mut copied.damaged)?;
            copied.pieces.push(CopiedPiece { piece: *piece, content });
        }
        writer.end_unit()?;
    }
    writer.finish()?;
    Ok(copied)
}

fn copy_piece(
    job: &CopyJob<'_>,
    piece: &Piece,
    writer: &mut FrameWriter<'_, impl PackSink>,
    buffer: &mut [u8],
    damaged: &mut Vec<DamagedPage>,
) -> Outcome<Option<PieceContent>> {
    let path = &job.paths[piece.file];
    let Some(file) = read::open(path)? else {
        return Ok(None);
    };
    let rules = page_rules(job, &job.entries[piece.file]);
    let mut content = PieceContent { runs: Vec::new(), crc32c: 0 };
    let mut done = 0;
    while done < piece.bytes {
        job.cancel.check()?;
        let length = (buffer.len() as u64).min(piece.bytes - done) as usize;
        let chunk = &mut buffer[..length];
        job.throttle.wait(job.environment, length as u64);
        read::fill(&file, path, piece.offset + done, chunk)?;
        if let Some(rules) = rules {
            let offset = piece.offset + done;
            let source = (&file, path.as_path());
            note_damage(job, source, piece, rules, offset, chunk, damaged)?;
        }
        content.crc32c = crc32c::crc32c_append(content.crc32c, chunk);
        writer.add(chunk, &mut content.runs)?;
        done += length as u64;
        job.reporter.advance(length as u64);
    }
    Ok(Some(content))
}

fn page_rules(job: &CopyJob<'_>, entry: &Entry) -> Option<PageRules> {
    let relation = entry.relation().filter(|_| job.data_checksums)?;
    let first_block = relation.first_block(job.segment_blocks)?;
    Some(PageRules { first_block, start: job.start })
}

fn note_damage(
    job: &CopyJob<'_>,
    source: (&File, &Path),
    piece: &Piece,
    rules: PageRules,
    offset: u64,
    chunk: &mut [u8],
    damaged: &mut Vec<DamagedPage>,
) -> Outcome<()> {
    let page_bytes = job.page_bytes as usize;
    let blocks = read::check(job.environment, source, rules, offset, page_bytes, chunk)?;
    for block in blocks {
        let path = job.entries[piece.file].path.to_string_lossy().into_owned();
        job.reporter.warn(format!("page {block} of {path} fails its checksum in the source"));
        damaged.push(DamagedPage { path, block });
    }
    Ok(())
}
