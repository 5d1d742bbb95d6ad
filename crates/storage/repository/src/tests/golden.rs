//! Version 1 stays readable for ever: the files below `testdata/format/v1` were written once.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use lifeboat_environment::Environment;
use lifeboat_objects::{Key, Location, Options, Store};
use lifeboat_telemetry::{Cancel, Reporter};
use zeroize::Zeroizing;

use super::sample::{
    self, DATABASE, EPOCH, FRAGMENTS, LARGE, PASSPHRASE, SEGMENT, SERVICE, SYSTEM,
};
use crate::check::Check;
use crate::epoch::{self, Epoch};
use crate::fragment::decode_fragment;
use crate::ids::Incarnation;
use crate::keys::{Encryption, OpenWith};
use crate::layout;
use crate::object::ObjectType;
use crate::pack::{FRAME_BYTES, FrameReader, PackReader, decode_frame};
use crate::receiver::receivers;
use crate::repository::Repository;
use crate::tree::{Content, FileTablePage, MapObject};
use crate::wal_file;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/format/v1").join(name)
}

/// The writer still makes these bytes. A new zstd may change them without changing the format:
/// then the sealed test below is what counts, and this one gets a new folder.
#[test]
fn the_seed_writes_the_golden_files() {
    for (name, encryption) in [("sealed", Encryption::Aes256Gcm), ("plain", Encryption::None)] {
        let place = format!("memory:///golden-write-{name}");
        let sample = sample::run(sample::build(&place, encryption));
        let objects = sample::run(sample.store.list("")).unwrap();
        let folder = folder(name);
        if Environment::system().variable("LIFEBOAT_WRITE_GOLDEN").is_some() {
            for (key, _) in &objects {
                let path = folder.join(key.as_str());
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                let bytes = sample::run(sample.store.get(key)).unwrap();
                std::fs::write(path, bytes).unwrap();
            }
        }
        for (key, _) in &objects {
            let golden = std::fs::read(folder.join(key.as_str())).unwrap();
            let written = sample::run(sample.store.get(key)).unwrap();
            assert!(written == golden, "{name}: {key} is not what version 1 wrote");
        }
        assert_eq!(objects.len(), count_files(&folder), "{name}: a golden file is not written");
    }
}

fn count_files(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { count_files(&path) } else { 1 }).sum()
}

#[test]
fn the_golden_files_can_be_read() {
    for name in ["sealed", "plain"] {
        sample::run(read_golden(name));
    }
}

async fn read_golden(name: &str) {
    let location = Location::new(&format!("file://{}", folder(name).display())).unwrap();
    let environment = sample::environment();
    let store = Store::open(&location, &environment, Options::default()).unwrap();
    let repository = Repository::open(store.clone()).await.unwrap();
    let opener = OpenWith::Passphrase(Zeroizing::new(PASSPHRASE.to_vec()));
    let secrets = repository.open_secrets(&[opener]).await.unwrap();
    let binding = repository.binding(DATABASE).await.unwrap().unwrap();
    assert_eq!((binding.number, binding.body.system_identifier), (1, SYSTEM));
    let keys = secrets.stream(SYSTEM, Incarnation::FIRST);
    assert_eq!(keys.stream(), binding.body.stream);

    let manifests = repository.manifests(keys.stream()).await.unwrap().sound;
    let [manifest] = manifests.as_slice() else { panic!("one manifest is expected") };
    let description = manifest.description(&keys).unwrap();
    assert_eq!(description.label.as_deref(), Some("golden"));

    let get = async |kind, digest: &crate::ids::Digest| -> Bytes {
        store.get(&layout::content(keys.stream(), kind, digest).unwrap()).await.unwrap()
    };
    let digest = description.file_table[0];
    let bytes = get(ObjectType::FileTable, &digest).await;
    let files = FileTablePage::decode(&keys, &digest, &bytes).unwrap();
    assert_eq!(files.len(), 5);
    let Content::Leaves(leaves) = &files[2].content else { panic!("leaves are expected") };
    let bytes = get(ObjectType::Map, &leaves[0].map).await;
    let map = MapObject::decode(&keys, &leaves[0].map, &bytes).unwrap();
    let run = map[leaves[1].leaf as usize][0];

    let read_key = secrets.read_key();
    let pack = PackReader::open(&store, &keys, Some(&read_key), &run.pack.unwrap()).await.unwrap();
    let mut stored = pack.fetch(&store, run.frame, run.frame).await.unwrap().to_vec();
    let mut plain = vec![0; FRAME_BYTES];
    let mut reader = FrameReader::new().unwrap();
    decode_frame(&pack, run.frame, &mut stored, &mut reader, &mut plain).unwrap();
    let range = pack.frame(run.frame).unwrap().slot_range(run.slot).unwrap();
    assert_eq!(plain[range], sample::page(2));

    let wal_key = read_key.for_wal(keys.stream());
    for (file, kind) in [(SEGMENT, ObjectType::Segment), (LARGE, ObjectType::SegmentHead)] {
        let key: Key = layout::wal(keys.stream(), file).unwrap();
        let bytes = store.get(&key).await.unwrap();
        let (head, plain) = wal_file::decode(&keys, &wal_key, kind, &key, &bytes).unwrap();
        assert_eq!(head.facts.last_commit_us, Some(1_763_632_801_000_000));
        if kind == ObjectType::Segment {
            assert_eq!(plain, sample::wal(1 << 20));
        }
    }
    for name in FRAGMENTS {
        let name = name.parse().unwrap();
        let bytes = store.get(&layout::fragment(keys.stream(), &name).unwrap()).await.unwrap();
        let (head, plain) = decode_fragment(&keys, &wal_key, &name, &bytes).unwrap();
        assert_eq!(head.facts.last_record, Some(name.start));
        let offset = name.start.0 as usize & 0xf_ffff;
        assert_eq!(plain, sample::wal(1 << 20)[offset..offset + plain.len()]);
    }
    let receivers = receivers(&repository, keys.stream()).await.unwrap();
    assert_eq!(receivers.damaged.len(), 0);
    let hosts: Vec<&str> = receivers.sound.iter().map(|one| one.body.host.as_str()).collect();
    assert_eq!(hosts, ["receiver-1", "receiver-2"]);
    assert_eq!(epoch::highest(&repository, SERVICE).await.unwrap(), Some(EPOCH));
    let bytes = store.get(&layout::epoch(SERVICE, EPOCH).unwrap()).await.unwrap();
    let writers = repository.certified_writers().await.unwrap();
    let epoch = Epoch::decode(SERVICE, EPOCH, &bytes).unwrap().certified(&writers).unwrap();
    assert_eq!((epoch.body.region.as_str(), epoch.body.run), ("west", Some(3)));
    let (reporter, cancel) = (Reporter::silent(), Cancel::new());
    let check = Check::begin(&repository, &reporter, &cancel).await.unwrap();
    let report = check.run(true).await.unwrap();
    assert_eq!(report.damage, []);
    assert_eq!(report.read, report.objects);
}

/// Frames had 1 MiB before they had 4.
#[test]
fn small_frames_of_wal_are_read() {
    for (name, encryption) in [("sealed", Encryption::Aes256Gcm), ("plain", Encryption::None)] {
        let folder = folder(&format!("../v1-small-frames/{name}"));
        let sample = sample::run(sample::build(&format!("memory:///small-{name}"), encryption));
        let keys = sample.secrets.stream(SYSTEM, Incarnation::FIRST);
        let read_key = sample.secrets.read_key().for_wal(keys.stream());
        for number in [0, 1] {
            let key = layout::wal_part(keys.stream(), LARGE, number).unwrap();
            let file = key.as_str().rsplit_once('/').unwrap().1;
            let bytes = Bytes::from(std::fs::read(folder.join(file)).unwrap());
            let kind = ObjectType::SegmentPart;
            let decoded = wal_file::decode(&keys, &read_key, kind, &key, &bytes);
            // The sample gives its parts the digest of another file, which only `plain` looks at.
            match encryption {
                Encryption::Aes256Gcm => assert_eq!(decoded.unwrap().1, sample::wal(1_500_000)),
                Encryption::None => {
                    assert!(decoded.unwrap_err().to_string().contains("wrong content"));
                }
            }
        }
    }
}

#[test]
fn wal_of_two_frames_comes_back() {
    let (secrets, environment) = {
        let sample = sample::run(sample::build("memory:///golden-frames", Encryption::Aes256Gcm));
        (sample.secrets, sample::environment())
    };
    let keys = secrets.stream(SYSTEM, Incarnation::FIRST);
    let read_key = secrets.read_key().for_wal(keys.stream());
    let key = layout::wal_part(keys.stream(), LARGE, 7).unwrap();
    let plain = sample::wal((4 << 20) + 1);
    let (digest, facts) = (keys.content_digest(&plain), wal_file::WalFacts::default());
    let content = wal_file::WalContent { plain: &plain, digest, facts: &facts };
    let kind = ObjectType::SegmentPart;
    let bytes = wal_file::encode(&keys, &environment, kind, &key, 1, &content).unwrap();
    let (head, found) = wal_file::decode(&keys, &read_key, kind, &key, &bytes).unwrap();
    assert_eq!(head.plain_bytes, plain.len() as u64);
    assert!(found == plain);
}

#[test]
fn a_newer_repository_is_refused() {
    let sample = sample::run(sample::build("memory:///golden-newer", Encryption::Aes256Gcm));
    let key = layout::format().unwrap();
    let mut bytes = sample::run(sample.store.get(&key)).unwrap().to_vec();
    bytes[10] = 2;
    let location = Location::new("memory:///golden-newer-2").unwrap();
    let environment = sample::environment();
    let store = Store::open(&location, &environment, Options::default()).unwrap();
    sample::run(store.create(&key, bytes.into())).unwrap();
    let failure = sample::run(Repository::open(store)).unwrap_err();
    assert_eq!(failure.code(), lifeboat_telemetry::Code::FormatNewer);
}
