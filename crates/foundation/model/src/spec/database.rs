//! `services.*.databases`: where a database runs, and how it is protected.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::finding::{Findings, Path};
use crate::reader::{Read, choices, section};
use crate::setting::{Compression, Schedule};
use crate::tree::{Node, Value};
use crate::{ByteRate, NodeName, Reference, RegionName, TimeSpan};

section! {
    /// A database and its protection.
    pub struct Database {
        /// What runs it.
        engine: Engine,
        /// The servers of postgres and patroni.
        nodes: BTreeMap<NodeName, PostgresNode>,
        /// What rds and redshift call it, a region.
        locations: BTreeMap<RegionName, Location>,
        /// What clients and observers use: HOST:PORT.
        endpoint: Option<Reference>,
        /// Base backups.
        backup: BackupSettings = BackupSettings::default(),
        /// The WAL between them.
        wal: WalSettings = WalSettings::default(),
        /// Snapshots of rds and redshift.
        snapshots: Option<Snapshots>,
        /// How long backups are kept.
        retention: Option<Retention>,
        /// How backups are proved.
        verify: Option<Verify>,
    }
}

impl Database {
    /// The nodes of a region, in the order of their names.
    pub fn nodes_of<'a>(
        &'a self,
        region: &RegionName,
    ) -> impl Iterator<Item = (&'a NodeName, &'a PostgresNode)> {
        self.nodes.iter().filter(move |(_, node)| node.region == *region)
    }
}

choices! {
    /// What runs a database.
    pub enum Engine {
        /// PostgreSQL servers of our own.
        Postgres = "postgres",
        /// A Patroni cluster.
        Patroni = "patroni",
        /// Amazon RDS for PostgreSQL.
        Rds = "rds",
        /// Amazon Redshift.
        Redshift = "redshift",
    }
}

section! {
    /// A PostgreSQL server.
    pub struct PostgresNode {
        /// The region it runs in.
        region: RegionName,
        /// Its data directory.
        data_directory: PathBuf,
        /// How a process beside it connects, as libpq writes it. Passwords as ${NAME}.
        connection: Reference,
        /// Where the other nodes reach it: HOST:PORT.
        address: Option<Reference>,
        /// Where its programs lie, if not in the PATH.
        bin_directory: Option<PathBuf>,
        /// Where its agent answers load balancers (`GET /primary`): HOST:PORT.
        health: Option<Reference>,
        /// The REST address of its Patroni.
        patroni: Option<Reference>,
    }
}

section! {
    /// What a cloud calls a resource in one region.
    pub struct Location {
        /// Its identifier or ARN.
        identifier: Reference,
        /// The key that encrypts it there.
        kms_key: Option<Reference>,
    }
}

section! {
    /// Base backups.
    pub struct BackupSettings {
        /// When.
        schedule: Option<Schedule>,
        /// How often every page is read, changed or not.
        full_every: Option<TimeSpan>,
        /// zstd-1 to zstd-19, or none. Default: zstd-1.
        compression: Compression = Compression::default(),
        /// How many threads compress. Default: as many as there are processors.
        workers: Option<u16>,
        /// The most that is read from the database's disks a second. Default: no limit.
        rate_limit: Option<ByteRate>,
    }
}

impl Default for BackupSettings {
    fn default() -> Self {
        let compression = Compression::default();
        Self { schedule: None, full_every: None, compression, workers: None, rate_limit: None }
    }
}

section! {
    /// How WAL reaches the repositories.
    pub struct WalSettings {
        /// By archive_command, or by streaming. Default: archive.
        mode: WalMode = WalMode::Archive,
        /// archive: the longest time until a segment is closed and archived (archive_timeout).
        every: Option<TimeSpan>,
        /// stream: the regions that receive.
        receivers: Vec<RegionName>,
        /// stream: what a commit waits for.
        acknowledge: Option<Acknowledge>,
        /// stream: how often WAL is shipped. Default: a tenth of the RPO, 500ms to 10s.
        flush_every: Option<TimeSpan>,
        /// How long `wal fetch` and `wal push` try. Default: 30s.
        fetch_deadline: TimeSpan = TimeSpan::from_secs(30),
    }
}

impl Default for WalSettings {
    fn default() -> Self {
        Self {
            mode: WalMode::Archive,
            every: None,
            receivers: Vec::new(),
            acknowledge: None,
            flush_every: None,
            fetch_deadline: TimeSpan::from_secs(30),
        }
    }
}

choices! {
    /// How WAL leaves the server.
    pub enum WalMode {
        /// Segment by segment, by archive_command.
        Archive = "archive",
        /// Record by record, to receivers.
        Stream = "stream",
    }
}

section! {
    /// What a commit waits for.
    pub struct Acknowledge {
        /// How many receivers outside the region that writes. Default: 1.
        remote: u8 = 1,
        /// Where the WAL must be durable. Default: spool.
        durable: Durable = Durable::Spool,
        /// What happens when too few receivers are left. Default: block.
        on_loss: OnLoss = OnLoss::Block,
    }
}

choices! {
    /// Where acknowledged WAL is durable.
    pub enum Durable {
        /// On the receiver's disk.
        Spool = "spool",
        /// In the repository.
        Repository = "repository",
    }
}

section! {
    /// `on_loss` as a map.
    pub struct Degrade {
        /// How long commits wait before they are acknowledged without a remote copy.
        degrade_after: TimeSpan,
    }
}

/// What commits do when too few receivers are left: `block` or `{ degrade_after: 30s }`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnLoss {
    /// Wait, for as long as it takes.
    Block,
    /// Wait this long, then go on unprotected.
    DegradeAfter(TimeSpan),
}

impl Read for OnLoss {
    fn read(node: &Node, path: &Path, findings: &mut Findings<'_>) -> Option<Self> {
        match &node.value {
            Value::Map(_) => Degrade::read(node, path, findings)
                .map(|degrade| Self::DegradeAfter(degrade.degrade_after)),
            Value::Text(text) if text == "block" => Some(Self::Block),
            _ => {
                let what = "`block` or a map such as { degrade_after: 30s }";
                crate::reader::expected(node, path, what, findings)
            }
        }
    }
}

impl schemars::JsonSchema for OnLoss {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "OnLoss".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let degrade = generator.subschema_for::<Degrade>();
        schemars::json_schema!({ "oneOf": [{ "const": "block" }, degrade] })
    }
}

section! {
    /// Snapshots that a cloud takes.
    pub struct Snapshots {
        /// How often.
        every: TimeSpan,
        /// The regions that get a copy.
        copy_to: Vec<RegionName>,
        /// How long a snapshot is kept.
        keep: Option<TimeSpan>,
        /// The Redshift grant that lets copies be encrypted in the other region.
        copy_grant: Option<String>,
    }
}

section! {
    /// How long backups are kept.
    pub struct Retention {
        /// How many of each kind.
        keep: Option<Keep>,
        /// For how long any moment can be restored.
        window: Option<TimeSpan>,
        /// For how long nobody can delete an object.
        lock: Option<TimeSpan>,
        /// When data moves to cheaper storage classes.
        storage: Option<StorageAges>,
    }
}

section! {
    /// How many backups are kept.
    pub struct Keep {
        /// The latest ones.
        last: Option<u16>,
        /// The last of an hour.
        hourly: Option<u16>,
        /// The last of a day.
        daily: Option<u16>,
        /// The last of a week.
        weekly: Option<u16>,
        /// The last of a month.
        monthly: Option<u16>,
        /// The last of a year.
        yearly: Option<u16>,
    }
}

section! {
    /// Until which age data stays in a storage class.
    pub struct StorageAges {
        /// The class of new data.
        hot: Option<TimeSpan>,
        /// The class of data that is rarely read.
        warm: Option<TimeSpan>,
        /// The class of data that is hardly ever read.
        cold: Option<TimeSpan>,
    }
}

section! {
    /// How backups are proved.
    pub struct Verify {
        /// When.
        schedule: Option<Schedule>,
        /// How deep: V0 (objects exist) to V6 (application checks after a move).
        level: ProofLevel = ProofLevel::V4,
        /// Queries whose answers prove that the data makes sense.
        smoke: Vec<Smoke>,
    }
}

choices! {
    /// How deep a proof goes.
    pub enum ProofLevel {
        /// All objects exist.
        V0 = "V0",
        /// All bytes are what they were.
        V1 = "V1",
        /// All files can be rebuilt.
        V2 = "V2",
        /// The server starts.
        V3 = "V3",
        /// The server recovers and answers.
        V4 = "V4",
        /// Every page and index is checked.
        V5 = "V5",
        /// The application's own checks pass.
        V6 = "V6",
    }
}

section! {
    /// A query and its answer.
    pub struct Smoke {
        /// The query.
        sql: String,
        /// Its answer as psql prints it unaligned.
        expect: String,
    }
}
