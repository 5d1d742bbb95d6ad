//! A service is moved, by plan and by disaster, on the whole lab; the oracle judges each story by
//! what clients were told. The numbers are those of the scenarios in the failover reference.

use std::time::Duration;

use anyhow::{Result, ensure};
use lifeboat_environment::{Clock, SystemClock};
use lifeboat_scenarios::service::Service;

const A_WHILE: Duration = Duration::from_secs(15);
/// How far reports may be from what clients saw, in the stories that every run of the tests tells
/// and in those that have the machine to themselves.
const BUSY: &str = "10s";
const QUIET: &str = "1s";

/// Something befalls the east, the west takes over, and the east follows once it is healed.
fn the_east_is_replaced(fault: &[&str], tolerance: &str) -> Result<()> {
    let service = Service::up(&[])?;
    service.breaks(fault)?;
    service.is_in("west")?;
    service.heal()?;
    service.is_protected_again_in("west")?;
    service.is_sound_within(tolerance).map(drop)
}

/// S1, S10, S14: a region is lost under load, comes back, is refused, follows; then a planned move.
#[test]
fn failover_of_a_lost_region_and_home_again() -> Result<()> {
    let service = Service::up(&[])?;
    service.breaks(&["region", "east"])?;
    service.is_in("west")?;
    let by_hand = service.breaks(&["pg-ctl-start", "east"])?;
    ensure!(by_hand.contains("did not start"), "{by_hand}");
    service.heal()?;
    service.is_protected_again_in("west")?;
    service.dwells();
    service.command(&["switchover", "ledger", "--to", "east"])?;
    service.is_protected_in("east")?;
    let judged = service.is_sound_within(BUSY)?;
    ensure!(judged["outages"].as_array().is_some_and(|all| all.len() == 2), "{judged}");
    Ok(())
}

/// S2: whoever is cut off from everybody ends before the other side begins.
#[test]
fn failover_of_an_isolated_region() -> Result<()> {
    the_east_is_replaced(&["isolate", "east"], BUSY)
}

/// S3: two regions that do not see each other, while the witness sees both, are no reason to move.
#[test]
#[ignore = "takes long: cargo xtask torture failover"]
fn full_partition_of_the_regions() -> Result<()> {
    let service = Service::up(&[])?;
    service.breaks(&["partition", "east", "west"])?;
    SystemClock.sleep(Duration::from_secs(5));
    let why = service.command(&["explain-decision", "ledger"])?;
    service.stays_in("east", A_WHILE)?;
    ensure!(why.contains("wait for receivers"), "nothing says that commits wait: {why}");
    service.heal()?;
    service.is_protected_in("east")?;
    service.is_sound_within(QUIET).map(drop)
}

/// S4: one direction is lost; whatever is decided, one node writes.
#[test]
#[ignore = "takes long: cargo xtask torture failover"]
fn full_links_that_are_lost_one_way() -> Result<()> {
    let service = Service::up(&[])?;
    for link in [["east", "west"], ["west", "east"], ["east", "north"], ["north", "east"]] {
        service.breaks(&["one-way", link[0], link[1]])?;
        SystemClock.sleep(A_WHILE);
        service.heal()?;
        service.goes_home()?;
    }
    service.is_sound_within(QUIET).map(drop)
}

/// S5: one observer alone sees a failure.
#[test]
#[ignore = "takes long: cargo xtask torture failover"]
fn full_one_observer_of_three_sees_a_failure() -> Result<()> {
    let service = Service::up(&[])?;
    service.breaks(&["partition", "north", "east"])?;
    service.stays_in("east", A_WHILE)?;
    service.heal()?;
    service.is_protected_in("east")?;
    service.is_sound_within(QUIET).map(drop)
}

/// S6: slow and lossy links between the regions fence and demote nobody.
#[test]
#[ignore = "takes long: cargo xtask torture failover"]
fn full_bad_links_between_the_regions() -> Result<()> {
    let service = Service::up(&[])?;
    for fault in [["slow-link", "300ms"], ["lossy-link", "30%"]] {
        service.breaks(&[fault[0], "east", "west", fault[1]])?;
        service.stays_in("east", A_WHILE)?;
        service.heal()?;
        service.is_protected_in("east")?;
    }
    service.is_sound_within(QUIET).map(drop)
}

/// S8: a server that is stopped, with an agent that is well, loses its lease and is killed. It is started
/// again where it is, or replaced, whatever comes first.
#[test]
#[ignore = "takes long: cargo xtask torture failover"]
fn full_frozen_server() -> Result<()> {
    let service = Service::up(&[])?;
    service.breaks(&["freeze", "east/postgres"])?;
    SystemClock.sleep(A_WHILE);
    service.heal()?;
    service.goes_home()?;
    service.is_sound_within(QUIET).map(drop)
}

/// A whole host is stopped, guard and all, and goes on once it was replaced.
#[test]
#[ignore = "takes long: cargo xtask torture failover"]
fn full_frozen_region() -> Result<()> {
    the_east_is_replaced(&["freeze", "east"], QUIET)
}

/// S9: no byte is free where the primary writes.
#[test]
#[ignore = "takes long: cargo xtask torture failover"]
fn full_disk_of_the_primary() -> Result<()> {
    the_east_is_replaced(&["full-disk", "east"], QUIET)
}

/// What dies alone is started again, or replaced; one node writes.
#[test]
#[ignore = "takes long: cargo xtask torture failover"]
fn full_parts_that_die_alone() -> Result<()> {
    let service = Service::up(&[])?;
    for part in ["east/postgres", "east/guard", "east/agent", "west/agent", "west/postgres"] {
        service.breaks(&["kill", part])?;
        SystemClock.sleep(A_WHILE);
        service.heal()?;
        service.goes_home()?;
    }
    service.is_sound_within(QUIET).map(drop)
}

/// S10: the old primary loses its power, is replaced, and starts again.
#[test]
#[ignore = "takes long: cargo xtask torture failover"]
fn full_power_loss_and_reboot() -> Result<()> {
    let service = Service::up(&[])?;
    for fault in ["power-loss", "reboot"] {
        service.breaks(&[fault, "east"])?;
        SystemClock.sleep(A_WHILE);
        service.goes_home()?;
    }
    service.is_sound_within(QUIET).map(drop)
}

/// The receiver that commits wait for loses what its host had not flushed, and goes on; then the
/// other region is lost. What was acknowledged through both is there.
#[test]
#[ignore = "takes long: cargo xtask torture failover"]
fn full_power_loss_of_the_receivers_host() -> Result<()> {
    let service = Service::up(&[])?;
    for _ in 0..3 {
        service.breaks(&["power-loss", "west"])?;
        service.is_protected_in("east")?;
    }
    service.breaks(&["region", "east"])?;
    service.is_in("west")?;
    service.heal()?;
    service.is_protected_again_in("west")?;
    service.is_sound_within(QUIET).map(drop)
}

/// S11: controllers die all the time while a service is moved there and back.
#[test]
#[ignore = "takes long: cargo xtask torture failover"]
fn full_controllers_that_die_during_moves() -> Result<()> {
    let service = Service::up(&[])?;
    for region in ["west", "east", "west"] {
        service.command(&["switchover", "ledger", "--to", region, "--no-wait"])?;
        for domain in ["east", "north", "west"].iter().cycle().take(9) {
            service.breaks(&["controller", domain])?;
            SystemClock.sleep(Duration::from_millis(150));
            service.heal()?;
        }
        service.is_protected_in(region)?;
        service.dwells();
    }
    let judged = service.is_sound_within(QUIET)?;
    ensure!(judged["outages"].as_array().is_some_and(|all| all.len() == 3), "{judged}");
    Ok(())
}

/// S12: without a majority of the quorum store nothing moves, and the primary's lease ends.
#[test]
#[ignore = "takes long: cargo xtask torture failover"]
fn full_loss_of_the_quorum() -> Result<()> {
    let service = Service::up(&[])?;
    service.breaks(&["etcd-majority"])?;
    SystemClock.sleep(A_WHILE);
    let status = service.lab.json(&["status"])?;
    ensure!(status["writes"].as_array().is_some_and(Vec::is_empty), "{status}");
    service.heal()?;
    // It comes up where it was, or on the other side, whoever is quicker.
    let region = service.serves_again()?;
    service.is_protected_again_in(&region)?;
    service.is_sound_within(QUIET).map(drop)
}

/// Without a quorum a person moves the service by their word; the quorum that comes back knows an
/// epoch that is over, which nobody acts on until a person lets the newer one go on.
#[test]
#[ignore = "takes long: cargo xtask torture failover"]
fn full_break_glass_and_adoption() -> Result<()> {
    let service = Service::up(&[])?;
    let words = ["failover", "ledger", "--to", "west", "--break-glass", "--for", "1h"];
    let west = ["enter", "west", "--", "lifeboat"];
    let word_of_honour = ["--statement", "the old primary cannot write"];
    let break_glass = [&west[..], &words, &word_of_honour].concat();
    let refused = service.lab.run(&break_glass)?;
    ensure!(refused.code != Some(0), "glass is broken beside a quorum: {refused}");
    service.breaks(&["etcd-majority"])?;
    service.is_nowhere()?;
    let refused = service.lab.run(&[&west[..], &words].concat())?;
    ensure!(refused.stderr.contains("LB7040"), "without a word of honour: {refused}");
    service.lab.ok(&break_glass)?;
    service.is_served_by("west-1")?;

    service.heal()?;
    SystemClock.sleep(A_WHILE);
    let status = service.command(&["status"])?;
    ensure!(status.contains("refused: LB7003"), "{status}");
    service.is_served_by("west-1")?;
    service.command(&["apply", "--adopt"])?;
    service.is_protected_again_in("west")?;
    service.is_sound_without_a_run()
}

/// S13: somebody sets the wall clock of the primary's host.
#[test]
#[ignore = "takes long: cargo xtask torture failover"]
fn full_clock_jumps() -> Result<()> {
    let service = Service::up(&["--fake-time"])?;
    for back in [&["clock-jump", "east", "1h"][..], &["clock-jump", "east", "1h", "back"]] {
        service.breaks(back)?;
        service.stays_in("east", A_WHILE)?;
    }
    service.heal()?;
    service.is_protected_in("east")?;
    service.is_sound_within(QUIET).map(drop)
}

/// S15, S16: a planned move whose candidate does not stream goes back before anything is stopped.
#[test]
#[ignore = "takes long: cargo xtask torture failover"]
fn full_switchover_to_a_standby_that_does_not_answer() -> Result<()> {
    let service = Service::up(&[])?;
    let epoch = service.status()?["epoch"].clone();
    service.breaks(&["freeze", "west/postgres"])?;
    let words = ["enter", "north", "--", "lifeboat", "switchover", "ledger", "--to", "west"];
    let refused = service.lab.run(&words)?;
    ensure!(refused.code != Some(0), "{refused}");
    service.heal()?;
    service.is_protected_in("east")?;
    ensure!(service.status()?["epoch"] == epoch, "another epoch has begun");
    service.is_sound_within(QUIET).map(drop)
}

/// S19: the second failover waits until the first one is confirmed.
#[test]
#[ignore = "takes long: cargo xtask torture failover"]
fn full_second_failover_before_the_first_is_confirmed() -> Result<()> {
    let service = Service::up(&[])?;
    service.breaks(&["region", "east"])?;
    service.is_in("west")?;
    service.breaks(&["kill", "west/agent"])?;
    let words = ["enter", "north", "--", "lifeboat", "failover", "ledger", "--to", "east"];
    let refused = service.lab.run(&words)?;
    ensure!(refused.code == Some(4), "{refused}");
    service.heal()?;
    service.is_protected_again_in("west")?;
    service.is_sound_within(QUIET).map(drop)
}

/// Losing any one member of etcd, its leader above all, moves and fences nobody: 20 of 20.
#[test]
#[ignore = "takes long: cargo xtask torture failover"]
fn full_loss_of_single_etcd_members() -> Result<()> {
    let service = Service::up(&[])?;
    let pid = |service: &Service| -> Result<serde_json::Value> {
        let status = service.lab.json(&["status"])?;
        let mut parts = status["parts"].as_array().into_iter().flatten();
        let found = parts.find(|part| part["domain"] == "east" && part["name"] == "postgres");
        Ok(found.map(|part| part["pid"].clone()).unwrap_or_default())
    };
    let before = pid(&service)?;
    for round in 0..20 {
        match round % 4 {
            3 => service.breaks(&["etcd-member", ["east", "west", "north"][round / 4 % 3]])?,
            _ => service.breaks(&["etcd-leader"])?,
        };
        service.stays_in("east", Duration::from_secs(4))?;
        service.heal()?;
        service.stays_in("east", Duration::from_secs(3))?;
        ensure!(pid(&service)? == before, "round {round}: the server was started again");
    }
    ensure!(service.runs()?.is_empty(), "{:?}", service.runs()?);
    service.is_sound_within(QUIET).map(drop)
}
