//! Sessions that commit as fast as they can, and when each of them was told so.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::future::join_all;
use lifeboat_environment::{Clock, SystemClock};
use lifeboat_testkit::process::{PATIENCE, wait_until};
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, SimpleQueryMessage};

/// How a session commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// `BEGIN; INSERT; COMMIT` in a loop.
    Loop,
    /// One procedure that commits in a loop and says so after each.
    Procedure,
    /// Many commits under way at any moment.
    Pipeline,
}

const WAYS: [Way; 3] = [Way::Loop, Way::Procedure, Way::Pipeline];

/// A commit that a client was told of.
#[derive(Debug, Clone, Copy)]
pub struct Acknowledged {
    /// How that session commits.
    pub way: Way,
    /// When the server said so, by CLOCK_BOOTTIME. That is not when the client came to read it: a
    /// socket holds much that a dead server has sent in time.
    pub at: Duration,
}

/// The server's clock, right behind a commit.
const STAMP: &str = "SELECT extract(epoch FROM clock_timestamp())::text";

/// Sessions over TCP and over the local socket, one of each way.
#[derive(Debug)]
pub struct Sessions {
    acknowledged: Arc<Mutex<Vec<Acknowledged>>>,
    stop: Arc<AtomicBool>,
    open: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Result<()>>>,
}

/// Makes what the sessions write to.
pub fn prepare(connection: &str) -> Result<()> {
    let sql = "CREATE TABLE IF NOT EXISTS committed (session int, at timestamptz DEFAULT now());
        CREATE OR REPLACE PROCEDURE commits(session int) LANGUAGE plpgsql AS $$
        BEGIN
          LOOP
            INSERT INTO committed VALUES (session);
            COMMIT;
            RAISE NOTICE '%', extract(epoch FROM clock_timestamp());
          END LOOP;
        END $$;";
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(connection, NoTls).await?;
        tokio::select! {
            done = client.batch_execute(sql) => Ok(done?),
            ended = connection => bail!("the connection ended: {ended:?}"),
        }
    })
}

impl Sessions {
    /// Begins, for each of `connections`.
    pub fn start(connections: &[String]) -> Result<Self> {
        let acknowledged = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let open = Arc::new(AtomicUsize::new(0));
        let mut threads = Vec::new();
        for connection in connections {
            for way in WAYS {
                let session = Session {
                    number: threads.len(),
                    way,
                    config: connection.parse()?,
                    clocks_apart: clocks_apart(),
                    acknowledged: Arc::clone(&acknowledged),
                    stop: Arc::clone(&stop),
                    open: Arc::clone(&open),
                };
                threads.push(std::thread::spawn(move || session.run()));
            }
        }
        Ok(Self { acknowledged, stop, open, threads })
    }

    /// Waits until each way has so many more acknowledgements.
    pub fn wait_for_more(&self, more: usize) -> Result<()> {
        let count = || {
            let all = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
            WAYS.map(|way| all.iter().filter(|one| one.way == way).count())
        };
        let before = count();
        let reached = wait_until(PATIENCE, || {
            ensure!(!self.threads.iter().any(JoinHandle::is_finished), "a session has ended");
            let now = count();
            Ok(now.iter().zip(before).all(|(now, before)| *now >= before + more))
        })?;
        ensure!(reached, "{:?} were acknowledged, and no more", count());
        Ok(())
    }

    /// How many sessions are connected now.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// Waits until the server has ended every session; all that was acknowledged.
    pub fn lost(self) -> Result<Vec<Acknowledged>> {
        let ended = wait_until(PATIENCE, || Ok(self.threads.iter().all(JoinHandle::is_finished)))?;
        ensure!(ended, "{} sessions are still there", self.open());
        for thread in self.threads {
            ensure!(thread.join().is_ok_and(|ended| ended.is_err()), "a session ended by itself");
        }
        Ok(self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Ends them; fails if any commit of any of them has failed.
    pub fn stop(self) -> Result<Vec<Acknowledged>> {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads {
            match thread.join() {
                Ok(ended) => ended?,
                Err(_) => bail!("a session panicked"),
            }
        }
        Ok(self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

struct Session {
    number: usize,
    way: Way,
    config: Config,
    clocks_apart: Duration,
    acknowledged: Arc<Mutex<Vec<Acknowledged>>>,
    stop: Arc<AtomicBool>,
    open: Arc<AtomicUsize>,
}

impl Session {
    fn run(&self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        self.open.fetch_add(1, Ordering::SeqCst);
        let ended = runtime.block_on(self.talk());
        self.open.fetch_sub(1, Ordering::SeqCst);
        ended.with_context(|| format!("session {} ({:?})", self.number, self.way))
    }

    async fn talk(&self) -> Result<()> {
        let (client, mut connection) = self.config.connect(NoTls).await?;
        let mut hear = pin!(async {
            loop {
                match poll_fn(|context| connection.poll_message(context)).await {
                    Some(Ok(AsyncMessage::Notice(notice))) => self.note(notice.message())?,
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(error.into()),
                    None => bail!("the connection has ended"),
                }
            }
        });
        tokio::select! {
            done = self.commit(&client) => done,
            ended = &mut hear => ended,
        }
    }

    async fn commit(&self, client: &Client) -> Result<()> {
        let insert = format!("INSERT INTO committed VALUES ({})", self.number);
        let transaction = format!("BEGIN; {insert}; COMMIT; {STAMP}");
        while !self.stop.load(Ordering::SeqCst) {
            match self.way {
                Way::Loop => {
                    for message in client.simple_query(&transaction).await? {
                        if let SimpleQueryMessage::Row(row) = message {
                            self.note(row.get(0).context("no time")?)?;
                        }
                    }
                }
                Way::Pipeline => {
                    let one = async || {
                        let commit = client.execute(insert.as_str(), &[]);
                        let (commit, stamp) = tokio::join!(commit, client.query_one(STAMP, &[]));
                        commit?;
                        self.note(stamp?.get(0))
                    };
                    for done in join_all([(); 16].map(|()| one())).await {
                        done?;
                    }
                }
                Way::Procedure => {
                    let call = format!("CALL commits({})", self.number);
                    let mut call = pin!(client.batch_execute(&call));
                    while !self.stop.load(Ordering::SeqCst) {
                        let pause = tokio::time::sleep(Duration::from_millis(20));
                        tokio::select! {
                            ended = &mut call => return Ok(ended?),
                            () = pause => {}
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn note(&self, stamp: &str) -> Result<()> {
        let stamp = Duration::try_from_secs_f64(stamp.parse()?)?;
        let at = stamp.saturating_sub(self.clocks_apart);
        let one = Acknowledged { way: self.way, at };
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).push(one);
        Ok(())
    }
}

/// How far the wall clock, which is the server's, is ahead of CLOCK_BOOTTIME.
fn clocks_apart() -> Duration {
    let wall = SystemClock.now().as_duration().unsigned_abs();
    wall.saturating_sub(SystemClock.elapsed())
}
