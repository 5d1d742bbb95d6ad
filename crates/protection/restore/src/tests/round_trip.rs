use std::fs;
use std::os::unix::fs::MetadataExt;

use lifeboat_repository::keys::Encryption;
use lifeboat_telemetry::Code;

use super::fixture::{Backup, Fixture, PAGE, control, mode, noise, tree};

/// Small, large, sparse, odd: everything that a table can say. Gives the content of each file.
fn write_all(fixture: &Fixture, seed: u64) -> (Backup, Vec<(String, Vec<u8>)>) {
    let mut sparse = vec![0; 70 * PAGE];
    sparse[20 * PAGE..23 * PAGE].copy_from_slice(&noise(seed + 1, 3 * PAGE));
    sparse[69 * PAGE..].copy_from_slice(&noise(seed + 2, PAGE));
    let mut ends_in_zeros = noise(seed + 3, 5 * PAGE);
    ends_in_zeros.resize(9 * PAGE, 0);
    // More than one leaf, with a hole over the border between the two.
    let mut large = noise(seed + 4, 4200 * PAGE);
    large[4000 * PAGE..4150 * PAGE].fill(0);
    let files = vec![
        ("base/5/1001".to_owned(), noise(seed, 300 * PAGE)),
        ("base/5/1002".to_owned(), sparse),
        ("base/5/1003".to_owned(), ends_in_zeros),
        ("base/5/1004".to_owned(), vec![0; 12 * PAGE]),
        ("base/5/1005".to_owned(), large),
        ("base/5/1006".to_owned(), Vec::new()),
        ("base/5/odd name\n".to_owned(), noise(seed + 5, 3 * PAGE + 17)),
        ("base/5/short".to_owned(), noise(seed + 6, 11)),
    ];
    let mut writer = fixture.writer();
    writer.skeleton();
    for (path, bytes) in &files {
        writer.file(path, bytes);
    }
    writer.inline("base/5/PG_VERSION", b"15\n");
    writer.inline("standby.signal", b"");
    writer.inline("postmaster.opts", b"old");
    (writer.finish(), files)
}

fn check(to: &std::path::Path, files: &[(String, Vec<u8>)]) {
    for (path, bytes) in files {
        assert!(fs::read(to.join(path)).unwrap() == *bytes, "{path:?} differs");
    }
    assert_eq!(fs::read(to.join("global/pg_control")).unwrap(), control(150));
    for gone in
        ["standby.signal", "postmaster.opts", "lifeboat.restore", "global/pg_control.lifeboat"]
    {
        assert!(!to.join(gone).exists(), "{gone} is there");
    }
}

#[test]
fn everything_comes_back() {
    for encryption in [Encryption::Aes256Gcm, Encryption::None] {
        let fixture = Fixture::with_encryption(&["east"], encryption);
        let (backup, files) = write_all(&fixture, 10);
        let to = fixture.path("target");
        let report = fixture.restore(&fixture.plan(&backup, &to)).unwrap();
        check(&to, &files);
        assert_eq!(report.kept_bytes, 0);
        assert!(report.fetched_bytes > 30 << 20, "{report:?}");
        let expected: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
        assert!(report.bytes >= expected as u64, "{report:?}");
        // Holes stay holes, so that a sparse cluster does not fill the disk.
        let blocks = fs::metadata(to.join("base/5/1004")).unwrap().blocks();
        assert_eq!(blocks, 0);
        assert_eq!(mode(&to), 0o700);
        // The table says 04755: only what PostgreSQL itself uses is left of it.
        assert_eq!(mode(&to.join("base/5/1001")), 0o640);
        assert_eq!(mode(&to.join("base/5")), 0o700);
    }
}

#[test]
fn recovery_is_prepared() {
    let fixture = Fixture::new(&["east"]);
    let (backup, _) = write_all(&fixture, 10);
    let to = fixture.path("target");
    let report = fixture.restore(&fixture.plan(&backup, &to)).unwrap();
    let auto = fs::read_to_string(to.join("postgresql.auto.conf")).unwrap();
    assert!(auto.contains("#primary_conninfo = 'host=old'"), "{auto}");
    assert!(auto.contains("archive_mode = 'off'"), "{auto}");
    assert!(auto.contains("max_connections = '150'"), "{auto}");
    assert!(!auto.contains("max_wal_senders"), "{auto}");
    assert!(auto.contains("recovery_target_timeline = 'current'"), "{auto}");
    let plan_file = fixture.path("target.lifeboat/recovery.json");
    assert!(auto.contains(plan_file.to_str().unwrap()), "{auto}");
    assert_eq!(mode(&fixture.path("target.lifeboat/wal-read.key")), 0o600);
    assert_eq!(mode(&fixture.path("target.lifeboat")), 0o700);
    assert_eq!(fs::read(to.join("recovery.signal")).unwrap(), b"");
    assert!(fs::read_to_string(to.join("backup_label")).unwrap().contains("0/2000028"));
    let marker = lifeboat_wal::incarnation::Marker::read(&to).unwrap().unwrap();
    assert_eq!(marker.incarnation.0, report.incarnation);
    assert!(!marker.granted);
    let manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(to.join("backup_manifest")).unwrap()).unwrap();
    let listed = manifest["Files"].as_array().unwrap().iter();
    let mut listed: Vec<&str> = listed.map(|file| file["Path"].as_str().unwrap()).collect();
    listed.sort_unstable();
    let mut present: Vec<String> = tree(&to).into_keys().collect();
    present.retain(|path| path != "backup_manifest");
    assert_eq!(listed, present);
}

#[test]
fn a_restore_that_was_interrupted_anywhere_is_continued() {
    let points = [
        "restore.planned",
        "restore.directory_made",
        "restore.half",
        "restore.files_done",
        "restore.before_control",
        "restore.after_control",
    ];
    let fixture = Fixture::new(&["east"]);
    let (backup, files) = write_all(&fixture, 10);
    for (number, point) in points.iter().enumerate() {
        let to = fixture.path(&format!("target-{number}"));
        let plan = fixture.plan(&backup, &to);
        let failure = fixture.restore_with(&plan, &format!("{point}=error")).unwrap_err();
        assert_eq!(failure.code(), Code::Failpoint, "{point}");
        let startable = to.join("global/pg_control").exists();
        assert_eq!(startable, *point == "restore.after_control", "{point}");
        let report = fixture.restore(&plan).unwrap();
        check(&to, &files);
        let kept = report.kept_bytes > 0;
        assert_eq!(kept, number >= 2, "{point}: {report:?}");
    }
}

#[test]
fn what_an_interrupted_restore_left_wrong_is_mended() {
    let fixture = Fixture::new(&["east"]);
    let (backup, files) = write_all(&fixture, 10);
    let to = fixture.path("target");
    let plan = fixture.plan(&backup, &to);
    fixture.restore_with(&plan, "restore.files_done=error").unwrap_err();
    // As after a power cut: torn, short, long, zeroed, gone, strange.
    let flip = |path: &str, at: usize| {
        let mut bytes = fs::read(to.join(path)).unwrap();
        bytes[at] ^= 1;
        fs::write(to.join(path), bytes).unwrap();
    };
    flip("base/5/1001", 77 * PAGE + 5);
    flip("base/5/1004", 3 * PAGE);
    flip("base/5/short", 0);
    fs::write(to.join("base/5/1003"), b"short").unwrap();
    let mut long = fs::read(to.join("base/5/1005")).unwrap();
    long.extend_from_slice(&[1; 9000]);
    fs::write(to.join("base/5/1005"), long).unwrap();
    fs::remove_file(to.join("base/5/1002")).unwrap();
    fs::write(to.join("base/5/stranger"), b"x").unwrap();
    fs::write(to.join("base/5/1006"), b"not empty").unwrap();
    let report = fixture.restore(&plan).unwrap();
    check(&to, &files);
    assert!(!to.join("base/5/stranger").exists());
    assert_eq!(report.removed_files, 1);
    assert!(report.kept_bytes > 30 << 20, "{report:?}");
    assert!(report.fetched_bytes < 4 << 20, "{report:?}");
}

#[test]
fn a_delta_writes_only_what_differs() {
    let fixture = Fixture::new(&["east"]);
    let (backup, files) = write_all(&fixture, 10);
    let to = fixture.path("target");
    let mut plan = fixture.plan(&backup, &to);
    fixture.restore(&plan).unwrap();
    let untouched = fs::metadata(to.join("base/5/1001")).unwrap().ino();
    let mut bytes = fs::read(to.join("base/5/1001")).unwrap();
    bytes[9 * PAGE] ^= 1;
    fs::write(to.join("base/5/1001"), bytes).unwrap();
    fs::create_dir_all(to.join("base/77/deep")).unwrap();
    fs::write(to.join("base/77/deep/file"), b"x").unwrap();
    fs::write(to.join("pg_wal/000000010000000000000009"), b"old").unwrap();
    std::os::unix::fs::symlink("/etc", to.join("base/link")).unwrap();

    let refused = fixture.restore(&plan).unwrap_err();
    assert_eq!(refused.code(), Code::TargetDirectory);
    plan.delta = true;
    let report = fixture.restore(&plan).unwrap();
    check(&to, &files);
    assert_eq!(fs::metadata(to.join("base/5/1001")).unwrap().ino(), untouched);
    for gone in ["base/77", "pg_wal/000000010000000000000009", "base/link"] {
        assert!(fs::symlink_metadata(to.join(gone)).is_err(), "{gone} is there");
    }
    assert!(std::path::Path::new("/etc/passwd").exists());
    assert!(report.fetched_bytes < 1 << 20, "{report:?}");
    assert!(report.kept_bytes > 30 << 20, "{report:?}");
}

#[test]
fn a_delta_never_writes_into_a_file_with_two_names() {
    let fixture = Fixture::new(&["east"]);
    let (backup, files) = write_all(&fixture, 10);
    let to = fixture.path("target");
    let mut plan = fixture.plan(&backup, &to);
    fixture.restore(&plan).unwrap();
    let other = noise(1, 300 * PAGE);
    fs::write(to.join("base/5/1001"), &other).unwrap();
    fs::hard_link(to.join("base/5/1001"), fixture.path("snapshot")).unwrap();
    plan.delta = true;
    fixture.restore(&plan).unwrap();
    check(&to, &files);
    assert!(fs::read(fixture.path("snapshot")).unwrap() == other);
}

#[test]
fn tablespaces_go_where_they_are_sent() {
    let fixture = Fixture::new(&["east"]);
    let mut writer = fixture.writer();
    writer.skeleton();
    writer.tablespace(16400, &fixture.path("was-here"));
    writer.directory("pg_tblspc/16400/PG_15_202209061");
    writer.directory("pg_tblspc/16400/PG_15_202209061/5");
    let bytes = noise(3, 40 * PAGE);
    writer.file("pg_tblspc/16400/PG_15_202209061/5/2000", &bytes);
    let backup = writer.finish();
    let to = fixture.path("target");
    let mut plan = fixture.plan(&backup, &to);
    plan.tablespaces[0].place = fixture.path("disk2/ts");
    fixture.restore_with(&plan, "restore.files_done=error").unwrap_err();
    assert!(fs::symlink_metadata(to.join("pg_tblspc/16400")).is_err(), "links come last");
    let report = fixture.restore(&plan).unwrap();
    assert!(report.kept_bytes >= bytes.len() as u64);
    assert_eq!(fs::read_link(to.join("pg_tblspc/16400")).unwrap(), fixture.path("disk2/ts"));
    let file = fixture.path("disk2/ts/PG_15_202209061/5/2000");
    assert!(fs::read(&file).unwrap() == bytes);
    assert!(!fixture.path("was-here").exists());

    // A delta finds its own tablespace; a new restore refuses to share it.
    fs::write(&file, b"changed").unwrap();
    fs::write(fixture.path("disk2/ts/PG_15_202209061/5/stray"), b"x").unwrap();
    plan.delta = true;
    fixture.restore(&plan).unwrap();
    assert!(fs::read(&file).unwrap() == bytes);
    assert!(!fixture.path("disk2/ts/PG_15_202209061/5/stray").exists());
    let mut second = fixture.plan(&backup, &fixture.path("second"));
    second.tablespaces[0].place = fixture.path("disk2/ts");
    let refused = fixture.restore(&second).unwrap_err();
    assert_eq!(refused.code(), Code::TargetDirectory);
    assert!(!fixture.path("second").exists());
}

#[test]
fn configuration_from_outside_lands_in_the_target() {
    let fixture = Fixture::new(&["east"]);
    let mut writer = fixture.writer();
    for directory in ["base", "global"] {
        writer.directory(directory);
    }
    writer.inline("PG_VERSION", b"15\n");
    writer.file("global/pg_control", &control(100));
    writer.outside(
        "include",
        "/etc/postgresql/15/main/conf.d/one.conf",
        b"restore_command = 'old'\ninclude '/etc/pg/extra.conf'\nwork_mem = 8MB\n",
    );
    writer.outside(
        "config_file",
        "/etc/postgresql/15/main/postgresql.conf",
        &lifeboat_cluster::settings::guarded(
            b"data_directory = '/var/lib/postgresql/15/main'\n\
              hba_file='/etc/postgresql/15/main/pg_hba.conf'\n\
              external_pid_file = '/run/x.pid'\ninclude_dir 'conf.d'\ninclude_dir 'empty.d'\n\
              include_if_exists 'nothing.conf'\ninclude 'lost.conf'\nport = 5433\n",
        ),
    );
    writer.outside(
        "hba_file",
        "/etc/postgresql/15/main/pg_hba.conf",
        b"local all @\"the admins\",joe peer\nlocal all @/srv/lists/gone,all peer # why\n",
    );
    writer.outside("include", "/etc/postgresql/15/main/the admins", b"ann\n@/srv/lists/more\n");
    writer.outside("include", "/srv/lists/more", b"bob\n");
    writer.outside("include", "/etc/pg/extra.conf", b"max_connections = 20\n");
    let backup = writer.finish();
    let to = fixture.path("target");
    let report = fixture.restore(&fixture.plan(&backup, &to)).unwrap();
    let main = fs::read_to_string(to.join("postgresql.conf")).unwrap();
    for gone in ["\ndata_directory", "\nhba_file", "\nexternal_pid_file", "\ninclude 'lost.conf'"] {
        assert!(!format!("\n{main}").contains(gone), "{main}");
    }
    assert!(main.contains("port = 5433"), "{main}");
    // A copy is started by people and by drills, who have no guard.
    assert!(!main.contains("lifeboat guard"), "{main}");
    assert!(report.notes.iter().any(|note| note.contains("guard manage")), "{:?}", report.notes);
    let kept = "lifeboat.configuration/etc/postgresql/15/main/the admins";
    assert_eq!(
        fs::read_to_string(to.join("pg_hba.conf")).unwrap(),
        format!("local all @\"{kept}\",joe peer\nlocal all @/srv/lists/gone,all peer # why\n")
    );
    let more = to.join("lifeboat.configuration/srv/lists/more");
    assert_eq!(
        fs::read_to_string(to.join(kept)).unwrap(),
        format!("ann\n@\"{}\"\n", more.display())
    );
    assert!(report.notes.iter().any(|note| note.contains("lists/gone")), "{:?}", report.notes);
    let read =
        lifeboat_cluster::settings::read_sources(&to.join("postgresql.conf"), Some(&to)).unwrap();
    assert_eq!(read.settings["work_mem"], "8MB");
    assert_eq!(read.settings["max_connections"], "100");
    assert_eq!(read.data_directory, to);
    assert!(read.outside().is_empty(), "{:?}", read.outside());
    assert!(read.settings["restore_command"].contains("wal fetch"));
    assert!(report.notes.iter().any(|note| note.contains("lost.conf")), "{:?}", report.notes);
}
