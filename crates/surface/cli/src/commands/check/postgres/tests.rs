use super::pushes;

#[test]
fn an_archive_command_is_recognised_also_beside_another_one() {
    assert!(pushes("lifeboat wal push %p"));
    assert!(pushes("/usr/bin/lifeboat wal push \"%p\" --spec /etc/lifeboat.yaml"));
    assert!(pushes("pgbackrest --stanza=x archive-push %p && lifeboat --here a wal push %p"));
    assert!(!pushes(""));
    assert!(!pushes("(disabled)"));
    assert!(!pushes("lifeboat wal fetch %f %p"));
    assert!(!pushes("cp %p /wal/push"));
}
