//! A restore point whose record begins in one segment and ends in the next. A scan of either one
//! alone does not see it.

use lifeboat_model::Lsn;

use super::header::{PageHeader, SegmentIdentity};
use super::scan::{Content, POINT_BYTES_MAX, RECORD_CRC, RECORD_HEADER, RestorePoint, content};
use crate::bytes::word;

/// How much of the segment before is looked at, at its end.
pub const CROSSING_BYTES: usize = POINT_BYTES_MAX;

/// The restore point whose record ends at the beginning of `segment`, which was identified as
/// `identity`; `before` is the end of the segment before it, [`CROSSING_BYTES`] or less.
pub fn crossing_point(
    before: &[u8],
    segment: &[u8],
    identity: &SegmentIdentity,
) -> Option<RestorePoint> {
    let first = PageHeader::parse(segment).filter(PageHeader::continues_record)?;
    let rest = first.remaining as usize;
    if first.address != identity.start || rest >= POINT_BYTES_MAX {
        return None;
    }
    let begin = first.length();
    let rest = segment.get(begin..begin.checked_add(rest)?)?;
    // Records begin on 8-byte boundaries, and a segment ends on one.
    let most = before.len().min(POINT_BYTES_MAX);
    (8..=most).step_by(8).find_map(|length| {
        let head = before.get(before.len() - length..)?;
        if word(head, 0) != Some(u32::try_from(length + rest.len()).ok()?) {
            return None;
        }
        let record = [head, rest].concat();
        let Some(Content::Point { time, name }) = content(&record) else { return None };
        let end = (begin + rest.len()).next_multiple_of(8);
        let lsn = identity.start.checked_add(end as u64).unwrap_or(Lsn::MAX);
        is_intact(&record).then_some(RestorePoint { lsn, time, name })
    })
}

/// Whether the CRC of a record holds: data first, then the header.
fn is_intact(record: &[u8]) -> bool {
    let crc = crc32c::crc32c(record.get(RECORD_HEADER..).unwrap_or_default());
    let crc = crc32c::crc32c_append(crc, record.get(..RECORD_CRC).unwrap_or_default());
    word(record, RECORD_CRC) == Some(crc)
}
