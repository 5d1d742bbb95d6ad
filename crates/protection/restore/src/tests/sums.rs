use proptest::prelude::*;

use crate::sums::Sums;

proptest! {
    #[test]
    fn stretches_in_any_order_give_the_sum_of_the_whole(
        bytes in proptest::collection::vec(any::<u8>(), 1..2000),
        mut cuts in proptest::collection::vec(0usize..2000, 0..8),
        seed in any::<u64>(),
    ) {
        cuts.retain(|cut| *cut < bytes.len());
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        cuts.dedup();
        let mut ranges: Vec<_> = cuts.windows(2).map(|pair| pair[0]..pair[1]).collect();
        ranges.sort_by_key(|range| (range.start as u64).wrapping_mul(seed | 1));
        let mut sums = Sums::default();
        for range in ranges {
            sums.add(range.start as u64, &bytes[range]);
        }
        prop_assert_eq!(sums.total(0, bytes.len() as u64), Some(crc32c::crc32c(&bytes)));
    }

    #[test]
    fn zeros_count_as_bytes(before in 0usize..100, zeros in 0u64..600_000) {
        let mut whole = vec![7u8; before];
        whole.resize(before + zeros as usize, 0);
        let mut sums = Sums::default();
        sums.add_zeros(before as u64, zeros);
        sums.add(0, &vec![7u8; before]);
        prop_assert_eq!(sums.total(0, whole.len() as u64), Some(crc32c::crc32c(&whole)));
    }
}

#[test]
fn a_hole_or_an_overlap_has_no_sum() {
    let of = |ranges: &[(u64, usize)]| {
        let mut sums = Sums::default();
        for (start, length) in ranges {
            sums.add(*start, &vec![1; *length]);
        }
        sums.total(0, 10)
    };
    assert!(of(&[(0, 5), (5, 5)]).is_some());
    assert_eq!(of(&[(0, 4), (5, 5)]), None);
    assert_eq!(of(&[(0, 6), (5, 5)]), None);
    assert_eq!(of(&[(0, 5)]), None);
    assert_eq!(of(&[(0, 5), (5, 6)]), None);
}
