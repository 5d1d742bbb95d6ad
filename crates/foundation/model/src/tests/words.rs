use proptest::prelude::*;

use crate::*;

fn sizes() -> impl Strategy<Value = SegmentSize> {
    (20_u32..=30).prop_map(|power| SegmentSize::new(1 << power).unwrap())
}

proptest! {
    #[test]
    fn an_lsn_reads_back(value: u64) {
        let lsn = Lsn(value);
        prop_assert_eq!(lsn.to_string().parse::<Lsn>().unwrap(), lsn);
        let json = serde_json::to_string(&lsn).unwrap();
        prop_assert_eq!(json.clone(), format!("\"{lsn}\""));
        prop_assert_eq!(serde_json::from_str::<Lsn>(&json).unwrap(), lsn);
    }

    #[test]
    fn a_segment_name_reads_back_and_holds_its_lsn(
        timeline in 1_u32.., lsn: u64, size in sizes(),
    ) {
        let name = SegmentName::from_lsn(Timeline(timeline), Lsn(lsn), size);
        prop_assert_eq!(name.to_string().parse::<SegmentName>().unwrap(), name);
        prop_assert!(name.fits(size));
        let start = name.start(size).unwrap();
        prop_assert!(start.0 <= lsn && lsn - start.0 < size.bytes());
        prop_assert_eq!(name.number(size), size.number_of(Lsn(lsn)));
        prop_assert_eq!(SegmentName::new(Timeline(timeline), name.number(size), size), Some(name));
        if let Some(next) = name.next(size) {
            prop_assert_eq!(next.start(size).unwrap(), Lsn(start.0 + size.bytes()));
            prop_assert!(next > name);
        }
    }

    #[test]
    fn wal_file_names_read_back(timeline in 1_u32.., lsn: u64, offset: u32, size in sizes()) {
        let segment = SegmentName::from_lsn(Timeline(timeline), Lsn(lsn), size);
        for name in [
            WalFileName::Segment(segment),
            WalFileName::Partial(segment),
            WalFileName::History(Timeline(timeline)),
            WalFileName::Backup { segment, offset },
        ] {
            prop_assert_eq!(name.to_string().parse::<WalFileName>().unwrap(), name);
        }
    }

    #[test]
    fn quantities_read_back(value: u64) {
        let span = TimeSpan::from_millis(value);
        prop_assert_eq!(span.to_string().parse::<TimeSpan>().unwrap(), span);
        let size = ByteSize(value);
        prop_assert_eq!(size.to_string().parse::<ByteSize>().unwrap(), size);
        let rate = ByteRate(value.max(1));
        prop_assert_eq!(rate.to_string().parse::<ByteRate>().unwrap(), rate);
    }

    #[test]
    fn no_text_makes_a_parser_panic(text in "\\PC{0,40}") {
        let _ = text.parse::<Lsn>();
        let _ = text.parse::<WalFileName>();
        let _ = text.parse::<TimeSpan>();
        let _ = text.parse::<ByteRate>();
        let _ = text.parse::<DatabaseId>();
    }
}

#[test]
fn words_look_as_people_write_them() {
    assert_eq!(Lsn(0x16B_3740).to_string(), "0/16B3740");
    assert_eq!("16/B374D848".parse(), Ok(Lsn(0x16_B374_D848)));
    assert_eq!(TimeSpan::from_millis(500).to_string(), "500ms");
    assert_eq!(TimeSpan::from_secs(35 * 86400).to_string(), "35d");
    assert_eq!(TimeSpan::from_secs(90).to_string(), "90s");
    assert_eq!(TimeSpan::ZERO.to_string(), "0s");
    assert_eq!("64MiB".parse(), Ok(ByteSize(64 << 20)));
    assert_eq!("200MiB/s".parse(), Ok(ByteRate(200 << 20)));
    let id: DatabaseId = "payments/ledger".parse().unwrap();
    assert_eq!((id.service.as_str(), id.database.as_str()), ("payments", "ledger"));
    assert_eq!(id.to_string(), "payments/ledger");
}

#[test]
fn segments_follow_each_other_at_every_size() {
    let name: SegmentName = "0000000100000000000000FF".parse().unwrap();
    let next = |size: u64| name.next(SegmentSize::new(size).unwrap()).unwrap().to_string();
    assert_eq!(next(16 << 20), "000000010000000100000000");
    assert_eq!(next(1 << 20), "000000010000000000000100");
    assert!(!name.fits(SegmentSize::new(64 << 20).unwrap()));
    assert_eq!(name.start(SegmentSize::new(64 << 20).unwrap()), None);
    assert_eq!(name.on(Timeline(0x1A)).to_string(), "0000001A00000000000000FF");
    let last: SegmentName = "00000001FFFFFFFF000000FF".parse().unwrap();
    assert_eq!(last.next(SegmentSize::DEFAULT), None);
}

#[test]
fn what_is_no_lsn_is_refused() {
    for text in ["", "0", "0/", "/0", "0/123456789", "g/0", "+1/0", "0/ 1", "0/1/2", "-1/0"] {
        assert!(text.parse::<Lsn>().is_err(), "{text:?} passed as an LSN");
    }
}

#[test]
fn what_is_no_wal_file_is_refused() {
    for text in [
        "",
        "00000001000000000000000",
        "0000000100000000000000ff",
        "0000000100000000000000FF0",
        "000000000000000000000001",
        "00000001.histor",
        "00000000.history",
        "0000000100000000000000FF.00000028",
        "0000000100000000000000FF.28.backup",
        "RECOVERYXLOG",
        "../00000001000000000000",
        "éééééééééééé",
    ] {
        assert!(text.parse::<WalFileName>().is_err(), "{text:?} passed as a WAL file");
    }
}

#[test]
fn what_has_no_unit_or_a_wrong_one_is_refused() {
    for text in ["", "5", "m", "5 m", "-5m", "5M", "1.5h", "5min", "18446744073709551615d", "5µs"]
    {
        assert!(text.parse::<TimeSpan>().is_err(), "{text:?} passed as a duration");
    }
    for text in ["64", "64MB", "64M", "64mib", "16777217TiB", "1e3MiB"] {
        assert!(text.parse::<ByteSize>().is_err(), "{text:?} passed as a size");
    }
    for text in ["200MiB", "0MiB/s", "200/s", "200MiB/m"] {
        assert!(text.parse::<ByteRate>().is_err(), "{text:?} passed as a rate");
    }
    for text in ["ledger", "a/b/c", "/b", "a/", "a b/c", "../x", "é/x"] {
        assert!(text.parse::<DatabaseId>().is_err(), "{text:?} passed as a database");
    }
    for bytes in [0, 1 << 19, (1 << 24) + 1, 1 << 31] {
        assert!(SegmentSize::new(bytes).is_none(), "{bytes} passed as a segment size");
    }
}

#[test]
fn a_target_says_what_it_is() {
    let at = "2026-11-20T14:03:07Z".parse().unwrap();
    let target = RecoveryTarget::Time { at, inclusive: false };
    assert_eq!(target.to_string(), "just before time 2026-11-20T14:03:07Z");
    let json = serde_json::to_string(&target).unwrap();
    assert_eq!(serde_json::from_str::<RecoveryTarget>(&json).unwrap(), target);
    assert_eq!(serde_json::to_string(&RecoveryTarget::Lsn(Lsn(1))).unwrap(), r#"{"lsn":"0/1"}"#);
}
