//! A client that remembers every commit that it was told of.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, bail};
use lifeboat_environment::{Clock, SystemClock};
use lifeboat_testkit::postgres::Cluster;
use lifeboat_testkit::process::{PATIENCE, Running, wait_until};

/// Inserts rows into the table `acknowledged` (id, filler), one a transaction, whatever happens.
#[derive(Debug)]
pub struct Client {
    acknowledged: Arc<Mutex<Vec<u64>>>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<()>>,
}

impl Client {
    /// Begins to insert.
    pub fn start(server: &Cluster) -> Self {
        let acknowledged = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (known, ends) = (Arc::clone(&acknowledged), Arc::clone(&stop));
        let (installation, connection) = (server.installation().clone(), server.connection());
        let thread = std::thread::spawn(move || {
            for id in 1.. {
                if ends.load(Ordering::Relaxed) {
                    break;
                }
                let mut command: Command = installation.client_command("psql")?;
                let insert = format!("INSERT INTO acknowledged VALUES ({id}, repeat('x', 500))");
                command.args([
                    "-X",
                    "-q",
                    "-v",
                    "ON_ERROR_STOP=1",
                    "-d",
                    &connection,
                    "-c",
                    &insert,
                ]);
                let finished = Running::spawn(&mut command, None)?.wait(PATIENCE)?;
                // A warning says that the wait was cut short: that is no acknowledgement.
                if finished.code == Some(0) && finished.stderr.is_empty() {
                    known.lock().unwrap_or_else(PoisonError::into_inner).push(id);
                } else {
                    SystemClock.sleep(Duration::from_millis(20));
                }
            }
            Ok(())
        });
        Self { acknowledged, stop, thread }
    }

    fn count(&self) -> usize {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Waits for so many more acknowledgements.
    pub fn wait_for_more(&self, more: usize) -> Result<()> {
        let goal = self.count() + more;
        if !wait_until(PATIENCE, || Ok(self.count() >= goal || self.thread.is_finished()))? {
            bail!("{} commits were acknowledged, and no more", self.count());
        }
        Ok(())
    }

    /// Ends; every commit that was acknowledged.
    pub fn stop(self) -> Result<Vec<u64>> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(ended) => ended?,
            Err(_) => bail!("the client panicked"),
        }
        let acknowledged = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(acknowledged.clone())
    }
}
