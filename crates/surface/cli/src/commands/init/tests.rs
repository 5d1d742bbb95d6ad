use std::os::unix::fs::symlink;
use std::sync::Arc;

use jiff::Timestamp;
use lifeboat_environment::{Environment, ManualClock, SeededRandom};
use lifeboat_model::{Severity, Spec};

use super::*;

fn environment() -> Environment {
    let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
    Environment::for_test(Arc::new(clock), Arc::new(SeededRandom::new(1)))
}

fn put(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// A machine with a Debian cluster, a running server of its own build and a forgotten one.
fn machine() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let conf = "#port = 1\ndata_directory = '/var/lib/postgresql/15/main'  # x\nport = 5433\n\
                unix_socket_directories = '/run/pg, /tmp'\n";
    put(root.path(), "etc/postgresql/15/main/postgresql.conf", conf);
    put(root.path(), "var/lib/postgresql/15/main/PG_VERSION", "15\n");
    put(root.path(), "usr/lib/postgresql/15/bin/postgres", "");
    put(root.path(), "srv/own/PG_VERSION", "18\n");
    put(root.path(), "srv/own/postmaster.pid", "77\n/srv/own\n1\n6000\n/tmp\nlocalhost\n");
    put(root.path(), "proc/77/comm", "postgres");
    symlink("/srv/own", root.path().join("proc/77/cwd")).unwrap();
    symlink("/opt/pg/bin/postgres", root.path().join("proc/77/exe")).unwrap();
    put(root.path(), "proc/78/comm", "postgres");
    symlink("/srv/own", root.path().join("proc/78/cwd")).unwrap();
    put(root.path(), "var/lib/pgsql/13/data/PG_VERSION", "13\n");
    root
}

fn load(text: &str) -> Vec<lifeboat_model::Finding> {
    let loaded = Spec::load(text, Path::new("lifeboat.yaml"));
    assert!(loaded.spec.is_some(), "{:#?}\n{text}", loaded.findings);
    loaded.findings
}

#[test]
fn clusters_are_found_by_configuration_process_and_place() {
    let root = machine();
    let clusters = machine::look(root.path(), &environment());
    let [own, old, debian] = clusters.as_slice() else {
        panic!("{clusters:#?}");
    };
    assert_eq!(own.data_directory, Path::new("/srv/own"));
    assert_eq!((own.port, own.running), (6000, true));
    assert_eq!(own.socket_directory, Path::new("/tmp"));
    assert_eq!(own.bin_directory.as_deref(), Some(Path::new("/opt/pg/bin")));
    assert_eq!(old.version.as_deref(), Some("13"));
    assert!(!old.running && old.readable);
    assert_eq!((debian.name.as_deref(), debian.port), (Some("main"), 5433));
    assert_eq!(debian.socket_directory, Path::new("/run/pg"));
    assert!(debian.bin_directory.is_some());
}

#[test]
fn what_init_writes_loads_and_asks_for_nothing_that_is_missing() {
    let root = machine();
    let found = machine::look(root.path(), &environment());
    let mut hostile = Found::new("/srv/a \"b\" \\ #: {c}", "a test");
    hostile.name = Some("x y: {".to_owned());
    for clusters in [Vec::new(), found.clone(), [found.clone(), found, vec![hostile]].concat()] {
        for here in [None, Some("west"), Some("north")] {
            let here = here.map(|name| name.parse().unwrap());
            let findings = load(&template::spec(&clusters, here.as_ref(), Timestamp::UNIX_EPOCH));
            for finding in &findings {
                assert_ne!(finding.severity, Severity::NotProtected, "{finding}");
                assert_ne!(finding.severity, Severity::Unsafe, "{finding}");
            }
        }
    }
}

#[test]
fn an_existing_file_is_kept_unless_forced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lifeboat.yaml");
    write(&path, false, "one").unwrap();
    let failure = write(&path, false, "two").unwrap_err();
    assert!(failure.hint_text().unwrap().contains("--force"));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "one");
    write(&path, true, "2").unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "2");
}
