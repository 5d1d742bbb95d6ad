use lifeboat_model::{SegmentName, SegmentSize, SystemIdentifier};
use proptest::prelude::*;

use super::*;
use crate::ControlFile;
use crate::tests::{bytes, text, unpacked};

mod decode;
mod history;
mod label;
mod scan;
mod waldump;

/// A segment that a real server wrote.
fn segment(major: u32, name: &str) -> Vec<u8> {
    unpacked(&format!("wal/{major}/{name}.zst"))
}

fn name(text: &str) -> SegmentName {
    text.parse().unwrap()
}

/// The golden segments of a version, in order.
fn golden(major: u32) -> Vec<(SegmentName, Vec<u8>)> {
    let folder = crate::tests::path(&format!("wal/{major}"));
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        names.extend(file.strip_suffix(".zst").map(str::to_owned));
    }
    names.sort();
    assert!(names.len() >= 2, "golden segments of {major} are missing");
    names.iter().map(|it| (name(it), segment(major, it))).collect()
}

#[test]
fn segments_of_every_version_are_identified() {
    for release in &crate::RELEASES {
        let control = ControlFile::parse(&bytes(&format!("control/{}", release.major))).unwrap();
        for (name, content) in golden(release.major) {
            let identity = identify_segment(&content[..8192], name).unwrap();
            assert_eq!(identity.release, release);
            assert_eq!(identity.system, control.system);
            assert_eq!(identity.segment_size, control.wal_segment_size);
            assert_eq!(identity.block_size, control.wal_block_size);
            assert_eq!(Some(identity.start), name.start(control.wal_segment_size));
            assert_eq!(identity.check_length(content.len() as u64), Ok(()));
            assert!(identity.check_length(content.len() as u64 - 1).is_err());
        }
    }
}

#[test]
fn a_name_that_the_content_contradicts_is_refused() {
    let right = name("00000001000000000000000E");
    let page = segment(15, "00000001000000000000000E")[..8192].to_vec();
    let wrong = |edit: &dyn Fn(&mut Vec<u8>), name: SegmentName| {
        let mut page = page.clone();
        edit(&mut page);
        identify_segment(&page, name).unwrap_err()
    };
    let same = |_: &mut Vec<u8>| ();

    assert_eq!(
        wrong(&same, name("00000001000000000000000F")),
        WalError::WrongAddress { expected: Lsn(0xF0_0000), found: Lsn(0xE0_0000) }
    );
    assert_eq!(
        wrong(&same, name("000000010000000000001000")),
        WalError::ImpossibleName { name: name("000000010000000000001000") }
    );
    let later = WalError::LaterTimeline { name: Timeline(1), page: Timeline(2) };
    assert_eq!(wrong(&|page| page[4] = 2, right), later);
    assert_eq!(wrong(&|page| page[0] = 0xFF, right), WalError::WrongMagic { magic: 0xD1FF });
    assert_eq!(wrong(&|page| page[3] = 0x80, right), WalError::UnknownFlags { flags: 0x8006 });
    assert_eq!(wrong(&|page| page[2] = 0, right), WalError::NotSegmentStart);
    assert_eq!(wrong(&|page| page.fill(0), right), WalError::ZeroPage);
    assert_eq!(wrong(&|page| page.truncate(39), right), WalError::TooShort { length: 39 });
    let size = WalError::ImpossibleSize { what: "segment size", size: 0x10_0001 };
    assert_eq!(wrong(&|page| page[32] = 1, right), size);
    let size = WalError::ImpossibleSize { what: "block size", size: 0x2001 };
    assert_eq!(wrong(&|page| page[36] = 1, right), size);
    assert_eq!(later.at(right).code(), Code::WalInvalid);
}

#[test]
fn the_first_segment_of_a_new_timeline_may_hold_the_old_one() {
    let content = segment(15, "00000001000000000000000E");
    let identity = identify_segment(&content, name("00000002000000000000000E")).unwrap();
    assert_eq!(identity.timeline, Timeline(1));
    assert_eq!(identity.system, SystemIdentifier(identity.system.0));
    assert_eq!(identity.segment_size, SegmentSize::new(1 << 20).unwrap());
}

proptest! {
    #[test]
    fn random_pages_never_panic(page in proptest::collection::vec(any::<u8>(), 0..64)) {
        let refused = identify_segment(&page, name("000000010000000000000001")).is_err();
        prop_assert!(refused);
    }
}
