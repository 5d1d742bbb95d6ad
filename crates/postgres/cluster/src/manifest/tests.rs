use std::ffi::OsStr;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::tests::unpacked;

fn number<T: std::str::FromStr>(value: &Value) -> T {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    text.parse().ok().unwrap()
}

/// Writes a manifest with the entries of one that a server wrote.
fn rewritten(original: &[u8], major: u32) -> Vec<u8> {
    let value: Value = serde_json::from_slice(original).unwrap();
    let system = SystemIdentifier(value.get("System-Identifier").map_or(0, number));
    let release = Release::of_major(major).unwrap();
    let mut writer = ManifestWriter::new(Vec::new(), release, system).unwrap();
    for file in value["Files"].as_array().unwrap() {
        let mut sum = [0; 4];
        hex::decode_to_slice(file["Checksum"].as_str().unwrap(), &mut sum).unwrap();
        let modified = file["Last-Modified"].as_str().unwrap().replace(" GMT", "Z");
        let file = ManifestFile {
            path: Path::new(file["Path"].as_str().unwrap()),
            size: number(&file["Size"]),
            modified: modified.parse().unwrap(),
            crc32c: u32::from_le_bytes(sum),
        };
        writer.file(&file).unwrap();
    }
    let ranges = value["WAL-Ranges"].as_array().unwrap().iter().map(|range| WalRange {
        timeline: Timeline(number(&range["Timeline"])),
        start: number(&range["Start-LSN"]),
        end: number(&range["End-LSN"]),
    });
    writer.finish(&ranges.collect::<Vec<_>>()).unwrap()
}

#[test]
fn the_manifests_of_real_servers_are_written_byte_for_byte() {
    for major in [15, 18] {
        let original = unpacked(&format!("manifest/{major}.zst"));
        let written = rewritten(&original, major);
        assert!(written == original, "version {major}: {}", String::from_utf8_lossy(&written));
    }
}

#[test]
fn the_checksum_is_that_of_the_content() {
    let manifest = unpacked("manifest/15.zst");
    let value: Value = serde_json::from_slice(&manifest).unwrap();
    let files = value["Files"].as_array().unwrap();
    let version = files.iter().find(|file| file["Path"] == "PG_VERSION").unwrap();
    assert_eq!(version["Checksum"], hex::encode(crc32c::crc32c(b"15\n").to_le_bytes()));
}

#[test]
fn a_backup_without_wal_ranges_and_files_is_still_a_document() {
    let release = Release::of_major(17).unwrap();
    let writer = ManifestWriter::new(Vec::new(), release, SystemIdentifier(7)).unwrap();
    let written = writer.finish(&[]).unwrap();
    let value: Value = serde_json::from_slice(&written).unwrap();
    assert_eq!(value["System-Identifier"], 7);
    assert_eq!(value["Files"].as_array().unwrap().len(), 0);
}

proptest! {
    #[test]
    fn any_path_can_be_read_back(path in proptest::collection::vec(1_u8.., 1..30)) {
        let release = Release::of_major(13).unwrap();
        let mut writer = ManifestWriter::new(Vec::new(), release, SystemIdentifier(7)).unwrap();
        let file = ManifestFile {
            path: Path::new(OsStr::from_bytes(&path)),
            size: 1,
            modified: Timestamp::UNIX_EPOCH,
            crc32c: 2,
        };
        writer.file(&file).unwrap();
        let value: Value = serde_json::from_slice(&writer.finish(&[]).unwrap()).unwrap();
        let entry = &value["Files"][0];
        let read = match entry.get("Path") {
            Some(plain) => plain.as_str().unwrap().as_bytes().to_vec(),
            None => hex::decode(entry["Encoded-Path"].as_str().unwrap()).unwrap(),
        };
        prop_assert_eq!(read, path);
    }
}
