//! Packs that anything can stand in: opened by their trailer and directory, every frame read.
#![no_main]

use std::sync::LazyLock;

use lifeboat_environment::Environment;
use lifeboat_fuzz::objects::Keys;
use lifeboat_objects::{Blocking, Location, Options, Store};
use lifeboat_repository::ids::Digest;
use lifeboat_repository::layout;
use lifeboat_repository::object::ObjectType;
use lifeboat_repository::pack::{FRAME_BYTES, FrameReader, PackReader, decode_frame};

struct Place {
    keys: Keys,
    folder: tempfile::TempDir,
    store: Store,
    blocking: Blocking,
}

static PLACE: LazyLock<Option<Place>> = LazyLock::new(|| {
    let folder = tempfile::tempdir().ok()?;
    let location = Location::new(&format!("file://{}", folder.path().display())).ok()?;
    let store = Store::open(&location, &Environment::system(), Options::default()).ok()?;
    Some(Place { keys: Keys::new().ok()?, folder, store, blocking: Blocking::new().ok()? })
});

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let place = PLACE.as_ref().expect("there is no place");
    read(place, input);
});

fn read(place: &Place, input: &[u8]) -> Option<()> {
    let keys = &place.keys.stream;
    let mut bytes = input.to_vec();
    place.keys.own(&mut bytes);
    let digest = Digest([7; 32]);
    let key = layout::content(keys.stream(), ObjectType::Pack, &digest).ok()?;
    let path = place.folder.path().join(key.as_str());
    std::fs::create_dir_all(path.parent()?).ok()?;
    std::fs::write(&path, &bytes).ok()?;
    let opening = PackReader::open(&place.store, keys, None, &digest);
    let pack = place.blocking.run(opening).ok()?;
    let mut reader = FrameReader::new().ok()?;
    let mut plain = vec![0; FRAME_BYTES];
    for number in 0..pack.frames().len().min(64) as u32 {
        let fetching = pack.fetch(&place.store, number, number);
        let Ok(stored) = place.blocking.run(fetching) else { continue };
        let decoded = decode_frame(&pack, number, &mut stored.to_vec(), &mut reader, &mut plain);
        let (Ok(length), Ok(frame)) = (decoded, pack.frame(number)) else { continue };
        for slot in 0..frame.slots {
            let range = frame.slot_range(slot);
            assert!(range.is_none_or(|range| range.end <= length), "a slot behind its frame");
        }
    }
    Some(())
}
