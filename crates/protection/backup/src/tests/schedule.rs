use std::path::PathBuf;

use jiff::Timestamp;
use lifeboat_cluster::files::{Entry, Kind};

use crate::schedule::units;

fn entry(path: &str, kind: Kind, size: u64) -> Entry {
    Entry { path: PathBuf::from(path), kind, size, mode: 0o600, modified: Timestamp::UNIX_EPOCH }
}

#[test]
fn every_byte_is_read_once_and_the_boot_set_comes_first() {
    let leaf = 4096 * 8192u64;
    let entries = [
        entry("base", Kind::Directory, 0),
        entry("base/1/large", Kind::Other, 2 * leaf + 5),
        entry("base/1/small", Kind::Other, 100),
        entry("pg_xact/0000", Kind::Slru, 262_144),
        entry("base/1/empty", Kind::Other, 0),
        entry("global/pg_control", Kind::Control, 8192),
    ];
    let units = units(&entries, 8192);
    let firsts: Vec<bool> = units.iter().map(|unit| unit.boot).collect();
    assert!(firsts.is_sorted_by(|left, right| left >= right), "boot units stand first");
    let mut read = [0u64; 6];
    for piece in units.iter().flat_map(|unit| &unit.pieces) {
        assert_eq!(piece.offset, u64::from(piece.leaf) * leaf);
        assert_eq!(piece.offset, read[piece.file], "pieces of a file follow each other");
        read[piece.file] += piece.bytes;
    }
    assert_eq!(read, [0, 2 * leaf + 5, 100, 262_144, 0, 0]);
}

#[test]
fn many_small_files_are_many_units() {
    let entries: Vec<Entry> =
        (0..2000).map(|number| entry(&format!("base/1/{number}"), Kind::Other, 10)).collect();
    let units = units(&entries, 8192);
    assert!(units.len() >= 4, "{} units keep all workers busy", units.len());
}
