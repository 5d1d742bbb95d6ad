//! The files of a backup: the list, the copy, and pg_control last of all.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU32;

use lifeboat_cluster::files::{Entry, Kind, Listing};
use lifeboat_cluster::{ControlFile, control};
use lifeboat_model::Lsn;
use lifeboat_repository::ids::Digest;
use lifeboat_repository::regions::Regions;
use lifeboat_telemetry::{Code, Failure, Outcome};

use crate::commit::CopiedFiles;
use crate::copy::{Copied, CopiedPiece, CopyJob, PieceContent, copy as copy_units};
use crate::frames::{FrameWriter, PackSink};
use crate::run::{BackupContext, BackupRequest};
use crate::schedule::{Piece, units};
use crate::throttle::Throttle;
use crate::upload::{Stored, storing};

/// Everything that is stored: files of the data directory, then those outside.
pub struct Files {
    entries: Vec<Entry>,
    paths: Vec<PathBuf>,
    inside: usize,
    control: usize,
}

/// What the workers did, and the control file that was read after them.
pub struct Contents {
    /// Pages of every file.
    pub pieces: Vec<CopiedPiece>,
    /// The control file.
    pub control: CopiedPiece,
    /// Pages that are damaged in the source.
    pub damaged: Vec<lifeboat_repository::manifest::DamagedPage>,
}

impl Files {
    /// Puts both lists together.
    pub fn new(data_directory: &Path, listing: &Listing, outside: Vec<Entry>) -> Self {
        let mut entries = listing.entries.clone();
        let inside = entries.len();
        entries.extend(outside);
        // An absolute path replaces the directory that it is joined to.
        let paths = entries.iter().map(|entry| data_directory.join(&entry.path)).collect();
        let control =
            entries.iter().position(|entry| entry.kind == Kind::Control).unwrap_or(inside);
        Self { entries, paths, inside, control }
    }

    /// For the commit.
    pub fn copied<'a>(
        &'a self,
        contents: Contents,
        packs: &'a BTreeMap<u32, Digest>,
        page_bytes: u32,
    ) -> CopiedFiles<'a> {
        CopiedFiles {
            entries: &self.entries,
            inside: self.inside,
            page_bytes,
            pieces: contents.pieces,
            packs,
            control: (self.control, vec![contents.control]),
        }
    }
}

/// Copies every file into packs that are stored in all regions.
pub fn copy(
    request: &BackupRequest,
    context: &BackupContext<'_>,
    regions: &mut Regions,
    files: &Files,
    control: &ControlFile,
    start: Lsn,
) -> Outcome<(Contents, Stored)> {
    let throttle = Throttle::new(request.rate_limit);
    let job = CopyJob {
        environment: context.environment,
        keys: &context.stream.keys,
        paths: &files.paths,
        entries: &files.entries,
        page_bytes: control.block_size,
        segment_blocks: control.segment_blocks,
        data_checksums: control.data_checksums,
        start,
        level: request.level,
        workers: request.workers,
        throttle: &throttle,
        reporter: context.reporter,
        cancel: context.cancel,
    };
    let units = units(&files.entries, control.block_size);
    let total = units.iter().flat_map(|unit| &unit.pieces).map(|piece| piece.bytes).sum();
    context.reporter.start("copying files", total);
    let stream = context.stream.keys.stream();
    let numbers = AtomicU32::new(0);
    let produce = |sink: &crate::upload::Upload| {
        let Copied { pieces, damaged } = copy_units(&job, &units, sink, &numbers)?;
        let control = copy_control(&job, files, &request.data_directory, sink, &numbers)?;
        Ok(Contents { pieces, control, damaged })
    };
    let copied = storing(context.environment, context.blocking, regions, stream, produce)?;
    context.reporter.finish("copying files");
    Ok(copied)
}

/// The control file is read last and read again until its checksum holds: on a standby its
/// minimum recovery point says from where on the backup is consistent.
fn copy_control(
    job: &CopyJob<'_>,
    files: &Files,
    data_directory: &Path,
    sink: &impl PackSink,
    numbers: &AtomicU32,
) -> Outcome<CopiedPiece> {
    let (_, bytes) = control::read_bytes(data_directory, job.environment)?;
    let listed = files.entries.get(files.control).map_or(0, |entry| entry.size);
    if bytes.len() as u64 != listed {
        let message = format!("pg_control has {} bytes, was listed with {listed}", bytes.len());
        return Err(Failure::new(Code::BackupAborted, message));
    }
    let level = job.level;
    let mut writer =
        FrameWriter::new(job.environment, job.keys, sink, numbers, job.page_bytes, level)?;
    writer.set_boot(true);
    let mut runs = Vec::new();
    writer.add(&bytes, &mut runs)?;
    writer.finish()?;
    let piece = Piece { file: files.control, leaf: 0, offset: 0, bytes: listed };
    let content = PieceContent { runs, crc32c: crc32c::crc32c(&bytes) };
    Ok(CopiedPiece { piece, content: Some(content) })
}
