//! `global/pg_control`: what the cluster is and how far it has come.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use lifeboat_environment::Environment;
use lifeboat_model::{Lsn, SegmentSize, SystemIdentifier, Timeline};
use lifeboat_telemetry::{Code, Failure, Outcome};
use thiserror::Error;

use crate::Release;
use crate::bytes::{long, word};

/// Where the file lies in a data directory.
pub const PATH: &str = "global/pg_control";
/// Its length; the part that means something is shorter than a disk sector.
pub const SIZE: usize = 8192;

/// A torn read heals as soon as the server's write ends, which is one sector.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(25);
/// What `floatFormat` must hold: it proves the byte order and format of doubles.
const FLOAT_FORMAT: f64 = 1_234_567.0;
const MAXIMUM_ALIGNMENT: u32 = 8;

/// The control file, version and checksum verified.
#[derive(Debug, Clone, PartialEq)]
pub struct ControlFile {
    /// The server version, known by the catalog version.
    pub release: &'static Release,
    /// What `initdb` gave the cluster.
    pub system: SystemIdentifier,
    /// What the server was doing when it wrote this.
    pub state: State,
    /// When it wrote this.
    pub written: Timestamp,
    /// Where the last checkpoint's record lies.
    pub checkpoint: Lsn,
    /// Where replay of the last checkpoint starts.
    pub redo: Lsn,
    /// Timeline of the last checkpoint.
    pub timeline: Timeline,
    /// The timeline before, if the checkpoint began a new one; else the same.
    pub previous_timeline: Timeline,
    /// Whether full page writes were on at the checkpoint.
    pub full_page_writes: bool,
    /// The next transaction, epoch in the upper half.
    pub next_transaction: u64,
    /// When the checkpoint began.
    pub checkpoint_time: Timestamp,
    /// How far recovery must come before the data is consistent; zero outside of recovery.
    pub minimum_recovery: Lsn,
    /// The timeline of that position; zero outside of recovery.
    pub minimum_recovery_timeline: Timeline,
    /// Redo position of the backup that is being recovered; zero otherwise.
    pub backup_start: Lsn,
    /// End of the backup from a standby that is being recovered; zero otherwise.
    pub backup_end: Lsn,
    /// Recovery must meet an end-of-backup record.
    pub backup_end_required: bool,
    /// `wal_level`.
    pub wal_level: WalLevel,
    /// `wal_log_hints`.
    pub wal_log_hints: bool,
    /// Settings that a standby and a restored cluster may not lower.
    pub limits: Limits,
    /// `track_commit_timestamp`.
    pub track_commit_timestamp: bool,
    /// Size of a data page.
    pub block_size: u32,
    /// Pages in a segment file of a relation.
    pub segment_blocks: u32,
    /// Size of a WAL page.
    pub wal_block_size: u32,
    /// Size of a WAL segment.
    pub wal_segment_size: SegmentSize,
    /// Whether data pages carry checksums.
    pub data_checksums: bool,
}

/// Settings that must be at least as high where this cluster's WAL is replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// `max_connections`.
    pub max_connections: u32,
    /// `max_worker_processes`.
    pub max_worker_processes: u32,
    /// `max_wal_senders`.
    pub max_wal_senders: u32,
    /// `max_prepared_transactions`.
    pub max_prepared_transactions: u32,
    /// `max_locks_per_transaction`.
    pub max_locks_per_transaction: u32,
}

/// What the server was doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Being initialised.
    StartingUp,
    /// Shut down cleanly.
    ShutDown,
    /// A standby that was shut down cleanly.
    ShutDownInRecovery,
    /// Shutting down.
    ShuttingDown,
    /// Recovering from a crash.
    CrashRecovery,
    /// Recovering from an archive, or a standby.
    ArchiveRecovery,
    /// A primary; also one that crashed.
    InProduction,
}

/// `wal_level`, from least to most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum WalLevel {
    /// Enough to survive a crash; not enough to archive.
    Minimal,
    /// Enough to archive and for standbys.
    Replica,
    /// Enough for logical decoding.
    Logical,
}

/// Why a control file is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ControlError {
    /// The file is too short.
    #[error("the file has {length} bytes, too few for a control file")]
    TooShort {
        /// Its length.
        length: usize,
    },
    /// Not a version that Lifeboat knows.
    #[error("control file version {control}, catalog version {catalog} are of no known PostgreSQL")]
    UnknownVersion {
        /// Version of the layout.
        control: u32,
        /// Version of the catalog.
        catalog: u32,
    },
    /// The bytes are not what the server wrote.
    #[error("checksum {stored:08x} is stored and {computed:08x} computed")]
    BadChecksum {
        /// What the file says.
        stored: u32,
        /// What its bytes give.
        computed: u32,
    },
    /// The checksum holds and a value makes no sense.
    #[error("{field} has the impossible value {value}")]
    Impossible {
        /// The field, by the name that `pg_controldata` uses.
        field: &'static str,
        /// What it holds.
        value: u64,
    },
}

impl ControlError {
    /// The failure that a person sees, about the file at `path`.
    pub fn at(self, path: &Path) -> Failure {
        let (code, hint) = match &self {
            Self::UnknownVersion { .. } => {
                (Code::ClusterUnsupported, "Lifeboat knows PostgreSQL 13 to 18.")
            }
            _ => (
                Code::ControlFileInvalid,
                "Check the disk and the server's log; restore the cluster if the server cannot \
                 start either.",
            ),
        };
        Failure::new(code, format!("cannot use {}", path.display())).because(self).hint(hint)
    }
}

/// Reads a data directory's control file, again if a write by the server tore the read.
pub fn read(data_directory: &Path, environment: &Environment) -> Outcome<ControlFile> {
    read_bytes(data_directory, environment).map(|(control, _)| control)
}

/// Like [`read`]; also gives the file's bytes, which are as consistent as the values.
pub fn read_bytes(
    data_directory: &Path,
    environment: &Environment,
) -> Outcome<(ControlFile, Vec<u8>)> {
    let path = data_directory.join(PATH);
    let mut attempt = 1;
    loop {
        let bytes = load(&path)?;
        match ControlFile::parse(&bytes) {
            Ok(control) => return Ok((control, bytes)),
            Err(error) if attempt == ATTEMPTS => return Err(error.at(&path)),
            // Any part may be torn, the version too: only a good checksum ends the attempts.
            Err(_) => environment.clock().sleep(PAUSE),
        }
        attempt += 1;
    }
}

fn load(path: &Path) -> Outcome<Vec<u8>> {
    let failure = |error| {
        Failure::new(Code::SourceFileUnreadable, format!("cannot read {}", path.display()))
            .because(error)
            .hint("Run as the user that owns the data directory, and check the path.")
    };
    let file = std::fs::File::open(path).map_err(failure)?;
    let mut bytes = Vec::with_capacity(SIZE);
    file.take(SIZE as u64).read_to_end(&mut bytes).map_err(failure)?;
    Ok(bytes)
}

impl ControlFile {
    /// Reads the file's bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, ControlError> {
        let fields = Fields::verified(bytes)?;
        Ok(Self {
            release: fields.release,
            system: SystemIdentifier(fields.long(0)),
            state: fields.state(16)?,
            written: fields.time(24, "pg_control last modified")?,
            checkpoint: Lsn(fields.long(32)),
            redo: Lsn(fields.long(40)),
            timeline: Timeline(fields.word(48)),
            previous_timeline: Timeline(fields.word(52)),
            full_page_writes: fields.flag(56),
            next_transaction: fields.long(64),
            checkpoint_time: fields.time(104, "time of latest checkpoint")?,
            minimum_recovery: Lsn(fields.long(136)),
            minimum_recovery_timeline: Timeline(fields.word(144)),
            backup_start: Lsn(fields.long(152)),
            backup_end: Lsn(fields.long(160)),
            backup_end_required: fields.flag(168),
            wal_level: fields.wal_level(172)?,
            wal_log_hints: fields.flag(176),
            limits: Limits {
                max_connections: fields.word(180),
                max_worker_processes: fields.word(184),
                max_wal_senders: fields.word(188),
                max_prepared_transactions: fields.word(192),
                max_locks_per_transaction: fields.word(196),
            },
            track_commit_timestamp: fields.flag(200),
            block_size: fields.block_size(216, "database block size")?,
            segment_blocks: fields.nonzero(220, "blocks per segment of large relation")?,
            wal_block_size: fields.block_size(224, "WAL block size")?,
            wal_segment_size: fields.segment_size(228)?,
            data_checksums: fields.word(252) != 0,
        })
    }
}

/// The bytes under the checksum. Every offset below lies within them, so that a missing byte,
/// which reads as zero, cannot occur.
struct Fields<'a> {
    release: &'static Release,
    bytes: &'a [u8],
}

impl<'a> Fields<'a> {
    fn verified(bytes: &'a [u8]) -> Result<Self, ControlError> {
        let too_short = || ControlError::TooShort { length: bytes.len() };
        let control = word(bytes, 8).ok_or_else(too_short)?;
        let catalog = word(bytes, 12).ok_or_else(too_short)?;
        let release = Release::of_catalog(catalog)
            .filter(|release| release.control == control)
            .ok_or(ControlError::UnknownVersion { control, catalog })?;
        let covered = bytes.get(..release.control_crc).ok_or_else(too_short)?;
        let stored = word(bytes, release.control_crc).ok_or_else(too_short)?;
        let computed = crc32c::crc32c(covered);
        if stored != computed {
            return Err(ControlError::BadChecksum { stored, computed });
        }
        let fields = Self { release, bytes: covered };
        fields.check_machine()?;
        Ok(fields)
    }

    /// A cluster of a machine with other doubles or alignment has other page contents.
    fn check_machine(&self) -> Result<(), ControlError> {
        let alignment = self.word(204);
        if alignment != MAXIMUM_ALIGNMENT {
            return Err(impossible("maximum data alignment", u64::from(alignment)));
        }
        let float = self.long(208);
        if float != FLOAT_FORMAT.to_bits() {
            return Err(impossible("floating-point format", float));
        }
        Ok(())
    }

    fn word(&self, at: usize) -> u32 {
        word(self.bytes, at).unwrap_or_default()
    }

    fn long(&self, at: usize) -> u64 {
        long(self.bytes, at).unwrap_or_default()
    }

    fn flag(&self, at: usize) -> bool {
        self.bytes.get(at).is_some_and(|byte| *byte != 0)
    }

    fn nonzero(&self, at: usize, field: &'static str) -> Result<u32, ControlError> {
        match self.word(at) {
            0 => Err(impossible(field, 0)),
            value => Ok(value),
        }
    }

    fn block_size(&self, at: usize, field: &'static str) -> Result<u32, ControlError> {
        let size = self.word(at);
        if (1 << 10..=1 << 16).contains(&size) && size.is_power_of_two() {
            Ok(size)
        } else {
            Err(impossible(field, u64::from(size)))
        }
    }

    fn segment_size(&self, at: usize) -> Result<SegmentSize, ControlError> {
        let size = u64::from(self.word(at));
        SegmentSize::new(size).ok_or_else(|| impossible("bytes per WAL segment", size))
    }

    fn time(&self, at: usize, field: &'static str) -> Result<Timestamp, ControlError> {
        let seconds = self.long(at);
        Timestamp::from_second(seconds.cast_signed()).map_err(|_| impossible(field, seconds))
    }

    fn state(&self, at: usize) -> Result<State, ControlError> {
        Ok(match self.word(at) {
            0 => State::StartingUp,
            1 => State::ShutDown,
            2 => State::ShutDownInRecovery,
            3 => State::ShuttingDown,
            4 => State::CrashRecovery,
            5 => State::ArchiveRecovery,
            6 => State::InProduction,
            other => return Err(impossible("cluster state", u64::from(other))),
        })
    }

    fn wal_level(&self, at: usize) -> Result<WalLevel, ControlError> {
        Ok(match self.word(at) {
            0 => WalLevel::Minimal,
            1 => WalLevel::Replica,
            2 => WalLevel::Logical,
            other => return Err(impossible("wal_level", u64::from(other))),
        })
    }
}

fn impossible(field: &'static str, value: u64) -> ControlError {
    ControlError::Impossible { field, value }
}

#[cfg(test)]
mod tests;
