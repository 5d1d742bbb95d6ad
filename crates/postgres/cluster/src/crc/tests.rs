use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn joined_pieces_have_the_sum_of_the_whole(
        first in proptest::collection::vec(any::<u8>(), 0..300),
        second in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let whole = crc32c::crc32c(&[first.as_slice(), &second].concat());
        let (first, length) = (crc32c::crc32c(&first), second.len());
        let second = crc32c::crc32c(&second);
        prop_assert_eq!(join(first, second, length), whole);
        prop_assert_eq!(FixedJoin::new(length).join(first, second), whole);
    }

    #[test]
    fn pages_in_a_row_have_the_sum_of_the_file(seed: [u8; 32], pages in 0_usize..9) {
        let file: Vec<u8> = seed.iter().copied().cycle().take(pages * 8192).collect();
        let join = FixedJoin::new(8192);
        let sums = file.chunks(8192).map(crc32c::crc32c);
        prop_assert_eq!(sums.fold(0, |all, sum| join.join(all, sum)), crc32c::crc32c(&file));
    }
}
