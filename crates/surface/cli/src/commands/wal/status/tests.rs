use lifeboat_model::{Lsn, Timeline};
use lifeboat_wal::status::BackupLine;

use super::*;

fn gap(first: &str, last: &str) -> Gap {
    let (first, last) = (first.parse().unwrap(), last.parse().unwrap());
    Gap { timeline: Timeline(1), first, last, segments: 2 }
}

fn region(gaps: Vec<Gap>, lag: Vec<Gap>, problems: &[&str]) -> RegionWindow {
    RegionWindow {
        shipped: None,
        receivers: vec![],
        region: "east".to_owned(),
        spans: Vec::new(),
        gaps,
        backups: Vec::new(),
        timelines: Vec::new(),
        lag: Lag { segments: lag.len() as u64, ranges: lag, ..Lag::default() },
        problems: problems.iter().map(|&text| text.to_owned()).collect(),
    }
}

fn code(region: RegionWindow) -> Option<Code> {
    let window = Window {
        database: "pay/ledger".to_owned(),
        regions: vec![region],
        unreachable: BTreeMap::new(),
    };
    judge(&window).map(|failure| failure.code())
}

#[test]
fn only_wal_that_no_region_has_is_lost() {
    let inner = gap("000000010000000000000003", "000000010000000000000004");
    let outer = gap("000000010000000000000002", "000000010000000000000005");
    assert_eq!(code(region(vec![], vec![], &[])), None);
    assert_eq!(code(region(vec![inner], vec![], &[])), Some(Code::WalGap));
    assert_eq!(code(region(vec![inner], vec![outer], &[])), Some(Code::RegionSkipped));
    assert_eq!(code(region(vec![outer], vec![inner], &[])), Some(Code::WalGap));
    assert_eq!(code(region(vec![], vec![outer], &[])), Some(Code::RegionSkipped));
    assert_eq!(code(region(vec![], vec![outer], &["x"])), Some(Code::RepositoryDamaged));
}

#[test]
fn a_backup_that_no_region_has_the_wal_of_is_lost() {
    let backup = |usable| BackupLine {
        name: "00000001-00000001".to_owned(),
        label: None,
        timeline: Timeline(1),
        start: Lsn(1),
        stop: Lsn(2),
        stopped_at: Timestamp::UNIX_EPOCH,
        usable,
    };
    let with =
        |usable| RegionWindow { backups: vec![backup(usable)], ..region(vec![], vec![], &[]) };
    assert_eq!(code(with(true)), None);
    assert_eq!(code(with(false)), Some(Code::WalGap));
}
