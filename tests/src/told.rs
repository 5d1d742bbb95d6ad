//! Clients that insert without end and remember every commit that they were told of.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lifeboat_testkit::postgres::Cluster;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_postgres::NoTls;

/// Clients of one server. They come back whenever it does, and end with the value.
#[derive(Debug)]
pub struct Clients {
    memories: Vec<Arc<Mutex<Memory>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What one client knows. Each number is tried once: what came of it may never be known.
#[derive(Debug, Default)]
struct Memory {
    tried: u64,
    told: Vec<u64>,
}

/// What a server holds, beside what its clients were told.
#[derive(Debug, Default, Clone, Copy)]
pub struct Comparison {
    /// Commits that a client was told of.
    pub told: usize,
    /// Of these, gone.
    pub lost: usize,
    /// Commits that are there, and nobody was told of.
    pub untold: usize,
}

impl fmt::Display for Comparison {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { told, lost, untold } = self;
        write!(formatter, "{lost} lost of {told} told, {untold} untold there")
    }
}

impl Clients {
    /// Makes the table on a running server, and begins.
    pub fn start(server: &Cluster, count: usize) -> Result<Self> {
        server.psql(
            "CREATE TABLE numbers (client int, number bigint, filler text NOT NULL,
             PRIMARY KEY (client, number))",
        )?;
        let memories: Vec<Arc<Mutex<Memory>>> = (0..count).map(|_| Arc::default()).collect();
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (connection, known) = (server.connection(), memories.clone());
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                let mut clients = JoinSet::new();
                for (client, memory) in known.into_iter().enumerate() {
                    clients.spawn(insist(connection.clone(), client, memory));
                }
                // Whatever is under way then was not told.
                let _ = stopped.await;
            });
        });
        Ok(Self { memories, stop: Some(stop), thread: Some(thread) })
    }

    /// How many commits were told so far.
    pub fn told(&self) -> usize {
        self.memories.iter().map(|memory| lock(memory).told.len()).sum()
    }

    /// Every commit that a client was told of before this call is on the server, and nothing that
    /// no client has tried.
    pub fn compare(&self, server: &Cluster) -> Result<Comparison> {
        // Before the server is asked: what is told meanwhile need not be in its answer.
        let told = self.memories.iter().map(|memory| lock(memory).told.clone()).collect::<Vec<_>>();
        let mut found = vec![BTreeSet::new(); told.len()];
        for line in server.psql("SELECT client, number FROM numbers")?.lines() {
            let (client, number) = line.split_once('|').context("no row")?;
            let numbers = found.get_mut(client.parse::<usize>()?).context("a strange client")?;
            numbers.insert(number.parse::<u64>()?);
        }
        let mut result = Comparison::default();
        let mut gone = Vec::new();
        for (client, (told, found)) in told.iter().zip(&found).enumerate() {
            let tried = self.memories.get(client).map_or(0, |memory| lock(memory).tried);
            ensure!(found.iter().all(|number| *number <= tried), "client {client} tried {tried}");
            let lost: Vec<_> = told.iter().filter(|number| !found.contains(number)).collect();
            result.told += told.len();
            result.lost += lost.len();
            result.untold += found.len() + lost.len() - told.len();
            if !lost.is_empty() {
                gone.push(format!("client {client} was told of {lost:?}, of {}", told.len()));
            }
        }
        ensure!(result.lost == 0, "{result}: {}", gone.join("; "));
        Ok(result)
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One client.
async fn insist(connection: String, client: usize, memory: Arc<Mutex<Memory>>) {
    loop {
        let _ = insert(&connection, client, &memory).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Inserts until an answer fails to come.
async fn insert(
    connection: &str,
    client: usize,
    memory: &Mutex<Memory>,
) -> Result<(), tokio_postgres::Error> {
    let (session, driver) = tokio_postgres::connect(connection, NoTls).await?;
    let mut drivers = JoinSet::new();
    drivers.spawn(driver);
    loop {
        let number = {
            let mut memory = lock(memory);
            memory.tried += 1;
            memory.tried
        };
        // Lengths differ, so that records end anywhere in pages and segments.
        let filler = number * 7919 % 1500;
        let insert =
            format!("INSERT INTO numbers VALUES ({client}, {number}, repeat('x', {filler}))");
        session.batch_execute(&insert).await?;
        lock(memory).told.push(number);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
