//! Readers of hostile bytes end in a failure, never in a panic or in endless memory.

use bytes::Bytes;
use proptest::prelude::*;

use super::sample;
use crate::cursor::{Cursor, put_varint};
use crate::ids::Digest;
use crate::keys::{Encryption, VaultSecrets};
use crate::object::{Header, decode_any};
use crate::tree::{Content, FileEntry, FileKind, FileTablePage, MapObject, ObjectTable, Root, Run};

proptest! {
    #[test]
    fn varints_return(value: u64) {
        let mut bytes = Vec::new();
        put_varint(&mut bytes, value);
        let mut cursor = Cursor::new(&bytes, "a test");
        prop_assert_eq!(cursor.varint().unwrap(), value);
        cursor.end().unwrap();
    }

    #[test]
    fn random_bytes_are_no_object(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut framed = b"LIFEBOAT".to_vec();
        framed.extend_from_slice(&bytes);
        let framed = Bytes::from(framed);
        let key = lifeboat_objects::Key::new("format").unwrap();
        prop_assert!(decode_any(&key, &framed).is_err());
        let _ = Header::decode(&framed);
        prop_assert!(ObjectTable::decode(&Digest::of(&framed), &framed).is_err());
    }

    #[test]
    fn runs_return(runs in prop::collection::vec((any::<bool>(), 0u32..99, 0u32..32, 1u32..9), 1..60)) {
        let environment = sample::environment();
        let secrets = VaultSecrets::create(&environment, Encryption::Aes256Gcm).unwrap();
        let keys = secrets.stream(1, crate::ids::Incarnation::FIRST);
        let leaf: Vec<Run> = runs
            .into_iter()
            .map(|(zero, frame, slot, pages)| match zero {
                true => Run { pack: None, frame: 0, slot: 0, pages },
                false => Run { pack: Some(Digest([frame as u8; 32])), frame, slot, pages },
            })
            .collect();
        let mut map = MapObject::default();
        map.add(&leaf);
        let bytes = map.finish(&keys, &environment).unwrap();
        prop_assert_eq!(MapObject::decode(&keys, &Digest::of(&bytes), &bytes).unwrap(), [leaf]);
    }
}

#[test]
fn paths_that_leave_their_root_are_refused_before_anything_is_written() {
    let environment = sample::environment();
    let secrets = VaultSecrets::create(&environment, Encryption::Aes256Gcm).unwrap();
    let keys = secrets.stream(1, crate::ids::Incarnation::FIRST);
    let hostile: [(Root, &[u8]); 9] = [
        (Root::Data, b""),
        (Root::Data, b"/etc/passwd"),
        (Root::Data, b"../etc/passwd"),
        (Root::Data, b"base/../../etc/passwd"),
        (Root::Data, b"base//1"),
        (Root::Data, b"./base"),
        (Root::Data, b"base/\0/1"),
        (Root::Outside, b"etc/passwd"),
        (Root::Outside, b"/etc/../root/.ssh/authorized_keys"),
    ];
    for (root, path) in hostile {
        let entry = FileEntry {
            root,
            path: path.to_vec(),
            kind: FileKind::File,
            mode: 0o600,
            modified: 0,
            size: 0,
            page_bytes: 8192,
            crc32c: 0,
            boot: false,
            content: Content::Nothing,
        };
        let mut page = FileTablePage::default();
        page.add(&entry);
        let bytes = page.finish(&keys, &environment).unwrap();
        let failure = FileTablePage::decode(&keys, &Digest::of(&bytes), &bytes).unwrap_err();
        assert_eq!(failure.code(), lifeboat_telemetry::Code::PathUnsafe, "{path:?}");
    }
}
