use lifeboat_repository::ids::Digest;
use lifeboat_repository::tree::{Content, FileEntry, FileKind, Root, Run};
use lifeboat_telemetry::Code;

use super::fixture::{Fixture, PAGE, Writer, noise, tree};

fn entry(path: &str, kind: FileKind) -> FileEntry {
    FileEntry {
        root: Root::Data,
        path: path.as_bytes().to_vec(),
        kind,
        mode: 0o600,
        modified: 0,
        size: 0,
        page_bytes: PAGE as u32,
        crc32c: 0,
        boot: false,
        content: Content::Nothing,
    }
}

/// Restores a skeleton with something hostile in its table; nothing at all may be written.
fn refused(change: impl Fn(&mut Writer<'_>)) -> Code {
    let fixture = Fixture::new(&["east"]);
    let mut writer = fixture.writer();
    writer.skeleton();
    change(&mut writer);
    let backup = writer.finish();
    let before = tree(fixture.directory.path());
    let failure = fixture.restore(&fixture.plan(&backup, &fixture.path("target"))).unwrap_err();
    let after = tree(fixture.directory.path());
    assert_eq!(before.len(), after.len(), "something was written: {failure}");
    assert!(!fixture.path("target").exists());
    failure.code()
}

#[test]
fn no_path_leaves_the_target() {
    for path in [
        "../evil",
        "/etc/cron.d/evil",
        "base/../../evil",
        "base//evil",
        "./evil",
        "base/.",
        "",
        "base/5/",
        "evil\0",
        "..",
        "base/5/..",
        "/",
        "//",
        "base/5/./x",
    ] {
        for kind in [FileKind::File, FileKind::Directory, FileKind::Tablespace] {
            let code = refused(|writer| writer.entries.push(entry(path, kind)));
            assert_eq!(code, Code::PathUnsafe, "{path:?} as {kind:?}");
        }
    }
    let long = format!("base/{}", "x".repeat(300));
    let code = refused(|writer| writer.entries.push(entry(&long, FileKind::File)));
    assert_eq!(code, Code::PathUnsafe);
}

#[test]
fn nothing_goes_through_what_is_no_directory() {
    for (first, kind, below) in [
        ("base/5/x", FileKind::File, "base/5/x/y"),
        ("nowhere", FileKind::File, "other/file"),
        ("pg_tblspc/777", FileKind::Tablespace, "pg_tblspc/777/file"),
    ] {
        let code = refused(|writer| {
            writer.entries.push(entry(first, kind));
            writer.entries.push(entry(below, FileKind::File));
        });
        assert_eq!(code, Code::PathUnsafe, "{below}");
    }
    // A tablespace of the manifest that the table wants to be a file or a directory.
    for kind in [FileKind::File, FileKind::Directory] {
        let code = refused(|writer| {
            writer.tablespace(16400, std::path::Path::new("/tmp/nowhere"));
            writer.entries.last_mut().unwrap().kind = kind;
        });
        assert_eq!(code, Code::ObjectDamaged, "{kind:?}");
    }
}

#[test]
fn tables_that_make_no_sense_are_refused() {
    let twice = refused(|writer| {
        writer.entries.push(entry("base/5/x", FileKind::File));
        writer.entries.push(entry("base/5/x", FileKind::File));
    });
    assert_eq!(twice, Code::ObjectDamaged);
    for without in ["PG_VERSION", "global/pg_control"] {
        let code = refused(|writer| {
            let at = writer.entries.iter().position(|entry| entry.path == without.as_bytes());
            // The fixture fills in content by index: the entry keeps its place, under another name.
            writer.entries[at.unwrap()].path = b"base/5/renamed".to_vec();
        });
        assert_eq!(code, Code::ObjectDamaged, "{without}");
    }
    let huge_pages = refused(|writer| {
        let run = Run { pack: None, frame: 0, slot: 0, pages: 1 };
        writer.entries.push(FileEntry {
            size: 1 << 30,
            page_bytes: 1 << 30,
            content: Content::Runs(vec![run]),
            ..entry("base/5/x", FileKind::File)
        });
    });
    assert_eq!(huge_pages, Code::ObjectDamaged);
    let outside_directory = refused(|writer| {
        let root = Root::Outside;
        writer.entries.push(FileEntry { root, ..entry("/etc", FileKind::Directory) });
    });
    assert_eq!(outside_directory, Code::ObjectDamaged);
}

/// Runs that name what is not there, or is another file's: found while files are written, so
/// there is a directory, but nothing that starts.
#[test]
fn runs_that_lie_are_found_out() {
    type Lie = fn(&mut Run);
    let lies: [(&str, Lie); 5] = [
        ("no such frame", |run| run.frame = 60_000),
        ("no such slot", |run| run.slot = 16_000),
        ("another slot", |run| run.slot += 1),
        ("zeros", |run| run.pack = None),
        ("no such pack", |run| run.pack = Some(Digest::of(b"nothing"))),
    ];
    for (what, lie) in lies {
        let fixture = Fixture::new(&["east"]);
        let mut writer = fixture.writer();
        writer.skeleton();
        writer.file("base/5/1001", &noise(8, 20 * PAGE));
        let first = writer.finish();
        // The same entries again, with the last file's runs changed.
        let mut table = Vec::new();
        let source = fixture.source();
        crate::table::FileTable::new(&source, &first.description.file_table)
            .each(|entry| {
                table.push(entry);
                Ok(())
            })
            .unwrap();
        let file = table.iter_mut().find(|entry| entry.path == b"base/5/1001").unwrap();
        let Content::Runs(runs) = &mut file.content else { panic!("it has runs") };
        lie(&mut runs[0]);
        let mut writer = fixture.writer();
        writer.entries = table;
        let backup = writer.write_table(Vec::new());
        let to = fixture.path("target");
        let failure = fixture.restore(&fixture.plan(&backup, &to)).unwrap_err();
        let expected = match what {
            "no such pack" => Code::ObjectMissing,
            _ => Code::ObjectDamaged,
        };
        assert_eq!(failure.code(), expected, "{what}: {failure}");
        assert!(!to.join("global/pg_control").exists(), "{what}");
    }
}

#[test]
fn a_link_that_appears_in_the_target_is_not_followed() {
    let fixture = Fixture::new(&["east"]);
    let mut writer = fixture.writer();
    writer.skeleton();
    writer.file("base/5/1001", &noise(8, 20 * PAGE));
    let backup = writer.finish();
    let victim = fixture.path("victim");
    std::fs::create_dir(&victim).unwrap();
    let to = fixture.path("target");
    std::fs::create_dir(&to).unwrap();
    let target = crate::target::Target::open(&to, None).unwrap();
    std::os::unix::fs::symlink(&victim, to.join("base")).unwrap();
    std::os::unix::fs::symlink(victim.join("file"), to.join("PG_VERSION")).unwrap();
    let flags = nix::fcntl::OFlag::empty();
    for path in ["base/5/1001", "PG_VERSION", "base/x"] {
        let failure = target.file(path.as_bytes(), flags).unwrap_err();
        assert_eq!(failure.code(), Code::PathUnsafe, "{path}: {failure}");
    }
    let failure = target.make_directory(b"base", 0o700).unwrap_err();
    assert_eq!(failure.code(), Code::PathUnsafe);
    for path in ["../victim/x", "base/../x", "", "/b"] {
        let failure = target.file(path.as_bytes(), flags).unwrap_err();
        assert_eq!(failure.code(), Code::PathUnsafe, "{path}: {failure}");
    }
    assert!(tree(&victim).is_empty());
    drop(backup);
}
