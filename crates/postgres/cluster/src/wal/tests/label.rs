use super::*;

const BACKUP_FILE: &str = "label/000000010000000000000013.00000028.backup";

#[test]
fn the_label_of_a_real_backup_is_read() {
    let label = BackupLabel::parse(&bytes("label/backup_label")).unwrap();
    insta::assert_debug_snapshot!(label);
}

#[test]
fn the_archived_label_tells_the_end_too() {
    let label = BackupLabel::parse(&bytes(BACKUP_FILE)).unwrap();
    assert_eq!(label.start, Lsn(0x130_0028));
    assert_eq!(label.stop, Some(Lsn(0x130_0100)));
    assert_eq!(label.stop_timeline, Some(Timeline(1)));
}

#[test]
fn a_missing_or_broken_line_is_named() {
    let content = text(BACKUP_FILE);
    let without = content.replace("CHECKPOINT LOCATION", "X");
    let missing = WalError::LineMissing { name: "CHECKPOINT LOCATION" };
    assert_eq!(BackupLabel::parse(without.as_bytes()), Err(missing));
    for (from, to) in [
        ("START WAL LOCATION: 0/", "START WAL LOCATION: 0-"),
        ("(file", "[file"),
        ("STOP WAL LOCATION: 0/", "STOP WAL LOCATION: "),
        ("START TIMELINE: 1", "START TIMELINE: 2"),
        ("STOP TIMELINE: 1", "STOP TIMELINE: x"),
    ] {
        let broken = content.replace(from, to);
        assert_ne!(broken, content);
        let error = BackupLabel::parse(broken.as_bytes()).unwrap_err();
        assert!(matches!(error, WalError::BadLine { .. }), "{to}: {error}");
    }
}

#[test]
fn standbys_and_incremental_backups_are_told_apart() {
    let content =
        text("label/backup_label").replace("BACKUP FROM: primary", "BACKUP FROM: standby");
    let content = format!("{content}INCREMENTAL FROM LSN: 0/1000028\n");
    let label = BackupLabel::parse(content.as_bytes()).unwrap();
    assert!(label.from_standby && label.incremental);
}

proptest! {
    #[test]
    fn random_labels_never_panic(
        at in 0_usize..300,
        edit in proptest::collection::vec(any::<u8>(), 1..20),
    ) {
        let mut content = bytes(BACKUP_FILE);
        let at = at.min(content.len());
        let end = (at + edit.len()).min(content.len());
        content.splice(at..end, edit);
        if let Ok(label) = BackupLabel::parse(&content) {
            prop_assert_eq!(label.timeline, label.start_segment.timeline());
        }
    }
}
