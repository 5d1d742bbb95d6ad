//! Little-endian reading and writing with every bound checked.

use lifeboat_telemetry::{Code, Failure, Outcome};

/// Reads from bytes that nobody vouches for.
pub struct Cursor<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Cursor<'a> {
    /// Starts at the beginning; `what` names the structure in failures.
    pub fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { rest: bytes, what }
    }

    /// The next `count` bytes.
    pub fn take(&mut self, count: usize) -> Outcome<&'a [u8]> {
        let Some((head, rest)) = self.rest.split_at_checked(count) else {
            return Err(self.damaged("it ends too early"));
        };
        self.rest = rest;
        Ok(head)
    }

    /// The next `N` bytes as an array.
    pub fn array<const N: usize>(&mut self) -> Outcome<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    /// One byte.
    pub fn u8(&mut self) -> Outcome<u8> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Outcome<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Outcome<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Outcome<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A count that may not exceed `limit`.
    pub fn count(&mut self, limit: usize) -> Outcome<usize> {
        let count = self.u32()? as usize;
        if count > limit {
            let what = self.what;
            let message = format!("{what} counts {count} entries, its maximum is {limit}");
            return Err(Failure::new(Code::LimitExceeded, message));
        }
        Ok(count)
    }

    /// An unsigned LEB128 number.
    pub fn varint(&mut self) -> Outcome<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(self.damaged("a number is too large"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.damaged("a number is too long"))
    }

    /// A LEB128 number that fits four bytes.
    pub fn varint32(&mut self) -> Outcome<u32> {
        u32::try_from(self.varint()?).map_err(|_| self.damaged("a number is too large"))
    }

    /// What is left.
    pub fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// Fails unless everything was read.
    pub fn end(&self) -> Outcome<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.damaged("bytes follow its end")) }
    }

    /// A failure that names the structure.
    pub fn damaged(&self, why: &str) -> Failure {
        Failure::new(Code::ObjectDamaged, format!("{} is damaged: {why}", self.what))
    }
}

/// Appends an unsigned LEB128 number.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
