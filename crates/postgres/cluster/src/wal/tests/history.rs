use super::*;

const THREE: &str = "1\t0/3000060\tno recovery target specified\n\n2\t0/5000000\tbefore 2026\n";

fn parse(timeline: u32, content: &str) -> Result<History, WalError> {
    History::parse(Timeline(timeline), content.as_bytes())
}

#[test]
fn a_history_of_a_real_promotion_is_read_and_written_unchanged() {
    let content = bytes("label/00000002.history");
    let history = History::parse(Timeline(2), &content).unwrap();
    assert_eq!(history.ancestors.len(), 1);
    assert_eq!(history.ancestors[0].timeline, Timeline(1));
    assert_eq!(history.ancestors[0].switch, Lsn(0x142_8450));
    assert_eq!(history.ancestors[0].reason, "no recovery target specified");
    assert_eq!(history.to_string().into_bytes(), content);
}

#[test]
fn each_position_belongs_to_one_timeline() {
    let history = parse(3, THREE).unwrap();
    assert_eq!(history.to_string(), THREE);
    assert_eq!(history.timeline_of(Lsn(0x300_005F)), Timeline(1));
    assert_eq!(history.timeline_of(Lsn(0x300_0060)), Timeline(2));
    assert_eq!(history.timeline_of(Lsn(0x500_0000)), Timeline(3));
    assert_eq!(
        history.spans().collect::<Vec<_>>(),
        [
            (Timeline(1), Lsn::ZERO, Some(Lsn(0x300_0060))),
            (Timeline(2), Lsn(0x300_0060), Some(Lsn(0x500_0000))),
            (Timeline(3), Lsn(0x500_0000), None),
        ]
    );
}

#[test]
fn only_states_before_the_switch_lead_to_the_newest_timeline() {
    let history = parse(3, THREE).unwrap();
    assert!(history.contains(Timeline(1), Lsn(0x300_0060)));
    assert!(!history.contains(Timeline(1), Lsn(0x300_0061)));
    assert!(history.contains(Timeline(3), Lsn::MAX));
    assert!(!history.contains(Timeline(4), Lsn::ZERO));
    assert_eq!(history.switch_of(Timeline(2)), Some(Lsn(0x500_0000)));
    assert_eq!(history.switch_of(Timeline(3)), None);
}

#[test]
fn comments_and_spaces_are_allowed() {
    let history = parse(2, "# comment\n\n  1\t0/1000\t\n").unwrap();
    assert_eq!((history.ancestors.len(), history.ancestors[0].reason.as_str()), (1, ""));
}

#[test]
fn lines_that_make_no_sense_are_named() {
    for (content, line) in [
        ("x\t0/1\t", 1),
        ("0\t0/1\t", 1),
        ("1\t0-1\t", 1),
        ("1", 1),
        ("1\t0/1\t\n\n1\t0/2\t", 3),
        ("1\t0/2\t\n2\t0/1\t", 2),
        ("3\t0/2\t", 1),
    ] {
        let error = parse(3, content).unwrap_err();
        assert!(
            matches!(error, WalError::BadLine { line: found, .. } if found == line),
            "{content:?}"
        );
    }
    assert!(History::parse(Timeline(3), &vec![b'#'; 2 << 20]).is_err());
}

proptest! {
    #[test]
    fn random_histories_never_panic(content in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(history) = History::parse(Timeline(9), &content) {
            prop_assert_eq!(history.spans().count(), history.ancestors.len() + 1);
        }
    }

    #[test]
    fn what_is_written_is_read(steps in proptest::collection::vec((1_u32..9, 0_u64..1 << 40), 0..9)) {
        let mut history = History::root(Timeline(1));
        for (timelines, bytes) in steps {
            let last = history.ancestors.last().map_or(Lsn::ZERO, |ancestor| ancestor.switch);
            history.ancestors.push(HistoryEntry {
                timeline: history.timeline,
                switch: last.checked_add(bytes).unwrap(),
                reason: "no recovery target specified".to_owned(),
            });
            history.timeline = Timeline(history.timeline.0 + timelines);
        }
        let written = history.to_string();
        prop_assert_eq!(History::parse(history.timeline, written.as_bytes()).unwrap(), history);
    }
}
