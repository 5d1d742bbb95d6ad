//! What a directory says on which nothing runs.

use anyhow::{Result, bail, ensure};
use lifeboat_drivers::InstanceDriver;
use lifeboat_model::{Lsn, Timeline};
use lifeboat_quorum::{Instance, Return};
use lifeboat_telemetry::Code;
use lifeboat_testkit::postgres::Stop;

use crate::pair::{Pair, on_one_thread, until};

/// What is killed is unclear for as long as the kernel still takes its processes apart.
fn down(pair: &Pair, node: &str) -> Result<(Timeline, Option<Lsn>)> {
    let mut found = Instance::Unclear;
    on_one_thread(async {
        let driver = pair.driver(node)?;
        until("an answer", async || {
            found = driver.inspect().await?;
            Ok(found != Instance::Unclear)
        })
        .await
    })?;
    let Instance::Down { timeline, shut_down_at } = found else { bail!("{found:?}") };
    Ok((timeline, shut_down_at))
}

fn streams(pair: &Pair) -> Result<()> {
    on_one_thread(async {
        let west = pair.driver("west-1")?;
        west.follow(Some("east-1".parse()?)).await?;
        until("the stream", async || {
            Ok(matches!(west.inspect().await?, Instance::Standby { streaming: true, .. }))
        })
        .await
    })
}

fn a_clean_end_is_what_the_standby_received(major: u32) -> Result<()> {
    let mut pair = Pair::new(major, |builder| builder)?;
    pair.west.start()?;
    streams(&pair)?;
    pair.east.psql("CREATE TABLE t AS SELECT generate_series(1, 10000) n")?;
    pair.east.stop(Stop::Fast)?;
    let (timeline, end) = down(&pair, "east-1")?;
    assert_eq!(timeline, Timeline::FIRST);
    // V6a: a standby that streams has all of it, the shutdown checkpoint included.
    let received = pair.west.psql("SELECT pg_last_wal_receive_lsn()")?.parse()?;
    assert_eq!(end, Some(received));
    pair.west.wait_for("SELECT pg_last_wal_replay_lsn()", &received.to_string())?;
    pair.west.psql("SELECT pg_promote()")?;
    on_one_thread(async {
        let east = pair.driver("east-1")?;
        let said = east.come_back("west-1".parse()?, Return::AsItIs).await?;
        ensure!(said.contains(&received.to_string()), "{said}");
        Ok(())
    })
}

#[test]
fn pg15_a_clean_end_is_what_the_standby_received() -> Result<()> {
    a_clean_end_is_what_the_standby_received(15)
}

#[test]
fn pg13_a_clean_end_is_what_the_standby_received() -> Result<()> {
    a_clean_end_is_what_the_standby_received(13)
}

#[test]
fn pg18_a_clean_end_is_what_the_standby_received() -> Result<()> {
    a_clean_end_is_what_the_standby_received(18)
}

/// V6b: the stop is clean, and the standby lacks what was acknowledged. Positions tell.
#[test]
fn pg15_a_standby_in_its_gap_lacks_what_was_written() -> Result<()> {
    let mut pair = Pair::new(15, |builder| builder)?;
    pair.west.start()?;
    streams(&pair)?;
    on_one_thread(async { Ok(pair.driver("west-1")?.follow(None).await?) })?;
    pair.east.psql("CREATE TABLE t AS SELECT 1 n")?;
    let released = on_one_thread(async { Ok(pair.driver("east-1")?.release().await) })?;
    // Asked to release, the driver refuses: nobody would have it.
    assert_eq!(released.unwrap_err().code(), Code::StandbyMissing);
    pair.east.stop(Stop::Fast)?;
    let (_, end) = down(&pair, "east-1")?;
    let found = on_one_thread(async { Ok(pair.driver("west-1")?.inspect().await?) })?;
    ensure!(found.furthest() < end, "{found:?} {end:?}");
    // Promoted all the same, it has left the timeline before the old primary's end.
    pair.west.psql("SELECT pg_promote()")?;
    on_one_thread(async {
        let east = pair.driver("east-1")?;
        let refused = east.come_back("west-1".parse()?, Return::AsItIs).await;
        assert_eq!(refused.unwrap_err().code(), Code::Diverged);
        Ok(())
    })
}

#[test]
fn pg15_a_crashed_primary_is_judged_by_its_wal() -> Result<()> {
    let mut pair = Pair::new(15, |builder| builder.setting("wal_log_hints = on"))?;
    pair.west.start()?;
    streams(&pair)?;
    pair.east.psql("CREATE TABLE t AS SELECT 1 n")?;
    let end = pair.east.psql("SELECT pg_current_wal_flush_lsn()")?;
    pair.west.wait_for(&format!("SELECT pg_last_wal_replay_lsn() >= '{end}'"), "t")?;
    pair.east.kill9()?;
    assert_eq!(down(&pair, "east-1")?.1, None);
    pair.west.psql("SELECT pg_promote()")?;
    // All that it wrote, the standby had: it can follow.
    on_one_thread(async {
        let east = pair.driver("east-1")?;
        east.come_back("west-1".parse()?, Return::AsItIs).await?;
        Ok(())
    })
}

#[test]
fn pg15_what_diverged_is_rewound() -> Result<()> {
    let mut pair = Pair::new(15, |builder| builder.setting("wal_log_hints = on"))?;
    pair.west.start()?;
    streams(&pair)?;
    pair.east.psql("CREATE TABLE t (n int); INSERT INTO t VALUES (1)")?;
    let end = pair.east.psql("SELECT pg_current_wal_flush_lsn()")?;
    pair.west.wait_for(&format!("SELECT pg_last_wal_replay_lsn() >= '{end}'"), "t")?;
    on_one_thread(async { Ok(pair.driver("west-1")?.follow(None).await?) })?;
    pair.east.psql("INSERT INTO t SELECT generate_series(2, 1000)")?;
    pair.east.kill9()?;
    // Its number is another's by now: PostgreSQL would take that one for the server.
    let (path, other) = (pair.east.data().join("postmaster.pid"), pair.west.pid().unwrap());
    let left = std::fs::read_to_string(&path)?;
    let (_, rest) = left.split_once('\n').unwrap();
    lifeboat_testkit::scratch::write(&path, format!("{other}\n{rest}"))?;
    pair.west.psql("SELECT pg_promote()")?;
    pair.west.psql("INSERT INTO t VALUES (-1)")?;
    let own = std::fs::read(pair.east.configuration())?;
    on_one_thread(async {
        let east = pair.driver("east-1")?;
        let refused = east.come_back("west-1".parse()?, Return::AsItIs).await;
        assert_eq!(refused.unwrap_err().code(), Code::Diverged);
        let said = east.come_back("west-1".parse()?, Return::Rewind).await?;
        ensure!(said.contains("diverged at"), "{said}");
        // Again, it changes nothing.
        let said = east.come_back("west-1".parse()?, Return::Rewind).await?;
        ensure!(said.contains("has all of it"), "{said}");
        Ok(())
    })?;
    assert_eq!(std::fs::read(pair.east.configuration())?, own, "the configuration is its own");
    let conninfo = format!("{} application_name=east-1", pair.west.connection());
    let auto = pair.east.data().join("postgresql.auto.conf");
    lifeboat_testkit::scratch::write(&auto, format!("primary_conninfo = '{conninfo}'\n"))?;
    lifeboat_testkit::scratch::write(&pair.east.data().join("standby.signal"), "")?;
    pair.east.start()?;
    pair.east.wait_for("SELECT count(*), min(n) FROM t", "2|-1")?;
    Ok(())
}
