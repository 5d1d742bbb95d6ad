use super::PushCommand;

#[test]
fn an_archive_command_is_recognised_also_beside_another_one() {
    let pushes = |command| PushCommand::find(command).is_some();
    assert!(pushes("lifeboat wal push %p"));
    assert!(pushes("/usr/bin/lifeboat wal push \"%p\" --spec /etc/lifeboat.yaml"));
    assert!(pushes("pgbackrest --stanza=x archive-push %p && lifeboat --here a wal push %p"));
    assert!(!pushes(""));
    assert!(!pushes("(disabled)"));
    assert!(!pushes("lifeboat wal fetch %f %p"));
    assert!(!pushes("cp %p /wal/push"));
    assert!(!pushes("cp %p /etc/lifeboat && wal push"));
}

#[test]
fn what_it_says_is_read_as_the_shell_does() {
    let text = |text: &str| Some(text.to_owned());
    let command = "A=/x/lifeboat timeout 9 '/opt/my lifeboat' --spec \"/etc/a b.yaml\" --here east \
                   wal push \"%p\" --db=pay/ledger && true --db other/one";
    let expected = PushCommand {
        program: "/opt/my lifeboat".to_owned(),
        spec: text("/etc/a b.yaml"),
        here: text("east"),
        database: text("pay/ledger"),
    };
    assert_eq!(PushCommand::find(command), Some(expected));
}
