//! What a driver asks of a server that runs, and what it changes by reload.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use lifeboat_drivers::InstanceDriver;
use lifeboat_environment::{Clock, SystemClock};
use lifeboat_model::{Lsn, Timeline};
use lifeboat_quorum::Instance;
use lifeboat_telemetry::Code;
use lifeboat_testkit::process::tree;
use nix::sys::signal::{Signal, kill};

use crate::pair::{Pair, TIMING, on_one_thread, until};

fn a_standby_follows_and_stops_following(major: u32) -> Result<()> {
    let mut pair = Pair::new(major, |builder| builder)?;
    pair.west.start()?;
    on_one_thread(async {
        let (east, west) = (pair.driver("east-1")?, pair.driver("west-1")?);
        west.follow(Some("east-1".parse()?)).await?;
        until("the standby by its slot", async || {
            let Instance::Primary { timeline, standbys, stalled, .. } = east.inspect().await?
            else {
                bail!("no primary");
            };
            ensure!(timeline == Timeline::FIRST && !stalled);
            Ok(standbys.first().is_some_and(|(name, _)| name.as_str() == "west-1"))
        })
        .await?;
        east.probe().await?;
        until("all of it", async || {
            let Instance::Primary { flushed, .. } = east.inspect().await? else {
                bail!("no primary");
            };
            let Instance::Standby { streaming, received, replayed, timeline, .. } =
                west.inspect().await?
            else {
                bail!("no standby");
            };
            ensure!(timeline == Timeline::FIRST);
            Ok(streaming && received == Some(flushed) && replayed == flushed)
        })
        .await?;

        west.follow(None).await?;
        let Instance::Standby { streaming, received, .. } = west.inspect().await? else {
            bail!("no standby");
        };
        ensure!(!streaming);
        pair.east.psql("CREATE TABLE later ()")?;
        SystemClock.sleep(Duration::from_millis(500));
        let Instance::Standby { streaming, received: after, .. } = west.inspect().await? else {
            bail!("no standby");
        };
        ensure!(!streaming && received == after, "it went on receiving");
        west.follow(Some("east-1".parse()?)).await?;
        until("the stream", async || {
            Ok(matches!(west.inspect().await?, Instance::Standby { streaming: true, .. }))
        })
        .await
    })
}

#[test]
fn pg15_a_standby_follows_and_stops_following() -> Result<()> {
    a_standby_follows_and_stops_following(15)
}

#[test]
fn pg13_a_standby_follows_and_stops_following() -> Result<()> {
    a_standby_follows_and_stops_following(13)
}

#[test]
fn pg18_a_standby_follows_and_stops_following() -> Result<()> {
    a_standby_follows_and_stops_following(18)
}

/// What a standby has received as far as whole records go, with more received than replayed; then the
/// same with the first of those records cut off, as by a primary that dies while it sends.
#[test]
fn pg15_the_beginning_of_a_record_does_not_count_as_received() -> Result<()> {
    const CUT: u64 = 8;
    let mut pair = Pair::new(15, |builder| builder)?;
    pair.west.start()?;
    on_one_thread(async {
        let west = pair.driver("west-1")?;
        west.follow(Some("east-1".parse()?)).await?;
        until("the stream", async || {
            Ok(matches!(west.inspect().await?, Instance::Standby { streaming: true, .. }))
        })
        .await?;
        // So that it stands within a file.
        pair.east.psql("CREATE TABLE earlier ()")?;
        let end = pair.east.psql("SELECT pg_current_wal_flush_lsn()")?;
        pair.west.wait_for(&format!("SELECT pg_last_wal_replay_lsn() >= '{end}'"), "t")?;
        pair.west.psql("SELECT pg_wal_replay_pause()")?;
        pair.west.wait_for("SELECT pg_get_wal_replay_pause_state()", "paused")?;
        pair.east.psql("CREATE TABLE later AS SELECT generate_series(1, 100) n")?;
        let end = pair.east.psql("SELECT pg_current_wal_flush_lsn()")?;
        pair.west.wait_for(&format!("SELECT pg_last_wal_receive_lsn() >= '{end}'"), "t")?;
        let replayed = pair.west.psql("SELECT pg_last_wal_replay_lsn()")?;
        let name = pair.east.psql(&format!("SELECT pg_walfile_name('{replayed}')"))?;
        let replayed: Lsn = replayed.parse()?;
        pair.east.kill9()?;
        until("the end of the stream", async || {
            Ok(matches!(west.inspect().await?, Instance::Standby { streaming: false, .. }))
        })
        .await?;
        let Instance::Standby { received, .. } = west.inspect().await? else {
            bail!("no standby");
        };
        ensure!(received > Some(replayed) && received >= Some(end.parse()?), "{received:?}");

        let path = pair.west.data().join("pg_wal").join(name);
        let file = std::fs::OpenOptions::new().write(true).open(path)?;
        let size = file.metadata()?.len();
        file.set_len(replayed.0 % size + CUT)?;
        file.set_len(size)?;
        let Instance::Standby { received, .. } = west.inspect().await? else {
            bail!("no standby");
        };
        ensure!(received == Some(replayed), "{received:?} {replayed}");
        Ok(())
    })
}

#[test]
fn pg15_a_probe_writes_one_row_and_stays_small() -> Result<()> {
    let pair = Pair::new(15, |builder| builder)?;
    on_one_thread(async {
        let east = pair.driver("east-1")?;
        for _ in 0..500 {
            east.probe().await?;
        }
        Ok(())
    })?;
    let found = pair.east.psql("SELECT node, beat FROM lifeboat.agent")?;
    assert_eq!(found, "east-1|500");
    pair.east.psql("SELECT pg_stat_force_next_flush()")?;
    let pages = pair.east.psql("SELECT pg_relation_size('lifeboat.agent') / 8192")?;
    assert_eq!(pages, "1");
    let hot = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_all_tables WHERE relname = 'agent'";
    assert_eq!(pair.east.psql(hot)?, "499|499");
    Ok(())
}

#[test]
fn pg15_a_frozen_server_fails_the_probe_in_time_and_only_then() -> Result<()> {
    let pair = Pair::new(15, |builder| builder)?;
    let signal = |signal| -> Result<()> {
        for process in tree(pair.east.pid().unwrap()) {
            kill(process, signal)?;
        }
        Ok(())
    };
    on_one_thread(async {
        let east = pair.driver("east-1")?;
        east.probe().await?;
        east.inspect().await?;
        signal(Signal::SIGSTOP)?;
        let began = SystemClock.elapsed();
        let failure = east.probe().await.unwrap_err();
        assert_eq!(failure.code(), Code::DeadlineExceeded);
        assert_eq!(east.inspect().await?, Instance::Unclear);
        // Far below what would be a hang; each has its own limit of half a second.
        ensure!(SystemClock.elapsed() - began < 6 * TIMING.probe_timeout);
        signal(Signal::SIGCONT)?;
        until("a write", async || Ok(east.probe().await.is_ok())).await?;
        until("an answer", async || Ok(east.inspect().await?.is_primary())).await
    })
}

#[test]
fn pg15_commits_that_wait_for_nobody_are_seen_and_never_fail_the_probe() -> Result<()> {
    let pair = Pair::new(15, |builder| builder)?;
    on_one_thread(async {
        let east = pair.driver("east-1")?;
        east.synchronize("ANY 1 (\"west-1\")".to_owned(), 3).await?;
        assert_eq!(pair.east.psql("SHOW synchronous_standby_names")?, "ANY 1 (\"west-1\")");
        assert_eq!(pair.east.psql("SHOW lifeboat.epoch")?, "3");
        let Instance::Primary { stalled, .. } = east.inspect().await? else { bail!("no primary") };
        ensure!(stalled);
        east.probe().await?;
        east.synchronize(String::new(), 4).await?;
        assert_eq!(pair.east.psql("SHOW lifeboat.epoch")?, "4");
        let Instance::Primary { stalled, .. } = east.inspect().await? else { bail!("no primary") };
        ensure!(!stalled);
        Ok(())
    })
}

#[test]
fn pg15_a_connection_to_another_server_is_told() -> Result<()> {
    let mut pair = Pair::new(15, |builder| builder)?;
    pair.west.start()?;
    let text = std::fs::read_to_string(&pair.spec_path)?;
    let swapped = text.replace(&pair.west.connection(), &pair.east.connection());
    pair.spec =
        std::sync::Arc::new(lifeboat_model::Spec::load(&swapped, &pair.spec_path).spec.unwrap());
    on_one_thread(async {
        let west = pair.driver("west-1")?;
        assert_eq!(west.probe().await.unwrap_err().code(), Code::InstanceOther);
        assert_eq!(west.inspect().await.unwrap_err().code(), Code::InstanceOther);
        Ok(())
    })
}

#[test]
fn pg15_a_name_without_its_slot_is_no_standby() -> Result<()> {
    let pair = Pair::new(15, |builder| builder)?;
    let mut impostor = pair.east.installation().client_command("pg_receivewal")?;
    let folder = pair.scratch.folder("impostor")?;
    let connection = format!("{} application_name=west-1", pair.east.connection());
    impostor.args(["-d", &connection, "-D"]).arg(&folder);
    let _impostor = lifeboat_testkit::process::Running::spawn(&mut impostor, None)?;
    on_one_thread(async {
        let east = pair.driver("east-1")?;
        until("the impostor", async || {
            let found = pair.east.psql("SELECT count(*) FROM pg_stat_replication")?;
            Ok(found == "1")
        })
        .await?;
        let Instance::Primary { standbys, .. } = east.inspect().await? else { bail!("no primary") };
        assert_eq!(standbys, []);
        Ok(())
    })
}
