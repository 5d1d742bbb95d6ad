//! Moments of real WAL, against a search through all of it.

use jiff::{SignedDuration, Timestamp};
use lifeboat_cluster::wal::Fact;
use lifeboat_testkit::postgres::{Cluster, Stop};
use lifeboat_wal::changes::{Moment, Seeker, TimeIndex};

use super::*;

/// The end of a transaction: its record's start and its time.
type End = (Lsn, Timestamp);

/// Where a recovery to `time` ends: at the first end that is later.
fn searched(ends: &[End], time: Timestamp) -> Option<Lsn> {
    ends.iter().find(|(_, at)| *at > time).map(|(lsn, _)| *lsn)
}

fn found(index: &TimeIndex, data: &Path, time: Timestamp) -> Option<Lsn> {
    let Moment::Within { from, to } = index.locate(time) else { return None };
    let mut seeker = Seeker::new(time);
    records(data, from, to, |record| seeker.note(record));
    assert!(seeker.stop().is_some(), "{from} to {to} has nothing after {time}");
    seeker.stop()
}

fn every_moment_is_found(major: u32) {
    let mut cluster = Cluster::builder(major)
        .wal_segment_size_mb(1)
        .setting("wal_keep_size = 1GB")
        .start()
        .unwrap();
    cluster.pgbench(["-i", "-s", "1", "-q"]).unwrap();
    // Sessions side by side do not commit by time.
    cluster.pgbench(["-t", "100", "-c", "8", "-n"]).unwrap();
    cluster.psql("SELECT pg_create_restore_point('between'); SELECT pg_sleep(1.2)").unwrap();
    cluster.pgbench(["-t", "100", "-c", "8", "-n"]).unwrap();
    cluster.psql("BEGIN; DELETE FROM pgbench_tellers; ROLLBACK; SELECT pg_sleep(1.2)").unwrap();
    cluster.psql("INSERT INTO pgbench_history VALUES (1)").unwrap();
    cluster.stop(Stop::Fast).unwrap();
    let data = cluster.data();
    let from = segments(data)[0].0.start(control(data).wal_segment_size).unwrap();
    let to = control(data).redo;

    let mut ends: Vec<End> = Vec::new();
    let mut indexes = vec![TimeIndex::starting(from, TIMELINE)];
    records(data, from, to, |record| {
        if let Some(Fact::End(end)) = &record.fact {
            ends.push((record.lsn, end.time));
        }
        let index = indexes.last_mut().unwrap();
        // Many spans, as one for each of a receiver's objects.
        if record.lsn.distance_from(index.span().from) > 300_000 {
            index.finish(record.lsn, TIMELINE);
            indexes.push(TimeIndex::starting(record.lsn, TIMELINE));
        }
        indexes.last_mut().unwrap().note(record);
    });
    indexes.last_mut().unwrap().finish(to, TIMELINE);
    assert!(indexes.len() > 10 && ends.len() > 1600, "{} {}", indexes.len(), ends.len());
    let index = indexes.into_iter().reduce(|one, next| one.merge(next).unwrap()).unwrap();
    let index = TimeIndex::decode(&index.encode()).unwrap();
    assert_eq!(index.ends(), ends.len() as u64);

    let step = SignedDuration::from_micros(1);
    for (_, time) in ends.iter().step_by(41).chain(ends.last()) {
        for time in [*time - step, *time, *time + step] {
            assert_eq!(found(&index, data, time), searched(&ends, time), "{time}");
        }
    }
    let (earliest, latest) = index.times().unwrap();
    assert_eq!(index.locate(latest), Moment::Behind);
    assert_eq!(found(&index, data, earliest - step), Some(ends[0].0));
    let [point] = index.restore_points() else { panic!("{:?}", index.restore_points()) };
    assert_eq!(point.name, "between");
    println!("{major}: {} ends, {} bytes", ends.len(), index.encode().len());
}

#[test]
fn pg15_every_moment_is_found() {
    every_moment_is_found(15);
}

#[test]
fn pg18_every_moment_is_found() {
    every_moment_is_found(18);
}
