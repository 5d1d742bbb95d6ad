//! WAL of a backup that nobody else brings: read beside the server, stored as `wal push` would.

use std::path::Path;
use std::time::Duration;

use lifeboat_cluster::wal::History;
use lifeboat_environment::Environment;
use lifeboat_model::{SystemIdentifier, Timeline, WalFileName};
use lifeboat_objects::Blocking;
use lifeboat_repository::keys::WriterStream;
use lifeboat_repository::regions::Regions;
use lifeboat_telemetry::{Cancel, Outcome};

use crate::archived::Needed;
use crate::push::file::{Origin, read};
use crate::push::parts::place;
use crate::push::place::Places;

/// One file gets as long as a call of `wal push`.
const ATTEMPT: Duration = Duration::from_secs(60);

/// What it takes to store WAL that lies in a server's pg_wal.
pub struct FromServer<'a> {
    /// Time and failpoints.
    pub environment: &'a Environment,
    /// Runs store operations.
    pub blocking: &'a Blocking,
    /// Who may stop it.
    pub cancel: &'a Cancel,
    /// Where it is stored.
    pub regions: &'a Regions,
    /// The stream.
    pub stream: &'a WriterStream,
    /// The data directory.
    pub data_directory: &'a Path,
    /// The level of zstd.
    pub level: i32,
}

impl FromServer<'_> {
    /// Stores the segments of a span, which must be closed and still be there, and the histories
    /// of its timeline. What is stored already is compared. Returns the number of segments.
    pub fn store(&self, needed: Needed) -> Outcome<usize> {
        self.histories(needed)?;
        let segments = needed.segments();
        for segment in &segments {
            self.cancel.check()?;
            self.environment.failpoints().hit("backup.bring")?;
            self.file(WalFileName::Segment(*segment), needed)?;
        }
        Ok(segments.len())
    }

    /// A copy finds its way to this timeline by the histories.
    fn histories(&self, needed: Needed) -> Outcome<()> {
        if needed.timeline == Timeline::FIRST {
            return Ok(());
        }
        let name = WalFileName::History(needed.timeline);
        self.file(name, needed)?;
        let content = std::fs::read(self.path(name)).unwrap_or_default();
        let Ok(history) = History::parse(needed.timeline, &content) else { return Ok(()) };
        for ancestor in history.ancestors.iter().map(|entry| entry.timeline) {
            let name = WalFileName::History(ancestor);
            // The first timeline has none, and a server may have dropped old ones.
            if self.path(name).exists() {
                self.file(name, needed)?;
            }
        }
        Ok(())
    }

    fn file(&self, name: WalFileName, needed: Needed) -> Outcome<()> {
        let Self { environment, blocking, regions, .. } = *self;
        let keys = &self.stream.keys;
        let system = SystemIdentifier(self.stream.system_identifier);
        let segment_size = needed.segment_size;
        let path = self.path(name);
        let file = read(&path, name, Origin { system, segment_size }, keys)?;
        let end = environment.clock().elapsed().saturating_add(ATTEMPT);
        let places = Places::new(environment, blocking, keys, regions, end);
        place(&places, &path, &file, self.level).map(drop)
    }

    fn path(&self, name: WalFileName) -> std::path::PathBuf {
        self.data_directory.join("pg_wal").join(name.to_string())
    }
}
