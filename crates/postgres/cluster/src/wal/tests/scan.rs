use std::collections::BTreeMap;

use jiff::Timestamp;

use super::*;

/// What the server said while the golden segments were written.
#[derive(Debug, Default)]
struct Expected {
    lsns: BTreeMap<String, Lsn>,
    points: Vec<Lsn>,
    /// Commit times by transaction, from `pg_xact_commit_timestamp`.
    commits: Vec<Timestamp>,
}

fn expected(major: u32) -> Expected {
    let mut expected = Expected::default();
    for line in text(&format!("wal/{major}/expected.txt")).lines() {
        let fields: Vec<_> = line.split(' ').collect();
        match fields.as_slice() {
            ["restore", lsn] => expected.points.push(lsn.parse().unwrap()),
            ["commit", _, time] => {
                let time = Timestamp::from_microsecond(time.parse().unwrap()).unwrap();
                // The time of a replicated transaction is that of its origin, in the year 2001.
                if time > "2026-01-01T00:00:00Z".parse().unwrap() {
                    expected.commits.push(time);
                }
            }
            ["xid", _] | ["tailseg", _] => {}
            [what, lsn] => {
                expected.lsns.insert((*what).to_owned(), lsn.parse().unwrap());
            }
            other => panic!("{other:?}"),
        }
    }
    expected
}

fn summary(name: SegmentName, content: &[u8]) -> SegmentSummary {
    scan(content, &identify_segment(content, name).unwrap())
}

#[test]
fn golden_segments_of_every_version_tell_what_the_server_told() {
    for release in &crate::RELEASES {
        let expected = expected(release.major);
        let segments = golden(release.major);
        let all: Vec<_> = segments.iter().map(|(name, content)| summary(*name, content)).collect();

        let (tail, closed) = all.split_last().unwrap();
        let commits = &expected.commits;
        assert_eq!(all[0].first_commit, commits.first().copied(), "{release}");
        let last_closed = closed.iter().filter_map(|it| it.last_commit).max();
        assert_eq!(last_closed, Some(commits[commits.len() - 2]), "{release}");
        assert_eq!(tail.first_commit, commits.last().copied(), "{release}");
        assert_eq!(tail.commits, 1, "{release}");
        // Five before the switch: with a subtransaction, prepared, from an origin, and a large one.
        assert_eq!(closed.iter().map(|it| it.commits).sum::<u64>(), 5, "{release}");

        let points: Vec<_> = all.iter().flat_map(|it| &it.restore_points).collect();
        assert_eq!(
            points.iter().map(|it| it.lsn).collect::<Vec<_>>(),
            expected.points,
            "{release}"
        );
        assert_eq!(points[0].name, "golden point one");
        assert_eq!(points[1].name, "golden point zwei ü");
        assert!(points[0].time > commits[0] && points[0].time < *commits.last().unwrap());

        let switched = closed.last().unwrap();
        assert!(switched.ends_with_switch(), "{release}");
        assert_eq!(tail.tail, Tail::Open, "{release}");
        assert!(tail.end_of_valid >= expected.lsns["tail"], "{release}");
        let (last, content) = segments.last().unwrap();
        let identity = identify_segment(content, *last).unwrap();
        assert_eq!(switched.end_of_valid, identity.start, "{release}");
    }
}

#[test]
fn a_record_that_fills_whole_segments_is_followed() {
    for major in [13, 15, 16, 17, 18] {
        let segments = golden(major);
        let tails: Vec<_> =
            segments.iter().map(|(name, content)| summary(*name, content).tail).collect();
        assert_eq!(tails, [Tail::Continues, Tail::Continues, Tail::Switched, Tail::Open]);
        let middle = summary(segments[1].0, &segments[1].1);
        assert_eq!((middle.commits, middle.first_commit), (0, None));
        assert_eq!(
            Some(middle.end_of_valid),
            segments[2].0.start(SegmentSize::new(1 << 20).unwrap())
        );
    }
}

#[test]
fn aborts_count_for_the_last_end_only() {
    let content = segment(15, "00000001000000000000000E");
    let first = summary(name("00000001000000000000000E"), &content);
    assert!(first.last_end >= first.last_commit);
    assert!(first.last_end.is_some());
}

#[test]
fn a_recycled_tail_is_not_read_as_wal() {
    // The tail segment with the remains of an older one behind it, as the server recycles files.
    let mut content = segment(16, "000000010000000000000011");
    let old = segment(16, "00000001000000000000000E");
    let name = name("000000010000000000000011");
    let clean = summary(name, &content);
    content[8192..].copy_from_slice(&old[8192..]);
    assert_eq!(summary(name, &content), clean);
}

#[test]
fn damage_ends_the_valid_part_before_it() {
    let name = name("00000001000000000000000E");
    let content = segment(18, "00000001000000000000000E");
    let whole = summary(name, &content);
    let start = Lsn(0xE0_0000);
    for at in (40..0x1_6000).step_by(509) {
        let mut damaged = content.clone();
        damaged[at] ^= 0x10;
        let summary = summary(name, &damaged);
        // Without CRC of every record some damage goes unnoticed, but nothing is invented.
        assert!(summary.commits <= whole.commits);
        assert!(summary.end_of_valid > start || at < 0x100, "{at:x}");
        assert!(summary.restore_points.len() <= whole.restore_points.len());
    }
}

#[test]
fn a_damaged_commit_is_not_believed() {
    let name = name("000000010000000000000011");
    let content = segment(18, "000000010000000000000011");
    let whole = summary(name, &content);
    assert_eq!(whole.commits, 1);
    let time = whole.first_commit.unwrap().as_microsecond() - 946_684_800_000_000;
    let at = content.windows(8).position(|it| it == time.to_le_bytes()).unwrap();
    let mut damaged = content;
    damaged[at] ^= 1;
    let summary = summary(name, &damaged);
    assert_eq!((summary.commits, summary.tail), (0, Tail::Open));
    assert!(summary.end_of_valid < whole.end_of_valid);
}

#[test]
fn a_damaged_last_record_is_not_valid_wal() {
    let name = name("000000010000000000000011");
    let content = segment(18, "000000010000000000000011");
    let whole = summary(name, &content);
    let end = (whole.end_of_valid.0 & 0xF_FFFF) as usize;
    let mut damaged = content;
    damaged[end - 20] ^= 1;
    assert!(summary(name, &damaged).end_of_valid < whole.end_of_valid);
}

#[test]
fn the_start_of_a_segment_is_read_as_far_as_it_goes() {
    let name = name("00000001000000000000000E");
    let content = segment(17, "00000001000000000000000E");
    let mut last = Lsn::ZERO;
    for length in (40..content.len()).step_by(4099) {
        let summary = summary(name, &content[..length]);
        assert_eq!(summary.tail, Tail::Open);
        assert!(summary.end_of_valid >= last);
        assert!(summary.end_of_valid.0 <= 0xE0_0000 + length as u64 + 7);
        last = summary.end_of_valid;
    }
    assert!(last > Lsn(0xE1_0000));
}

#[test]
fn an_unwritten_segment_has_no_valid_wal() {
    let name = name("00000001000000000000000E");
    let mut content = segment(17, "00000001000000000000000E");
    content[40..].fill(0);
    let summary = summary(name, &content);
    assert_eq!((summary.end_of_valid, summary.tail), (Lsn(0xE0_0000), Tail::Open));
    assert_eq!((summary.commits, summary.first_commit), (0, None));
}

proptest! {
    #[test]
    fn random_damage_never_panics(
        edits in proptest::collection::vec((0_usize..0x1_8000, any::<u8>()), 1..40),
        major in 15_u32..=18,
    ) {
        let name = name("00000001000000000000000E");
        let mut content = segment(major, "00000001000000000000000E");
        let identity = identify_segment(&content, name).unwrap();
        for (at, value) in edits {
            content[at] = value;
        }
        let summary = scan(&content, &identity);
        prop_assert!(summary.end_of_valid >= identity.start);
        prop_assert!(summary.end_of_valid <= identity.end());
    }

    #[test]
    fn random_bytes_never_panic(content in proptest::collection::vec(any::<u8>(), 0..20_000)) {
        let golden = segment(18, "00000001000000000000000E");
        let name = name("00000001000000000000000E");
        let identity = identify_segment(&golden, name).unwrap();
        let mut start = golden[..40].to_vec();
        start.extend(&content);
        prop_assert_eq!(scan(&content, &identity).commits, 0);
        prop_assert_eq!(scan(&start, &identity).commits, 0);
    }
}
