use std::fs;
use std::path::Path;

use lifeboat_repository::ids::Digest;
use lifeboat_repository::object::ObjectType;
use lifeboat_telemetry::Code;

use super::fixture::{Backup, Fixture, PAGE, noise};

fn write(fixture: &Fixture) -> (Backup, Vec<u8>) {
    let bytes = noise(5, 4300 * PAGE);
    let mut writer = fixture.writer();
    writer.pack_frames = 16;
    writer.skeleton();
    writer.file("base/5/1001", &bytes);
    (writer.finish(), bytes)
}

fn flip(path: &Path, at: impl Fn(usize) -> usize) {
    let mut bytes = fs::read(path).unwrap();
    let at = at(bytes.len());
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

/// Damages one object, restores, and expects a failure that names it and nothing startable.
fn damaged(kind: ObjectType, name: impl Fn(&Backup) -> Digest, damage: impl Fn(&Path)) -> Code {
    let fixture = Fixture::new(&["east"]);
    let (backup, _) = write(&fixture);
    let digest = name(&backup);
    damage(&fixture.object_path("east", kind, &digest));
    let to = fixture.path("target");
    let failure = fixture.restore(&fixture.plan(&backup, &to)).unwrap_err();
    assert!(failure.full_message().contains(&digest.to_string()), "{failure}");
    assert!(!to.join("global/pg_control").exists());
    failure.code()
}

#[test]
fn a_damaged_or_missing_object_of_each_class_is_named() {
    let pack = |backup: &Backup| backup.packs[3];
    let map = |backup: &Backup| backup.maps[0];
    let table = |backup: &Backup| backup.description.file_table[1];
    let cut = |path: &Path| {
        let bytes = fs::read(path).unwrap();
        fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    };
    for at in [3, 70, 120, 100_000] {
        let code = damaged(ObjectType::Pack, pack, |path| flip(path, |_| at));
        assert!(matches!(code, Code::ObjectDamaged | Code::FormatNewer), "{at}: {code:?}");
    }
    // In the trailer; the page table does not matter to a restore that compares nothing.
    for from_end in [1, 10, 14, 30, 39] {
        let code = damaged(ObjectType::Pack, pack, |path| flip(path, |length| length - from_end));
        let known = [Code::ObjectDamaged, Code::LimitExceeded].contains(&code);
        assert!(known, "{from_end}: {code:?}");
    }
    for (kind, name) in [
        (ObjectType::Pack, &pack as &dyn Fn(&Backup) -> Digest),
        (ObjectType::Map, &map),
        (ObjectType::FileTable, &table),
    ] {
        let torn = damaged(kind, name, cut);
        assert!(matches!(torn, Code::ObjectDamaged | Code::LimitExceeded), "{kind:?}: {torn:?}");
        let gone = damaged(kind, name, |path| fs::remove_file(path).unwrap());
        assert_eq!(gone, Code::ObjectMissing, "{kind:?}");
    }
    for (kind, name) in
        [(ObjectType::Map, &map as &dyn Fn(&Backup) -> Digest), (ObjectType::FileTable, &table)]
    {
        let code = damaged(kind, name, |path| flip(path, |length| length / 2));
        assert_eq!(code, Code::ObjectDamaged, "{kind:?}");
    }
}

#[test]
fn a_pack_in_the_place_of_another_is_found_out() {
    let fixture = Fixture::new(&["east"]);
    let (backup, _) = write(&fixture);
    let path = |number: usize| fixture.object_path("east", ObjectType::Pack, &backup.packs[number]);
    fs::copy(path(4), path(3)).unwrap();
    let to = fixture.path("target");
    let failure = fixture.restore(&fixture.plan(&backup, &to)).unwrap_err();
    assert_eq!(failure.code(), Code::ObjectDamaged);
    assert!(failure.message().contains("base/5/1001"), "{failure}");
    assert!(!to.join("global/pg_control").exists());
}

#[test]
fn another_region_gives_what_one_has_lost() {
    let fixture = Fixture::new(&["east", "west"]);
    let (backup, bytes) = write(&fixture);
    let east = |kind, digest: &Digest| fixture.object_path("east", kind, digest);
    flip(&east(ObjectType::Pack, &backup.packs[0]), |_| 100_000);
    fs::remove_file(east(ObjectType::Pack, &backup.packs[1])).unwrap();
    fs::remove_file(east(ObjectType::Map, &backup.maps[0])).unwrap();
    flip(&east(ObjectType::FileTable, &backup.description.file_table[0]), |length| length / 2);
    let to = fixture.path("target");
    fixture.restore(&fixture.plan(&backup, &to)).unwrap();
    assert!(fs::read(to.join("base/5/1001")).unwrap() == bytes);
    assert!(to.join("global/pg_control").exists());
}

#[test]
fn the_next_run_succeeds_once_the_cause_is_gone() {
    let fixture = Fixture::new(&["east"]);
    let (backup, bytes) = write(&fixture);
    let path = fixture.object_path("east", ObjectType::Pack, &backup.packs[5]);
    fs::rename(&path, fixture.path("aside")).unwrap();
    let to = fixture.path("target");
    let plan = fixture.plan(&backup, &to);
    let failure = fixture.restore(&plan).unwrap_err();
    assert_eq!(failure.code(), Code::ObjectMissing);
    assert!(failure.message().contains("files are restored"), "{failure}");
    fs::rename(fixture.path("aside"), &path).unwrap();
    fixture.restore(&plan).unwrap();
    assert!(fs::read(to.join("base/5/1001")).unwrap() == bytes);
}
