//! A small repository, written with the parts that a backup uses, and restores from it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lifeboat_environment::{Environment, Failpoints, ManualClock, SystemRandom};
use lifeboat_model::{Lsn, RecoveryTarget, Timeline};
use lifeboat_objects::{Blocking, Key, Location, Options, Store};
use lifeboat_repository::ids::{Digest, Incarnation};
use lifeboat_repository::keys::{CertificateBody, Encryption, StreamKeys, VaultSecrets, WriterKey};
use lifeboat_repository::layout;
use lifeboat_repository::manifest::{
    ClusterFacts, Description, Manifest, ManifestBody, OutsideFile, Sizes, Tablespace, WalSpan,
};
use lifeboat_repository::object::ObjectType;
use lifeboat_repository::pack::{FRAME_BYTES, FrameCompressor, PackBuilder, PageEntry};
use lifeboat_repository::regions::Regions;
use lifeboat_repository::repository::{ExclusiveCreate, FormatBody, Repository, encode_body};
use lifeboat_repository::tree::{
    Content, FileEntry, FileKind, FileTablePage, LEAF_PAGES, LeafRef, MapObject, Root, Run,
};
use lifeboat_repository::wal_file::{self, WalContent, WalFacts};
use lifeboat_telemetry::{Cancel, Outcome, Reporter};
use tempfile::TempDir;

use crate::{
    FetchCommand, Found, PlannedBackup, PlannedTablespace, Prediction, RestoreContext, RestorePlan,
    RestoreReport, RestoreRequest, Source, TargetAction,
};

pub(super) const PAGE: usize = 8192;
pub(super) const SYSTEM: u64 = 7_100_000_000_000_000_001;

/// A vault with repositories in `east` and, if asked for, `west`.
pub(super) struct Fixture {
    pub directory: TempDir,
    pub environment: Environment,
    pub blocking: Blocking,
    pub secrets: VaultSecrets,
    pub keys: StreamKeys,
    pub stores: Vec<(&'static str, Store)>,
    regions: Regions,
}

/// A backup that was written.
pub(super) struct Backup {
    pub description: Description,
    pub packs: Vec<Digest>,
    pub maps: Vec<Digest>,
}

/// A backup that is being written: entries in the order of their paths.
pub(super) struct Writer<'a> {
    fixture: &'a Fixture,
    pub entries: Vec<FileEntry>,
    pack: PackBuilder,
    compressor: FrameCompressor,
    /// Runs name packs by number until they are stored.
    packs: Vec<Digest>,
    frames: u32,
    plain: Vec<u8>,
    pages: Vec<PageEntry>,
    lengths: Vec<u32>,
    /// Frames after which a pack is closed.
    pub pack_frames: u32,
    pub tablespaces: Vec<Tablespace>,
    pub outside: Vec<OutsideFile>,
    waiting: Vec<(usize, Vec<(u32, Run)>)>,
}

impl Fixture {
    pub(super) fn new(regions: &[&'static str]) -> Self {
        Self::with_encryption(regions, Encryption::Aes256Gcm)
    }

    pub(super) fn with_encryption(regions: &[&'static str], encryption: Encryption) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let environment = Environment::system();
        let blocking = Blocking::new().unwrap();
        let secrets = VaultSecrets::create(&environment, encryption).unwrap();
        let keys = secrets.stream(SYSTEM, Incarnation::FIRST);
        let root = secrets.root().unwrap();
        let mut stores = Vec::new();
        let mut repositories = Vec::new();
        for region in regions {
            let url = format!("file://{}/{region}", directory.path().display());
            let location = Location::new(&url).unwrap();
            let options = Options { deadline: Duration::from_secs(2), ..Options::default() };
            let store = Store::open(&location, &environment, options).unwrap();
            let format = FormatBody {
                lifeboat_repository: 1,
                vault: secrets.vault().clone(),
                region: (*region).to_owned(),
                created_at: environment.clock().now(),
                exclusive_create: ExclusiveCreate::Proven,
            };
            blocking.run(store.create_root()).unwrap();
            repositories
                .push(blocking.run(Repository::create(store.clone(), format, &root)).unwrap());
            stores.push((*region, store));
        }
        let regions = Regions::new(repositories, Vec::new()).unwrap();
        Self { directory, environment, blocking, secrets, keys, stores, regions }
    }

    pub(super) fn writer(&self) -> Writer<'_> {
        Writer {
            fixture: self,
            entries: Vec::new(),
            pack: PackBuilder::new(&self.keys, &self.environment).unwrap(),
            compressor: FrameCompressor::new(1).unwrap(),
            packs: Vec::new(),
            frames: 0,
            plain: Vec::new(),
            pages: Vec::new(),
            lengths: Vec::new(),
            pack_frames: 8,
            tablespaces: Vec::new(),
            outside: Vec::new(),
            waiting: Vec::new(),
        }
    }

    /// Where objects of a region lie on disk.
    pub(super) fn object_path(&self, region: &str, kind: ObjectType, digest: &Digest) -> PathBuf {
        let key = layout::content(self.keys.stream(), kind, digest).unwrap();
        self.directory.path().join(region).join(key.as_str())
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(super) fn source(&self) -> Source {
        Source::new(
            self.blocking.clone(),
            &self.regions,
            self.keys.clone(),
            self.secrets.read_key(),
            Reporter::silent(),
        )
    }

    pub(super) fn create(&self, key: &Key, bytes: &Bytes) {
        for (_, store) in &self.stores {
            self.blocking.run(store.create(key, bytes.clone())).unwrap();
        }
    }

    /// Commits a backup under a name, signed by a certified writer.
    pub(super) fn commit(
        &self,
        backup: &Backup,
        name: &str,
        change: impl FnOnce(&mut Description),
    ) {
        let writer = WriterKey::create(&self.environment, self.secrets.vault(), "test");
        let number = u32::from_str_radix(&name[..8], 16).unwrap();
        let key = layout::certificate(number).unwrap();
        let certificate = CertificateBody {
            public_key: writer.public().unwrap(),
            label: "test".to_owned(),
            issued_at: self.environment.clock().now(),
        };
        let (vault, root) = (self.secrets.vault(), self.secrets.root().unwrap());
        let kind = ObjectType::Certificate;
        let bytes = encode_body(vault, &key, kind, &certificate, Some(&root)).unwrap();
        self.create(&key, &bytes);
        let mut description = backup.description.clone();
        change(&mut description);
        let body = ManifestBody {
            name: name.to_owned(),
            predecessor: None,
            committed_at: self.environment.clock().now(),
            object_table: Vec::new(),
            wal: [String::new(), String::new()],
            sealed: String::new(),
        };
        let signing = writer.signing().unwrap();
        let (key, bytes) =
            Manifest::encode(&self.keys, &self.environment, &signing, body, &description).unwrap();
        self.create(&key, &bytes);
    }

    /// Archives a file that says this of itself; nobody reads more of it to make a plan.
    pub(super) fn archive(&self, name: &str, facts: &WalFacts) {
        let kind = match name.ends_with(".history") {
            true => ObjectType::History,
            false => ObjectType::Segment,
        };
        let key = layout::wal(self.keys.stream(), name).unwrap();
        let content = WalContent { plain: b"x", digest: [0; 32], facts };
        let (keys, environment) = (&self.keys, &self.environment);
        let bytes = wal_file::encode(keys, environment, kind, &key, 1, &content).unwrap();
        self.create(&key, &bytes);
    }

    pub(super) fn request(&self, target: RecoveryTarget) -> RestoreRequest {
        RestoreRequest {
            database: "payments/ledger".to_owned(),
            to: self.path("target"),
            target,
            backup: None,
            timeline: None,
            action: TargetAction::Promote,
            delta: false,
            adopt: false,
            standby: false,
            tablespaces: Vec::new(),
            owner: None,
            workers: 2,
            bin_directory: None,
            fetch: FetchCommand {
                binary: "/usr/bin/lifeboat".into(),
                spec: "/etc/lifeboat/lifeboat.yaml".into(),
                here: "east".to_owned(),
                repositories: Vec::new(),
                deadline: Duration::from_secs(30),
            },
            state: self.path("state"),
        }
    }

    /// Plans, at a moment that is later than everything in the tests.
    pub(super) fn make_plan(&self, request: &RestoreRequest) -> Outcome<RestorePlan> {
        let now = "2026-11-21T00:00:00Z".parse().unwrap();
        let environment =
            Environment::for_test(Arc::new(ManualClock::at(now)), Arc::new(SystemRandom));
        let context = RestoreContext {
            environment: &environment,
            source: &self.source(),
            reporter: &Reporter::silent(),
            cancel: &Cancel::new(),
        };
        crate::plan(request, context, &self.regions)
    }

    fn put(&self, kind: ObjectType, bytes: &Bytes) -> Digest {
        let digest = Digest::of(bytes);
        let key = layout::content(self.keys.stream(), kind, &digest).unwrap();
        for (_, store) in &self.stores {
            self.blocking.run(store.create(&key, bytes.clone())).unwrap();
        }
        digest
    }

    /// A plan, as it comes out of planning.
    pub(super) fn plan(&self, backup: &Backup, to: &Path) -> RestorePlan {
        let request = self.request(RecoveryTarget::Latest);
        let description = backup.description.clone();
        let tablespaces = description.tablespaces.iter().map(|one| PlannedTablespace {
            oid: one.oid,
            was: one.location.clone(),
            place: PathBuf::from(&one.location),
        });
        RestorePlan {
            database: request.database.clone(),
            to: to.to_owned(),
            found: Found::Absent,
            delta: false,
            adopt: false,
            target: RecoveryTarget::Latest,
            action: TargetAction::Promote,
            timeline: Timeline(1),
            frontier: Vec::new(),
            backup: PlannedBackup {
                name: "00000001-00000001".to_owned(),
                label: None,
                stopped_at: description.stopped_at,
                timeline: Timeline(1),
                start: description.wal.start,
                stop: description.wal.stop,
                postgresql: 15,
            },
            regions: self.stores.iter().map(|(region, _)| (*region).to_owned()).collect(),
            tablespaces: tablespaces.collect(),
            space: Vec::new(),
            prediction: Prediction {
                files: 0,
                bytes: 0,
                stored_bytes: 0,
                wal_bytes: None,
                rate: 1,
                measured: false,
                time: Duration::ZERO,
            },
            notes: Vec::new(),
            description,
            request,
        }
    }

    pub(super) fn restore(&self, plan: &RestorePlan) -> Outcome<RestoreReport> {
        self.restore_with(plan, "")
    }

    pub(super) fn restore_with(
        &self,
        plan: &RestorePlan,
        failpoints: &str,
    ) -> Outcome<RestoreReport> {
        let failpoints = Failpoints::from_list(Some(&failpoints.to_owned()));
        let environment = self.environment.clone().with_failpoints(failpoints);
        let context = RestoreContext {
            environment: &environment,
            source: &self.source(),
            reporter: &Reporter::silent(),
            cancel: &Cancel::new(),
        };
        crate::restore(plan, context)
    }
}

impl Writer<'_> {
    pub(super) fn directory(&mut self, path: &str) {
        self.entry(path, FileKind::Directory, 0, Content::Nothing, 0);
    }

    pub(super) fn tablespace(&mut self, oid: u32, location: &Path) {
        let location = location.to_str().unwrap().to_owned();
        self.tablespaces.push(Tablespace { oid, location });
        let path = format!("pg_tblspc/{oid}");
        self.entry(&path, FileKind::Tablespace, 0, Content::Nothing, 0);
    }

    pub(super) fn inline(&mut self, path: &str, bytes: &[u8]) {
        let crc = crc32c::crc32c(bytes);
        let content = match bytes {
            b"" => Content::Nothing,
            _ => Content::Inline(bytes.to_vec()),
        };
        self.entry(path, FileKind::File, bytes.len() as u64, content, crc);
    }

    /// A file in packs, zero pages left out.
    pub(super) fn file(&mut self, path: &str, bytes: &[u8]) {
        let mut runs: Vec<(u32, Run)> = Vec::new();
        for page in bytes.chunks(PAGE) {
            if page.iter().all(|byte| *byte == 0) {
                match runs.last_mut() {
                    Some((_, run)) if run.pack.is_none() => run.pages += 1,
                    _ => runs.push((0, Run { pack: None, frame: 0, slot: 0, pages: 1 })),
                }
                continue;
            }
            if self.plain.len() + page.len() > FRAME_BYTES {
                self.close_frame();
            }
            let (pack, slot) = (self.packs.len() as u32, self.pages.len() as u32);
            let id = self.fixture.keys.page_id(page);
            self.pages.push(PageEntry { id, crc32c: crc32c::crc32c(page) });
            self.lengths.push(page.len() as u32);
            self.plain.extend_from_slice(page);
            let frame = self.frames;
            let follows = |(number, run): &(u32, Run)| {
                *number == pack
                    && run.pack.is_some()
                    && (slot == 0 || run.frame == frame || run.frame + 1 == frame)
            };
            let leaf_full = runs.iter().map(|(_, run)| run.pages).sum::<u32>() % LEAF_PAGES == 0;
            match runs.last_mut().filter(|last| follows(last) && !leaf_full) {
                Some((_, run)) => run.pages += 1,
                None => {
                    let pack_name = Some(Digest::default());
                    runs.push((pack, Run { pack: pack_name, frame, slot, pages: 1 }));
                }
            }
        }
        let index = self.entries.len();
        self.waiting.push((index, runs));
        let crc = crc32c::crc32c(bytes);
        self.entry(path, FileKind::File, bytes.len() as u64, Content::Nothing, crc);
    }

    pub(super) fn outside(&mut self, role: &str, path: &str, bytes: &[u8]) {
        self.outside.push(OutsideFile { role: role.to_owned(), path: path.to_owned() });
        self.file(path, bytes);
        self.entries.last_mut().unwrap().root = Root::Outside;
    }

    fn entry(&mut self, path: &str, kind: FileKind, size: u64, content: Content, crc32c: u32) {
        self.entries.push(FileEntry {
            root: Root::Data,
            path: path.as_bytes().to_vec(),
            kind,
            mode: if kind == FileKind::File { 0o100_4755 & 0o7777 } else { 0o700 },
            modified: 1_700_000_000,
            size,
            page_bytes: PAGE as u32,
            crc32c,
            boot: false,
            content,
        });
    }

    fn close_frame(&mut self) {
        if self.pages.is_empty() {
            return;
        }
        let odd = self.lengths.iter().any(|length| *length as usize != PAGE);
        let lengths = odd.then_some(self.lengths.as_slice());
        self.pack
            .add_frame(&mut self.compressor, &self.plain, PAGE as u32, lengths, &self.pages)
            .unwrap();
        self.plain.clear();
        self.pages.clear();
        self.lengths.clear();
        self.frames += 1;
        if self.frames >= self.pack_frames {
            self.close_pack();
        }
    }

    fn close_pack(&mut self) {
        let next = PackBuilder::new(&self.fixture.keys, &self.fixture.environment).unwrap();
        let pack = std::mem::replace(&mut self.pack, next);
        if !pack.is_empty() {
            let finished = pack.finish(&self.fixture.environment).unwrap();
            self.fixture.put(ObjectType::Pack, &finished.bytes);
            self.packs.push(finished.digest);
        }
        self.frames = 0;
    }

    /// Writes what is left, the maps and the file table. A file of several leaves gets a map
    /// object of its own.
    pub(super) fn finish(mut self) -> Backup {
        self.close_frame();
        self.close_pack();
        let mut maps = Vec::new();
        for (index, runs) in std::mem::take(&mut self.waiting) {
            let named: Vec<Run> = runs
                .into_iter()
                .map(|(number, run)| Run {
                    pack: run.pack.map(|_| self.packs[number as usize]),
                    ..run
                })
                .collect();
            let entry = &mut self.entries[index];
            if entry.pages() <= u64::from(LEAF_PAGES) {
                entry.content =
                    if named.is_empty() { Content::Nothing } else { Content::Runs(named) };
                continue;
            }
            let mut map = MapObject::default();
            let leaves: Vec<u32> = leaves(named).iter().map(|leaf| map.add(leaf)).collect();
            let bytes = map.finish(&self.fixture.keys, &self.fixture.environment).unwrap();
            let map = self.fixture.put(ObjectType::Map, &bytes);
            maps.push(map);
            let leaves = leaves.into_iter().map(|leaf| LeafRef { map, leaf });
            entry.content = Content::Leaves(leaves.collect());
        }
        self.entries.sort_by(|a, b| (a.root, &a.path).cmp(&(b.root, &b.path)));
        self.write_table(maps)
    }

    /// Writes the table as it is.
    pub(super) fn write_table(self, maps: Vec<Digest>) -> Backup {
        let mut file_table = Vec::new();
        for entries in self.entries.chunks(7) {
            let mut page = FileTablePage::default();
            entries.iter().for_each(|entry| page.add(entry));
            let bytes = page.finish(&self.fixture.keys, &self.fixture.environment).unwrap();
            file_table.push(self.fixture.put(ObjectType::FileTable, &bytes));
        }
        let description = Description {
            database: "payments/ledger".to_owned(),
            label: None,
            region: "east".to_owned(),
            started_at: "2026-11-20T14:00:00Z".parse().unwrap(),
            stopped_at: "2026-11-20T14:01:00Z".parse().unwrap(),
            cluster: ClusterFacts {
                system_identifier: SYSTEM,
                incarnation: Incarnation::FIRST,
                major: 15,
                version: 150_010,
                catalog_version: 202_209_061,
                block_bytes: 8192,
                wal_segment_bytes: 16 << 20,
                data_checksums: true,
                from_standby: false,
                data_directory: "/var/lib/postgresql/15/main".to_owned(),
            },
            wal: WalSpan { timeline: Timeline(1), start: Lsn(0x200_0028), stop: Lsn(0x200_0138) },
            backup_label: "START WAL LOCATION: 0/2000028\n".to_owned(),
            tablespace_map: String::new(),
            tablespaces: self.tablespaces,
            outside: self.outside,
            file_table,
            boot_set: Vec::new(),
            damaged_pages: Vec::new(),
            sizes: Sizes::default(),
            tool: "test".to_owned(),
        };
        Backup { description, packs: self.packs, maps }
    }

    /// What every data directory has, and `pg_control`.
    pub(super) fn skeleton(&mut self) {
        for directory in
            ["base", "base/5", "global", "pg_tblspc", "pg_wal", "pg_wal/archive_status"]
        {
            self.directory(directory);
        }
        self.inline("PG_VERSION", b"15\n");
        self.file("global/pg_control", &control(150));
        self.inline("postgresql.conf", b"max_connections = 50\n");
        self.inline("postgresql.auto.conf", b"primary_conninfo = 'host=old'\n");
        self.inline("pg_hba.conf", b"local all all trust\n");
    }
}

/// Cuts runs at leaf borders; the fixture never makes a run across one.
fn leaves(runs: Vec<Run>) -> Vec<Vec<Run>> {
    let mut leaves: Vec<Vec<Run>> = vec![Vec::new()];
    let mut pages = 0;
    for mut run in runs {
        while run.pages > 0 {
            let taken = run.pages.min(LEAF_PAGES - pages);
            assert!(taken == run.pages || run.pack.is_none());
            leaves.last_mut().unwrap().push(Run { pages: taken, ..run });
            run.pages -= taken;
            pages += taken;
            if pages == LEAF_PAGES {
                leaves.push(Vec::new());
                pages = 0;
            }
        }
    }
    leaves.retain(|leaf| !leaf.is_empty());
    leaves
}

/// A control file of PostgreSQL 15 whose source allowed so many connections.
pub(super) fn control(max_connections: u32) -> Vec<u8> {
    let mut bytes = vec![0; PAGE];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, &SYSTEM.to_le_bytes());
    put(8, &1300u32.to_le_bytes());
    put(12, &202_209_061u32.to_le_bytes());
    put(16, &6u32.to_le_bytes());
    put(172, &1u32.to_le_bytes());
    put(180, &max_connections.to_le_bytes());
    put(184, &8u32.to_le_bytes());
    put(188, &10u32.to_le_bytes());
    put(196, &64u32.to_le_bytes());
    put(204, &8u32.to_le_bytes());
    put(208, &1_234_567.0f64.to_bits().to_le_bytes());
    put(216, &8192u32.to_le_bytes());
    put(220, &131_072u32.to_le_bytes());
    put(224, &8192u32.to_le_bytes());
    put(228, &(16u32 << 20).to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..288]);
    bytes[288..292].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Bytes that look like nothing and compress badly; the same for the same seed.
pub(super) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend_from_slice(&next());
    }
    bytes.truncate(length);
    bytes
}

/// Every file below a directory: path and content; links as `-> target`.
pub(super) fn tree(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            let meta = fs::symlink_metadata(&path).unwrap();
            if meta.is_symlink() {
                let to = fs::read_link(&path).unwrap();
                found.insert(name, format!("-> {}", to.display()).into_bytes());
            } else if meta.is_dir() {
                open.push(path);
            } else {
                found.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    found
}

pub(super) fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}
