//! What the instance is doing, in one question.

use jiff::Timestamp;
use lifeboat_cluster::wal::History;
use lifeboat_model::{Lsn, NodeName, RegionName, Timeline};
use lifeboat_quorum::Instance;
use lifeboat_telemetry::{Code, Failure, Outcome};
use lifeboat_wal::acknowledge::Rule;
use lifeboat_wal::receiver_name;
use tokio_postgres::SimpleQueryRow;

use super::session::{text, value};
use super::settings::Settings;

/// A row for the server itself, then one for each that streams from it. What is only allowed on
/// one side is behind a CASE: it is not computed on the other one.
pub(crate) const QUESTION: &str = "
    WITH it AS MATERIALIZED (SELECT pg_is_in_recovery() AS recovers)
    SELECT 'self', it.recovers::text,
      CASE WHEN it.recovers THEN pg_last_wal_receive_lsn() END::text,
      CASE WHEN it.recovers THEN pg_last_wal_replay_lsn() END::text,
      CASE WHEN it.recovers THEN
        (extract(epoch FROM pg_last_xact_replay_timestamp()) * 1000000)::bigint END::text,
      (SELECT coalesce(status, 'streaming') FROM pg_stat_wal_receiver WHERE pid IS NOT NULL),
      (SELECT received_tli FROM pg_stat_wal_receiver)::text,
      CASE WHEN NOT it.recovers THEN pg_current_wal_flush_lsn() END::text,
      CASE WHEN NOT it.recovers THEN pg_walfile_name(pg_current_wal_lsn()) END,
      current_setting('synchronous_standby_names'),
      (SELECT greatest(c.timeline_id, r.min_recovery_end_timeline)
         FROM pg_control_checkpoint() c, pg_control_recovery() r)::text
    FROM it;
    SELECT 'standby', r.application_name, r.flush_lsn::text, r.state, r.sync_state,
      s.slot_name::text
    FROM pg_stat_replication r LEFT JOIN pg_replication_slots s ON s.active_pid = r.pid";

/// Up to where as many receivers as commits wait for have the WAL; none where they wait for nobody,
/// or for more than there are.
pub(crate) fn covered(rows: &[SimpleQueryRow]) -> Option<Lsn> {
    let own = rows.iter().find(|row| text(row, 0) == Some("self"))?;
    let rule = Rule::parse(text(own, 9)?)?;
    let others = rows.iter().filter(|row| text(row, 0) == Some("standby"));
    let others: Vec<&SimpleQueryRow> = others.collect();
    let mut flushed: Vec<Lsn> = counted(&rule, &others).filter_map(|row| value(row, 2)).collect();
    flushed.sort_unstable();
    flushed.into_iter().rev().nth(rule.needed().checked_sub(1)?)
}

/// Reads the answer.
pub(crate) fn answer(settings: &Settings, rows: &[SimpleQueryRow]) -> Outcome<Instance> {
    let odd = || {
        Failure::new(Code::ClusterUnreachable, "PostgreSQL answered nonsense")
            .hint("See the server's log: it may be in the middle of a promotion.")
    };
    let own = rows.iter().find(|row| text(row, 0) == Some("self")).ok_or_else(odd)?;
    if text(own, 1) == Some("true") {
        return standby(settings, own).ok_or_else(odd);
    }
    let file = text(own, 8).ok_or_else(odd)?;
    let digits = file.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok());
    let others: Vec<&SimpleQueryRow> =
        rows.iter().filter(|row| text(row, 0) == Some("standby")).collect();
    Ok(Instance::Primary {
        timeline: digits.map(Timeline).ok_or_else(odd)?,
        flushed: value(own, 7).ok_or_else(odd)?,
        standbys: standbys(settings, &others)?,
        receivers: receivers(settings, &others)?,
        stalled: stalled(text(own, 9).unwrap_or_default(), &others),
    })
}

fn standby(settings: &Settings, row: &SimpleQueryRow) -> Option<Instance> {
    let replayed: Lsn = value(row, 3)?;
    let commit: Option<i64> = value(row, 4);
    let received_timeline: Option<u32> = value(row, 6);
    let control: u32 = value(row, 10)?;
    let known = Timeline(received_timeline.unwrap_or(0).max(control));
    Some(Instance::Standby {
        timeline: replayed_timeline(settings, known, replayed),
        received: value(row, 2),
        replayed,
        replayed_commit: commit.and_then(|micros| Timestamp::from_microsecond(micros).ok()),
        streaming: text(row, 5) == Some("streaming"),
    })
}

/// PostgreSQL does not tell which timeline it replays. It replays along the newest history that
/// it has and that leads on from where it is; pg_control knows at least what was replayed before
/// the last restart point.
fn replayed_timeline(settings: &Settings, known: Timeline, replayed: Lsn) -> Timeline {
    let Ok(data) = settings.data() else { return known };
    let names = std::fs::read_dir(data.join("pg_wal")).into_iter().flatten().flatten();
    let mut histories: Vec<u32> = names
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            u32::from_str_radix(name.strip_suffix(".history")?, 16).ok()
        })
        .collect();
    histories.sort_unstable();
    let newest = histories.into_iter().rev().find_map(|number| {
        let path = data.join("pg_wal").join(format!("{number:08X}.history"));
        let history = History::parse(Timeline(number), &std::fs::read(path).ok()?).ok()?;
        history.contains(known, replayed).then(|| history.timeline_of(replayed))
    });
    newest.unwrap_or(known).max(known)
}

/// Nodes that stream by their own slot. A name alone is nothing: anybody can call himself so (V9).
fn standbys(settings: &Settings, rows: &[&SimpleQueryRow]) -> Outcome<Vec<(NodeName, Lsn)>> {
    let mut found = Vec::new();
    for name in settings.others()?.map(|(name, _)| name) {
        let slot = settings.slot(name)?;
        let own = rows.iter().find(|row| {
            text(row, 1) == Some(name.as_str())
                && text(row, 5) == Some(&slot)
                && text(row, 3) == Some("streaming")
        });
        if let Some(flushed) = own.and_then(|row| value(row, 2)) {
            found.push((name.clone(), flushed));
        }
    }
    Ok(found)
}

/// The regions whose receivers stream by their own slot.
fn receivers(settings: &Settings, rows: &[&SimpleQueryRow]) -> Outcome<Vec<RegionName>> {
    let streams = |region: &&RegionName| {
        let name = receiver_name(&settings.database, region);
        rows.iter().any(|row| {
            text(row, 1) == Some(&name)
                && text(row, 5) == Some(&name)
                && text(row, 3) == Some("streaming")
        })
    };
    Ok(settings.database()?.wal.receivers.iter().filter(streams).cloned().collect())
}

/// Whether commits wait for more receivers than there are.
fn stalled(names: &str, rows: &[&SimpleQueryRow]) -> bool {
    let Some(rule) = Rule::parse(names) else { return false };
    counted(&rule, rows).count() < rule.needed()
}

/// Those who stream, and whose word lets commits go on.
fn counted<'a>(
    rule: &Rule,
    rows: &[&'a SimpleQueryRow],
) -> impl Iterator<Item = &'a SimpleQueryRow> {
    rows.iter().copied().filter(|row| {
        text(row, 3) == Some("streaming")
            && matches!(text(row, 4), Some("sync" | "quorum"))
            && text(row, 1).is_some_and(|name| rule.counts(name))
    })
}
