//! CRC32C of a whole from the CRC32C of its pieces, so that restored pages are summed once and
//! in any order.

/// The CRC of two pieces one after the other; `length` is that of the second.
pub fn join(first: u32, second: u32, length: usize) -> u32 {
    crc32c::crc32c_combine(first, second, length)
}

/// Like [`join`] for second pieces of one fixed length: four table look-ups.
#[derive(Clone)]
pub struct FixedJoin {
    /// What each value of each byte of the first CRC becomes behind the second piece.
    tables: [[u32; 256]; 4],
}

impl FixedJoin {
    /// Prepares for pieces of `length` bytes.
    pub fn new(length: usize) -> Self {
        // Appending zeros is linear: the images of single bits tell those of all values.
        let bits: [u32; 32] = std::array::from_fn(|bit| join(1 << bit, 0, length));
        let image = |byte: usize, value: usize| {
            let set = bits.iter().skip(byte * 8).take(8).enumerate();
            set.filter(|(bit, _)| value >> bit & 1 == 1).fold(0, |sum, (_, image)| sum ^ image)
        };
        let tables = std::array::from_fn(|byte| std::array::from_fn(|value| image(byte, value)));
        Self { tables }
    }

    /// The CRC of two pieces one after the other.
    pub fn join(&self, first: u32, second: u32) -> u32 {
        let bytes = first.to_le_bytes();
        self.tables
            .iter()
            .zip(bytes)
            .filter_map(|(table, byte)| table.get(usize::from(byte)))
            .fold(second, |sum, image| sum ^ image)
    }
}

impl std::fmt::Debug for FixedJoin {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("FixedJoin")
    }
}

#[cfg(test)]
mod tests;
