use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use lifeboat_model::{Lsn, RecoveryTarget, Timeline};
use lifeboat_telemetry::Code;
use proptest::prelude::*;

use super::*;

fn pairs(content: &str) -> Vec<(String, String)> {
    let settings = parse(content.as_bytes()).unwrap();
    settings.into_iter().map(|setting| (setting.name, setting.value)).collect()
}

#[test]
fn every_way_to_write_a_setting_is_read() {
    for (line, name, value) in [
        ("port = 5432", "port", "5432"),
        ("port 5432 # why", "port", "5432"),
        ("  Port=5432#why", "port", "5432"),
        ("shared_buffers=128MB", "shared_buffers", "128MB"),
        ("log_destination = 'csvlog'", "log_destination", "csvlog"),
        ("x = 'it''s' # it's", "x", "it's"),
        (r"x = 'it\'s'", "x", "it's"),
        (r"x = 'a\\b\n\101\7c'", "x", "a\\b\nA\u{7}c"),
        ("x = ''", "x", ""),
        ("x = '#'", "x", "#"),
        ("pg_stat_statements.max = -1", "pg_stat_statements.max", "-1"),
        ("include 'a b.conf'\r", "include", "a b.conf"),
        ("archive_command = 'cp \"%p\" /x/%f'", "archive_command", "cp \"%p\" /x/%f"),
    ] {
        assert_eq!(pairs(line), [(name.to_owned(), value.to_owned())], "{line}");
    }
    assert_eq!(pairs("\n# x = 1\n   \n\t#\n"), []);
}

#[test]
fn lines_that_postgresql_refuses_are_named() {
    for line in ["= 5", "1x = 5", "x = 'a", "x = 'a' b", "x = a b", r"x = 'a\'", "x == 1 2"] {
        let error = parse(format!("y = 1\n{line}\n").as_bytes()).unwrap_err();
        assert_eq!(error.line, 2, "{line}");
    }
}

#[test]
fn includes_are_followed_in_postgresqls_order() {
    let directory = tempfile::tempdir().unwrap();
    let root = fs::canonicalize(directory.path()).unwrap();
    let (etc, data) = (root.join("etc"), root.join("data"));
    fs::create_dir_all(etc.join("conf.d")).unwrap();
    fs::create_dir_all(&data).unwrap();
    let write = |path: &Path, content: &str| fs::write(path, content).unwrap();
    write(
        &etc.join("postgresql.conf"),
        &format!(
            "data_directory = '{}'\nhba_file = '{}/hba'\nport = 1\nwork_mem = 1MB\n\
             include_dir 'conf.d'\ninclude_if_exists 'missing.conf'\ninclude 'last.conf'\n",
            data.display(),
            etc.display()
        ),
    );
    write(&etc.join("conf.d/20.conf"), "port = 3\n");
    write(&etc.join("conf.d/10.conf"), "port = 2\nssl = on\n");
    write(&etc.join("conf.d/.hidden.conf"), "port = 8\n");
    write(&etc.join("conf.d/30.conf.bak"), "port = 9\n");
    write(&etc.join("last.conf"), "listen_addresses = '*'\n");
    write(&data.join("postgresql.auto.conf"), "work_mem = '2MB'\n");

    let sources = read_sources(&etc.join("postgresql.conf"), None).unwrap();
    assert_eq!(sources.data_directory, data);
    assert_eq!(sources.hba_file, etc.join("hba"));
    assert_eq!(sources.ident_file, data.join("pg_ident.conf"));
    let included = ["conf.d/10.conf", "conf.d/20.conf", "last.conf"].map(|name| etc.join(name));
    assert_eq!(sources.included, included);
    let expected = [("port", "3"), ("ssl", "on"), ("listen_addresses", "*"), ("work_mem", "2MB")];
    for (name, value) in expected {
        assert_eq!(sources.settings.get(name).map(String::as_str), Some(value), "{name}");
    }
    let outside = sources.outside();
    assert_eq!(outside.len(), 5);
    assert!(!outside.contains(&data.join("pg_ident.conf").as_path()));
}

#[test]
fn a_configuration_in_the_data_directory_has_nothing_outside() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("postgresql.conf"), "port = 1\n").unwrap();
    let config = directory.path().join("postgresql.conf");
    let sources = read_sources(&config, Some(directory.path())).unwrap();
    assert_eq!(sources.outside(), Vec::<&Path>::new());
    assert_eq!(sources.settings, BTreeMap::from([("port".to_owned(), "1".to_owned())]));
}

#[test]
fn broken_chains_are_failures_that_name_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("postgresql.conf");
    let failure = |content: &str| {
        fs::write(&config, content).unwrap();
        read_sources(&config, None).unwrap_err()
    };
    assert_eq!(failure("include 'postgresql.conf'\n").code(), Code::ClusterSettings);
    let missing = failure("include 'missing.conf'\n");
    assert_eq!(missing.code(), Code::SourceFileUnreadable);
    assert!(missing.message().contains("missing.conf"));
    assert!(failure("x = 'a\n").full_message().contains("line 1"));
}

#[test]
fn settings_are_commented_out_and_nothing_else_changes() {
    let content = b"# restore_command = 'old'\nrestore_command = 'a'\n  Recovery_Target 'x' # y\n\
                    port = 1 # caf\xE9\nrestore_commands = 1\nbroken = '\nrestore_command = b";
    let changed = comment_out(content, &["restore_command", "recovery_target"]);
    assert_eq!(
        changed,
        b"# restore_command = 'old'\n#restore_command = 'a'\n#  Recovery_Target 'x' # y\n\
          port = 1 # caf\xE9\nrestore_commands = 1\nbroken = '\n#restore_command = b"
    );
    assert_eq!(comment_out(&changed, &["restore_command", "recovery_target"]), changed);
}

#[test]
fn a_block_is_appended_once() {
    let once = append_block(b"port = 1", "lifeboat restore", &[("a", "it's".to_owned())]);
    let text = "port = 1\n# BEGIN lifeboat restore\na = 'it''s'\n# END lifeboat restore\n";
    assert_eq!(String::from_utf8_lossy(&once), text);
    let twice = append_block(&once, "lifeboat restore", &[("a", "it's".to_owned())]);
    assert_eq!(twice, once);
    let other = append_block(&once, "other", &[]);
    assert!(other.starts_with(&once));
}

#[test]
fn each_target_becomes_its_settings() {
    let targets = [
        RecoveryTarget::Latest,
        RecoveryTarget::Immediate,
        RecoveryTarget::Backup("x".to_owned()),
        RecoveryTarget::Time { at: "2026-11-21T14:03:07.5Z".parse().unwrap(), inclusive: false },
        RecoveryTarget::Lsn(Lsn(0x1_0000_2000)),
        RecoveryTarget::Xid(0x1_0000_0005),
        RecoveryTarget::Name("before the deploy".to_owned()),
    ];
    let mut text = String::new();
    for target in targets {
        let plan = RecoveryPlan {
            target,
            timeline: None,
            action: TargetAction::Promote,
            restore_command: "lifeboat wal fetch %f %p".to_owned(),
        };
        for (name, value) in plan.settings() {
            assert!(recovery_names().contains(&name));
            text.push_str(&format!("{name} = {}\n", quote(&value)));
        }
        text.push('\n');
    }
    insta::assert_snapshot!(text);
}

#[test]
fn a_given_timeline_is_followed() {
    let plan = RecoveryPlan {
        target: RecoveryTarget::Immediate,
        timeline: Some(Timeline(3)),
        action: TargetAction::Pause,
        restore_command: String::new(),
    };
    let settings: BTreeMap<_, _> = plan.settings().into_iter().collect();
    assert_eq!(settings["recovery_target_timeline"], "3");
    assert_eq!(settings["recovery_target_action"], "pause");
}

proptest! {
    #[test]
    fn any_value_survives_quoting(value in "[^\0]*") {
        let line = format!("x = {} # 'comment", quote(&value));
        prop_assert_eq!(pairs(&line), [("x".to_owned(), value)]);
    }

    #[test]
    fn random_bytes_never_panic(content in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(settings) = parse(&content) {
            let names: Vec<_> = settings.iter().map(|setting| setting.name.as_str()).collect();
            let commented = comment_out(&content, &names);
            prop_assert_eq!(parse(&commented).unwrap(), []);
        }
    }

    #[test]
    fn quotes_in_any_order_never_panic(line in r"x = '[a'\\0-9# ]{0,20}") {
        prop_assert!(parse(line.as_bytes()).is_ok_and(|it| it.len() == 1) || line.len() < 40);
    }
}

#[test]
fn lists_of_names_are_found_where_postgresql_looks_for_them() {
    let files = |line: &str| -> Vec<String> {
        named_lists(line.as_bytes()).into_iter().map(|list| list.file).collect()
    };
    assert_eq!(files("local all,@bases @admins,joe trust\n"), ["bases", "admins"]);
    assert_eq!(files("host all @\"two words\" samenet md5 # @not\n"), ["two words"]);
    assert_eq!(files("local all \"@quoted\" trust"), Vec::<String>::new());
    assert_eq!(files("# local all @x trust"), Vec::<String>::new());
    assert_eq!(files("local all @ trust"), Vec::<String>::new());
    let line = "local all @\"a b\",c trust";
    let place = named_lists(line.as_bytes())[0].place.clone();
    assert_eq!(&line[place], "@\"a b\"");
}

#[test]
fn a_guarded_configuration_is_read_like_any_other() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("postgresql.conf");
    let content = guarded(b"port = 5433");
    fs::write(&path, &content).unwrap();
    assert!(is_guarded(&content));
    let sources = read_sources(&path, None).unwrap();
    assert_eq!(sources.settings["port"], "5433");
    assert_eq!(sources.included, Vec::<std::path::PathBuf>::new());
    // Only the line itself counts, not what is said about it.
    let commented = comment_out(&content, &["include"]);
    assert!(!is_guarded(&commented) && is_guarded(&guarded(&commented)));
    assert!(parse(GRANT_TEXT.as_bytes()).unwrap().is_empty());
}

proptest! {
    #[test]
    fn guarding_twice_is_guarding_once_and_can_be_taken_back(lines in "([a-z# ='\n]{0,20}\n)*") {
        let once = guarded(lines.as_bytes());
        prop_assert_eq!(&guarded(&once), &once);
        prop_assert!(String::from_utf8_lossy(&once).contains(&grant_path()));
        prop_assert_eq!(unguarded(&once), lines.as_bytes());
    }
}
