use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;

use lifeboat_cluster::page::checksum;
use lifeboat_model::Lsn;

use super::environment;
use crate::read::{PageRules, check, fill, open};

/// A page that PostgreSQL would accept at `block`, last changed at `lsn`.
fn page(block: u32, lsn: u64) -> Vec<u8> {
    let mut page = vec![0; 8192];
    page[0..4].copy_from_slice(&((lsn >> 32) as u32).to_ne_bytes());
    page[4..8].copy_from_slice(&(lsn as u32).to_ne_bytes());
    page[12..14].copy_from_slice(&28u16.to_ne_bytes());
    page[14..16].copy_from_slice(&8192u16.to_ne_bytes());
    page[16..18].copy_from_slice(&8192u16.to_ne_bytes());
    page[18..20].copy_from_slice(&(8192u16 | 4).to_ne_bytes());
    let sum = checksum(&page, block);
    page[8..10].copy_from_slice(&sum.to_ne_bytes());
    page
}

fn checked(pages: &[Vec<u8>], on_disk: Option<&[Vec<u8>]>, start: u64) -> (Vec<u32>, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("16384");
    let mut file = File::create(&path).unwrap();
    for page in on_disk.unwrap_or(pages) {
        file.write_all(page).unwrap();
    }
    let file = open(&path).unwrap().unwrap();
    let mut buffer = pages.concat();
    let rules = PageRules { first_block: 0, start: Lsn(start) };
    let source = (&file, path.as_path());
    let damaged = check(&environment(), source, rules, 0, 8192, &mut buffer).unwrap();
    (damaged, buffer)
}

#[test]
fn good_and_empty_pages_pass() {
    let pages = [page(0, 100), vec![0; 8192], page(2, 100)];
    assert!(checked(&pages, None, 1000).0.is_empty());
}

#[test]
fn a_page_that_stays_broken_is_named() {
    let mut broken = page(1, 100);
    broken[5000] ^= 1;
    let pages = [page(0, 100), broken, page(2, 100)];
    assert_eq!(checked(&pages, None, 1000).0, [1]);
}

#[test]
fn a_page_at_the_wrong_block_is_named() {
    let pages = [page(0, 100), page(7, 100)];
    assert_eq!(checked(&pages, None, 1000).0, [1]);
}

#[test]
fn a_page_written_after_the_start_is_left_to_the_wal() {
    let mut torn = page(0, 2000);
    torn[5000] ^= 1;
    assert!(checked(&[torn], None, 1000).0.is_empty());
}

#[test]
fn a_torn_read_is_read_again_and_the_good_page_is_kept() {
    let mut torn = page(0, 100);
    torn[5000] ^= 1;
    let good = page(0, 100);
    let (damaged, buffer) = checked(&[torn], Some(std::slice::from_ref(&good)), 1000);
    assert!(damaged.is_empty());
    assert_eq!(buffer, good);
}

#[test]
fn what_a_file_lost_reads_as_zeros() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("16384");
    let file = File::options().create(true).truncate(true).read(true).write(true).open(&path);
    let file = file.unwrap();
    file.write_all_at(&[7; 100], 0).unwrap();
    let mut buffer = vec![9; 300];
    fill(&file, &path, 0, &mut buffer).unwrap();
    assert_eq!(buffer, [vec![7; 100], vec![0; 200]].concat());
    assert!(open(&folder.path().join("gone")).unwrap().is_none());
}
