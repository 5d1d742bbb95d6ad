//! Two backups on timeline 1, WAL with a gap behind the second, and a timeline 2 that branched off
//! before the gap:
//!
//! ```text
//! segment     2    3    4    5    6    7    8    9    A
//! timeline 1  b1   .    b2   .    .    -    .
//! timeline 2                      .    .    .
//! minute      0    3    4    5    6    7    8    9    10
//! ```

use std::fs;

use jiff::Timestamp;
use lifeboat_model::{Lsn, RecoveryTarget, SegmentName, SegmentSize, Timeline};
use lifeboat_repository::wal_file::{Ancestor, RestorePoint, WalFacts};
use lifeboat_telemetry::{Code, Failure};

use super::fixture::{Fixture, PAGE, noise, tree};

const MIB: u64 = 1 << 20;

fn minute(minute: i64, second: i64) -> Timestamp {
    let start: Timestamp = "2026-11-20T14:00:00Z".parse().unwrap();
    start + jiff::SignedDuration::from_secs(minute * 60 + second)
}

fn position(segment: u64, offset: u64) -> Lsn {
    Lsn(segment * 16 * MIB + offset)
}

fn archive(fixture: &Fixture, timeline: u32, segment: u64, points: &[&str]) {
    let name = SegmentName::new(Timeline(timeline), segment, SegmentSize::DEFAULT).unwrap();
    let point = |name: &&str| RestorePoint {
        lsn: position(segment, MIB),
        time_us: minute(segment as i64, 30).as_microsecond(),
        name: (*name).to_owned(),
    };
    let facts = WalFacts {
        first_commit_us: Some(minute(segment as i64, 0).as_microsecond()),
        last_commit_us: Some(minute(segment as i64, 50).as_microsecond()),
        last_record: Some(position(segment, 15 * MIB)),
        restore_points: points.iter().map(point).collect(),
        ancestors: Vec::new(),
    };
    fixture.archive(&name.to_string(), &facts);
}

fn prepare(regions: &[&'static str]) -> Fixture {
    let fixture = Fixture::new(regions);
    let mut writer = fixture.writer();
    writer.skeleton();
    writer.file("base/5/1001", &noise(3, 20 * PAGE));
    let backup = writer.finish();
    for (name, segment) in [("00000001-00000001", 2), ("00000002-00000001", 4)] {
        fixture.commit(&backup, name, |description| {
            description.wal.start = position(segment, 40);
            description.wal.stop = position(segment, 2 * MIB);
            description.stopped_at = minute(segment as i64, 20);
        });
    }
    for segment in [2, 3, 4, 5, 6, 8] {
        let points: &[&str] = if segment == 3 { &["early"] } else { &["twice"] };
        archive(&fixture, 1, segment, if segment == 8 { &["lost"] } else { points });
    }
    for segment in [6, 7, 8] {
        archive(&fixture, 2, segment, &["new"][..usize::from(segment == 7)]);
    }
    let ancestors = vec![Ancestor { timeline: Timeline(1), end: position(6, 8 * MIB) }];
    fixture.archive("00000002.history", &WalFacts { ancestors, ..WalFacts::default() });
    fixture
}

struct Case(Fixture);

impl Case {
    fn backup(&self, target: RecoveryTarget) -> (String, u32) {
        let plan = self.0.make_plan(&self.0.request(target)).unwrap();
        (plan.backup.name[..8].to_owned(), plan.timeline.0)
    }

    fn backup_on(&self, timeline: u32, target: RecoveryTarget) -> String {
        let mut request = self.0.request(target);
        request.timeline = Some(Timeline(timeline));
        self.0.make_plan(&request).unwrap().backup.name[..8].to_owned()
    }

    fn refused(&self, timeline: Option<u32>, target: RecoveryTarget) -> Failure {
        let mut request = self.0.request(target);
        request.timeline = timeline.map(Timeline);
        let failure = self.0.make_plan(&request).unwrap_err();
        assert!(failure.hint_text().is_some(), "{failure}");
        failure
    }
}

fn time(at: Timestamp) -> RecoveryTarget {
    RecoveryTarget::Time { at, inclusive: true }
}

fn name(name: &str) -> RecoveryTarget {
    RecoveryTarget::Name(name.to_owned())
}

fn one() -> String {
    "00000001".to_owned()
}

fn two() -> String {
    "00000002".to_owned()
}

#[test]
fn the_newest_backup_before_the_target_is_chosen() {
    let case = Case(prepare(&["east"]));
    assert_eq!(case.backup(RecoveryTarget::Latest), (two(), 2));
    assert_eq!(case.backup(RecoveryTarget::Immediate), (two(), 1));
    assert_eq!(case.backup(RecoveryTarget::Xid(700)), (two(), 2));
    let first = RecoveryTarget::Backup("00000001-00000001".to_owned());
    assert_eq!(case.backup(first), (one(), 1));
    // Of timelines 1 and 2 the newer one is followed, which shares what lies before it.
    assert_eq!(case.backup(RecoveryTarget::Lsn(position(3, 5))), (one(), 2));
    assert_eq!(case.backup(RecoveryTarget::Lsn(position(4, MIB))), (one(), 2));
    assert_eq!(case.backup(RecoveryTarget::Lsn(position(4, 2 * MIB))), (two(), 2));
    assert_eq!(case.backup(RecoveryTarget::Lsn(position(8, MIB))), (two(), 2));
    assert_eq!(case.backup(time(minute(3, 0))), (one(), 2));
    assert_eq!(case.backup(time(minute(4, 20))), (one(), 2));
    assert_eq!(case.backup(time(minute(4, 21))), (two(), 2));
    assert_eq!(case.backup(time(minute(8, 49))), (two(), 2));
    assert_eq!(case.backup(name("early")), (one(), 2));
    assert_eq!(case.backup(name("new")), (two(), 2));
    assert_eq!(case.backup_on(1, RecoveryTarget::Lsn(position(6, 12 * MIB))), two());
    let commit = RecoveryTarget::Time { at: minute(8, 50), inclusive: false };
    assert_eq!(case.backup(commit), (two(), 2));
}

#[test]
fn what_cannot_be_reached_is_refused_with_its_neighbours() {
    let case = Case(prepare(&["east"]));
    let before = tree(case.0.directory.path()).len();
    for (timeline, target, neighbour) in [
        (None, time(minute(0, 0)), "--backup 00000001-00000001"),
        (None, time(minute(2, 20)), "--backup 00000001-00000001"),
        (None, time(minute(8, 50)), "--latest"),
        (None, time(minute(60 * 24, 0)), "--latest"),
        (None, RecoveryTarget::Lsn(Lsn(5)), "--backup 00000001-00000001"),
        (None, RecoveryTarget::Lsn(position(8, 15 * MIB + 1)), "--latest"),
        (None, RecoveryTarget::Lsn(position(9, 0)), "--latest"),
        (Some(1), RecoveryTarget::Latest, "--time 2026-11-20T14:06:49.999999Z"),
        (Some(1), time(minute(7, 0)), "--time 2026-11-20T14:06:49.999999Z"),
        (Some(1), RecoveryTarget::Lsn(position(7, 0)), "--time 2026-11-20T14:06:49.999999Z"),
        (Some(1), name("lost"), "--time 2026-11-20T14:06:49.999999Z"),
    ] {
        let failure = case.refused(timeline, target.clone());
        assert_eq!(failure.code(), Code::TargetUnreachable, "{target}: {failure}");
        let hint = failure.hint_text().unwrap();
        assert!(hint.contains(neighbour), "{target}: {failure}: {hint}");
    }
    assert_eq!(case.refused(None, name("nothing")).code(), Code::TargetUnreachable);
    let ambiguous = case.refused(None, name("twice"));
    assert_eq!(ambiguous.code(), Code::TargetAmbiguous);
    assert_eq!(ambiguous.detail_lines().len(), 2, "{:?}", ambiguous.detail_lines());
    let unknown = RecoveryTarget::Backup("00000009-00000001".to_owned());
    assert_eq!(case.refused(None, unknown).code(), Code::BackupMissing);
    assert_eq!(case.refused(Some(7), RecoveryTarget::Latest).code(), Code::NoBackup);
    assert_eq!(tree(case.0.directory.path()).len(), before, "a plan writes nothing");
}

#[test]
fn a_backup_without_its_wal_is_not_chosen() {
    let fixture = prepare(&["east"]);
    let lost = fixture.path("east").join(
        lifeboat_repository::layout::wal(fixture.keys.stream(), "000000010000000000000004")
            .unwrap()
            .as_str(),
    );
    fs::remove_file(lost).unwrap();
    let case = Case(fixture);
    assert_eq!(case.backup(RecoveryTarget::Immediate), (one(), 1));
    let named = RecoveryTarget::Backup("00000002-00000001".to_owned());
    assert_eq!(case.refused(None, named).code(), Code::TargetUnreachable);
    let beyond = case.refused(None, time(minute(5, 0)));
    assert_eq!(beyond.code(), Code::TargetUnreachable);
    assert!(beyond.message().contains("gap"), "{beyond}");
}

#[test]
fn a_region_that_has_the_target_is_read() {
    let fixture = prepare(&["east", "west"]);
    let key = lifeboat_repository::layout::wal(fixture.keys.stream(), "000000020000000000000008")
        .unwrap();
    fs::remove_file(fixture.path("east").join(key.as_str())).unwrap();
    let plan = fixture.make_plan(&fixture.request(time(minute(8, 10)))).unwrap();
    assert_eq!(plan.regions, ["west", "east"]);
    assert!(plan.notes.iter().any(|note| note.contains("region east")), "{:?}", plan.notes);
    let plan = fixture.make_plan(&fixture.request(time(minute(7, 10)))).unwrap();
    assert_eq!(plan.regions, ["east", "west"]);
}

#[test]
fn a_plan_names_what_it_costs() {
    let fixture = prepare(&["east"]);
    let plan = fixture.make_plan(&fixture.request(RecoveryTarget::Latest)).unwrap();
    assert_eq!(plan.prediction.files, 6);
    assert_eq!(plan.prediction.bytes, plan.space[0].needed - 128 * MIB);
    assert_eq!(plan.prediction.wal_bytes, Some(position(9, 0).0 - position(4, 40).0));
    assert!(!plan.prediction.measured);
    assert_eq!(plan.frontier.len(), 2);
    fs::create_dir_all(fixture.path("state")).unwrap();
    fs::write(fixture.path("state/restore-rate"), "1000\n").unwrap();
    let plan = fixture.make_plan(&fixture.request(RecoveryTarget::Latest)).unwrap();
    assert!(plan.prediction.measured);
    assert_eq!(plan.prediction.time.as_secs(), plan.prediction.bytes / 1000);
    let printed = serde_json::to_value(&plan).unwrap();
    assert_eq!(printed["backup"]["start"], "0/4000028");
}

#[test]
fn unusable_targets_and_mappings_are_refused_before_anything_is_read() {
    let fixture = prepare(&["east"]);
    let mut request = fixture.request(RecoveryTarget::Latest);
    request.to = "relative".into();
    assert_eq!(fixture.make_plan(&request).unwrap_err().code(), Code::Usage);
    let mut request = fixture.request(RecoveryTarget::Latest);
    request.tablespaces = vec![("/nowhere".to_owned(), fixture.path("ts"))];
    assert_eq!(fixture.make_plan(&request).unwrap_err().code(), Code::Usage);
    let mut request = fixture.request(RecoveryTarget::Latest);
    request.owner = Some("nobody-of-that-name".to_owned());
    assert_eq!(fixture.make_plan(&request).unwrap_err().code(), Code::Usage);
    let request = fixture.request(RecoveryTarget::Latest);
    fs::create_dir(&request.to).unwrap();
    fs::write(request.to.join("x"), b"x").unwrap();
    assert_eq!(fixture.make_plan(&request).unwrap_err().code(), Code::TargetDirectory);
}
