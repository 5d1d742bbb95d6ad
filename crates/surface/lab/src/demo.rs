//! `lifeboat lab demo`: a service moves, by plan and by itself, and comes home; every command is
//! shown before it runs, and the oracle has the last word.

use std::time::Duration;

use lifeboat_telemetry::{Code, Failure, Outcome};
use serde_json::Value;

use crate::evidence::gather;
use crate::fault::{Fault, heal, inject};
use crate::host::Host;
use crate::layout::{Domain, SERVICE};
use crate::oracle::Evidence;
use crate::status::{Status, status};

/// How long clients write between the steps.
const LOAD: Duration = Duration::from_secs(3);
/// The lab's `dwell`, after which a service may be moved again by itself.
const DWELL: Duration = Duration::from_secs(10);
/// A loser that does not follow by itself within this has written what nobody was told of.
const BY_ITSELF: Duration = Duration::from_secs(20);
/// A client that was answered within this is served.
const FRESH_MS: u64 = 1500;
/// What a region that comes back is waited for.
const PATIENCE: Duration = Duration::from_secs(90);

/// Tells it in a lab that is up; what there is to be judged.
pub fn demo(host: &mut Host<'_>) -> Outcome<Evidence> {
    heading(host, "Clients write through the service's name, and remember every answer");
    host.wait(LOAD)?;
    host.lifeboat(Domain::North, &["status"])?;
    planned(host)?;
    let moved = host.environment.clock().elapsed();
    lost(host, moved)?;
    back(host)?;
    heading(host, "What clients were told");
    gather(host)
}

fn planned(host: &Host<'_>) -> Outcome<()> {
    heading(host, "A planned move to the west, under load");
    let words = ["switchover", SERVICE, "--to", "west"];
    host.lifeboat(Domain::North, &[&words[..], &["--dry-run"]].concat())?;
    host.lifeboat(Domain::North, &words)?;
    host.serves(Domain::West)?;
    host.wait(LOAD)
}

/// Everything of the region that writes dies at once, its repository included.
fn lost(host: &mut Host<'_>, moved: Duration) -> Outcome<()> {
    heading(host, "The west is lost: server, guard, agent, controller, etcd, DNS, repository");
    // A service that was just moved stays for its `dwell`.
    let since = host.environment.clock().elapsed().saturating_sub(moved);
    host.wait(DWELL.saturating_sub(since))?;
    breaks(host, Fault::Region(Domain::West))?;
    heading(host, "Nobody is asked: the service comes up in the east");
    host.serves(Domain::East)?;
    host.lifeboat(Domain::North, &["runs", "list"])?;
    host.lifeboat(Domain::North, &["runs", "show", SERVICE, "2"])?;
    host.lifeboat(Domain::North, &["status"]).map(drop)
}

fn back(host: &mut Host<'_>) -> Outcome<()> {
    heading(host, "Somebody starts the old primary by hand, and is refused");
    breaks(host, Fault::PgCtlStart(Domain::West))?;
    let found = look(host)?;
    if found.writes != [Domain::East] {
        let message = "the old primary takes writes after a failover";
        return Err(Failure::new(Code::OracleViolated, message)
            .hint("`lifeboat lab status` shows who writes; the logs lie in the lab's directory."));
    }
    heading(host, "The west comes back as a standby, and commits wait for it again");
    host.reporter.note("$ lifeboat lab heal");
    for line in heal(host)? {
        host.reporter.note(format!("    {line}"));
    }
    if !host.comes_about(BY_ITSELF, stands_by)? {
        host.reporter.note("The west had written what nobody was told of. It is set apart first.");
        host.lifeboat(Domain::North, &["fallback", SERVICE])?;
    }
    let protected = |service: &Value| stands_by(service) && service["degraded"].is_null();
    if !host.comes_about(PATIENCE, protected)? {
        return Err(Failure::new(Code::LabPart, "the west does not protect the east again")
            .hint("`lifeboat status` says what is missing."));
    }
    host.wait(LOAD)?;
    host.lifeboat(Domain::North, &["status"]).map(drop)
}

fn stands_by(service: &Value) -> bool {
    let mut nodes = service["nodes"].as_array().into_iter().flatten();
    nodes.any(|node| node["role"] == "standby")
}

fn heading(host: &Host<'_>, title: &str) {
    host.reporter.note(format!("\n{title}\n"));
}

fn breaks(host: &mut Host<'_>, fault: Fault) -> Outcome<()> {
    host.reporter.note(format!("$ lifeboat lab break {}", fault.text()));
    for line in inject(host, fault)?.lines() {
        host.reporter.note(format!("    {line}"));
    }
    Ok(())
}

fn look(host: &Host<'_>) -> Outcome<Status> {
    status(host.layout().root(), host.environment)
}

impl Host<'_> {
    /// Lets time pass.
    fn wait(&self, time: Duration) -> Outcome<()> {
        let clock = self.environment.clock();
        let begin = clock.elapsed();
        while clock.elapsed().saturating_sub(begin) < time {
            self.cancel.check()?;
            clock.sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Waits until clients are served in a region.
    fn serves(&self, region: Domain) -> Outcome<()> {
        let node = format!("{region}-1");
        self.wait_for(&format!("an answer to clients from {region}"), |host| {
            let clients = look(host)?.clients;
            Ok(clients.is_some_and(|told| told.by == node && told.last_ms < FRESH_MS))
        })?;
        let is_over = |service: &Value| service["run"].is_null();
        self.comes_about(PATIENCE, is_over).map(drop)
    }

    /// Waits until the service says of itself what is wanted; whether it did.
    fn comes_about(&self, limit: Duration, holds: impl Fn(&Value) -> bool) -> Outcome<bool> {
        let clock = self.environment.clock();
        let begin = clock.elapsed();
        loop {
            let said = self.quietly(Domain::North, &["lifeboat", "status", "--json"]);
            // A store that elects a leader just now is no reason to give up.
            let document = said.ok().and_then(|said| serde_json::from_str::<Value>(&said).ok());
            let service = document.as_ref().and_then(|all| all.pointer("/result/services/0"));
            if service.is_some_and(&holds) {
                return Ok(true);
            }
            if clock.elapsed().saturating_sub(begin) > limit {
                return Ok(false);
            }
            self.wait(Duration::from_millis(300))?;
        }
    }
}
