//! A small repository with one object of every class, the same bytes on every run.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use lifeboat_environment::{Environment, ManualClock, SeededRandom};
use lifeboat_model::{Lsn, Timeline};
use lifeboat_objects::{Location, Options, Store};
use zeroize::Zeroizing;

use crate::enroll;
use crate::epoch::EpochBody;
use crate::fragment::{FragmentName, encode_fragment};
use crate::ids::{Digest, StreamId};
use crate::keys::{Encryption, OpenWith, StreamKeys, VaultSecrets, WriterKey, make_slot};
use crate::layout;
use crate::manifest::{
    ClusterFacts, DamagedPage, Description, Extent, Manifest, ManifestBody, OutsideFile, Sizes,
    Tablespace, WalSpan,
};
use crate::object::ObjectType;
use crate::pack::{FrameCompressor, PackBuilder, PageEntry};
use crate::receiver::{Durable, ReceiverBody};
use crate::regions::Regions;
use crate::repository::{ExclusiveCreate, FormatBody, Repository, encode_body};
use crate::session::{SessionBody, manifest_name};
use crate::tree::{
    Content, FileEntry, FileKind, FileTablePage, LeafRef, MapObject, ObjectEntry, ObjectTable,
    Root, Run,
};
use crate::wal_file::{self, Parts, WalContent, WalFacts};

pub const PASSPHRASE: &[u8] = b"correct horse battery staple";
pub const DATABASE: &str = "payments/ledger";
pub const SERVICE: &str = "payments";
pub const EPOCH: u32 = 5;
pub const SYSTEM: u64 = 7_312_345_678_901_234_567;
pub const SEGMENT: &str = "000000010000000000000001";
pub const LARGE: &str = "000000010000000000000002";
pub const FRAGMENTS: [&str; 3] = [
    "00000001/0000000000300000-0000000000300400-00000001",
    "00000001/0000000000300200-0000000000300900-00000002",
    "00000001/0000000000300900-0000000000301000-00000002",
];

/// The sample and what tests ask of it.
pub struct Sample {
    pub store: Store,
    pub secrets: VaultSecrets,
    pub writer: WriterKey,
    pub keys: StreamKeys,
}

pub fn environment() -> Environment {
    let clock = ManualClock::at("2026-11-20T10:00:00Z".parse().unwrap());
    Environment::for_test(Arc::new(clock), Arc::new(SeededRandom::new(42)))
}

pub fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// A page whose content is easy to tell.
pub fn page(number: u8) -> Vec<u8> {
    let mut page = vec![number; 8192];
    page[..8].copy_from_slice(&u64::from(number).to_be_bytes());
    page
}

/// Bytes of a WAL file.
pub fn wal(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index / 100 % 251) as u8).collect()
}

pub async fn build(place: &str, encryption: Encryption) -> Sample {
    let environment = environment();
    let location = Location::new(place).unwrap();
    let store = Store::open(&location, &environment, Options::default()).unwrap();
    store.create_root().await.unwrap();
    let secrets = VaultSecrets::create(&environment, encryption).unwrap();
    let opener = match encryption {
        Encryption::None => OpenWith::Open,
        Encryption::Aes256Gcm => OpenWith::Passphrase(Zeroizing::new(PASSPHRASE.to_vec())),
    };
    let body = make_slot(&environment, &secrets, &opener, "passphrase").unwrap();
    let key = layout::slot(1).unwrap();
    let bytes = encode_body(secrets.vault(), &key, ObjectType::Slot, &body, None).unwrap();
    store.create(&key, bytes).await.unwrap();
    let format = FormatBody {
        lifeboat_repository: 1,
        vault: secrets.vault().clone(),
        region: "east".to_owned(),
        created_at: environment.clock().now(),
        exclusive_create: ExclusiveCreate::Proven,
    };
    let root = secrets.root().unwrap();
    let repository = Repository::create(store.clone(), format, &root).await.unwrap();
    let mut regions = Regions::new(vec![repository], Vec::new()).unwrap();
    let mut writer = enroll::enroll(&environment, &mut regions, &secrets, "east-1").await.unwrap();
    let stream =
        enroll::bind(&environment, &mut regions, &secrets, DATABASE, SYSTEM).await.unwrap();
    writer.bind(DATABASE, stream.clone());
    let keys = stream.keys;
    backup(&environment, &store, &keys, &writer).await;
    archive(&environment, &store, &keys).await;
    stream_wal(&environment, &store, &keys, &writer).await;
    grant_epochs(&environment, &store, &secrets, &writer).await;
    Sample { store, secrets, writer, keys }
}

async fn put(store: &Store, stream: StreamId, kind: ObjectType, bytes: &Bytes) -> Digest {
    let digest = Digest::of(bytes);
    store.create(&layout::content(stream, kind, &digest).unwrap(), bytes.clone()).await.unwrap();
    digest
}

async fn backup(environment: &Environment, store: &Store, keys: &StreamKeys, writer: &WriterKey) {
    let stream = keys.stream();
    let name = manifest_name(1);
    let signer = writer.signing().unwrap();
    let session = SessionBody {
        manifest: name.clone(),
        writer: "east-1".to_owned(),
        started_at: environment.clock().now(),
        expires_at: environment.clock().now() + crate::session::SESSION_LIFE,
    };
    let (key, bytes) = session.encode(keys.vault().id, stream, &signer).unwrap();
    store.create(&key, bytes).await.unwrap();

    let mut pack = PackBuilder::new(keys, environment).unwrap();
    let mut compressor = FrameCompressor::new(1).unwrap();
    let entry = |bytes: &[u8]| PageEntry { id: keys.page_id(bytes), crc32c: crc32c::crc32c(bytes) };
    let (first, second) = (page(1), page(2));
    let both = [first.clone(), second.clone()].concat();
    let pages = [entry(&first), entry(&second)];
    pack.add_frame(&mut compressor, &both, 8192, None, &pages).unwrap();
    let odd = b"15\n";
    pack.add_frame(&mut compressor, odd, 8192, Some(&[3]), &[entry(odd)]).unwrap();
    let pack = pack.finish(environment).unwrap();
    let pack_digest = put(store, stream, ObjectType::Pack, &pack.bytes).await;

    let run = |frame, pages| Run { pack: Some(pack_digest), frame, slot: 0, pages };
    let mut map = MapObject::default();
    let zeros = Run { pack: None, frame: 0, slot: 0, pages: 4094 };
    map.add(&[run(0, 2), zeros]);
    map.add(&[Run { slot: 1, ..run(0, 1) }]);
    let map = map.finish(keys, environment).unwrap();
    let map_digest = put(store, stream, ObjectType::Map, &map).await;

    let mut table = FileTablePage::default();
    for file in files(run(1, 1), map_digest) {
        table.add(&file);
    }
    let table = table.finish(keys, environment).unwrap();
    let table_digest = put(store, stream, ObjectType::FileTable, &table).await;

    let entry = |digest, kind, bytes: &Bytes| {
        let size = bytes.len() as u64;
        ObjectEntry { digest, kind, size, live: size }
    };
    let objects = vec![
        entry(pack_digest, ObjectType::Pack, &pack.bytes),
        entry(map_digest, ObjectType::Map, &map),
        entry(table_digest, ObjectType::FileTable, &table),
    ];
    let mut object_table = Vec::new();
    for bytes in ObjectTable::encode(keys, objects) {
        object_table.push(put(store, stream, ObjectType::ObjectTable, &bytes).await);
    }
    let body = ManifestBody {
        name,
        predecessor: None,
        committed_at: environment.clock().now(),
        object_table,
        wal: [SEGMENT.to_owned(), SEGMENT.to_owned()],
        sealed: String::new(),
    };
    let description = description(environment.clock().now(), table_digest, pack_digest);
    let (key, bytes) = Manifest::encode(keys, environment, &signer, body, &description).unwrap();
    store.create(&key, bytes).await.unwrap();
}

pub fn files(version: Run, map: Digest) -> Vec<FileEntry> {
    let file = |path: &str, size: u64, content: Content| FileEntry {
        root: Root::Data,
        path: path.as_bytes().to_vec(),
        kind: FileKind::File,
        mode: 0o600,
        modified: 1_763_632_800,
        size,
        page_bytes: 8192,
        crc32c: 0x1234_5678,
        boot: true,
        content,
    };
    let directory = FileEntry { kind: FileKind::Directory, ..file("base", 0, Content::Nothing) };
    let link =
        FileEntry { kind: FileKind::Tablespace, ..file("pg_tblspc/16385", 0, Content::Nothing) };
    let leaves = vec![LeafRef { map, leaf: 0 }, LeafRef { map, leaf: 1 }];
    let hba = FileEntry {
        root: Root::Outside,
        ..file("/etc/postgresql/15/main/pg_hba.conf", 9, Content::Inline(b"# nobody\n".to_vec()))
    };
    vec![
        file("PG_VERSION", 3, Content::Runs(vec![version])),
        directory,
        file("base/1/1259", 4097 * 8192, Content::Leaves(leaves)),
        link,
        hba,
    ]
}

fn description(now: Timestamp, file_table: Digest, pack: Digest) -> Description {
    Description {
        database: DATABASE.to_owned(),
        label: Some("golden".to_owned()),
        region: "east".to_owned(),
        started_at: now,
        stopped_at: now,
        cluster: ClusterFacts {
            system_identifier: SYSTEM,
            incarnation: crate::ids::Incarnation::FIRST,
            major: 15,
            version: 150_020,
            catalog_version: 202_209_061,
            block_bytes: 8192,
            wal_segment_bytes: 16 << 20,
            data_checksums: true,
            from_standby: false,
            data_directory: "/var/lib/postgresql/15/main".to_owned(),
        },
        wal: WalSpan { timeline: Timeline(1), start: Lsn(0x0100_0028), stop: Lsn(0x0100_0100) },
        backup_label: "START WAL LOCATION: 0/1000028\n".to_owned(),
        tablespace_map: String::new(),
        tablespaces: vec![Tablespace { oid: 16385, location: "/srv/fast".to_owned() }],
        outside: vec![OutsideFile {
            role: "hba_file".to_owned(),
            path: "/etc/postgresql/15/main/pg_hba.conf".to_owned(),
        }],
        file_table: vec![file_table],
        boot_set: vec![Extent { pack, first_frame: 0, frames: 2 }],
        damaged_pages: vec![DamagedPage { path: "base/1/1259".to_owned(), block: 7 }],
        sizes: Sizes { files: 3, logical_bytes: 1, stored_bytes: 2, new_bytes: 3 },
        tool: "lifeboat golden".to_owned(),
    }
}

async fn archive(environment: &Environment, store: &Store, keys: &StreamKeys) {
    let stream = keys.stream();
    let facts = WalFacts {
        first_commit_us: Some(1_763_632_800_000_000),
        last_commit_us: Some(1_763_632_801_000_000),
        last_record: Some(Lsn(0x01ff_ff00)),
        restore_points: Vec::new(),
        ancestors: Vec::new(),
    };
    let file = async |kind, name: &str, plain: &[u8], digest: [u8; 32]| {
        let key = match name.split_once(".part-") {
            Some((name, part)) => layout::wal_part(stream, name, part.parse().unwrap()).unwrap(),
            None => layout::wal(stream, name).unwrap(),
        };
        let content = WalContent { plain, digest, facts: &facts };
        let bytes = wal_file::encode(keys, environment, kind, &key, 1, &content).unwrap();
        store.create(&key, bytes.clone()).await.unwrap();
        Digest::of(&bytes)
    };
    let segment = wal(1 << 20);
    let digest = keys.content_digest(&segment);
    file(ObjectType::Segment, SEGMENT, &segment, digest).await;
    let history = b"1\t0/3000000\tno recovery target specified\n";
    let digest = keys.content_digest(history);
    file(ObjectType::History, "00000002.history", history, digest).await;

    let large = keys.content_digest(&wal(3_000_000));
    let part = wal(1_500_000);
    let one = file(ObjectType::SegmentPart, &format!("{LARGE}.part-0"), &part, large).await;
    let two = file(ObjectType::SegmentPart, &format!("{LARGE}.part-1"), &part, large).await;
    let parts = serde_json::to_vec(&Parts { parts: vec![one, two] }).unwrap();
    file(ObjectType::SegmentHead, LARGE, &parts, large).await;
}

/// Two receivers, of which the second repeats a part of what the first one shipped.
async fn stream_wal(
    environment: &Environment,
    store: &Store,
    keys: &StreamKeys,
    writer: &WriterKey,
) {
    let signer = writer.signing().unwrap();
    for epoch in [1, 2] {
        let body = ReceiverBody {
            writer: "east-1".to_owned(),
            region: "east".to_owned(),
            host: format!("receiver-{epoch}"),
            control_epoch: 0,
            started_at: environment.clock().now(),
            durable: Durable::Spool,
        };
        let vault = keys.vault().id;
        let (key, bytes) = body.encode(vault, keys.stream(), epoch, &signer).unwrap();
        store.create(&key, bytes).await.unwrap();
    }
    for name in FRAGMENTS {
        let name: FragmentName = name.parse().unwrap();
        let plain = &wal(1 << 20)[name.start.0 as usize & 0xf_ffff..name.end.0 as usize & 0xf_ffff];
        let facts = WalFacts {
            last_commit_us: Some(1_763_632_802_000_000),
            last_record: Some(name.start),
            ..WalFacts::default()
        };
        let content = WalContent { plain, digest: keys.content_digest(plain), facts: &facts };
        let (key, bytes) = encode_fragment(keys, environment, &name, 1, &content).unwrap();
        store.create(&key, bytes).await.unwrap();
    }
}

/// A first epoch, and a move in which numbers were left out.
async fn grant_epochs(
    environment: &Environment,
    store: &Store,
    secrets: &VaultSecrets,
    writer: &WriterKey,
) {
    for (epoch, region, run) in [(1, "east", None), (EPOCH, "west", Some(3))] {
        let body = EpochBody {
            service: SERVICE.to_owned(),
            epoch,
            region: region.to_owned(),
            holders: [("ledger".to_owned(), format!("{region}-1"))].into(),
            run,
            writer: "east-1".to_owned(),
            created_at: environment.clock().now(),
            record: serde_json::json!({ "epoch": epoch, "state": "starting", "region": region }),
        };
        let signer = writer.signing().unwrap();
        let (key, bytes) = body.encode(secrets.vault(), &signer).unwrap();
        store.create(&key, bytes).await.unwrap();
    }
}
