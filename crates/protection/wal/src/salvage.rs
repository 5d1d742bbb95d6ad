//! WAL that a lost primary wrote and nobody has: into the repositories, as fragments of a writer
//! epoch of its own, so that it is kept and never stands under a name that another one may need.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use lifeboat_environment::Environment;
use lifeboat_model::{Lsn, SegmentName, SegmentSize, Timeline};
use lifeboat_objects::Blocking;
use lifeboat_repository::fragment::{FragmentName, encode_fragment};
use lifeboat_repository::keys::{WriterKey, WriterStream};
use lifeboat_repository::receiver::{Durable, ReceiverBody, claim_epoch};
use lifeboat_repository::regions::Regions;
use lifeboat_repository::repository::Repository;
use lifeboat_repository::wal_file::{WalContent, WalFacts};
use lifeboat_telemetry::{Code, Failure, Outcome};

use crate::receive::{Extent, Position, Stored};

/// A fragment's bytes, unless the tail is shorter.
const PIECE: u64 = 1 << 20;

/// The end of a timeline in a stopped directory.
pub struct Tail<'a> {
    /// Time, chance, failpoints.
    pub environment: &'a Environment,
    /// Runs store operations.
    pub blocking: &'a Blocking,
    /// This host's writer key.
    pub writer: &'a WriterKey,
    /// The database's stream in it.
    pub stream: &'a WriterStream,
    /// The host that wrote it.
    pub host: &'a str,
    /// The region that wrote it.
    pub region: &'a str,
    /// `pg_wal` of the directory.
    pub folder: &'a Path,
    /// The cluster's segment size.
    pub segment_size: SegmentSize,
    /// The timeline.
    pub timeline: Timeline,
    /// Where it was left by the one that goes on.
    pub from: Lsn,
    /// Where its WAL ends.
    pub to: Lsn,
    /// The level of zstd.
    pub level: i32,
}

/// Stores it in every region that answers; what a region has already is left alone. Returns the
/// regions that have all of it now.
pub fn store(tail: &Tail<'_>, regions: &Regions) -> Outcome<Vec<String>> {
    let mut done = Vec::new();
    let mut trouble = None;
    for repository in regions.all() {
        match store_in(tail, repository) {
            Ok(()) => done.push(repository.region().to_owned()),
            Err(failure) => trouble = Some(failure.within(repository.region())),
        }
    }
    match trouble {
        Some(failure) if done.is_empty() => Err(failure),
        _ => Ok(done),
    }
}

fn store_in(tail: &Tail<'_>, repository: &Repository) -> Outcome<()> {
    let (size, keys) = (tail.segment_size, &tail.stream.keys);
    // From the start of the segment on: readers put segments together.
    let begin = Lsn(tail.from.0 - size.offset_of(tail.from));
    let from = Position { timeline: tail.timeline, lsn: begin };
    let stored = Stored::read(repository, keys.stream(), size, Some(from));
    let stored = tail.blocking.run(stored)?;
    let extent = Extent { timeline: tail.timeline, start: begin, end: tail.to };
    let (mut at, _) = stored.reach(&extent, size);
    if at >= tail.to {
        return Ok(());
    }
    let body = ReceiverBody {
        writer: tail.writer.label().to_owned(),
        region: tail.region.to_owned(),
        host: tail.host.to_owned(),
        control_epoch: 0,
        started_at: tail.environment.clock().now(),
        durable: Durable::Repository,
    };
    let signing = tail.writer.signing()?;
    let claimed = claim_epoch(repository, keys.stream(), &signing, &body);
    let epoch = tail.blocking.run(claimed)?;
    while at < tail.to {
        let end_of_segment = Lsn(at.0 - size.offset_of(at)).checked_add(size.bytes());
        let end = Lsn(at.0.saturating_add(PIECE)).min(tail.to);
        let end = end.min(end_of_segment.unwrap_or(tail.to));
        let name = FragmentName { timeline: tail.timeline, start: at, end, epoch };
        let plain = read(tail, at, end)?;
        let facts = WalFacts::default();
        let content =
            WalContent { plain: &plain, digest: keys.content_digest(&plain), facts: &facts };
        let (key, bytes) = encode_fragment(keys, tail.environment, &name, tail.level, &content)?;
        tail.blocking.run(repository.store().create_seen(&key, bytes))?;
        tail.environment.failpoints().hit("salvage.stored")?;
        at = end;
    }
    Ok(())
}

/// Bytes of one segment.
fn read(tail: &Tail<'_>, from: Lsn, to: Lsn) -> Outcome<Vec<u8>> {
    let name = SegmentName::from_lsn(tail.timeline, from, tail.segment_size);
    let path = tail.folder.join(name.to_string());
    let mut plain = vec![0; usize::try_from(to.distance_from(from)).unwrap_or_default()];
    File::open(&path)
        .and_then(|file| file.read_exact_at(&mut plain, tail.segment_size.offset_of(from)))
        .map_err(|error| {
            Failure::new(Code::LocalFile, format!("cannot read {}", path.display()))
                .because(error)
                .hint("The old primary has removed or lost it; what is there was stored.")
        })?;
    Ok(plain)
}
