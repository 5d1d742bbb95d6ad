//! The CRC-32C of bytes that arrive in any order.

use lifeboat_repository::pack::FRAME_BYTES;

static ZEROS: [u8; FRAME_BYTES] = [0; FRAME_BYTES];

/// Stretches whose checksums are known, until they can be put together.
#[derive(Debug, Default)]
pub(crate) struct Sums(Vec<Stretch>);

#[derive(Debug, Clone, Copy)]
struct Stretch {
    start: u64,
    end: u64,
    crc: u32,
}

impl Sums {
    /// Adds the bytes that begin at `start`.
    pub(crate) fn add(&mut self, start: u64, bytes: &[u8]) {
        let end = start + bytes.len() as u64;
        match self.0.last_mut() {
            // Joining later costs more than going on.
            Some(last) if last.end == start => {
                last.crc = crc32c::crc32c_append(last.crc, bytes);
                last.end = end;
            }
            _ if bytes.is_empty() => {}
            _ => self.0.push(Stretch { start, end, crc: crc32c::crc32c(bytes) }),
        }
    }

    /// Adds zeros.
    pub(crate) fn add_zeros(&mut self, mut start: u64, mut length: u64) {
        while length > 0 {
            let part = length.min(ZEROS.len() as u64);
            self.add(start, &ZEROS[..part as usize]);
            start += part;
            length -= part;
        }
    }

    /// Adds a stretch that was summed elsewhere.
    pub(crate) fn add_sum(&mut self, start: u64, length: u64, crc: u32) {
        self.0.push(Stretch { start, end: start + length, crc });
    }

    /// The checksum of `start..end`; `None` unless every byte was added exactly once.
    pub(crate) fn total(mut self, start: u64, end: u64) -> Option<u32> {
        self.0.sort_unstable_by_key(|stretch| stretch.start);
        let mut at = start;
        let mut crc = 0;
        for stretch in self.0 {
            if stretch.start != at {
                return None;
            }
            let length = usize::try_from(stretch.end - stretch.start).ok()?;
            crc = if at == start {
                stretch.crc
            } else {
                crc32c::crc32c_combine(crc, stretch.crc, length)
            };
            at = stretch.end;
        }
        (at == end).then_some(crc)
    }
}
