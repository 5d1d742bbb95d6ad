//! A cluster of hand-made files, a vault, and repositories in folders of their own.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use lifeboat_environment::{Environment, Failpoints, SystemClock, SystemRandom};
use lifeboat_model::{Lsn, SegmentName, SegmentSize, SystemIdentifier, Timeline};
use lifeboat_objects::{Blocking, Location, Options, Store};
use lifeboat_repository::ask::ask;
use lifeboat_repository::binding::BindingBody;
use lifeboat_repository::crypt::SigningKey;
use lifeboat_repository::enroll::enroll;
use lifeboat_repository::fragment::{FragmentName, encode_fragment};
use lifeboat_repository::ids::Incarnation;
use lifeboat_repository::keys::{Encryption, VaultSecrets, WalReadKey, WriterStream};
use lifeboat_repository::layout;
use lifeboat_repository::manifest::{
    ClusterFacts, Description, Manifest, ManifestBody, Sizes, WalSpan,
};
use lifeboat_repository::object::ObjectType;
use lifeboat_repository::regions::{Regions, Skipped};
use lifeboat_repository::repository::{ExclusiveCreate, FormatBody, Repository, encode_body};
use lifeboat_repository::wal_file::{WalContent, WalFacts, encode};
use lifeboat_telemetry::{Cancel, Outcome, Reporter};
use tempfile::TempDir;

use crate::fetch::{FetchRequest, Fetched, PrefetchRequest, fetch, prefetch};
use crate::plan::{PlanRepository, RecoveryPlan};
use crate::push::{Ahead, PushRequest, Pushed, push};

pub const SYSTEM: u64 = 7_300_000_000_000_000_007;
pub const DATABASE: &str = "payments/ledger";

pub struct World {
    pub folder: TempDir,
    data: PathBuf,
    system: u64,
    pub environment: Environment,
    pub secrets: VaultSecrets,
    pub stream: WriterStream,
    pub size: SegmentSize,
    pub regions: Vec<&'static str>,
    pub ahead: Ahead,
    /// A region that takes connections at a port and never answers.
    pub silent: Option<(&'static str, u16)>,
}

pub fn failpoints(list: &str) -> Failpoints {
    Failpoints::from_list(Some(&list.to_owned()))
}

/// Fails soon where a test takes a region away.
const OPTIONS: Options = Options {
    attempt_timeout: Duration::from_secs(10),
    deadline: Duration::from_secs(1),
    attempts: 2,
    first_pause: Duration::from_millis(100),
    longest_pause: Duration::from_secs(1),
};

impl World {
    pub fn new() -> Self {
        Self::with_segments_of(1)
    }

    pub fn with_segments_of(megabytes: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        fs::create_dir_all(data.join("global")).unwrap();
        fs::create_dir_all(data.join("pg_wal/archive_status")).unwrap();
        let size = SegmentSize::new(megabytes << 20).unwrap();
        let world = Self::around(folder, data, SYSTEM, size);
        fs::write(world.data().join("global/pg_control"), world.control(1)).unwrap();
        world
    }

    /// A vault and two repositories for a cluster that is there.
    pub fn of_cluster(data: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let environment = Environment::for_test(Arc::new(SystemClock), Arc::new(SystemRandom));
        let control = lifeboat_cluster::control::read(data, &environment).unwrap();
        Self::around(folder, data.to_owned(), control.system.0, control.wal_segment_size)
    }

    fn around(folder: TempDir, data: PathBuf, system: u64, size: SegmentSize) -> Self {
        let environment = Environment::for_test(Arc::new(SystemClock), Arc::new(SystemRandom));
        let secrets = VaultSecrets::create(&environment, Encryption::Aes256Gcm).unwrap();
        let incarnation = Incarnation::FIRST;
        let stream = WriterStream {
            system_identifier: system,
            incarnation,
            binding: 1,
            keys: secrets.stream(system, incarnation),
        };
        let world = Self {
            folder,
            data,
            system,
            environment,
            secrets,
            stream,
            size,
            regions: vec!["east", "west"],
            ahead: Ahead::default(),
            silent: None,
        };
        fs::create_dir_all(world.state()).unwrap();
        for region in &world.regions {
            world.create_repository(region);
        }
        world.grant(1, Incarnation::FIRST);
        let keys = world.stream.keys.clone();
        let read_key = world.secrets.read_key().for_wal(keys.stream());
        let key = WalReadKey { keys, read_key };
        key.save(&world.state().join("read.key")).unwrap();
        world
    }

    pub fn data(&self) -> &Path {
        &self.data
    }

    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub fn repository(&self, region: &str) -> PathBuf {
        self.folder.path().join(region)
    }

    pub fn store(&self, region: &str) -> Store {
        if let Some((silent, port)) = self.silent.filter(|(silent, _)| *silent == region) {
            let location = Location::new(&format!("s3://{silent}")).unwrap();
            let location = location.with_endpoint(Some(format!("http://127.0.0.1:{port}")));
            let location = location.with_region(Some("nowhere".to_owned()));
            let patient = Options { deadline: Duration::from_secs(60), ..OPTIONS };
            return Store::open(&location, &self.environment, patient).unwrap();
        }
        let url = format!("file://{}", self.repository(region).display());
        Store::open(&Location::new(&url).unwrap(), &self.environment, OPTIONS).unwrap()
    }

    fn create_repository(&self, region: &str) {
        fs::create_dir_all(self.repository(region)).unwrap();
        let format = FormatBody {
            lifeboat_repository: 1,
            vault: self.secrets.vault().clone(),
            region: region.to_owned(),
            created_at: self.environment.clock().now(),
            exclusive_create: ExclusiveCreate::Proven,
        };
        let root = self.secrets.root().unwrap();
        let made = Repository::create(self.store(region), format, &root);
        Blocking::new().unwrap().run(made).unwrap();
    }

    /// Makes an incarnation of the cluster the source, in every region that is there.
    pub fn grant(&self, number: u32, incarnation: Incarnation) {
        let body = BindingBody {
            database: DATABASE.to_owned(),
            system_identifier: self.system,
            incarnation,
            stream: self.secrets.stream(self.system, incarnation).stream(),
            granted_at: self.environment.clock().now(),
        };
        let key = layout::binding(DATABASE, number).unwrap();
        let root = self.secrets.root().unwrap();
        let kind = ObjectType::Binding;
        let bytes = encode_body(self.secrets.vault(), &key, kind, &body, Some(&root)).unwrap();
        for region in self.regions.iter().filter(|region| self.repository(region).exists()) {
            let created = self.store(region);
            let created = created.create(&key, bytes.clone());
            Blocking::new().unwrap().run(created).unwrap();
        }
    }

    /// pg_control of version 15 with the fields that are checked.
    pub fn control(&self, timeline: u32) -> Vec<u8> {
        let mut bytes = vec![0; 8192];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &SYSTEM.to_le_bytes());
        put(8, &1300_u32.to_le_bytes());
        put(12, &202_209_061_u32.to_le_bytes());
        put(16, &6_u32.to_le_bytes());
        put(48, &timeline.to_le_bytes());
        put(52, &timeline.to_le_bytes());
        put(172, &1_u32.to_le_bytes());
        put(204, &8_u32.to_le_bytes());
        put(208, &1_234_567.0_f64.to_le_bytes());
        put(216, &8192_u32.to_le_bytes());
        put(220, &131_072_u32.to_le_bytes());
        put(224, &8192_u32.to_le_bytes());
        put(228, &u32::try_from(self.size.bytes()).unwrap().to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..288]);
        bytes[288..292].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub fn name(&self, timeline: u32, number: u64) -> SegmentName {
        SegmentName::new(Timeline(timeline), number, self.size).unwrap()
    }

    /// A segment whose content depends on `seed`.
    pub fn segment(&self, name: SegmentName, seed: u8) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(self.size.bytes()).unwrap()];
        let start: Lsn = name.start(self.size).unwrap();
        bytes[0..2].copy_from_slice(&0xD110_u16.to_le_bytes());
        bytes[2..4].copy_from_slice(&2_u16.to_le_bytes());
        bytes[4..8].copy_from_slice(&name.timeline().0.to_le_bytes());
        bytes[8..16].copy_from_slice(&start.0.to_le_bytes());
        bytes[24..32].copy_from_slice(&SYSTEM.to_le_bytes());
        bytes[32..36].copy_from_slice(&u32::try_from(self.size.bytes()).unwrap().to_le_bytes());
        bytes[36..40].copy_from_slice(&8192_u32.to_le_bytes());
        // Something in every part of a large segment.
        for at in (8192..bytes.len()).step_by(8192) {
            bytes[at + 100] = seed;
            bytes[at + 101..at + 109].copy_from_slice(&(at as u64).to_le_bytes());
        }
        bytes
    }

    pub fn write(&self, name: &str, content: &[u8]) {
        fs::write(self.data().join("pg_wal").join(name), content).unwrap();
    }

    pub fn ready(&self, name: &str) {
        let path = self.data().join("pg_wal/archive_status");
        fs::write(path.join(format!("{name}.ready")), "").unwrap();
    }

    /// Writes a segment into pg_wal and returns its name.
    pub fn make(&self, timeline: u32, number: u64) -> String {
        let name = self.name(timeline, number);
        self.write(&name.to_string(), &self.segment(name, 1));
        name.to_string()
    }

    pub fn push(&self, name: &str) -> Outcome<Pushed> {
        self.push_from(self.data(), &Path::new("pg_wal").join(name))
    }

    pub fn push_from(&self, directory: &Path, path: &Path) -> Outcome<Pushed> {
        push(&PushRequest {
            environment: &self.environment,
            cancel: &Cancel::new(),
            reporter: &Reporter::silent(),
            database: DATABASE,
            stream: &self.stream,
            data_directories: std::slice::from_ref(&self.data),
            working_directory: directory,
            path,
            state: &self.state(),
            level: 1,
            deadline: Duration::from_secs(60),
            ahead: self.ahead,
            open: &|blocking, resting| self.open(blocking, resting),
        })
    }

    fn open(&self, blocking: &Blocking, resting: &BTreeSet<String>) -> Outcome<Regions> {
        let (mut repositories, mut skipped) = (Vec::new(), Vec::new());
        let names = self.regions.iter().filter(|region| !resting.contains(**region));
        let names: Vec<&str> = names.copied().collect();
        let questions = names.iter().map(|region| Repository::open(self.store(region))).collect();
        let limit = Duration::from_secs(60);
        let opened = blocking.run(ask(self.environment.clock(), limit, questions));
        for (region, opened) in names.into_iter().zip(opened) {
            match opened {
                Ok(repository) => repositories.push(repository),
                Err(failure) => {
                    skipped.push(Skipped { region: region.to_owned(), failure });
                }
            }
        }
        Regions::new(repositories, skipped)
    }

    pub fn plan(&self) -> RecoveryPlan {
        RecoveryPlan {
            lifeboat_plan: 1,
            database: DATABASE.to_owned(),
            vault: self.secrets.vault().id,
            stream: self.stream.keys.stream(),
            system_identifier: SystemIdentifier(self.system),
            incarnation: self.stream.incarnation,
            region: "east".to_owned(),
            repositories: self
                .regions
                .iter()
                .map(|region| PlanRepository {
                    region: (*region).to_owned(),
                    url: format!("file://{}", self.repository(region).display()),
                    endpoint: None,
                    region_name: None,
                })
                .collect(),
            timeline: Timeline(1),
            wal_segment_bytes: self.size.bytes(),
            frontier: Vec::new(),
            read_key_file: self.state().join("read.key"),
            prefetch: self.state().join("prefetch/plan-1"),
            fetch_deadline_ms: 30_000,
            created_at: self.environment.clock().now(),
        }
    }

    pub fn target(&self) -> PathBuf {
        let target = self.folder.path().join("target");
        fs::create_dir_all(target.join("pg_wal")).unwrap();
        target
    }

    pub fn fetch(&self, name: &str) -> Outcome<Fetched> {
        self.fetch_by(&self.plan(), name)
    }

    /// Tries for a short time, for what a test makes impossible stays so.
    pub fn fetch_by(&self, plan: &RecoveryPlan, name: &str) -> Outcome<Fetched> {
        fetch(&FetchRequest {
            environment: &self.environment,
            cancel: &Cancel::new(),
            reporter: &Reporter::silent(),
            plan,
            file: name,
            destination: Path::new("pg_wal/RECOVERYXLOG"),
            working_directory: &self.target(),
            deadline: Duration::from_secs(2),
        })
    }

    /// What a fetch left for PostgreSQL.
    pub fn fetched(&self) -> Option<Vec<u8>> {
        fs::read(self.target().join("pg_wal/RECOVERYXLOG")).ok()
    }

    pub fn prefetch(&self, after: &str) -> Outcome<u64> {
        prefetch(&PrefetchRequest {
            environment: &self.environment,
            cancel: &Cancel::new(),
            plan: &self.plan(),
            after,
            deadline: Duration::from_secs(60),
        })
    }

    /// Objects of the stream's WAL in a region, by their names there.
    pub fn stored(&self, region: &str) -> BTreeMap<String, Vec<u8>> {
        let prefix = format!("{}wal/", layout::stream(self.stream.keys.stream()));
        let store = self.store(region);
        let listed = Blocking::new().unwrap().run(store.list(&prefix)).unwrap();
        let content = |key: &str| fs::read(self.repository(region).join(key)).unwrap();
        listed
            .into_iter()
            .map(|(key, _)| (key.as_str().to_owned(), content(key.as_str())))
            .map(|(key, bytes)| (key.rsplit('/').next().unwrap().to_owned(), bytes))
            .collect()
    }

    /// Where an object of the stream's WAL lies in a region.
    pub fn object(&self, region: &str, name: &str) -> PathBuf {
        let key = layout::wal(self.stream.keys.stream(), name).unwrap();
        self.repository(region).join(key.as_str())
    }

    /// The repositories that are there.
    pub fn open_regions(&self) -> Regions {
        self.open(&Blocking::new().unwrap(), &BTreeSet::new()).unwrap()
    }

    /// Puts a segment with these facts into a region, without a cluster.
    pub fn put(&self, region: &str, name: &str, facts: &WalFacts) {
        let keys = &self.stream.keys;
        let key = layout::wal(keys.stream(), name).unwrap();
        let history = name.ends_with(".history");
        let kind = if history { ObjectType::History } else { ObjectType::Segment };
        let plain = vec![0; usize::try_from(self.size.bytes()).unwrap()];
        let content = WalContent { plain: &plain, digest: keys.content_digest(&plain), facts };
        let bytes = encode(keys, &self.environment, kind, &key, 1, &content).unwrap();
        Blocking::new().unwrap().run(self.store(region).create(&key, bytes)).unwrap();
    }

    /// Puts a fragment into a region, as a receiver does.
    pub fn put_fragment(
        &self,
        region: &str,
        (timeline, start, end): (u32, u64, u64),
        epoch: u32,
        plain: &[u8],
        facts: &WalFacts,
    ) -> FragmentName {
        let (keys, timeline) = (&self.stream.keys, Timeline(timeline));
        let name = FragmentName { timeline, start: Lsn(start), end: Lsn(end), epoch };
        let content = WalContent { plain, digest: keys.content_digest(plain), facts };
        let (key, bytes) = encode_fragment(keys, &self.environment, &name, 1, &content).unwrap();
        Blocking::new().unwrap().run(self.store(region).create(&key, bytes)).unwrap();
        name
    }

    /// A key that the root has certified.
    pub fn enroll(&self) -> SigningKey {
        let mut regions = self.open_regions();
        let enrolled = enroll(&self.environment, &mut regions, &self.secrets, "test");
        Blocking::new().unwrap().run(enrolled).unwrap().signing().unwrap()
    }

    /// Puts a manifest of a backup into every region.
    pub fn put_backup(&self, name: &str, timeline: u32, (start, stop): (u64, u64), at: i64) {
        let blocking = Blocking::new().unwrap();
        let mut regions = self.open_regions();
        let signer = self.enroll();
        let stopped_at = Timestamp::from_second(at).unwrap();
        let body = ManifestBody {
            name: name.to_owned(),
            predecessor: None,
            committed_at: stopped_at,
            object_table: Vec::new(),
            wal: [start, stop].map(|at| self.name(timeline, at / self.size.bytes()).to_string()),
            sealed: String::new(),
        };
        let description = self.description(timeline, start, stop, stopped_at);
        let keys = &self.stream.keys;
        let (key, bytes) =
            Manifest::encode(keys, &self.environment, &signer, body, &description).unwrap();
        blocking.run(regions.create(&key, &bytes)).unwrap();
    }

    fn description(&self, timeline: u32, start: u64, stop: u64, at: Timestamp) -> Description {
        let wal = WalSpan { timeline: Timeline(timeline), start: Lsn(start), stop: Lsn(stop) };
        Description {
            database: DATABASE.to_owned(),
            label: None,
            region: "east".to_owned(),
            started_at: at,
            stopped_at: at,
            cluster: ClusterFacts {
                system_identifier: self.system,
                incarnation: self.stream.incarnation,
                major: 15,
                version: 150_000,
                catalog_version: 202_209_061,
                block_bytes: 8192,
                wal_segment_bytes: u32::try_from(self.size.bytes()).unwrap(),
                data_checksums: true,
                from_standby: false,
                data_directory: "/data".to_owned(),
            },
            wal,
            backup_label: String::new(),
            tablespace_map: String::new(),
            tablespaces: Vec::new(),
            outside: Vec::new(),
            file_table: Vec::new(),
            boot_set: Vec::new(),
            damaged_pages: Vec::new(),
            sizes: Sizes::default(),
            tool: "test".to_owned(),
        }
    }

    /// Takes a region away, as a disk that is not mounted.
    pub fn lose(&self, region: &str) {
        fs::rename(self.repository(region), self.folder.path().join("lost")).unwrap();
    }

    /// Brings the lost region back.
    pub fn find(&self, region: &str) {
        fs::rename(self.folder.path().join("lost"), self.repository(region)).unwrap();
        let _ = fs::remove_dir_all(self.state().join("spool"));
    }
}
