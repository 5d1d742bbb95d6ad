//! Clients that connect again, and remember every write that was acknowledged, by whom, and when.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;
use lifeboat_environment::{Clock, SystemClock};
use tokio::task::JoinSet;
use tokio_postgres::{Client, NoTls};

/// How long a client waits for an answer before it connects anew.
const PATIENCE: Duration = Duration::from_secs(3);
/// Between a lost connection and the next one.
const AGAIN: Duration = Duration::from_millis(20);
/// Between two writes.
const PAUSE: Duration = Duration::from_millis(5);

/// A write that a client was told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// Which client.
    pub client: i32,
    /// Which of its writes; a number whose answer was lost is not used again.
    pub number: i32,
    /// The server that said so.
    pub server: IpAddr,
    /// When it was acknowledged, by one clock for all.
    pub at: Duration,
}

/// What clients and who looks at them share.
#[derive(Default)]
struct Ledger {
    told: Mutex<Vec<Told>>,
    stop: AtomicBool,
}

impl Ledger {
    fn with<T>(&self, look: impl FnOnce(&mut Vec<Told>) -> T) -> T {
        look(&mut self.told.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }
}

/// Clients at work. Dropping them ends them.
pub struct Clients {
    ledger: Arc<Ledger>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Clients {
    /// Starts so many, all through one address.
    pub fn start(count: i32, address: SocketAddr) -> Self {
        let ledger: Arc<Ledger> = Arc::default();
        let threads = (0..count).map(|client| {
            let ledger = Arc::clone(&ledger);
            std::thread::spawn(move || write_for_ever(client, address, &ledger))
        });
        Self { threads: threads.collect(), ledger }
    }

    /// Whether each of so many clients was told of a write by this server since a moment.
    pub fn were_told(&self, count: i32, server: IpAddr, since: Duration) -> bool {
        let told = self.told_since(since);
        let by_server = told.iter().filter(|one| one.server == server);
        let clients: BTreeSet<i32> = by_server.map(|one| one.client).collect();
        (0..count).all(|client| clients.contains(&client))
    }

    /// What was told since a moment.
    pub fn told_since(&self, since: Duration) -> Vec<Told> {
        self.ledger.with(|told| {
            // Almost in order: only what is told in the same instant may stand the other way round.
            told.iter().rev().take_while(|one| one.at >= since).copied().collect()
        })
    }

    /// Ends them; everything that they were told.
    pub fn end(mut self) -> Result<Vec<Told>> {
        self.join()?;
        Ok(self.ledger.with(std::mem::take))
    }

    fn join(&mut self) -> Result<()> {
        self.ledger.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
        }
        Ok(())
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        let _ = self.join();
    }
}

fn write_for_ever(client: i32, address: SocketAddr, ledger: &Ledger) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut number = 0;
    runtime.block_on(async {
        while ledger.goes_on() {
            // Whatever goes wrong, a client of a moving service connects again.
            let _ = session(client, address, &mut number, ledger).await;
            tokio::time::sleep(AGAIN).await;
        }
    });
    Ok(())
}

async fn session(
    client: i32,
    address: SocketAddr,
    number: &mut i32,
    ledger: &Ledger,
) -> Result<()> {
    let mut config = tokio_postgres::Config::new();
    config.host(address.ip().to_string()).port(address.port()).user("postgres").dbname("postgres");
    config.connect_timeout(PATIENCE);
    let (connection, driver) = tokio::time::timeout(PATIENCE, config.connect(NoTls)).await??;
    let mut driving = JoinSet::new();
    driving.spawn(async move { drop(driver.await) });
    while ledger.goes_on() {
        *number += 1;
        let server = tokio::time::timeout(PATIENCE, write(&connection, client, *number)).await??;
        let at = SystemClock.elapsed();
        ledger.with(|told| told.push(Told { client, number: *number, server, at }));
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

async fn write(connection: &Client, client: i32, number: i32) -> Result<IpAddr> {
    let sql = "INSERT INTO orders VALUES ($1, $2, clock_timestamp()) RETURNING inet_server_addr()";
    let row = connection.query_one(sql, &[&client, &number]).await?;
    Ok(row.try_get(0)?)
}
