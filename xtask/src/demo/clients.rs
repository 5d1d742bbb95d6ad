//! Clients that reconnect, and remember every write that was acknowledged, by whom, and when.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lifeboat_environment::{Clock, SystemClock};
use tokio_postgres::{Client, NoTls};

/// How long a client waits for an answer before it connects anew.
const PATIENCE: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(20);

/// A write that a client was told of.
#[derive(Debug, Clone, Copy)]
pub struct Told {
    /// Which client.
    pub client: i32,
    /// Which of its writes; its writes are numbered without holes but for what failed.
    pub number: i32,
    /// The port of the server that said so.
    pub server: i32,
    /// When it was acknowledged, by one clock for all.
    pub at: Duration,
}

/// Clients at work.
pub struct Clients {
    told: Arc<Mutex<Vec<Told>>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Clients {
    /// Starts so many, all through one address.
    pub fn start(count: i32, address: SocketAddr) -> Self {
        let (told, stop) = (Arc::default(), Arc::default());
        let threads = (0..count).map(|client| {
            let (told, stop) = (Arc::clone(&told), Arc::clone(&stop));
            std::thread::spawn(move || write_for_ever(client, address, &told, &stop))
        });
        Self { threads: threads.collect(), told, stop }
    }

    /// What was told so far.
    pub fn told(&self) -> Vec<Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends them; everything that they were told.
    pub fn end(self) -> Result<Vec<Told>> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
        }
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(told)
    }
}

fn write_for_ever(
    client: i32,
    address: SocketAddr,
    told: &Mutex<Vec<Told>>,
    stop: &AtomicBool,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut number = 0;
    runtime.block_on(async {
        while !stop.load(Ordering::Relaxed) {
            // Whatever goes wrong, a client of a moving service connects again.
            let _ = session(client, address, &mut number, told, stop).await;
            tokio::time::sleep(PAUSE).await;
        }
    });
    Ok(())
}

async fn session(
    client: i32,
    address: SocketAddr,
    number: &mut i32,
    told: &Mutex<Vec<Told>>,
    stop: &AtomicBool,
) -> Result<()> {
    let mut config = tokio_postgres::Config::new();
    config.host(address.ip().to_string()).port(address.port()).user("postgres").dbname("ledger");
    config.connect_timeout(PATIENCE);
    let (connection, driver) = tokio::time::timeout(PATIENCE, config.connect(NoTls)).await??;
    let mut driving = tokio::task::JoinSet::new();
    driving.spawn(async move { drop(driver.await) });
    while !stop.load(Ordering::Relaxed) {
        // A write whose answer is lost is neither told nor lost: its number is not used again.
        *number += 1;
        let server = tokio::time::timeout(PATIENCE, write(&connection, client, *number)).await??;
        let at = SystemClock.elapsed();
        let one = Told { client, number: *number, server, at };
        told.lock().unwrap_or_else(PoisonError::into_inner).push(one);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

async fn write(connection: &Client, client: i32, number: i32) -> Result<i32> {
    let sql = "INSERT INTO orders VALUES ($1, $2, clock_timestamp()) RETURNING inet_server_port()";
    let row = connection.query_one(sql, &[&client, &number]).await?;
    Ok(row.try_get(0)?)
}

/// The longest time without an acknowledgement around a moment, for the first client that was
/// served again and for the last one.
pub fn outage(told: &[Told], from: Duration, to: Duration) -> Result<(Duration, Duration)> {
    let mut longest: BTreeMap<i32, (Duration, Duration)> = BTreeMap::new();
    let mut last: BTreeMap<i32, Duration> = BTreeMap::new();
    for one in told.iter().filter(|one| one.at >= from && one.at <= to) {
        let before = last.insert(one.client, one.at).unwrap_or(from);
        let gap = one.at.saturating_sub(before);
        let known = longest.entry(one.client).or_default();
        if gap > known.0 {
            *known = (gap, one.at);
        }
    }
    ensure!(!longest.is_empty(), "no client was told of anything");
    // From the last word of the old side to the first of the new one.
    let first_back = longest.values().map(|(_, at)| *at).min().unwrap_or_default();
    let last_word = told.iter().map(|one| one.at).filter(|at| *at < first_back);
    let first = first_back.saturating_sub(last_word.max().unwrap_or(from));
    let slowest = longest.values().map(|(gap, _)| *gap).max().unwrap_or_default();
    Ok((first, slowest))
}

/// Sees that no two servers acknowledged in the same span: whoever is told by the new one was told
/// after everybody else was told by the old one for the last time.
pub fn one_at_a_time(told: &[Told]) -> Result<usize> {
    let mut ordered: Vec<&Told> = told.iter().collect();
    ordered.sort_by_key(|one| one.at);
    let mut turns: Vec<(i32, Duration, Duration)> = Vec::new();
    for one in ordered {
        match turns.last_mut() {
            Some((server, _, end)) if *server == one.server => *end = one.at,
            _ => turns.push((one.server, one.at, one.at)),
        }
    }
    let spans: BTreeSet<i32> = turns.iter().map(|(server, ..)| *server).collect();
    ensure!(spans.len() > 1, "only one server ever acknowledged: nothing was moved");
    Ok(turns.len())
}

/// Sees that every write that was told is in the table; says how many more there are.
pub fn all_there(told: &[Told], rows: &str) -> Result<usize> {
    let parsed = rows.lines().map(|line| {
        let (client, number) = line.split_once('|').context("no row")?;
        Ok((client.parse::<i32>()?, number.parse::<i32>()?))
    });
    let rows: BTreeSet<(i32, i32)> = parsed.collect::<Result<_>>()?;
    let missing: Vec<String> = (told.iter())
        .filter(|one| !rows.contains(&(one.client, one.number)))
        .map(|one| format!("{} of client {}", one.number, one.client))
        .collect();
    ensure!(missing.is_empty(), "acknowledged and gone: {}", missing.join(", "));
    Ok(rows.len().saturating_sub(told.len()))
}
