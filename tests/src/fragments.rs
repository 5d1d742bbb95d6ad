//! Fragments of a real server's WAL, cut as no receiver would dare to.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use lifeboat_cluster::wal::{identify_segment, scan};
use lifeboat_environment::{Environment, Random, SeededRandom};
use lifeboat_model::{Lsn, SegmentName, SegmentSize, Timeline};
use lifeboat_objects::Key;
use lifeboat_repository::fragment::{FragmentName, encode_fragment};
use lifeboat_repository::keys::{StreamKeys, WriterKey};
use lifeboat_repository::receiver::{Durable, ReceiverBody};
use lifeboat_repository::wal_file::{RestorePoint, WalContent, WalFacts};
use lifeboat_testkit::scratch;

use crate::world::{DATABASE, World};

const EPOCHS: u32 = 3;

/// Cuts the WAL of the world's server into fragments of random lengths and epochs, which overlap.
pub struct Cutter {
    environment: Environment,
    random: SeededRandom,
    keys: StreamKeys,
    size: SegmentSize,
    timeline: Timeline,
    /// What every region has.
    end: Lsn,
}

impl Cutter {
    /// Begins with the segment after all that is archived; its receivers are known in all regions.
    pub fn new(world: &World, regions: &[&str], seed: u64) -> Result<Self> {
        let environment = Environment::system();
        let writer = WriterKey::load(&world.writer_key())?;
        let stream = writer.stream(DATABASE).context("the writer key is not bound")?;
        let size =
            world.source.psql("SELECT setting FROM pg_settings WHERE name = 'wal_segment_size'")?;
        let size = SegmentSize::new(size.trim().parse()?).context("no segment size")?;
        let cutter = Self {
            random: SeededRandom::new(seed),
            keys: stream.keys.clone(),
            size,
            timeline: Timeline::FIRST,
            end: written(world)?,
            environment,
        };
        for epoch in 1..=EPOCHS {
            let body = ReceiverBody {
                writer: writer.label().to_owned(),
                region: "east".to_owned(),
                host: format!("receiver-{epoch}"),
                control_epoch: 0,
                started_at: cutter.environment.clock().now(),
                durable: Durable::Spool,
            };
            let (vault, stream) = (cutter.keys.vault().id, cutter.keys.stream());
            let (key, bytes) = body.encode(vault, stream, epoch, &writer.signing()?)?;
            for region in regions {
                store(world, region, &key, &bytes)?;
            }
        }
        let start = cutter.end.0 - size.offset_of(cutter.end);
        Ok(Self { end: Lsn(start), ..cutter })
    }

    /// Where the segment ends that is being cut.
    pub fn segment_end(&self) -> Lsn {
        Lsn(self.end.0 - self.size.offset_of(self.end) + self.size.bytes())
    }

    /// Goes on with the timeline that branched off at `branch`, from the start of its segment.
    pub fn follow(&mut self, timeline: Timeline, branch: Lsn) {
        self.timeline = timeline;
        self.end = Lsn(branch.0 - self.size.offset_of(branch));
    }

    /// Ships up to a position into all regions, into each in pieces of its own.
    pub fn ship(&mut self, world: &World, regions: &[&str], upto: Lsn) -> Result<u32> {
        let mut count = 0;
        while self.end < upto {
            let name = SegmentName::from_lsn(self.timeline, self.end, self.size);
            let start = name.start(self.size).context("no segment")?;
            let end = Lsn(start.0 + self.size.bytes()).min(upto);
            let path = world.source.data().join("pg_wal").join(name.to_string());
            let content = fs::read(&path).with_context(|| path.display().to_string())?;
            let content = content.get(..end.distance_from(start) as usize).context("too short")?;
            for region in regions {
                count += self.cut(world, region, name, content)?;
            }
            self.end = end;
        }
        Ok(count)
    }

    /// Cuts what of a segment is not shipped yet; pieces may reach back into what is.
    fn cut(&self, world: &World, region: &str, name: SegmentName, content: &[u8]) -> Result<u32> {
        let start = name.start(self.size).context("no segment")?;
        let mut from = self.end.distance_from(start);
        let mut count = 0;
        while from < content.len() as u64 {
            let longest = [200, 30_000, 700_000][self.below(3) as usize];
            let to = (from + 1 + self.below(longest)).min(content.len() as u64);
            let from_there = from.saturating_sub(self.below(3) * self.below(5_000));
            self.piece(world, region, name, content, (from_there, to))?;
            count += 1;
            from = to;
        }
        Ok(count)
    }

    fn below(&self, limit: u64) -> u64 {
        self.random.next_u64() % limit
    }

    fn piece(
        &self,
        world: &World,
        region: &str,
        segment: SegmentName,
        content: &[u8],
        (from, to): (u64, u64),
    ) -> Result<()> {
        let start = segment.start(self.size).context("no segment")?;
        let (from_lsn, to_lsn) = (Lsn(start.0 + from), Lsn(start.0 + to));
        let epoch = 1 + self.below(u64::from(EPOCHS)) as u32;
        let name = FragmentName { timeline: self.timeline, start: from_lsn, end: to_lsn, epoch };
        let identity = identify_segment(content, segment)?;
        let summary = scan(content.get(..to as usize).context("too short")?, &identity);
        let points = summary
            .restore_points
            .iter()
            .filter(|point| point.lsn > from_lsn && point.lsn <= to_lsn);
        let facts = WalFacts {
            last_commit_us: summary.last_commit.map(|time| time.as_microsecond()),
            last_record: summary.last_record,
            restore_points: points
                .map(|point| RestorePoint {
                    lsn: point.lsn,
                    time_us: point.time.as_microsecond(),
                    name: point.name.clone(),
                })
                .collect(),
            ..WalFacts::default()
        };
        let plain = content.get(from as usize..to as usize).context("too short")?;
        let content = WalContent { plain, digest: self.keys.content_digest(plain), facts: &facts };
        let (key, bytes) = encode_fragment(&self.keys, &self.environment, &name, 1, &content)?;
        store(world, region, &key, &bytes)
    }
}

/// Where the server's durable WAL ends.
pub fn written(world: &World) -> Result<Lsn> {
    let flushed = world.source.psql("SELECT pg_current_wal_flush_lsn()")?;
    Ok(flushed.trim().parse()?)
}

/// Puts an object where the server's account can read it; it appears whole.
fn store(world: &World, region: &str, key: &Key, bytes: &[u8]) -> Result<()> {
    let staged = world.scratch.file("fragment.staged", bytes)?;
    let place = world.repository(region).join(key.as_str());
    let folder = place.parent().context("no folder")?;
    world.scratch.folder(&relative(world, folder)?)?;
    ensure!(!place.exists() || fs::read(&place)? == bytes, "{key} exists");
    fs::rename(staged, place)?;
    Ok(())
}

fn relative(world: &World, folder: &Path) -> Result<String> {
    let below = folder.strip_prefix(world.scratch.path())?;
    Ok(below.to_str().context("an odd path")?.to_owned())
}

/// Makes a restored copy a standby that gets its WAL from `wal fetch` alone.
pub fn stand_by(data: &Path) -> Result<()> {
    fs::remove_file(data.join("recovery.signal"))?;
    scratch::write(&data.join("standby.signal"), "")?;
    let path = data.join("postgresql.auto.conf");
    let settings = fs::read_to_string(&path)?;
    let kept = settings.lines().filter(|line| !line.starts_with("recovery_target"));
    let mut settings: String = kept.map(|line| format!("{line}\n")).collect();
    settings.push_str("wal_retrieve_retry_interval = '200ms'\nhot_standby = on\n");
    scratch::write(&path, settings)
}
