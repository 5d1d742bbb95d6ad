use std::sync::OnceLock;

use super::*;

/// What the golden segments of a version hold, as contiguous bytes.
#[derive(Clone)]
struct Stretch {
    source: Source,
    start: Lsn,
    bytes: Vec<u8>,
}

fn stretch(major: u32) -> Stretch {
    // Unpacked once; cases of a property are many.
    static ALL: [OnceLock<Stretch>; 6] = [const { OnceLock::new() }; 6];
    ALL[major as usize - 13].get_or_init(|| read_stretch(major)).clone()
}

fn read_stretch(major: u32) -> Stretch {
    let segments = golden(major);
    let (first, content) = &segments[0];
    let identity = identify_segment(content, *first).unwrap();
    let bytes = segments.iter().flat_map(|(_, content)| content).copied().collect();
    Stretch { source: Source::of(&identity, first.timeline()), start: identity.start, bytes }
}

/// One line a record, and how the decoding ended.
fn decode<'a>(
    stretch: &Stretch,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<String>, Result<(), DecodeError>) {
    let mut decoder = Decoder::new(stretch.source, stretch.start);
    let mut records = Vec::new();
    for piece in pieces {
        if let Err(error) = decoder.push(piece, |record| records.push(shown(record))) {
            return (records, Err(error));
        }
    }
    (records, Ok(()))
}

fn shown(record: &Record<'_>) -> String {
    let Record { lsn, end, xid, top_xid, resource, info, length, blocks, fact, .. } = record;
    let cleared: Vec<_> = record.visibility_cleared().collect();
    let data = crc32c::crc32c(record.data());
    let blocks: Vec<_> =
        blocks.iter().map(|it| (it, crc32c::crc32c(record.block_data(it)))).collect();
    format!(
        "{lsn} {end} {xid} {top_xid:?} {resource} {info:02x} {length} {blocks:?} {fact:?} \
         {cleared:?} {data:08x}"
    )
}

fn whole(stretch: &Stretch) -> (Vec<String>, Result<(), DecodeError>) {
    decode(stretch, [stretch.bytes.as_slice()])
}

#[test]
fn golden_segments_of_every_version_are_decoded_to_their_last_record() {
    for release in &crate::RELEASES {
        let stretch = stretch(release.major);
        let (records, end) = whole(&stretch);
        // The same end, and the same facts, as the scan of each segment finds.
        let scans: Vec<_> = golden(release.major)
            .iter()
            .map(|(name, content)| scan(content, &identify_segment(content, *name).unwrap()))
            .collect();
        let last = scans.last().unwrap();
        let end = end.unwrap_err();
        assert_eq!(end.fault, Fault::Unwritten, "{release}");
        assert_eq!(end.at.0, last.end_of_valid.0.next_multiple_of(8), "{release}");
        let commits = records.iter().filter(|it| it.contains("committed: true")).count() as u64;
        assert_eq!(commits, scans.iter().map(|it| it.commits).sum::<u64>(), "{release}");
        let points: Vec<_> = scans.iter().flat_map(|it| &it.restore_points).collect();
        let found: Vec<_> = records.iter().filter(|it| it.contains("RestorePoint")).collect();
        assert_eq!(points.len(), found.len(), "{release}");
        for (point, found) in points.iter().zip(found) {
            assert!(found.contains(&format!(" {} ", point.lsn)), "{found}");
            assert!(found.contains(&format!("{:?}", point.name)), "{found}");
        }
        let switches = records.iter().filter(|it| it.contains("Some(Switch)")).count();
        let expected = scans.iter().filter(|it| it.ends_with_switch()).count();
        assert_eq!(switches, expected, "{release}");
    }
}

#[test]
fn single_bytes_give_the_same_records() {
    for major in [13, 15, 18] {
        let stretch = stretch(major);
        assert_eq!(decode(&stretch, stretch.bytes.chunks(1)), whole(&stretch));
    }
}

#[test]
fn pages_give_the_same_records() {
    for release in &crate::RELEASES {
        let stretch = stretch(release.major);
        assert_eq!(decode(&stretch, stretch.bytes.chunks(8192)), whole(&stretch));
    }
}

#[test]
fn decoding_starts_at_any_record() {
    let stretch = stretch(16);
    let (records, end) = whole(&stretch);
    for (at, record) in records.iter().enumerate().step_by(7) {
        let lsn: Lsn = record.split(' ').next().unwrap().parse().unwrap();
        let skipped = usize::try_from(lsn.distance_from(stretch.start)).unwrap();
        let later = Stretch { start: lsn, bytes: stretch.bytes[skipped..].to_vec(), ..stretch };
        assert_eq!(whole(&later), (records[at..].to_vec(), end));
    }
}

#[test]
fn decoding_goes_on_where_another_one_stopped() {
    let stretch = stretch(15);
    let (records, end) = whole(&stretch);
    for cut in (1..stretch.bytes.len()).step_by(40_009) {
        let mut decoder = Decoder::new(stretch.source, stretch.start);
        let mut both = Vec::new();
        if decoder.push(&stretch.bytes[..cut], |record| both.push(shown(record))).is_err() {
            break;
        }
        let start = decoder.decoded();
        let skipped = usize::try_from(start.distance_from(stretch.start)).unwrap();
        let later = Stretch { start, bytes: stretch.bytes[skipped..].to_vec(), ..stretch };
        let (rest, later_end) = whole(&later);
        both.extend(rest);
        assert_eq!((both, later_end), (records.clone(), end));
    }
}

#[test]
fn a_segment_may_start_within_a_record() {
    let segments = golden(15);
    let (name, content) = &segments[1];
    let identity = identify_segment(content, *name).unwrap();
    assert!(PageHeader::parse(content).unwrap().continues_record());
    let rest: Vec<u8> = segments[1..].iter().flat_map(|(_, it)| it).copied().collect();
    let source = Source::of(&identity, name.timeline());
    let later = Stretch { source, start: identity.start, bytes: rest };
    let (records, _) = whole(&later);
    let (all, _) = whole(&stretch(15));
    assert!(!records.is_empty() && all.ends_with(&records));
}

#[test]
fn an_error_is_repeated() {
    let mut stretch = stretch(15);
    stretch.bytes[100] ^= 1;
    let mut decoder = Decoder::new(stretch.source, stretch.start);
    let first = decoder.push(&stretch.bytes, |_| ()).unwrap_err();
    assert_eq!(decoder.push(&stretch.bytes, |_| panic!("a record behind damage")), Err(first));
}

#[test]
fn what_a_page_header_promises_is_asserted() {
    let fault = |at: usize, value: u8| {
        let mut stretch = stretch(15);
        stretch.bytes[at] = value;
        let error = whole(&stretch).1.unwrap_err();
        assert_eq!(error.at, Lsn(stretch.start.0 + at as u64 / 8192 * 8192));
        error.fault
    };
    assert_eq!(fault(0, 0xFF), Fault::Magic(0xD1FF));
    assert_eq!(fault(3, 0x10), Fault::Flags(0x1006));
    assert_eq!(fault(4, 2), Fault::Timeline(Timeline(2)));
    assert_eq!(fault(9, 1), Fault::Address(Lsn(0xE0_0100)));
    assert_eq!(fault(16, 1), Fault::Remainder { expected: 0, found: 1 });
    assert!(matches!(fault(24, 1), Fault::System(_)));
    assert_eq!(fault(32, 1), Fault::Sizes);
    assert_eq!(fault(8192 + 8, 1), Fault::Address(Lsn(0xE0_2001)));
    assert!(matches!(fault(8192 + 16, 1), Fault::Remainder { .. }));
    // A long header where only a segment starts with one.
    assert!(matches!(fault(8192 + 2, 2), Fault::Flags(2)));
}

#[test]
fn a_page_of_an_earlier_timeline_cannot_follow_a_later_one() {
    let mut stretch = stretch(15);
    stretch.source.timeline = Timeline(2);
    stretch.bytes[4] = 2;
    let error = whole(&stretch).1.unwrap_err();
    assert_eq!(error.fault, Fault::Timeline(Timeline(1)));
    assert_eq!(error.at, Lsn(0xE0_2000));
}

/// A record without blocks, as the server lays it out.
fn record(previous: Lsn, resource: u8, info: u8, data: &[u8]) -> Vec<u8> {
    let main: Vec<u8> = match u8::try_from(data.len()) {
        Ok(length) => [&[255, length], data].concat(),
        Err(_) => [&[254][..], &(data.len() as u32).to_le_bytes(), data].concat(),
    };
    let mut record = (24 + main.len() as u32).to_le_bytes().to_vec();
    record.extend(0_u32.to_le_bytes());
    record.extend(previous.0.to_le_bytes());
    record.extend([info, resource, 0, 0]);
    let crc = crc32c::crc32c_append(crc32c::crc32c(&main), &record);
    record.extend(crc.to_le_bytes());
    record.extend(main);
    record
}

fn page_header(address: Lsn, flags: u16, remaining: u32) -> Vec<u8> {
    let magic = crate::Release::of_major(15).unwrap().wal_magic;
    let mut header = [magic.to_le_bytes(), flags.to_le_bytes()].concat();
    header.extend(1_u32.to_le_bytes());
    header.extend(address.0.to_le_bytes());
    header.extend(remaining.to_le_bytes());
    header.resize(24, 0);
    header
}

#[test]
fn a_record_that_a_crash_cut_off_is_replaced() {
    let (first, second) = (Lsn(0xE0_2000), Lsn(0xE0_4000));
    let mut bytes = page_header(first, 0, 0);
    bytes.extend(record(Lsn(0xE0_1000), 0, 0x20, &[1; 30]));
    bytes.resize(24 + 56, 0);
    // This one would go on for two pages; the server crashed when only the first was written.
    bytes.extend(record(Lsn(0xE0_2018), 0, 0x20, &[2; 16_000]));
    bytes.truncate(8192);
    bytes.extend(page_header(second, 0x08, 0));
    bytes.extend(record(Lsn(0xE0_2018), 0, 0xD0, &[3; 16]));
    let replaced = Stretch { start: first, bytes: bytes.clone(), ..stretch(15) };
    let (records, end) = whole(&replaced);
    assert_eq!(end, Ok(()));
    let starts: Vec<_> = records.iter().map(|it| it.split(' ').next().unwrap()).collect();
    assert_eq!(starts, ["0/E02018", "0/E04018"]);
    assert_eq!(decode(&replaced, replaced.bytes.chunks(1)).0, records);

    // Without the flag it is damage.
    bytes[8192 + 2] = 0;
    let (found, end) = whole(&Stretch { bytes, ..replaced });
    assert_eq!(found, records[..1]);
    assert!(matches!(end.unwrap_err().fault, Fault::Remainder { found: 0, .. }));
}

#[test]
fn a_record_longer_than_what_is_kept_is_checked_to_its_end() {
    let start = Lsn(0xE0_2000);
    let message = vec![7; 40 << 20];
    let long = record(Lsn(0xE0_1000), 21, 0, &message);
    let pages = |mut rest: &[u8]| {
        let (mut bytes, mut address) = (page_header(start, 0, 0), start);
        loop {
            // Segments of 64 MiB, so that no page has a long header.
            let (piece, behind) = rest.split_at(rest.len().min(8192 - 24));
            bytes.extend(piece);
            if behind.is_empty() {
                return bytes;
            }
            (rest, address) = (behind, Lsn(address.0 + 8192));
            bytes.extend(page_header(address, 1, u32::try_from(rest.len()).unwrap()));
        }
    };
    let mut golden = stretch(15);
    golden.source.segment_size = SegmentSize::new(64 << 20).unwrap();
    let mut sound = Stretch { start, bytes: pages(&long), ..golden };
    let (records, end) = whole(&sound);
    assert_eq!((records.len(), end), (1, Ok(())));
    assert!(records[0].contains(&format!(" 21 00 {} ", long.len())), "{}", records[0]);
    let last = sound.bytes.len() - 1;
    sound.bytes[last] ^= 1;
    assert_eq!(whole(&sound).1.unwrap_err().fault, Fault::Checksum);
}

#[test]
fn zeros_are_not_wal() {
    let stretch = Stretch { bytes: vec![0; 8192], ..stretch(18) };
    let end = DecodeError { at: stretch.start, fault: Fault::Unwritten };
    assert_eq!(whole(&stretch), (Vec::new(), Err(end)));
}

#[test]
fn every_flipped_bit_of_a_record_is_found() {
    let stretch = stretch(18);
    let (records, _) = whole(&stretch);
    // The second page: short header, then records.
    for at in 8192 + 24..8192 + 1024 {
        let mut damaged = Stretch { bytes: stretch.bytes[..0x8000].to_vec(), ..stretch };
        damaged.bytes[at] ^= 1 << (at % 8);
        let (found, end) = whole(&damaged);
        let Err(end) = end else {
            // Padding between records belongs to none.
            assert_eq!(found, records[..found.len()], "{at:x}");
            continue;
        };
        assert!(end.at.0 <= stretch.start.0 + at as u64, "{at:x} {end}");
        assert_eq!(found, records[..found.len()], "{at:x}");
    }
}

proptest! {
    #[test]
    fn any_split_gives_the_same_records(
        major in 13_u32..=18,
        sizes in proptest::collection::vec(1_usize..100_000, 1..200),
    ) {
        let stretch = stretch(major);
        let mut rest = stretch.bytes.as_slice();
        let mut pieces = Vec::new();
        for size in sizes.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, behind) = rest.split_at((*size).min(rest.len()));
            pieces.push(piece);
            rest = behind;
        }
        prop_assert_eq!(decode(&stretch, pieces), whole(&stretch));
    }

    #[test]
    fn damage_gives_a_prefix_and_never_panics(
        edits in proptest::collection::vec((0_usize..0x1_8000, any::<u8>()), 1..40),
        major in 13_u32..=18,
    ) {
        let stretch = stretch(major);
        let (records, _) = whole(&stretch);
        let mut damaged = Stretch { bytes: stretch.bytes[..0x1_8000].to_vec(), ..stretch };
        for (at, value) in edits {
            damaged.bytes[at] = value;
        }
        let (found, _) = whole(&damaged);
        prop_assert_eq!(&found, &records[..found.len()]);
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..20_000)) {
        let golden = stretch(18);
        // At a page, and within one.
        for start in [golden.start, Lsn(golden.start.0 + 64)] {
            let stretch = Stretch { start, bytes: bytes.clone(), ..golden };
            prop_assert_eq!(whole(&stretch).0.len(), 0);
        }
        // Behind a sound beginning.
        let mut after = Stretch { bytes: golden.bytes[..9000].to_vec(), ..golden };
        let (records, _) = whole(&after);
        after.bytes.extend(&bytes);
        prop_assert!(whole(&after).0.len() <= records.len() + 1);
    }
}
