use clap::Parser;

use super::*;
use crate::arguments::Arguments;
use crate::commands::Command;

fn parse(flags: &str) -> Result<Args, clap::Error> {
    let line = format!("lifeboat restore pay/ledger --to /x {flags}");
    let words = line.split_whitespace();
    Arguments::try_parse_from(words).map(|arguments| match arguments.command {
        Command::Restore(args) => *args,
        other => panic!("{other:?}"),
    })
}

fn shown(flags: &str) -> String {
    target(&parse(flags).unwrap()).unwrap().to_string()
}

#[test]
fn each_flag_names_its_target() {
    assert_eq!(shown(""), "latest");
    assert_eq!(shown("--latest"), "latest");
    assert_eq!(shown("--immediate"), "immediate");
    assert_eq!(shown("--lsn 0/2A000148"), "lsn 0/2A000148");
    assert_eq!(shown("--xid 741233"), "xid 741233");
    assert_eq!(shown("--name before"), "name before");
    assert_eq!(shown("--backup 1-1"), "backup 1-1");
    assert_eq!(shown("--backup 1-1 --latest"), "latest");
    assert_eq!(shown("--backup 1-1 --immediate"), "immediate");
    assert_eq!(shown("--time 2026-11-20T15:03:07+01:00"), "time 2026-11-20T14:03:07Z");
    assert_eq!(
        shown("--time 2026-11-20T14:03:07Z --exclusive"),
        "just before time 2026-11-20T14:03:07Z"
    );
}

#[test]
fn two_targets_are_refused() {
    for flags in ["--latest --immediate", "--lsn 0/1 --xid 4", "--exclusive", "--lsn x"] {
        assert!(parse(flags).is_err(), "{flags}");
    }
}

#[test]
fn a_moment_needs_date_and_zone() {
    for text in ["14:03:07", "2026-11-20", "2026-11-20T14:03:07", "yesterday", ""] {
        assert_eq!(moment(text).unwrap_err().code(), Code::TargetAmbiguous, "{text}");
    }
    let at = moment("2026-11-20 14:03:07.5+00").unwrap();
    assert_eq!(at, moment("2026-11-20T14:03:07.5Z").unwrap());
}

#[test]
fn a_tablespace_goes_to_an_absolute_path() {
    assert_eq!(tablespace("16401=/b").unwrap(), ("16401".to_owned(), PathBuf::from("/b")));
    for text in ["", "=/b", "/a", "/a=b"] {
        assert!(tablespace(text).is_err(), "{text}");
    }
}
