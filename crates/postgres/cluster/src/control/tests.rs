use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use lifeboat_environment::{Clock, ManualClock, SeededRandom};
use proptest::prelude::*;

use super::*;
use crate::RELEASES;
use crate::tests::{bytes, text};

/// What PostgreSQL's own `pg_controldata` prints for the same file.
fn controldata(major: u32) -> BTreeMap<String, String> {
    controldata_of(&format!("control/{major}.txt"))
}

fn controldata_of(name: &str) -> BTreeMap<String, String> {
    let output = text(name);
    let pairs = output.lines().filter_map(|line| line.split_once(':'));
    pairs.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
}

fn state_name(state: State) -> &'static str {
    match state {
        State::StartingUp => "starting up",
        State::ShutDown => "shut down",
        State::ShutDownInRecovery => "shut down in recovery",
        State::ShuttingDown => "shutting down",
        State::CrashRecovery => "in crash recovery",
        State::ArchiveRecovery => "in archive recovery",
        State::InProduction => "in production",
    }
}

fn on(flag: bool) -> String {
    if flag { "on" } else { "off" }.to_owned()
}

fn date(time: Timestamp) -> String {
    time.strftime("%a %b %e %H:%M:%S %Y").to_string()
}

/// The parsed values under the names and in the words of `pg_controldata`.
fn as_controldata(control: &ControlFile) -> Vec<(&'static str, String)> {
    let (next, limits) = (control.next_transaction, control.limits);
    vec![
        ("pg_control version number", control.release.control.to_string()),
        ("Catalog version number", control.release.catalog.to_string()),
        ("Database system identifier", control.system.to_string()),
        ("Database cluster state", state_name(control.state).to_owned()),
        ("pg_control last modified", date(control.written)),
        ("Latest checkpoint location", control.checkpoint.to_string()),
        ("Latest checkpoint's REDO location", control.redo.to_string()),
        ("Latest checkpoint's TimeLineID", control.timeline.to_string()),
        ("Latest checkpoint's PrevTimeLineID", control.previous_timeline.to_string()),
        ("Latest checkpoint's full_page_writes", on(control.full_page_writes)),
        ("Latest checkpoint's NextXID", format!("{}:{}", next >> 32, next & 0xFFFF_FFFF)),
        ("Time of latest checkpoint", date(control.checkpoint_time)),
        ("Minimum recovery ending location", control.minimum_recovery.to_string()),
        ("Min recovery ending loc's timeline", control.minimum_recovery_timeline.to_string()),
        ("Backup start location", control.backup_start.to_string()),
        ("Backup end location", control.backup_end.to_string()),
        (
            "End-of-backup record required",
            if control.backup_end_required { "yes" } else { "no" }.to_owned(),
        ),
        ("wal_level setting", format!("{:?}", control.wal_level).to_lowercase()),
        ("wal_log_hints setting", on(control.wal_log_hints)),
        ("max_connections setting", limits.max_connections.to_string()),
        ("max_worker_processes setting", limits.max_worker_processes.to_string()),
        ("max_wal_senders setting", limits.max_wal_senders.to_string()),
        ("max_prepared_xacts setting", limits.max_prepared_transactions.to_string()),
        ("max_locks_per_xact setting", limits.max_locks_per_transaction.to_string()),
        ("track_commit_timestamp setting", on(control.track_commit_timestamp)),
        ("Database block size", control.block_size.to_string()),
        ("Blocks per segment of large relation", control.segment_blocks.to_string()),
        ("WAL block size", control.wal_block_size.to_string()),
        ("Bytes per WAL segment", control.wal_segment_size.bytes().to_string()),
        ("Data page checksum version", u32::from(control.data_checksums).to_string()),
    ]
}

#[test]
fn control_files_of_every_version_read_as_pg_controldata_reads_them() {
    for release in &RELEASES {
        let file = bytes(&format!("control/{}", release.major));
        assert_eq!(file.len(), SIZE);
        let control = ControlFile::parse(&file).unwrap();
        assert_eq!(control.release, release);
        let expected = controldata(release.major);
        for (name, value) in as_controldata(&control) {
            assert_eq!(expected.get(name), Some(&value), "{}: {name}", release.major);
        }
    }
}

#[test]
fn a_standby_that_was_restored_shows_where_recovery_must_end() {
    let control = ControlFile::parse(&bytes("control/standby-15")).unwrap();
    let expected = controldata_of("control/standby-15.txt");
    for (name, value) in as_controldata(&control) {
        assert_eq!(expected.get(name), Some(&value), "{name}");
    }
    assert_eq!(control.state, State::ArchiveRecovery);
    assert_ne!(control.minimum_recovery, Lsn::ZERO);
}

#[test]
fn every_flipped_bit_is_refused() {
    for release in &RELEASES {
        let file = bytes(&format!("control/{}", release.major));
        for bit in 0..(release.control_crc + 4) * 8 {
            let mut damaged = file.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(ControlFile::parse(&damaged).is_err(), "{release}, bit {bit}");
        }
    }
}

#[test]
fn versions_without_support_are_named() {
    let mut file = bytes("control/15");
    file[12..16].copy_from_slice(&201_909_212_u32.to_le_bytes());
    let error = ControlFile::parse(&file).unwrap_err();
    assert_eq!(error, ControlError::UnknownVersion { control: 1300, catalog: 201_909_212 });
    assert_eq!(error.at(Path::new("x")).code(), Code::ClusterUnsupported);
}

/// A clock whose sleep is the moment at which the server ends its write.
struct Repairing {
    inner: ManualClock,
    repair: Mutex<Option<(u32, std::path::PathBuf, Vec<u8>)>>,
}

impl Clock for Repairing {
    fn now(&self) -> Timestamp {
        self.inner.now()
    }

    fn elapsed(&self) -> Duration {
        self.inner.elapsed()
    }

    fn sleep(&self, duration: Duration) {
        self.inner.sleep(duration);
        let mut repair = self.repair.lock().unwrap();
        if let Some((sleeps, path, content)) = repair.as_mut() {
            *sleeps -= 1;
            if *sleeps == 0 {
                std::fs::write(path, content).unwrap();
                *repair = None;
            }
        }
    }
}

fn torn_directory(sleeps: Option<u32>) -> (tempfile::TempDir, Environment) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(PATH);
    std::fs::create_dir(directory.path().join("global")).unwrap();
    let good = bytes("control/15");
    let mut torn = good.clone();
    torn[100] ^= 1;
    std::fs::write(&path, torn).unwrap();
    let clock = Repairing {
        inner: ManualClock::at(Timestamp::UNIX_EPOCH),
        repair: Mutex::new(sleeps.map(|sleeps| (sleeps, path, good))),
    };
    let random = Arc::new(SeededRandom::new(1));
    (directory, Environment::for_test(Arc::new(clock), random))
}

#[test]
fn a_torn_read_is_repeated_until_the_write_has_ended() {
    let (directory, environment) = torn_directory(Some(3));
    let control = read(directory.path(), &environment).unwrap();
    assert_eq!(control.release.major, 15);
    assert_eq!(environment.clock().elapsed(), 3 * PAUSE);
}

#[test]
fn damage_that_stays_is_a_failure_that_names_the_file() {
    let (directory, environment) = torn_directory(None);
    let failure = read(directory.path(), &environment).unwrap_err();
    assert_eq!(failure.code(), Code::ControlFileInvalid);
    assert!(failure.message().contains("global/pg_control"), "{failure}");
}

#[test]
fn a_missing_file_is_a_failure_that_names_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let failure = read(directory.path(), &Environment::system()).unwrap_err();
    assert_eq!(failure.code(), Code::SourceFileUnreadable);
    assert!(failure.message().contains("global/pg_control"), "{failure}");
}

proptest! {
    #[test]
    fn random_bytes_never_panic(file in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(ControlFile::parse(&file).is_err());
    }

    #[test]
    fn random_values_under_a_good_checksum_never_panic(
        at in 16_usize..284,
        value: [u8; 4],
        major in 13_u32..=18,
    ) {
        let mut file = bytes(&format!("control/{major}"));
        file[at..at + 4].copy_from_slice(&value);
        let crc = Release::of_major(major).unwrap().control_crc;
        let sum = crc32c::crc32c(&file[..crc]);
        file[crc..crc + 4].copy_from_slice(&sum.to_le_bytes());
        match ControlFile::parse(&file) {
            Ok(control) => prop_assert_eq!(control.release.major, major),
            Err(error) => {
                let impossible = matches!(error, ControlError::Impossible { .. });
                prop_assert!(impossible, "{error}");
            }
        }
    }

    #[test]
    fn truncated_files_are_refused(length in 0_usize..296) {
        let file = bytes("control/18");
        prop_assert!(ControlFile::parse(&file[..length]).is_err());
    }
}
