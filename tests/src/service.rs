//! The lab's service while it is moved: what is waited for between faults, and the verdict at the end.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lifeboat_environment::{Clock, SystemClock};
use lifeboat_testkit::process::wait_until;
use serde_json::Value;

use crate::lab::Lab;

/// A move that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(90);
/// The lab's `dwell`: after a move the service stays for so long.
const DWELL: Duration = Duration::from_secs(11);
/// A client that was answered within this is served.
const FRESH: Duration = Duration::from_millis(1500);

/// A lab with its service at work in the east and protected by the west.
pub struct Service {
    /// The lab.
    pub lab: Lab,
}

impl Service {
    /// Builds the lab and waits until the service may be moved.
    pub fn up(words: &[&str]) -> Result<Self> {
        let service = Self { lab: Lab::nowhere()? };
        service.lab.ok(&[&["up"], words].concat())?;
        service.is_protected_in("east")?;
        Ok(service)
    }

    /// Breaks something.
    pub fn breaks(&self, words: &[&str]) -> Result<String> {
        self.lab.ok(&[&["break"], words].concat())
    }

    /// Heals everything.
    pub fn heal(&self) -> Result<String> {
        self.lab.ok(&["heal"])
    }

    /// Runs a command of Lifeboat at the witness, which must exit 0; what it printed.
    pub fn command(&self, words: &[&str]) -> Result<String> {
        self.lab.ok(&[&["enter", "north", "--", "lifeboat"], words].concat())
    }

    /// What `lifeboat status` says of the service.
    pub fn status(&self) -> Result<Value> {
        let said = self.command(&["status", "--json"])?;
        let said: Value = serde_json::from_str(&said)?;
        Ok(said.pointer("/result/services/0").context("no service")?.clone())
    }

    /// The states of its runs, in order.
    pub fn runs(&self) -> Result<Vec<String>> {
        let said: Value = serde_json::from_str(&self.command(&["runs", "list", "--json"])?)?;
        let runs = said.pointer("/result/runs").and_then(Value::as_array).context("no runs")?;
        let told = |run: &Value| {
            let word = |name: &str| run[name].as_str().unwrap_or_default().to_owned();
            format!("{} to {}: {}", word("kind"), word("to"), word("state"))
        };
        Ok(runs.iter().map(told).collect())
    }

    /// Who acknowledged a client's write just now, if anybody did.
    fn serves(&self) -> Result<Option<String>> {
        let clients = &self.lab.json(&["status"])?["clients"];
        let fresh =
            clients["last_ms"].as_u64().is_some_and(|ago| u128::from(ago) < FRESH.as_millis());
        Ok(clients["by"].as_str().filter(|_| fresh).map(str::to_owned))
    }

    fn until(&self, what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
        if wait_until(PATIENCE, || {
            let holds = holds()?;
            if !holds {
                SystemClock.sleep(Duration::from_millis(200));
            }
            Ok(holds)
        })? {
            return Ok(());
        }
        let status = self.command(&["status"]).unwrap_or_else(|error| error.to_string());
        let runs = self.command(&["runs", "list"]).unwrap_or_else(|error| error.to_string());
        let why = self.command(&["explain-decision", "ledger"]).unwrap_or_default();
        bail!("waited for {what} in vain\n{status}\n{runs}\n{why}")
    }

    /// Waits until clients are served in a region, and no run is at work.
    pub fn is_in(&self, region: &str) -> Result<()> {
        let node = format!("{region}-1");
        self.until(&format!("clients to be served in {region}"), || {
            // A store that elects a leader just now is no reason to give up.
            let Ok(status) = self.status() else { return Ok(false) };
            Ok(status["region"] == region
                && status["state"] == "serving"
                && status["run"].is_null()
                && self.serves()?.as_ref() == Some(&node))
        })
    }

    /// Waits until clients are served anywhere, and no run is at work; where that is.
    pub fn serves_again(&self) -> Result<String> {
        let mut found = None;
        self.until("clients to be served again", || {
            let Ok(status) = self.status() else { return Ok(false) };
            let region = status["region"].as_str().map(str::to_owned);
            let node = region.as_ref().map(|region| format!("{region}-1"));
            found = region;
            Ok(status["run"].is_null() && node.is_some() && self.serves()? == node)
        })?;
        found.context("no region")
    }

    /// Waits until the service is in a region and could be moved to the other one without loss.
    pub fn is_protected_in(&self, region: &str) -> Result<()> {
        self.is_in(region)?;
        self.until("a standby that could take over, and commits that wait", || {
            let Ok(status) = self.status() else { return Ok(false) };
            let ready = status["not_ready"].as_array().is_some_and(Vec::is_empty);
            let standbys = status["nodes"].as_array().into_iter().flatten();
            let streams = standbys.filter(|node| node["role"] == "standby").count() == 1;
            Ok(ready && streams && status["degraded"].is_null())
        })
    }

    /// Brings back whoever lost: by itself, or where it wrote what nobody was told of, by a
    /// fallback.
    pub fn is_protected_again_in(&self, region: &str) -> Result<()> {
        self.is_in(region)?;
        let begin = SystemClock.elapsed();
        let mut asked = false;
        self.until("the loser to follow", || {
            let Ok(status) = self.status() else { return Ok(false) };
            let mut nodes = status["nodes"].as_array().into_iter().flatten();
            if nodes.any(|node| node["role"] == "standby") {
                return Ok(true);
            }
            if !asked && SystemClock.elapsed().saturating_sub(begin) > Duration::from_secs(15) {
                asked = true;
                self.command(&["fallback", "ledger"])?;
            }
            Ok(false)
        })?;
        self.is_protected_in(region)
    }

    /// Wherever it is, it is protected again and moved to the east.
    pub fn goes_home(&self) -> Result<()> {
        let region = self.serves_again()?;
        self.is_protected_again_in(&region)?;
        if region != "east" {
            self.dwells();
            self.command(&["switchover", "ledger", "--to", "east"])?;
            self.is_protected_in("east")?;
            self.dwells();
        }
        Ok(())
    }

    /// Waits out the time for which nothing moves after a move.
    pub fn dwells(&self) {
        SystemClock.sleep(DWELL);
    }

    /// Watches for a while, during which no run may begin, and who serves may not change.
    pub fn stays_in(&self, region: &str, time: Duration) -> Result<()> {
        let (begin, runs) = (SystemClock.elapsed(), self.runs().unwrap_or_default());
        while SystemClock.elapsed().saturating_sub(begin) < time {
            if let Ok(now) = self.runs() {
                ensure!(now == runs, "it was moved: {now:?}");
            }
            let other = self.serves()?.filter(|node| !node.starts_with(region));
            ensure!(other.is_none(), "{other:?} acknowledges");
            SystemClock.sleep(Duration::from_millis(500));
        }
        Ok(())
    }

    /// Asks the oracle, for whom everything must hold but what no run of the product reports: a move by
    /// a person's word, without a quorum.
    pub fn is_sound_without_a_run(&self) -> Result<()> {
        let said = self.lab.run(&["judge"])?;
        println!("{said}");
        let told = |line: &str| {
            let line = line.trim_start();
            let broken = ["VIOLATED: ", "NOT CHECKED: "];
            let found = broken.iter().find_map(|word| line.strip_prefix(word));
            found.map(|rest| rest.split(':').next().unwrap_or_default().to_owned())
        };
        let broken: Vec<String> = said.stderr.lines().filter_map(told).collect();
        let expected = ["reported times are what clients saw", "the journal explains each step"];
        ensure!(broken == expected, "{broken:?}");
        Ok(())
    }

    /// Waits until nobody takes writes.
    pub fn is_nowhere(&self) -> Result<()> {
        self.until("nobody to take writes", || {
            let status = self.lab.json(&["status"])?;
            Ok(status["writes"].as_array().is_some_and(Vec::is_empty))
        })
    }

    /// Waits until clients are served by a node, whatever the quorum store says.
    pub fn is_served_by(&self, node: &str) -> Result<()> {
        self.until(&format!("clients to be served by {node}"), || {
            Ok(self.serves()?.as_deref() == Some(node))
        })
    }

    /// Asks the oracle, for whom everything must hold. Reports may be so far from what clients saw:
    /// how late clients and observers are on a busy machine is no assertion.
    pub fn is_sound_within(&self, tolerance: &str) -> Result<Value> {
        let words = ["judge", "--tolerance", tolerance];
        let said = self.lab.run(&words)?;
        println!("{}", said.stdout);
        said.success()?;
        self.lab.json(&words)
    }
}
