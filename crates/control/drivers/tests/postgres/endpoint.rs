//! What an observer sees through the endpoint of clients.

use std::time::Duration;

use anyhow::{Result, ensure};
use lifeboat_drivers::{Endpoint, EndpointProbe, InstanceDriver, Probe};
use lifeboat_environment::SystemTimer;
use lifeboat_quorum::Seen;
use lifeboat_testkit::process::tree;
use nix::sys::signal::{Signal, kill};

use crate::pair::{Pair, on_one_thread, until};

const TIMEOUT: Duration = Duration::from_millis(500);
const SESSIONS: &str = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE \
                        'lifeboat observer %'";

/// Commits that wait are told from a server that is dead, for as long as they wait, and no session of
/// a probe that was given up stays: each would hold one of the server's connections.
#[test]
fn pg15_a_stalled_server_is_told_from_a_dead_one_and_keeps_its_connections() -> Result<()> {
    let pair = Pair::new(15, |builder| builder)?;
    let service = "pay".parse()?;
    let endpoint = Endpoint {
        service: "pay".parse()?,
        connection: format!("{} sslmode=disable", pair.east.connection()),
        address: None,
    };
    let probe = EndpointProbe::new(&SystemTimer, "north".parse()?, TIMEOUT, vec![endpoint]);
    on_one_thread(async {
        let east = pair.driver("east-1")?;
        for _ in 0..2 {
            let found = probe.probe(&service).await;
            ensure!(found.seen == Seen::Works, "{found:?}");
        }
        east.synchronize("ANY 1 (\"west-1\")".to_owned(), 1).await?;
        for _ in 0..8 {
            let found = probe.probe(&service).await;
            ensure!(found.seen == Seen::Stalled, "{found:?}");
        }
        let sessions: usize = pair.east.psql(SESSIONS)?.parse()?;
        ensure!(sessions <= 3, "{sessions} sessions after eight probes");
        east.synchronize(String::new(), 2).await?;
        until("a write", async || Ok(probe.probe(&service).await.seen == Seen::Works)).await?;
        for process in tree(pair.east.pid().unwrap()) {
            kill(process, Signal::SIGSTOP)?;
        }
        for _ in 0..2 {
            let found = probe.probe(&service).await;
            ensure!(found.seen == Seen::Fails, "{found:?}");
        }
        Ok(())
    })
}
