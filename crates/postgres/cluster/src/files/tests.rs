use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};

use proptest::prelude::*;

use super::relation::{Home, is_temporary};
use super::*;

const VERSION: &str = "PG_15_202209061";

struct Directory {
    place: tempfile::TempDir,
}

impl Directory {
    /// What every data directory has.
    fn new() -> Self {
        let directory = Self { place: tempfile::tempdir().unwrap() };
        for name in ["base", "global", "pg_tblspc", "pg_wal", "pg_xact"] {
            directory.folder(name);
        }
        directory.file("PG_VERSION", "15\n");
        directory.file("global/pg_control", "control");
        directory
    }

    fn root(&self) -> PathBuf {
        self.place.path().join("data")
    }

    fn outside(&self, name: &str) -> PathBuf {
        let path = self.place.path().join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn folder(&self, name: &str) {
        fs::create_dir_all(self.root().join(name)).unwrap();
    }

    fn file(&self, name: &str, content: &str) {
        let path = self.root().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn files(&self, names: &[&str]) {
        for name in names {
            self.file(name, "x");
        }
    }

    fn try_list(&self) -> Outcome<Listing> {
        list(&self.root(), Release::of_major(15).unwrap())
    }

    fn list(&self) -> Listing {
        self.try_list().unwrap()
    }

    /// The names of all files below `prefix`.
    fn below(&self, prefix: &str) -> Vec<String> {
        let listing = self.list();
        let files = listing.entries.iter().filter(|entry| entry.is_file());
        let paths = files.filter_map(|entry| entry.path.strip_prefix(prefix).ok());
        paths.map(|path| path.to_str().unwrap().to_owned()).collect()
    }
}

/// A listing as text: kind, size, path.
fn print(listing: &Listing) -> String {
    let line = |entry: &Entry| {
        let kind = match entry.relation() {
            Some(it) => format!(
                "{}/{}/{} {:?} {}",
                it.tablespace, it.database, it.filenode, it.fork, it.segment
            ),
            None => format!("{:?}", entry.kind),
        };
        format!("{} [{kind}] {}\n", entry.path.display(), entry.size)
    };
    listing.entries.iter().map(line).collect()
}

#[test]
fn a_data_directory_is_listed_in_order_with_the_control_file_last() {
    let directory = Directory::new();
    directory.files(&[
        "base/5/1259",
        "base/5/1259_fsm",
        "base/5/1259_vm",
        "base/5/16384.1",
        "base/5/pg_filenode.map",
        "base/5/PG_VERSION",
        "global/1262",
        "pg_xact/0000",
        "pg_multixact/offsets/0000",
        "pg_wal/000000010000000000000001",
        "pg_wal/archive_status/000000010000000000000001.done",
        "postgresql.conf",
        "postgresql.auto.conf",
        "pg_hba.conf",
        "pg_logical/replorigin_checkpoint",
    ]);
    insta::assert_snapshot!(print(&directory.list()));
}

#[test]
fn what_postgresql_leaves_out_is_left_out() {
    let directory = Directory::new();
    directory.files(&[
        "base/pgsql_tmp/pgsql_tmp123.0",
        "base/5/pg_internal.init",
        "base/5/pg_internal.init.4711",
        "global/pg_internal.init",
        "pg_dynshmem/mmap.1",
        "pg_notify/0000",
        "pg_replslot/slot/state",
        "pg_serial/0000",
        "pg_snapshots/00000003-0000001B-1",
        "pg_stat_tmp/global.stat",
        "pg_subtrans/0000",
        "postmaster.pid",
        "postmaster.opts",
        "postgresql.auto.conf.tmp",
        "current_logfiles.tmp",
        "backup_label",
        "backup_label.old",
        "tablespace_map",
        "tablespace_map.old",
        "backup_manifest",
        "lifeboat.incarnation",
        "current_logfiles",
        "log/backup_label",
    ]);
    assert_eq!(
        directory.below(""),
        ["PG_VERSION", "current_logfiles", "log/backup_label", "global/pg_control"]
    );
    let listing = directory.list();
    for name in ["pg_dynshmem", "pg_replslot", "pg_stat_tmp", "pg_subtrans", "pg_wal"] {
        let entry = listing.entries.iter().find(|entry| entry.path == Path::new(name)).unwrap();
        assert_eq!(entry.kind, Kind::Directory, "{name} is kept, empty");
    }
    assert_eq!(listing.notes, Vec::<String>::new());
}

#[test]
fn version_17_keeps_a_place_for_wal_summaries() {
    let directory = Directory::new();
    let paths = |major| {
        let listing = list(&directory.root(), Release::of_major(major).unwrap()).unwrap();
        let paths = listing.entries.into_iter().map(|entry| entry.path);
        paths.filter(|path| path.starts_with("pg_wal")).collect::<Vec<_>>()
    };
    assert_eq!(paths(16), [Path::new("pg_wal"), Path::new("pg_wal/archive_status")]);
    assert_eq!(paths(17).last().unwrap(), Path::new("pg_wal/summaries"));
}

#[test]
fn unlogged_relations_keep_their_init_fork_and_temporary_ones_nothing() {
    let directory = Directory::new();
    directory.files(&[
        "base/5/100",
        "base/5/100.1",
        "base/5/100_fsm",
        "base/5/100_init",
        "base/5/1000",
        "base/5/t3_200",
        "base/5/t3_200_vm",
        "base/5/t3_200.1",
        "base/5/t3_200_fsm.1",
        "base/5/t3_",
        "base/6/100",
    ]);
    assert_eq!(directory.below("base"), ["5/1000", "5/100_init", "5/t3_", "6/100"]);
}

#[test]
fn tablespaces_are_followed_into_their_version_directory_only() {
    let directory = Directory::new();
    let place = directory.outside("fast");
    for name in ["PG_15_202209061/5/16400", "PG_14_202107181/5/16400", "lost+found"] {
        fs::create_dir_all(place.join(name).parent().unwrap()).unwrap();
        fs::write(place.join(name), "x").unwrap();
    }
    symlink(&place, directory.root().join("pg_tblspc/16390")).unwrap();
    symlink(directory.outside("empty"), directory.root().join("pg_tblspc/16391")).unwrap();
    let listing = directory.list();
    assert_eq!(
        listing.tablespaces.iter().map(|tablespace| tablespace.oid).collect::<Vec<_>>(),
        [16390, 16391]
    );
    assert_eq!(listing.tablespaces[0].location, place);
    assert_eq!(directory.below("pg_tblspc"), [format!("16390/{VERSION}/5/16400")]);
    let relation = listing.entries.iter().find_map(Entry::relation).unwrap();
    assert_eq!((relation.tablespace, relation.database, relation.filenode), (16390, 5, 16400));
    let links = listing.entries.iter().filter(|entry| entry.kind == Kind::TablespaceLink);
    assert_eq!(links.count(), 2);
}

#[test]
fn a_tablespace_inside_the_data_directory_is_listed_once() {
    let directory = Directory::new();
    directory.file(&format!("mine/{VERSION}/5/16400"), "x");
    symlink(directory.root().join("mine"), directory.root().join("pg_tblspc/16390")).unwrap();
    let files = directory.below("");
    let hits = files.iter().filter(|name| name.ends_with("16400")).collect::<Vec<_>>();
    assert_eq!(hits, [&format!("pg_tblspc/16390/{VERSION}/5/16400")]);
    assert_eq!(directory.list().notes, ["tablespace 16390 lies inside the data directory"]);
}

#[test]
fn a_tablespace_in_place_is_a_directory() {
    let directory = Directory::new();
    directory.file(&format!("pg_tblspc/16390/{VERSION}/5/16400"), "x");
    let listing = directory.list();
    assert_eq!(listing.entries.iter().find_map(Entry::relation).unwrap().tablespace, 16390);
    assert_eq!(listing.tablespaces, []);
}

#[test]
fn tablespaces_that_cannot_be_right_are_refused() {
    let missing = Directory::new();
    symlink("/nonexistent/lifeboat", missing.root().join("pg_tblspc/16390")).unwrap();
    assert_eq!(missing.try_list().unwrap_err().code(), Code::SourceFileUnreadable);

    let twice = Directory::new();
    let place = twice.outside("fast");
    symlink(&place, twice.root().join("pg_tblspc/16390")).unwrap();
    symlink(&place, twice.root().join("pg_tblspc/16391")).unwrap();
    assert_eq!(twice.try_list().unwrap_err().code(), Code::DataDirectoryInvalid);

    let around = Directory::new();
    let version = around.outside(&format!("around/{VERSION}"));
    fs::rename(around.root(), version.join("data")).unwrap();
    symlink(version.parent().unwrap(), version.join("data/pg_tblspc/16390")).unwrap();
    let failure = list(&version.join("data"), Release::of_major(15).unwrap()).unwrap_err();
    assert_eq!(failure.code(), Code::DataDirectoryInvalid);
}

#[test]
fn links_outside_of_pg_tblspc_are_content() {
    let directory = Directory::new();
    let elsewhere = directory.outside("elsewhere");
    fs::write(elsewhere.join("0001"), "x").unwrap();
    fs::write(elsewhere.join("site.conf"), "abc").unwrap();
    symlink(&elsewhere, directory.root().join("pg_xact/moved")).unwrap();
    symlink(elsewhere.join("site.conf"), directory.root().join("site.conf")).unwrap();
    symlink("nowhere", directory.root().join("dangling")).unwrap();
    fs::remove_dir(directory.root().join("pg_wal")).unwrap();
    symlink(&elsewhere, directory.root().join("pg_wal")).unwrap();

    let listing = directory.list();
    let find = |name: &str| listing.entries.iter().find(|it| it.path == Path::new(name));
    assert_eq!(find("site.conf").unwrap().size, 3);
    assert!(find("pg_xact/moved/0001").is_some());
    assert_eq!(find("pg_wal").unwrap().kind, Kind::Directory);
    assert!(find("pg_wal/0001").is_none());
    assert!(find("dangling").is_none());
    assert_eq!(listing.notes.len(), 3, "{:?}", listing.notes);
}

#[test]
fn a_loop_of_links_ends() {
    let directory = Directory::new();
    symlink("..", directory.root().join("base/again")).unwrap();
    let notes = directory.list().notes;
    assert!(notes[0].ends_with("the link leads to one of its parents"), "{notes:?}");

    directory.folder("a");
    directory.folder("b");
    symlink("../b", directory.root().join("a/b")).unwrap();
    symlink("../a", directory.root().join("b/a")).unwrap();
    assert_eq!(directory.try_list().unwrap_err().code(), Code::DataDirectoryInvalid);
}

#[test]
fn special_files_are_skipped_with_a_note() {
    let directory = Directory::new();
    nix::unistd::mkfifo(&directory.root().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(directory.root().join(".s")).unwrap();
    let notes = directory.list().notes;
    assert!(notes[0].ends_with("it is a socket"), "{notes:?}");
    assert!(notes[1].ends_with("it is a pipe"), "{notes:?}");
}

#[test]
fn names_may_hold_any_byte_and_modes_are_kept() {
    let directory = Directory::new();
    let name = OsStr::from_bytes(b"odd \xFF\n name");
    fs::write(directory.root().join(name), "x").unwrap();
    let mode = fs::Permissions::from_mode(0o640);
    fs::set_permissions(directory.root().join(name), mode).unwrap();
    let listing = directory.list();
    let entry = listing.entries.iter().find(|entry| entry.path.as_os_str() == name).unwrap();
    assert_eq!(entry.mode, 0o640);
    assert!(entry.modified > Timestamp::UNIX_EPOCH);
}

#[test]
fn a_directory_without_pg_version_or_control_file_is_refused() {
    let directory = Directory::new();
    fs::remove_file(directory.root().join("global/pg_control")).unwrap();
    assert_eq!(directory.try_list().unwrap_err().code(), Code::SourceFileUnreadable);
    fs::remove_file(directory.root().join("PG_VERSION")).unwrap();
    assert_eq!(directory.try_list().unwrap_err().code(), Code::DataDirectoryInvalid);
}

#[test]
fn block_numbers_continue_over_segments() {
    assert_eq!(relation_file_offset_block(0, 131_072), Some(0));
    assert_eq!(relation_file_offset_block(3, 131_072), Some(393_216));
    assert_eq!(relation_file_offset_block(32_767, 131_072), Some(4_294_836_224));
    assert_eq!(relation_file_offset_block(32_768, 131_072), None);
}

#[test]
fn only_names_that_postgresql_makes_are_relations() {
    let release = Release::of_major(15).unwrap();
    let home = Home::of(&[b"base", b"5"], release).unwrap();
    for name in ["", "0", "01", "1.0", "1.", ".1", "1_", "1_x", "1_vm.", "1.1_vm", "1.2.3", "-1"] {
        assert_eq!(home.relation(name.as_bytes()), None, "{name}");
    }
    assert_eq!(home.relation(b"4294967296"), None);
    assert!(home.relation(b"4294967295").is_some());
    assert_eq!(Home::of(&[b"base", b"pgsql_tmp"], release), None);
    assert_eq!(Home::of(&[b"pg_tblspc", b"9", b"PG_14_202107181", b"5"], release), None);
}

#[test]
fn an_entry_stays_small() {
    assert!(size_of::<Entry>() <= 96, "{}", size_of::<Entry>());
}

proptest! {
    #[test]
    fn relation_names_read_back(filenode in 1_u32.., fork in 0..4_usize, segment in 0_u32..40_000) {
        let suffix = ["", "_fsm", "_vm", "_init"][fork];
        let tail = if segment == 0 { String::new() } else { format!(".{segment}") };
        let name = format!("{filenode}{suffix}{tail}");
        let home = Home::of(&[b"global"], Release::of_major(13).unwrap()).unwrap();
        let relation = home.relation(name.as_bytes()).unwrap();
        let forks = [Fork::Main, Fork::FreeSpace, Fork::Visibility, Fork::Init];
        prop_assert_eq!((relation.filenode, relation.fork), (filenode, forks[fork]));
        prop_assert_eq!((relation.segment, relation.tablespace), (segment, 1664));
    }

    #[test]
    fn random_names_never_panic(name in proptest::collection::vec(any::<u8>(), 0..40)) {
        let home = Home::of(&[b"base", b"5"], Release::of_major(13).unwrap()).unwrap();
        prop_assert!(home.relation(&name).is_none() || !is_temporary(&name));
    }
}
