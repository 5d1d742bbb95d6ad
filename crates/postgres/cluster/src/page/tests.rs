use proptest::prelude::*;

use super::*;
use crate::tests::unpacked;

/// File, block number of its first page, number of pages: written by servers with checksums.
const GOLDEN: [(&str, u32, usize); 4] =
    [("heap", 0, 2), ("btree", 0, 2), ("vm", 0, 1), ("heap_last", 30, 1)];

fn golden_pages() -> Vec<(Vec<u8>, u32)> {
    let mut pages = Vec::new();
    for major in [15, 18] {
        for (name, first, count) in GOLDEN {
            let file = unpacked(&format!("pages/{major}/{name}.zst"));
            assert_eq!(file.len(), count * BLOCK_SIZE, "{major} {name}");
            pages.extend(file.chunks(BLOCK_SIZE).map(<[u8]>::to_vec).zip(first..));
        }
    }
    pages
}

#[test]
fn pages_of_real_servers_are_valid_at_their_block_only() {
    for (page, block) in golden_pages() {
        assert_eq!(check_page(&page, block, true), PageState::Valid);
        assert_eq!(check_page(&page, block, false), PageState::Valid);
        assert!(page_lsn(&page) > Lsn(0x10_0000) && page_lsn(&page) < Lsn(0x200_0000));
        assert!(!is_new(&page));
        let elsewhere = check_page(&page, block + 1, true);
        assert!(matches!(elsewhere, PageState::BadChecksum { .. }), "{elsewhere:?}");
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    let (page, block) = golden_pages().remove(0);
    for bit in 0..BLOCK_SIZE * 8 {
        let mut damaged = page.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(!check_page(&damaged, block, true).is_good(), "bit {bit}");
    }
}

#[test]
fn a_zero_page_is_good_and_an_almost_zero_page_is_not() {
    for size in [1024, 4096, BLOCK_SIZE, 32768] {
        let mut page = vec![0; size];
        assert_eq!(check_page(&page, 3, true), PageState::Zero);
        page[size - 1] = 1;
        let state = PageState::BadHeader(HeaderFault::NewButNotZero);
        assert_eq!(check_page(&page, 3, true), state);
        assert_eq!(check_page(&page, 3, false), state);
    }
}

#[test]
fn headers_that_postgresql_refuses_are_named() {
    let (page, _) = golden_pages().remove(0);
    let with = |at: usize, value: u16| {
        let mut page = page.clone();
        page[at..at + 2].copy_from_slice(&value.to_le_bytes());
        check_page(&page, 0, false)
    };
    assert_eq!(with(10, 0x0008), PageState::BadHeader(HeaderFault::Flags));
    assert_eq!(with(12, 0x1FF0), PageState::BadHeader(HeaderFault::Pointers));
    assert_eq!(with(16, 0x2001), PageState::BadHeader(HeaderFault::Pointers));
    assert_eq!(with(18, 0x1004), PageState::BadHeader(HeaderFault::Layout));
    assert_eq!(with(18, 0x2003), PageState::BadHeader(HeaderFault::Layout));
    assert_eq!(with(8, 0xFFFF), PageState::Valid, "checksums are off");
}

#[test]
fn a_length_that_is_no_block_is_refused() {
    for length in [0, 1, 23, 512, 8191, 8193, 65536] {
        let state = check_page(&vec![0; length], 0, true);
        assert_eq!(state, PageState::BadHeader(HeaderFault::Length), "{length}");
    }
}

/// The algorithm as its definition reads, one lane at a time.
fn plain_checksum(page: &[u8], block: u32) -> u16 {
    let mut page = page.to_vec();
    page[8..10].fill(0);
    page.extend([0; 2 * ROW]);
    let lanes = OFFSETS.iter().enumerate().map(|(lane, offset)| {
        page.chunks(ROW).fold(*offset, |sum, row| {
            let word = u32::from_le_bytes(row[lane * 4..lane * 4 + 4].try_into().unwrap());
            let mixed = sum ^ word;
            mixed.wrapping_mul(PRIME) ^ (mixed >> 17)
        })
    });
    ((lanes.fold(0, |all, sum| all ^ sum) ^ block) % 65535 + 1) as u16
}

proptest! {
    #[test]
    fn the_vector_code_equals_the_definition(
        page in proptest::collection::vec(any::<u8>(), BLOCK_SIZE),
        block: u32,
    ) {
        prop_assert_eq!(checksum(&page, block), plain_checksum(&page, block));
    }

    #[test]
    fn random_bytes_never_panic(
        page in proptest::collection::vec(any::<u8>(), 0..2100),
        block: u32,
        on: bool,
    ) {
        check_page(&page, block, on);
        checksum(&page, block);
        page_lsn(&page);
        prop_assert_eq!(is_zero(&page), page.iter().all(|byte| *byte == 0));
    }
}
