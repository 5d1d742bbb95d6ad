//! The lab without Lifeboat's daemons: it is built, broken, healed, and nothing of it is left.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lifeboat_environment::{Clock, SystemClock};
use lifeboat_lab::layout::Domain;
use lifeboat_lab::process;
use lifeboat_scenarios::lab::Lab;
use nix::sys::signal::Signal;

const WEST: &str = "10.77.2.53";
const EAST: &str = "10.77.1.53";

#[test]
fn lab_links_are_cut_and_mended_each_way() -> Result<()> {
    let lab = Lab::nowhere()?;
    lab.ok(&["up", "--bare"])?;
    ensure!(lab.reaches("east", WEST, 53)? && lab.reaches("north", WEST, 53)?);

    lab.ok(&["break", "partition", "east", "west"])?;
    ensure!(!lab.reaches("east", WEST, 53)?, "a cut link lets packets pass");
    ensure!(!lab.reaches("west", EAST, 53)?, "a cut link lets packets pass");
    ensure!(lab.reaches("north", WEST, 53)? && lab.reaches("clients", EAST, 53)?);
    let cut = lab.json(&["status"])?["cut"].to_string();
    ensure!(cut.contains("east to west") && cut.contains("west to east"), "{cut}");
    lab.ok(&["heal"])?;
    ensure!(lab.reaches("east", WEST, 53)?);

    // The relay carries what goes both ways, and nothing else.
    lab.ok(&["break", "slow-link", "east", "west", "300ms"])?;
    let start = SystemClock.elapsed();
    ensure!(lab.reaches("east", WEST, 53)?);
    let took = SystemClock.elapsed().saturating_sub(start);
    ensure!(took >= Duration::from_millis(600), "there and back in {took:?}");
    lab.ok(&["break", "lossy-link", "east", "west", "100%"])?;
    ensure!(!lab.reaches("east", WEST, 53)? && lab.reaches("north", WEST, 53)?);

    lab.ok(&["break", "isolate", "north"])?;
    ensure!(!lab.reaches("north", WEST, 53)? && !lab.reaches("clients", "10.77.3.10", 2379)?);
    lab.ok(&["heal"])?;
    for from in ["east", "north", "clients"] {
        ensure!(lab.reaches(from, WEST, 53)?, "{from} is not healed");
    }
    what_is_just_being_started_hears_that_it_shall_end(&lab)
}

/// Whoever enters becomes another program: a signal must reach the one or the other.
fn what_is_just_being_started_hears_that_it_shall_end(lab: &Lab) -> Result<()> {
    for wait_ms in (0..200).step_by(5) {
        let entering = lab.start(&["enter", "east", "--", "sleep", "600"])?;
        SystemClock.sleep(Duration::from_millis(wait_ms));
        entering.signal(Signal::SIGTERM)?;
        entering.wait(Duration::from_secs(60)).with_context(|| format!("after {wait_ms} ms"))?;
    }
    Ok(())
}

#[test]
fn lab_hosts_die_freeze_and_come_back() -> Result<()> {
    let lab = Lab::nowhere()?;
    lab.ok(&["up", "--bare"])?;
    let is = |part: &str, state: &str| -> Result<()> {
        let (domain, name) = part.split_once('/').unwrap_or_default();
        let found = lab.state_of(domain, name)?;
        ensure!(found == state, "{part} is {found}, not {state}");
        Ok(())
    };
    lab.ok(&["break", "region", "west"])?;
    is("west/etcd", "down")?;
    is("west/haproxy", "down")?;
    is("east/etcd", "up")?;
    lab.ok(&["heal"])?;
    is("west/etcd", "up")?;

    lab.ok(&["break", "freeze", "east"])?;
    is("east/etcd", "frozen")?;
    is("east/dns", "frozen")?;
    // What is frozen dies all the same.
    lab.ok(&["break", "reboot", "east"])?;
    is("east/etcd", "up")?;

    lab.ok(&["break", "full-disk", "west"])?;
    let write = ["enter", "west", "--", "dd", "if=/dev/zero", "bs=64k", "count=1"];
    let file = format!("of={}/west/file", lab.root().display());
    ensure!(lab.run(&[&write[..], &[&file]].concat())?.code == Some(1), "the disk is not full");
    lab.ok(&["heal"])?;
    lab.ok(&[&write[..], &[&file]].concat())?;

    // That file was never flushed; one that was is there after the power comes back.
    let kept = format!("of={}/west/kept", lab.root().display());
    lab.ok(&[&write[..], &[&kept, "conv=fsync"]].concat())?;
    lab.ok(&["break", "power-loss", "west"])?;
    let bytes = std::fs::metadata(lab.root().join("west/kept"))?.len();
    ensure!(bytes == 65_536, "a flushed file has {bytes} bytes after a power cut");
    // etcd had flushed what it needs to start again, whatever it was doing then.
    let log = lab.layout()?.logs(Domain::West).join("etcd.log");
    SystemClock.sleep(Duration::from_secs(2));
    is("west/etcd", "up").with_context(|| process::tail(&log).join("\n"))?;

    let refused = lab.run(&["break", "clock-jump", "east"])?.expect_code(4)?;
    ensure!(refused.stderr.contains("LB7065"), "{refused}");
    Ok(())
}

#[test]
fn lab_leaves_nothing_behind_also_when_it_is_killed() -> Result<()> {
    let lab = Lab::nowhere()?;
    ensure!(lab.traces().is_empty(), "{:?}", lab.traces());
    let mut seen = 0;
    for wait in [50, 300, 800, 1500, 3000, 5000] {
        let up = lab.start(&["up", "--bare"])?;
        SystemClock.sleep(Duration::from_millis(wait));
        // It alone: whatever it has started lives on.
        up.signal(Signal::SIGKILL)?;
        seen += usize::from(!lab.traces().is_empty());
        lab.ok(&["down"])?;
        let left = lab.traces();
        ensure!(left.is_empty(), "killed after {wait} ms, and left: {left:?}");
    }
    ensure!(seen >= 3, "it was killed before there was anything");
    lab.ok(&["down"])?;
    Ok(())
}

#[test]
fn lab_without_root_has_fewer_faults_and_names_them() -> Result<()> {
    let lab = Lab::unprivileged()?;
    lab.ok(&["up", "--bare"])?;
    for fault in
        ["partition", "one-way", "isolate", "slow-link", "lossy-link", "full-disk", "power-loss"]
    {
        let refused = lab.run(&["break", fault])?.expect_code(4)?;
        ensure!(refused.stderr.contains(&format!("cannot inject {fault}")), "{refused}");
    }
    lab.ok(&["break", "freeze", "east/etcd"])?;
    ensure!(lab.state_of("east", "etcd")? == "frozen");
    lab.ok(&["break", "region", "west"])?;
    ensure!(lab.state_of("west", "dns")? == "down");
    lab.ok(&["heal"])?;
    ensure!(lab.state_of("east", "etcd")? == "up" && lab.state_of("west", "dns")? == "up");
    lab.ok(&["break", "pg-ctl-start", "east"])?;
    ensure!(lab.state_of("east", "postgres")? == "up");
    lab.ok(&["down"])?;
    let left = lab.traces();
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}
